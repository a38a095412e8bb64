"""Merges photos: python predict.py SHORT MIDDLE LONG --out=result.hdr (or a folder, or a folder of folders)."""

import argparse
import pathlib
import sys
import warnings

from afunet_jax import cli, merging, parallel, photos
from afunet_jax.errors import ConfigError
from afunet_jax.outputs import tonemapping
from afunet_jax.photos import align, response

FORMATS = 'hdr,png'  # of many brackets


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add('sources', nargs='+', metavar='PHOTO', help='photos of one bracket in any order, or folders of them')
    add('--out', required=True, help='.hdr, .exr, .png, .jpg or .avif, several with commas; of many brackets a folder')
    add('--formats', default=FORMATS, help='what is written for each of many brackets')
    add('--ev', help='exposures in the order of the photos: stops as 0,2,4, or seconds as 1/250,1/60,1/15')
    add('--weights', default='', help='a .safetensors, a .pth, a checkpoint or a workdir; none: those of the package')
    add('--curve', default=response.AUTO, choices=response.CHOICES, help='tone curve of the photos')
    add('--align', default=align.OFF, choices=align.METHODS, help='global alignment of a hand-held bracket')
    add('--estimate', action='store_true', help='measure exposures in the pixels, if nothing tells them')
    add('--trust_exposures', action='store_true', help='go on where EXIF and the pixels disagree')
    add('--reference_ev', type=float, help='1 in the result is the full scale of a frame of this EV; none: the short')
    add('--max_side', type=int, default=0, help='reduce larger photos to so many pixels; 0: never')
    add('--max_pixels', type=float, default=photos.MAX_PIXELS, help='larger photos are refused')
    add('--memory_limit', type=float, default=0.0, help='GB for one image; 0: what is free')
    add('--operator', default=tonemapping.DEFAULT, choices=tonemapping.OPERATORS, help='tone mapping of .png and .jpg')
    add('--precision', default='half', choices=('half', 'float'), help='of .exr')
    add('--hdr_screen', action='store_true', help='.png and .jpg for screens that show HDR')
    add('--overwrite', action='store_true', help='replace results that are there')
    return parser


def _outputs(flags: argparse.Namespace, brackets: list) -> list[list[pathlib.Path]]:
    """The files to write, for each bracket."""
    out = [pathlib.Path(name) for name in flags.out.split(',')]
    if len(brackets) == 1 and all(path.suffix for path in out):
        found = [out]
    else:
        if len(out) > 1 or out[0].suffix:
            raise ConfigError(f'--out={flags.out}: there are {len(brackets)} brackets; name a folder, and --formats')
        out[0].mkdir(parents=True, exist_ok=True)
        names = [bracket.name if hasattr(bracket, 'name') else bracket[0].stem for bracket in brackets]
        if doubles := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f'several brackets are called {", ".join(doubles)}; merge them into folders of their own')
        found = [[out[0] / f'{name}.{ending}' for ending in flags.formats.split(',')] for name in names]
    return found


@cli.errors_as_messages
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    flags = _parser().parse_args(arguments)
    warnings.formatwarning = lambda message, *_: f'warning: {message}\n'
    parallel.use_compilation_cache()
    brackets = merging.find(flags.sources)
    outputs = _outputs(flags, brackets)
    there = [any(path.exists() for path in paths) and not flags.overwrite for paths in outputs]
    if any(there) and len(brackets) == 1:
        raise ConfigError(f'{flags.out}: is there already; name another file, or add --overwrite')
    if any(there):
        told = f'{sum(there)} of {len(brackets)} brackets are merged already; --overwrite merges them again'
        print(told, file=sys.stderr)
        brackets, outputs = ([x for x, skip in zip(many, there) if not skip] for many in (brackets, outputs))
    merger = merging.Merger(flags.weights, flags.memory_limit, flags.max_side)
    settings = {
        'exposures': flags.ev.split(',') if flags.ev else None, 'curve': flags.curve, 'align': flags.align,
        'estimate': flags.estimate, 'trust_exposures': flags.trust_exposures, 'max_pixels': int(flags.max_pixels),
    }  # fmt: skip
    saving = {'operator': flags.operator, 'precision': flags.precision, 'for_hdr_screens': flags.hdr_screen}
    problems = merging.merge_all(brackets, merger, outputs, settings, saving, flags.reference_ev)
    if len(brackets) > 1 and problems:
        print(f'{len(problems)} of {len(brackets)} brackets failed', file=sys.stderr)
    return cli.EXIT_ERROR if problems else 0


if __name__ == '__main__':
    sys.exit(main())
