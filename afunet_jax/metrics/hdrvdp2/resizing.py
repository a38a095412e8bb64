"""MATLAB's `imresize`, bicubic and antialiased, as a weighted sum along each axis."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SUPPORT = 2.0  # the bicubic kernel vanishes beyond, in pixels
MOST_TAPS = 12  # halving and doubling need fewer; beyond, a matrix product is faster than taps


class Taps(NamedTuple):
    """One axis: sample k of the result is the sum over t of `weights[t, k] * image[indices[t, k]]`."""

    indices: np.ndarray
    weights: np.ndarray


AxisWeights = Taps | np.ndarray  # a matrix is `[target, length]`


def bicubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(distance)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, inner, np.where(x <= SUPPORT, outer, 0.0))


@functools.lru_cache(maxsize=256)
def axis_weights(length: int, target: int) -> AxisWeights:
    """The weights that resize an axis; beyond it samples are mirrored, the edge repeated. float64."""
    scale = target / length
    narrowing = min(scale, 1.0)
    centre = (np.arange(target) + 0.5) / scale - 0.5
    reach = int(np.ceil(SUPPORT / narrowing)) + 1
    positions = np.floor(centre).astype(int) + np.arange(-reach, reach + 1)[:, None]
    weights = bicubic(narrowing * (centre - positions))
    weights /= weights.sum(0)
    mirrored = np.mod(positions, 2 * length)
    mirrored = np.minimum(mirrored, 2 * length - 1 - mirrored)
    used = weights.any(1)
    if used.sum() <= MOST_TAPS:
        return Taps(mirrored[used].astype(np.int32), weights[used])
    matrix = np.zeros((target, length))
    np.add.at(matrix, (np.arange(target), mirrored), weights)
    return matrix


def resize_weights(shape: Sequence[int], target: Sequence[int]) -> tuple[AxisWeights, ...]:
    """The weights of rows and of columns that resize `shape` to `target`; none where they are equal."""
    if tuple(shape) == tuple(target):
        return ()
    return tuple(axis_weights(*lengths) for lengths in zip(shape, target))


def resize(images: jax.Array, weights: Sequence[AxisWeights]) -> jax.Array:
    """Resizes `[..., h, w]` by `resize_weights`."""
    for axis, of_axis in zip((-2, -1), weights):
        by = _by_taps if isinstance(of_axis, Taps) else _by_matrix
        images = by(images, of_axis, axis)
    return images


def _by_taps(images: jax.Array, taps: Taps, axis: int) -> jax.Array:
    """A loop over the taps, not a sum of them, for XLA would compute every pixel anew for every tap of it."""
    indices, weights = (jnp.asarray(array) for array in taps)
    count, target = weights.shape
    broadcast, shape = [1] * images.ndim, list(images.shape)
    broadcast[axis] = shape[axis] = target

    def add(tap: jax.Array, total: jax.Array) -> jax.Array:
        samples = jnp.take(images, indices[tap], axis, mode='clip')
        return total + weights[tap].reshape(broadcast) * samples

    return jax.lax.fori_loop(0, count, add, jnp.zeros(shape, images.dtype))


def _by_matrix(images: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    formula = 'th,...hw->...tw' if axis == -2 else 'tw,...hw->...ht'
    return jnp.einsum(formula, matrix, images, precision=jax.lax.Precision.HIGHEST)
