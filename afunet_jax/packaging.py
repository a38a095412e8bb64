"""Puts the weights of a training into one file, with all that a reader of them must know.

    python -m afunet_jax.packaging --workdir=runs/small --results=runs/small/eval --data=data/brackets/brackets.json

The file that it writes by default is the one that comes with the package.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from afunet_jax import checkpoints, cli, safetensors_weights
from afunet_jax.errors import DataError
from afunet_jax.models import afunet

LICENSE = 'CC0-1.0'
RESULTS = 'results.json'
MOST_BYTES = 6_000_000  # of a file that comes with the package


def describe(
    about: dict[str, Any], results: dict[str, Any], data: dict[str, Any], commit: str, license: str
) -> dict[str, Any]:
    """The description that goes into the file.

    Args:
        about: of the checkpoint.
        results: what eval.py has written.
        data: the manifest of the training data.
        commit: of the code that trained.
        license: of the weights, an SPDX name.
    """
    return {
        'model': about['config']['model'], 'config': about['config'], 'step': about['step'],
        'validation': about.get('validation'), 'recipe': {key: data[key] for key in data if key != 'scenes'},
        'commit': commit, 'license': license, 'figures': results['means'],
    }  # fmt: skip


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(f'{path}: cannot be read ({error}); it is written by the command of its name') from error


def _commit() -> str:
    """Of the code that runs, with a mark where it was changed since."""
    done = subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--abbrev=40'],
        cwd=pathlib.Path(__file__).parent, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip() or 'unknown'


@cli.errors_as_messages
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog='python -m afunet_jax.packaging', description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--workdir', required=True, help='of train.py; its best parameters are taken')
    add('--results', required=True, type=pathlib.Path, metavar='DIR', help='what eval.py has written for them')
    add('--data', required=True, type=pathlib.Path, metavar='FILE', help='manifest of the training data')
    add('--out', type=pathlib.Path, default=safetensors_weights.PACKAGED, metavar='FILE')
    add('--commit', default='', help='of the code that trained; by default of the code that runs')
    add('--license', default=LICENSE, help=f'an SPDX name; by default {LICENSE}')
    flags = parser.parse_args(arguments)
    about, params = checkpoints.load_checkpoint(flags.workdir)
    text = describe(about, _json(flags.results / RESULTS), _json(flags.data), flags.commit or _commit(), flags.license)
    safetensors_weights.write(flags.out, params, text)
    size = flags.out.stat().st_size
    print(f'{flags.out}: {afunet.count_parameters(params):,} parameters of step {about["step"]}, {size / 1e6:.2f} MB')
    if size > MOST_BYTES:
        print(f'larger than the {MOST_BYTES / 1e6:.0f} MB that a package should carry', file=sys.stderr)
    return 0


if __name__ == '__main__':
    sys.exit(main())
