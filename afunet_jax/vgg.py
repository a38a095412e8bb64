"""The feature extractor of the paper's perceptual loss: VGG-19 up to relu5_1.

Simonyan and Zisserman 2015, configuration E, with torchvision's weights. Images are `[B, H, W, C]`;
convolutions pad with zeros.
"""

import math
import pathlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax import torch_files
from afunet_jax.errors import ConfigError, WeightsError

# A convolution: its number N in torchvision's `features.N.weight`, its input and output channels.
Convolution = tuple[int, int, int]
# Each block ends in a feature, relu1_1 to relu5_1; a 2x2 maximum pooling stands where a None is.
BLOCKS: tuple[tuple[Convolution | None, ...], ...] = (
    ((0, 3, 64),),
    ((2, 64, 64), None, (5, 64, 128)),
    ((7, 128, 128), None, (10, 128, 256)),
    ((12, 256, 256), (14, 256, 256), (16, 256, 256), None, (19, 256, 512)),
    ((21, 512, 512), (23, 512, 512), (25, 512, 512), None, (28, 512, 512)),
)
FEATURES = ('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1')
KERNEL = 3
MIN_SIZE = 16  # pixels: four poolings leave one

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of images in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)

WHERE_FROM = (
    "torchvision's VGG-19, 548 MB, is at https://download.pytorch.org/models/vgg19-dcbb9e9d.pth, and "
    "`torch.save(torchvision.models.vgg19(weights='IMAGENET1K_V1').state_dict(), 'vgg19.pth')` writes "
    'the same; nothing is downloaded here'
)

MOST_HEADER, MOST_ITEM = 65536, 8  # bytes of an array in an .npz: before it, and a number
UNREADABLE = (OSError, EOFError, ValueError, LookupError)  # what a damaged file raises in any format

Params = dict[str, dict[str, jax.Array]]


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """The keys of torchvision's state dict that are used, and their shapes."""
    shapes = {}
    for index, inputs, outputs in (layer for block in BLOCKS for layer in block if layer):
        shapes[f'features.{index}.weight'] = (outputs, inputs, KERNEL, KERNEL)
        shapes[f'features.{index}.bias'] = (outputs,)
    return shapes


def from_state_dict(state_dict: Mapping[str, Any], source: str = 'the state dict') -> Params:
    """The parameters of the extractor from torchvision's names and layout.

    Args:
        state_dict: `features.N.weight` `[out, in, 3, 3]` and `features.N.bias` `[out]`; other keys, such as
            the classifier's, are ignored.
        source: what error messages call it.

    Returns:
        `{'features.N': {'kernel': [3, 3, in, out], 'bias': [out]}}`, float32.

    Raises:
        WeightsError: lists every key that is missing, has another shape or type, or holds NaN or infinity.
    """
    problems = []
    for key, shape in expected_shapes().items():
        if key not in state_dict:
            problems.append(f'{key} is missing')
        elif np.shape(state_dict[key]) != shape:
            problems.append(f'{key} has the shape {np.shape(state_dict[key])}, not {shape}')
        elif np.asarray(state_dict[key]).dtype.kind != 'f':
            problems.append(f'{key} holds {np.asarray(state_dict[key]).dtype}, not floating-point numbers')
        elif not _all_finite(state_dict[key]):
            problems.append(f'{key} holds values that are not finite')
    if problems:
        raise WeightsError(f'{source}: not the weights of VGG-19: {"; ".join(problems)}. Cure: {WHERE_FROM}.')
    params: Params = {}
    for key in expected_shapes():
        layer, _, kind = key.rpartition('.')
        value = np.asarray(state_dict[key], np.float32)
        if kind == 'weight':
            params[layer] = {'kernel': jnp.asarray(value.transpose(2, 3, 1, 0))}
        else:
            params[layer]['bias'] = jnp.asarray(value)
    return params


def _all_finite(value: Any) -> bool:
    """As float32, which large float64 are not."""
    with np.errstate(over='ignore'):
        return bool(np.isfinite(np.asarray(value, np.float32)).all())


def _unreadable(path: pathlib.Path, kind: str, error: Exception) -> WeightsError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return WeightsError(f'{path}: not a {kind}, or damaged ({reason}). Cure: {WHERE_FROM}.')


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        _check_npz(path)
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in expected_shapes() if key in file}
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error, struct.error, MemoryError, NotImplementedError, RuntimeError,
            SyntaxError, TypeError, tokenize.TokenError) as error:  # NumPy parses an array's header as Python
        raise _unreadable(path, 'NumPy archive', error) from error


