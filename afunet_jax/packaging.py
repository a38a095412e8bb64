"""Puts the weights of a training into one file, with all that a reader of them must know.

    python -m afunet_jax.packaging --workdir=runs/small --results=runs/small/eval --data=data/brackets/brackets.json

The file that it writes by default is the one that comes with the package. It prints the figures of the test scenes
in groups: those in which something moves, and those in which nothing does.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from afunet_jax import checkpoints, cli, reports, safetensors_weights
from afunet_jax.errors import DataError
from afunet_jax.models import afunet

LICENSE = 'CC0-1.0'
RESULTS = 'results.json'
PLACES = 'dir', 'prepared_dir'  # of the data, on the machine that trained
MOST_BYTES = 6_000_000  # of a file that comes with the package


def describe(
    about: dict[str, Any], found: Mapping[str, list[dict[str, Any]]], manifests: Sequence[dict[str, Any]], commit: str,
    license: str, before: Sequence[dict[str, Any]] = (), settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The description that goes into the file.

    Args:
        about: of the checkpoint.
        found: rows of the evaluation, of `groups`.
        manifests: of the data sets that were trained on.
        commit: of the code that trained.
        license: of the weights, an SPDX name.
        before: of the checkpoints of earlier trainings, each of which began with the weights of the one before. One may
            be a description itself: what it tells of its own earlier trainings and their data is taken over.
        settings: the config's `eval` section of the evaluation: how frames were aligned, and so on.
    """
    trainings = [link for one in before for link in (*one.get('before', ()), one)]
    recipes = [recipe for one in before for recipe in one.get('recipes', ())]
    recipes += [{key: data[key] for key in data if key != 'scenes'} for data in manifests]
    config = _without_places(about['config'])
    return {
        'model': config['model'], 'config': config, 'step': about['step'],
        'validation': about.get('validation'),
        'recipes': [recipe for i, recipe in enumerate(recipes) if recipe not in recipes[:i]],
        'before': [{'step': one['step'], 'config': _without_places(one['config'])} for one in trainings],
        'commit': commit, 'license': license, 'eval': dict(settings or {}),
        'figures': {group: reports.means(rows) for group, rows in found.items()},
    }  # fmt: skip


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, 'data': {**config.get('data', {}), **dict.fromkeys(PLACES, '')}}


def groups(results: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of an evaluation: of scenes that move, of those that stand still.

    Raises:
        DataError: a scene is a test scene in none of the manifests.
    """
    tests = [scene for data in manifests for scene in data['scenes'] if scene['split'] == 'test']
    static = {pathlib.Path(scene['folder']).name: scene['static'] for scene in tests}
    if unknown := sorted({row['scene'] for row in results['scenes']} - static.keys()):
        raise DataError(
            f'scenes {", ".join(unknown[:3])} of the results are no test scenes of the manifests; '
            'evaluate the weights on the test scenes of this data set'
        )
    found = {name: [row for row in results['scenes'] if static[row['scene']] is still]
             for name, still in (('moving', False), ('static', True))}  # fmt: skip
    return {name: rows for name, rows in found.items() if rows}


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(f'{path}: cannot be read ({error}); it is written by the command of its name') from error


def _about(path: str) -> dict[str, Any]:
    """Of a workdir, or of a file that this command has written."""
    read = safetensors_weights.read if path.endswith(safetensors_weights.SUFFIX) else checkpoints.load_checkpoint
    return read(path)[0]


def _commit() -> str:
    """Of the code that runs, with a mark where it was changed since."""
    command, folder = ['git', 'describe', '--always', '--dirty', '--abbrev=40'], pathlib.Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:  # no git on this machine
        return 'unknown'
    return done.stdout.strip() or 'unknown'


@cli.errors_as_messages
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog='python -m afunet_jax.packaging', description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--workdir', required=True, help='of train.py; its best parameters are taken')
    add('--before', action='append', default=[], metavar='PATH',
        help='workdir of an earlier training, whose weights the next began with, or a file that this command wrote; '
        'once each, in order')  # fmt: skip
    add('--results', required=True, type=pathlib.Path, metavar='DIR', help='what eval.py has written for them')
    add('--data', action='append', required=True, type=pathlib.Path, metavar='FILE',
        help='manifest of a data set that was trained on, once each; one of them has the test scenes')  # fmt: skip
    add('--out', type=pathlib.Path, default=safetensors_weights.PACKAGED, metavar='FILE')
    add('--commit', default='', help='of the code that trained; by default of the code that runs')
    add('--license', default=LICENSE, help=f'an SPDX name; by default {LICENSE}')
    flags = parser.parse_args(arguments)
    about, params = checkpoints.load_checkpoint(flags.workdir)
    before = [_about(path) for path in flags.before]
    manifests = [_json(path) for path in flags.data]
    results = _json(flags.results / RESULTS)
    found = groups(results, manifests)
    text = describe(
        about, found, manifests, flags.commit or _commit(), flags.license, before, results.get('eval')
    )
    safetensors_weights.write(flags.out, params, text)
    for group, rows in found.items():
        print(f'{group}, {len({row["scene"] for row in rows})} scenes\n{reports.scores_table(rows)}\n')
    size, steps = flags.out.stat().st_size, ' + '.join(f'{one["step"]:,}' for one in [*text['before'], about])
    print(f'{flags.out}: {afunet.count_parameters(params):,} parameters of {steps} steps, {size / 1e6:.2f} MB')
    if size > MOST_BYTES:
        print(f'larger than the {MOST_BYTES / 1e6:.0f} MB that a package should carry', file=sys.stderr)
    return 0


if __name__ == '__main__':
    sys.exit(main())
