"""The command line of the comparison; see the package."""

import argparse
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from afunet_jax import checkpoints, cli, files, parallel
from afunet_jax.compare import inputs, networks
from afunet_jax.compare.differences import STEPS, compare
from afunet_jax.compare.report import format_comparison, to_json
from afunet_jax.data.layouts import LAYOUTS
from afunet_jax.errors import ConfigError
from afunet_jax.models import afunet

OK, ABOVE = 0, 1  # exit statuses; cli.EXIT_ERROR is the third
STAGES = 4
SIZE = '64x64'


@cli.errors_as_messages
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    flags = _parser().parse_args(arguments)
    if flags.json and flags.json.is_dir():
        raise ConfigError(f'--json={flags.json} is a folder; name a file')
    jax.config.update('jax_platforms', jax.config.jax_platforms or 'cpu')
    parallel.use_compilation_cache()
    torch = networks.pytorch()[0]
    model, params, weights = _weights_of(flags)
    x, label, source = _batch_of(flags)
    if flags.authors:
        network = networks.authors_network(flags.authors, model, params)
    else:
        network = networks.twin(model, params)
    about = {
        'jax': jax.__version__, 'platform': jax.default_backend(), 'pytorch': torch.__version__,
        'against': f'the class of {flags.authors}' if flags.authors else 'our twin',
        'weights': weights, 'input': source,
        'model': {name: getattr(model, name) for name in networks.ARCHITECTURE},
    }  # fmt: skip
    print('\n'.join(f'{name}: {value}' for name, value in about.items()), flush=True)
    found = compare(model, params, x, label, network=network, steps=flags.steps)
    print(f'\n{format_comparison(found)}')
    if flags.json:
        files.write_json(flags.json, to_json(found, about))
    return ABOVE if found.above else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m afunet_jax.compare',
        description="Compares our numbers with PyTorch's: blocks, output, loss, gradients, steps of Adam.",
    )
    add = parser.add_mutually_exclusive_group().add_argument
    add('--weights', help='a released .pth, a checkpoint or a workdir of train.py (default: random)')
    add('--stages', type=int, default=STAGES, help=f'with random initial values (default {STAGES})')
    add = parser.add_argument
    add('--scene', help='folder of one scene; without it, the input is random')
    add('--layout', choices=LAYOUTS, default='kalantari', help="of the scene's files (default kalantari)")
    add('--size', type=_size, default=SIZE, help=f"HxW of the scene's centre or of noise (default {SIZE})")
    add('--seed', type=cli.natural, default=0, help='of random weights, input and label (default 0)')
    add('--steps', type=cli.natural, default=STEPS, help=f'of Adam (default {STEPS})')
    add('--authors', metavar='CLONE', help="a clone of the authors' code: run its class, not our twin")
    add('--json', type=pathlib.Path, help='also write every figure here')
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    if not match or '0' in match.groups():
        raise argparse.ArgumentTypeError(f'expected height and width like 64x64, not {text!r}')
    return int(match[1]), int(match[2])


def _weights_of(flags: argparse.Namespace) -> tuple[afunet.AFUNet, dict[str, Any], str]:
    """The network, its parameters, and what they are."""
    if flags.weights:
        settings, params = checkpoints.load_weights(flags.weights)
        return afunet.build(afunet.architecture(settings)), params, flags.weights  # float32, by XLA
    model = afunet.build({'num_stages': flags.stages})
    return model, afunet.init_params(model, flags.seed), f'random initial values of seed {flags.seed}'


def _batch_of(flags: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, str]:
    """Input, label, and what they are."""
    x, label = inputs.random_batch(flags.size, flags.seed)
    size = '{}x{}'.format(*flags.size)
    if not flags.scene:
        return x, label, f'random of seed {flags.seed}, {size}'
    image, truth = inputs.read_scene(flags.scene, flags.layout)
    x, name = inputs.centre(image, flags.size)[None], f'scene {flags.scene}, {size}'
    if truth is None:
        return x, label, f'{name}, with a random label, for it has none'
    return x, inputs.centre(truth, flags.size)[None], name


if __name__ == '__main__':
    sys.exit(main())
