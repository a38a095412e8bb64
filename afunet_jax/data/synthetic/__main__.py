"""Writes synthetic scenes, or a contact sheet of them.

    python -m afunet_jax.data.synthetic --out=DIR --train=24 --test=8 --height=256 --width=384 --seed=0
    python -m afunet_jax.data.synthetic --sheet=FILE.png --seed=0

Exit status: 0 done, 1 an error that the message explains, 2 the command line is wrong.
"""

import argparse
import sys
from collections.abc import Sequence

from afunet_jax import cli, image_io
from afunet_jax.data.synthetic.compose import make_scene
from afunet_jax.data.synthetic.folders import check_request, write_scenes
from afunet_jax.data.synthetic.sheet import contact_sheet
from afunet_jax.errors import AFUNetError

SHEET_SCENES = 8


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m afunet_jax.data.synthetic', description="Synthetic HDR scenes in Kalantari's layout."
    )
    parser.add_argument('--out', help='folder to write, must be absent or empty')
    parser.add_argument('--train', type=int, default=24, help='training scenes (default %(default)s)')
    parser.add_argument('--test', type=int, default=8, help='test scenes (default %(default)s)')
    parser.add_argument('--height', type=int, default=256, help='pixels (default %(default)s)')
    parser.add_argument('--width', type=int, default=384, help='pixels (default %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='0 or more (default %(default)s)')
    parser.add_argument(
        '--evs',
        type=float,
        nargs=3,
        default=(0.0, 2.0, 4.0),
        metavar='EV',
        help='exposures in stops (default 0 2 4)',
    )
    parser.add_argument('--mixed_evs', action='store_true', help='0 2 4 or 0 3 6, drawn for each scene')
    parser.add_argument('--sheet', help=f'PNG to write: {SHEET_SCENES} scenes with exposures and label')
    parser.add_argument('--sheet_width', type=int, default=1600, help='pixels (default %(default)s)')
    return parser


@cli.errors_as_messages
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not (args.out or args.sheet):
        parser.error('give --out=DIR, --sheet=FILE.png, or both')
    evs = None if args.mixed_evs else tuple(args.evs)
    try:
        if args.out:
            write_scenes(args.out, args.train, args.test, args.height, args.width, args.seed, evs)
        if args.sheet:
            check_request(SHEET_SCENES, 0, args.height, args.width, args.seed, evs)
            scenes = [make_scene(args.seed, k, args.height, args.width, evs) for k in range(SHEET_SCENES)]
            image_io.write_ldr(args.sheet, contact_sheet(scenes, args.sheet_width))
    except AFUNetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
