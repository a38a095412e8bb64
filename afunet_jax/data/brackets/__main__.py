"""Turns a folder of HDR images into brackets of moving scenes, or into a contact sheet of them.

    python -m afunet_jax.data.brackets --hdr=FOLDER --out=DIR --train=400 --validation=24 --test=40 --workers=2
    python -m afunet_jax.data.brackets --hdr=FOLDER --sheet=FILE.png

Exit status: 0 done, 1 an error that the message explains, 2 the command line is wrong.
"""

import argparse
import sys
from collections.abc import Sequence

from afunet_jax import cli, image_io
from afunet_jax.data.brackets.compose import Shares, make_bracket
from afunet_jax.data.brackets.folders import Request, write_brackets
from afunet_jax.data.brackets.sources import SPLITS, read_sources
from afunet_jax.data.synthetic.sheet import contact_sheet
from afunet_jax.errors import AFUNetError

SHEET_SCENES = 12
COUNTS = {'train': 24, 'validation': 4, 'test': 8}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m afunet_jax.data.brackets', description="Brackets from HDR images in Kalantari's layout."
    )
    add = parser.add_argument
    add('--hdr', help='folder of HDR images')
    add('--out', help='folder to write, must be absent or empty')
    for split in SPLITS:
        add(f'--{split}', type=int, default=COUNTS[split], help=f'{split} scenes (default %(default)s)')
    add('--height', type=int, default=256, help='pixels (default %(default)s)')
    add('--width', type=int, default=384, help='pixels (default %(default)s)')
    add('--seed', type=int, default=0, help='0 or more (default %(default)s)')
    add('--evs', type=float, nargs=3, metavar='EV',
        help='exposures of every scene, as 0 2 4 (default: steps of 1, 2 and 3 EV)')
    add('--steps', type=float, nargs=2, metavar=('LEAST', 'MOST'),
        help='draw the steps between exposures from this range of EV, as 0.7 3.5, equal or not')
    add('--procedural', type=float, default=Shares.procedural,
        help='share of scenes of afunet_jax.data.synthetic (default %(default)s)')
    add('--static', type=float, default=Shares.static, help='share of still scenes (default %(default)s)')
    add('--graded', type=float, default=Shares.graded,
        help='share of scenes with other colours, white balance and contrast (default %(default)s)')
    add('--jpeg', type=float, default=Shares.jpeg, help='share of scenes compressed as JPEG (default %(default)s)')
    add('--aligned', type=float, default=Shares.aligned,
        help='share of scenes whose frames are aligned as photos are before they are merged (default %(default)s)')
    add('--sources', help="CSV of your own images: columns file, split (train, validation, test), projection "
        "(panorama, photo); sha256, kind, licence, credit, repository, path, commit, note may follow "
        "(default: the package's)")
    add('--workers', type=int, default=1, help='processes (default %(default)s)')
    add('--sheet', help=f'PNG to write: the first {SHEET_SCENES} scenes of --sheet_split')
    add('--sheet_split', choices=SPLITS, default='train', help='(default %(default)s)')
    add('--sheet_width', type=int, default=1600, help='pixels (default %(default)s)')
    return parser


def _write_sheet(args: argparse.Namespace, request: Request) -> None:
    """The contact sheet: the same scenes as a set of this request has."""
    real = request.shares.procedural < 1
    sources = read_sources(args.hdr, args.sources, (args.sheet_split,))[args.sheet_split] if real else ()
    scenes = [
        make_bracket(request.seed, args.sheet_split, k, request.height, request.width, sources, request.shares,
                     evs=request.evs, steps=request.steps)[0]
        for k in range(SHEET_SCENES)
    ]
    image_io.write_ldr(args.sheet, contact_sheet(scenes, args.sheet_width))


@cli.errors_as_messages
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not (args.out or args.sheet):
        parser.error('give --out=DIR, --sheet=FILE.png, or both')
    if args.procedural < 1 and not args.hdr:
        parser.error('give --hdr=FOLDER, or --procedural=1 to do without real images')
    shares = Shares(procedural=args.procedural, static=args.static, graded=args.graded, jpeg=args.jpeg,
                    aligned=args.aligned)  # fmt: skip
    evs, steps = (None if given is None else tuple(given) for given in (args.evs, args.steps))
    request = Request(args.train, args.validation, args.test, args.height, args.width, args.seed, shares, evs, steps)
    try:
        request.check()
        if args.out:
            write_brackets(args.out, args.hdr, request, args.sources, args.workers)
        if args.sheet:
            _write_sheet(args, request)
    except AFUNetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
