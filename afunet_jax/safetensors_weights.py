"""Weights in one file (safetensors) that says what they are; among them the weights that come with the package.

A file holds the parameters, named by their path in the tree (`stage_0/sfm/...`), and a JSON text `about`:

    format_version   1
    model            AFUNet's attributes
    config           the whole configuration of the training
    step             number of training steps
    recipes          of each set of training data: where they come from, and how they are made
    commit           of the code that trained
    license          of the weights
    figures          what was measured on test scenes: 'moving' and 'static' to method to metric to mean
    eval             the config's section of that evaluation
"""

import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
from flax import traverse_util
from safetensors import numpy as safetensors_numpy

from afunet_jax import image_io
from afunet_jax.errors import ConfigError, WeightsError
from afunet_jax.models import afunet

SUFFIX = '.safetensors'
FORMAT_VERSION = 1
PACKAGED = pathlib.Path(__file__).parent / 'weights' / f'afunet_small{SUFFIX}'


def packaged() -> pathlib.Path:
    """The file of weights that comes with the package.

    Raises:
        WeightsError: there is none.
    """
    if not PACKAGED.exists():
        raise WeightsError(
            'no weights are named, and none come with this copy of the package: train some with train.py, or name '
            'a .pth of the PyTorch release, with --weights='
        )
    return PACKAGED


def write(path: str | pathlib.Path, params: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes parameters and their description, whole or not at all.

    Args:
        path: ends in `.safetensors`.
        params: AFUNet's tree of parameters.
        about: JSON-able; `model`, and whatever else is known (see the module).

    Raises:
        WeightsError: another suffix.
    """
    path = pathlib.Path(path)
    if path.suffix != SUFFIX:
        raise WeightsError(f'{path}: a file of weights ends in {SUFFIX}')
    arrays = {name: np.asarray(leaf, order='C') for name, leaf in _named(params).items()}
    text = json.dumps({'format_version': FORMAT_VERSION, **about}, allow_nan=False)
    image_io.write_atomically(path, safetensors_numpy.save(arrays, {'about': text}))


def read(path: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(about, params)`: what `write` was given.

    Raises:
        WeightsError: no such file, no safetensors, damaged, without our description, or its parameters are not
            those of the network it names.
    """
    path = pathlib.Path(path)
    try:
        with safetensors.safe_open(path, 'numpy') as file:
            text = (file.metadata() or {}).get('about')
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError, TypeError, ValueError, OverflowError) as error:
        raise WeightsError(f'{path}: cannot be read as safetensors, or is damaged ({error}); fetch it again') from error
    about = _about(path, text)
    try:
        model = afunet.build(about['model'])
        check_extent(path, model, {name: array.shape for name, array in arrays.items()})
        shapes = _named(afunet.parameter_shapes(model))
    except (ConfigError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise WeightsError(f'{path}: its description names no network that can be built ({error})') from error
    if problems := _problems(arrays, shapes):
        raise WeightsError(f'{path}: is not what its description says: {"; ".join(problems[:3])}')
    return about, traverse_util.unflatten_dict(arrays, sep='/')


def check_extent(path: str | pathlib.Path, model: afunet.AFUNet, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses a network of more blocks than there are parameters for: it would take long to be laid out.

    Args:
        path: for the message.
        model: the network that a description names.
        shapes: of the arrays that there are, by name.

    Raises:
        WeightsError: a block's table of position biases is missing, or of another window.
    """
    rows = (2 * model.window_size - 1) ** 2
    for stage, block in itertools.product(range(model.num_stages), range(model.sfm_depth)):
        name = f'stage_{stage}/sfm/block_{block}/position_bias/table'
        if shapes.get(name, ())[:1] != (rows,):
            raise WeightsError(f'{path}: is not what its description says: {name} of {rows} rows is missing')


def _named(params: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(params, sep='/')


def _about(path: pathlib.Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise WeightsError(f'{path}: has no description of ours; only files written by this package can be used')
    try:
        about = json.loads(text)
        version, _ = about['format_version'], dict(about['model'])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f'{path}: its description cannot be read ({str(error)[:100]}); fetch it again') from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise WeightsError(
            f'{path}: format version {version}, this release reads up to {FORMAT_VERSION}; update afunet_jax'
        )
    return about


def _problems(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, jax.ShapeDtypeStruct]) -> list[str]:
    """What is missing, too much, of another shape or kind, or not finite."""
    return (
        [f'{name} is missing' for name in shapes if name not in arrays]
        + [f'{name} is not a parameter' for name in arrays if name not in shapes]
        + [
            f'{name} is {arrays[name].dtype} {list(arrays[name].shape)}, not {shape.dtype} {list(shape.shape)}'
            for name, shape in shapes.items()
            if name in arrays and (arrays[name].shape, arrays[name].dtype) != (shape.shape, shape.dtype)
        ]
        + [f'{name} is not finite' for name, array in arrays.items() if not np.isfinite(array).all()]
    )
