"""Merges photos: python predict.py SHORT MIDDLE LONG --out=result.hdr (or a folder, or a folder of folders)."""

import argparse
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Sequence

from afunet_jax import cli, merging, parallel, photos
from afunet_jax.errors import ConfigError
from afunet_jax.outputs import tonemapping
from afunet_jax.photos import align, frames, response

FORMATS = 'hdr,png'  # of many brackets
MOST_STOPS = 64.0  # of EV: 2 ** 64 times a pixel is still a float
MOST_PIXELS, MOST_GB = 1e12, 1e6
LEAST_FULL_SCALE, MOST_FULL_SCALE = 1e-30, 1e30


def _between(lowest: float, highest: float) -> Callable[[str], float]:
    """For argparse."""

    def number(text: str) -> float:
        value = float(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f'expected a number from {lowest:g} to {highest:g}, not {text!r}')
        return value

    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add('sources', nargs='+', metavar='PHOTO', help='photos of one bracket in any order, or folders of them')
    add('--out', required=True, help='.hdr, .exr, .png, .jpg or .avif, several with commas; of many brackets a folder')
    add('--formats', default=FORMATS, help='what is written for each of many brackets')
    add('--ev', help='exposures in the order of the photos: stops as 0,2,4, or seconds as 1/250,1/60,1/15')
    add('--weights', default='', help='a .safetensors, a .pth, a checkpoint or a workdir; none: those of the package')
    add('--curve', default=response.AUTO, choices=response.CHOICES,
        help='tone curve of the photos; auto: by type of file, and the camera\'s own where 8 bits do not fit sRGB')
    add('--align', default=align.DEFAULT, choices=align.METHODS,
        help='what takes out the shake of a hand, and motion (default %(default)s)')
    add('--estimate', action='store_true', help='measure exposures in the pixels, if nothing tells them')
    add('--trust_exposures', action='store_true', help='go on where EXIF and the pixels disagree')
    add('--full_scale', type=_between(LEAST_FULL_SCALE, MOST_FULL_SCALE), default=frames.FULL_SCALE,
        help='value at which photos of floats (.hdr, .exr, .tif) are clipped')
    stops = _between(-MOST_STOPS, MOST_STOPS)
    add('--reference_ev', type=stops, help='1 in the result is the full scale of a frame of this EV; none: the short')
    add('--max_side', type=int, default=0, help='reduce larger photos to so many pixels; 0: never')
    add('--max_pixels', type=_between(1, MOST_PIXELS), default=photos.MAX_PIXELS, help='larger photos are refused')
    add('--memory_limit', type=_between(0, MOST_GB), default=0.0, help='GB for one image; 0: what is free')
    add('--operator', default=tonemapping.DEFAULT, choices=tonemapping.OPERATORS, help='tone mapping of .png and .jpg')
    add('--precision', default='half', choices=('half', 'float'), help='of .exr')
    add('--hdr_screen', action='store_true', help='.png and .jpg for screens that show HDR')
    add('--overwrite', action='store_true', help='replace results that are there')
    return parser


def _files(out: str) -> list[pathlib.Path]:
    """The files that `--out` names; none if it is a folder."""
    if os.path.isdir(out) or out.endswith(os.sep) or not (',' in out or pathlib.Path(out).suffix):
        return []
    return [pathlib.Path(name.strip()) for name in out.split(',')]


def _outputs(flags: argparse.Namespace, brackets: Sequence) -> list[list[pathlib.Path]]:
    """The files to write, for each bracket; their folder is made."""
    if files := _files(flags.out):
        if len(brackets) > 1:
            raise ConfigError(f'--out={flags.out}: there are {len(brackets)} brackets; name a folder, and --formats. '
                              'One with a dot in its name ends with / here')  # fmt: skip
        return [files]
    endings = [f'.{ending.strip().removeprefix(".")}' for ending in flags.formats.split(',')]
    if unknown := [ending for ending in endings if ending.lower() not in merging.ENDINGS]:
        raise ConfigError(f'--formats={flags.formats}: results are written as {", ".join(merging.ENDINGS)}, not as '
                          f'{", ".join(unknown)}; choose some of these')  # fmt: skip
    names = [bracket.name if hasattr(bracket, 'name') else bracket[0].stem for bracket in brackets]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f'several brackets are called {", ".join(doubles)}; merge them into folders of their own')
    folder = pathlib.Path(flags.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'--out={flags.out}: the folder cannot be made ({error.strerror}); name another one, or a '
                          f'file that ends in {", ".join(merging.ENDINGS)}') from error  # fmt: skip
    return [[folder / f'{name}{ending}' for ending in endings] for name in names]


def _check(flags: argparse.Namespace, brackets: Sequence, outputs: Sequence[Sequence[pathlib.Path]]) -> None:
    """Refuses what cannot be written, and what must not be overwritten."""
    paths = [path for bracket in brackets for path in getattr(bracket, 'paths', bracket)]
    sources, folders = {_file(path) for path in paths}, {folder for path in paths for folder in _folders(path)}
    for path in (path for paths in outputs for path in paths):
        merging.check_output(path, flags.hdr_screen)
        if not os.path.exists(path):
            continue
        what = 'one of the photos that are merged' if _file(path) in sources else ''
        if not what and (flags.overwrite or _folders(path) & folders) and photos.is_photo(path):
            what = 'a photo, and no result of this program'
        if what:
            raise ConfigError(f'{path}: {what}, which is never overwritten; write the result into another folder, or '
                              'under another name')  # fmt: skip
        if _files(flags.out) and not flags.overwrite:
            raise ConfigError(f'{path}: is there already; name another file, or add --overwrite')


def _folders(path: pathlib.Path) -> set[tuple[int, int]]:
    """Where a file is, and where it really is if that is a link."""
    return {_file(path.parent), _file(path.resolve().parent)}


def _file(path: pathlib.Path) -> tuple[int, int]:
    """What file it is, by whatever name."""
    about = path.stat()
    return about.st_dev, about.st_ino


@cli.errors_as_messages
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    flags = _parser().parse_args(arguments)
    warnings.formatwarning = lambda message, *_: f'warning: {message}\n'
    parallel.use_compilation_cache()
    brackets = merging.find(flags.sources, None if _files(flags.out) else flags.out)
    outputs = _outputs(flags, brackets)
    _check(flags, brackets, outputs)
    missing = [[path for path in paths if flags.overwrite or not os.path.exists(path)] for paths in outputs]
    if not all(missing):
        told = f'{missing.count([])} of {len(brackets)} brackets have their files; --overwrite merges them again'
        print(told, file=sys.stderr)
        brackets = [bracket for bracket, paths in zip(brackets, missing) if paths]
        missing = [paths for paths in missing if paths]
    if not brackets:
        return 0
    merger = merging.Merger(flags.weights, flags.memory_limit, flags.max_side)
    settings = {
        'exposures': flags.ev.split(',') if flags.ev else None, 'curve': flags.curve, 'align': flags.align,
        'estimate': flags.estimate, 'trust_exposures': flags.trust_exposures, 'max_pixels': int(flags.max_pixels),
        'full_scale': flags.full_scale,
    }  # fmt: skip
    saving = {'operator': flags.operator, 'precision': flags.precision, 'for_hdr_screens': flags.hdr_screen}
    problems = merging.merge_all(brackets, merger, missing, settings, saving, flags.reference_ev)
    if len(brackets) > 1 and problems:
        print(f'{len(problems)} of {len(brackets)} brackets failed', file=sys.stderr)
    return cli.EXIT_ERROR if problems else 0


if __name__ == '__main__':
    sys.exit(main())