def _check_npz(path: pathlib.Path) -> None:
    """Refuses arrays that are larger than VGG-19's before they are unpacked."""
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename.removesuffix('.npy'): entry.file_size for entry in archive.infolist()}
    for key, shape in expected_shapes().items():
        if sizes.get(key, 0) > MOST_HEADER + MOST_ITEM * math.prod(shape):
            raise ValueError(f'{key} unpacks to {sizes[key]} bytes, more than an array of the shape {shape} has')


def _read_pth(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        torch, content = torch_files.import_torch(path), torch_files.load(path)  # only this format needs PyTorch
    except WeightsError as error:
        raise WeightsError(f'{error}. Cure: turn the file into an .npz of the same keys, or: {WHERE_FROM}.') from error
    if not isinstance(content, Mapping):
        raise WeightsError(f'{path}: holds a {type(content).__name__}, not a state dict. Cure: {WHERE_FROM}.')
    shapes = expected_shapes()
    tensors = {key: content[key] for key in shapes if isinstance(content.get(key), torch.Tensor)}
    try:
        for key, tensor in tensors.items():  # before they are copied: a tensor can repeat one stored number without end
            if tuple(tensor.shape) != shapes[key] or not tensor.is_floating_point():
                found = f'{key} is {tensor.dtype} {list(tensor.shape)}, not floating-point {list(shapes[key])}'
                raise WeightsError(f'{path}: not the weights of VGG-19: {found}. Cure: {WHERE_FROM}.')
        return {key: tensor.detach().float().numpy() for key, tensor in tensors.items()}
    except (TypeError, NotImplementedError, RuntimeError) as error:  # tensors that are sparse, nested or without data
        raise _unreadable(path, 'file of plain tensors', error) from error


READERS = {'.pth': _read_pth, '.pt': _read_pth, '.npz': _read_npz}


def load(path: str | pathlib.Path | None) -> Params:
    """The extractor's parameters from a file of torchvision's `vgg19` state dict.

    Args:
        path: a `.pth` or `.pt` (read by PyTorch), or an `.npz` with the same keys (PyTorch not needed).

    Returns:
        As `from_state_dict`.

    Raises:
        ConfigError: no path is given.
        WeightsError: no such file, a damaged file, other keys or shapes, or PyTorch is missing.
    """
    if not path:
        raise ConfigError(
            f"The paper's loss needs the weights of VGG-19, but no file is named. Name one: {WHERE_FROM}."
        )
    path = pathlib.Path(path)
    if path.suffix not in READERS:
        known = ', '.join(READERS)
        raise WeightsError(f'{path}: the weights of VGG-19 are read from {known}, not from "{path.suffix}".')
    if not path.is_file():
        raise WeightsError(f'{path}: no such file of VGG-19 weights. Cure: {WHERE_FROM}.')
    return from_state_dict(READERS[path.suffix](path), str(path))


def _convolve(layer: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    y = jax.lax.conv_general_dilated(
        x, layer['kernel'], window_strides=(1, 1), padding='SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return jax.nn.relu(y + layer['bias'].reshape(1, 1, 1, -1))


def _pool(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')


def features(params: Params, images: jax.Array) -> list[jax.Array]:
    """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of images in [0, 1].

    Args:
        params: from `load` or `from_state_dict`.
        images: `[B, H, W, 3]` RGB float32, at least 16x16; normalised here with ImageNet's mean and std.

    Returns:
        Five arrays `[B, H / 2**k, W / 2**k, C]`, sizes rounded down, with 64, 128, 256, 512 and 512 channels.

    Raises:
        ConfigError: the images are smaller than 16x16.
    """
    if min(images.shape[1:3]) < MIN_SIZE:
        raise ConfigError(
            f'VGG-19 to relu5_1 needs images of {MIN_SIZE}x{MIN_SIZE} pixels or more, but these have '
            f'{images.shape[1]}x{images.shape[2]}. Use larger crops, or the release\'s loss.'
        )
    mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = (images - mean) / std
    found = []
    for block in BLOCKS:
        for layer in block:
            x = _convolve(params[f'features.{layer[0]}'], x) if layer else _pool(x)
        found.append(x)
    return found
