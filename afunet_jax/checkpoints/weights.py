"""Weights from wherever a user has them."""

import pathlib
from collections.abc import Mapping
from typing import Any

from afunet_jax import safetensors_weights, torch_weights
from afunet_jax.checkpoints.reading import load_checkpoint
from afunet_jax.errors import WeightsError
from afunet_jax.models import afunet


def load_params(path: str | pathlib.Path) -> dict[str, Any]:
    """Parameters from a working directory of training, one checkpoint in it, a `.safetensors`, or a PyTorch `.pth`.

    See `load_weights`, which also tells the architecture.
    """
    return load_weights(path)[1]


def load_weights(path: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Architecture and parameters.

    Args:
        path: a `.safetensors` file of ours; a `.pth` file; a checkpoint's directory (`WORKDIR/checkpoints/STEP`);
            or a working directory, of which the best parameters are taken, or the latest if none were validated.

    Returns:
        `(settings, params)`: AFUNet's attributes, and its parameters as NumPy arrays.

    Raises:
        WeightsError: a file that is no `.safetensors` or `.pth` with AFUNet's weights, or parameters of another
            architecture.
        CheckpointError: a directory without a readable checkpoint.
    """
    path = pathlib.Path(path).absolute()
    if path.is_dir():
        about, params = load_checkpoint(path)
        return dict(about['config']['model']), params
    if not path.exists():
        raise WeightsError(
            f'{path}: no such file or directory; --weights takes a .safetensors, a .pth, a workdir or a '
            'checkpoint in one'
        )
    if path.suffix == safetensors_weights.SUFFIX:
        about, params = safetensors_weights.read(path)
        return about['model'], params
    state_dict = torch_weights.read_pth(path)
    try:
        return torch_weights.architecture(state_dict), torch_weights.from_state_dict(state_dict)
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error


def check_architecture(settings: Mapping[str, Any], wanted: Mapping[str, Any], path: str | pathlib.Path) -> None:
    """Raises WeightsError if weights of `settings` do not fit the `wanted` network's architecture."""
    defaults = {'order': 'AF', 'ablation': 'M4', 'head': 'sigmoid'}  # what PyTorch files do not tell
    settings = {**defaults, **settings}
    differing = [
        f'{key} is {settings.get(key)!r} in the weights, {value!r} in the config'
        for key, value in wanted.items()
        if key not in afunet.NOT_ARCHITECTURE and settings.get(key) != value
    ]
    if differing:
        raise WeightsError(
            f'{path}: weights of another architecture: ' + '; '.join(differing)
            + '. Use the config they were trained with, or set config.model to their values'
        )  # fmt: skip
