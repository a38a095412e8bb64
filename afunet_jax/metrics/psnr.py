"""PSNR between two images, jitted.

Precision follows the release: the difference and its square in float32, the mean in float64. It is
computed on JAX's default device; devices agree to the rounding of a float64 sum.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax import sizes
from afunet_jax.metrics.checks import checked_pair

Array = Any  # np.ndarray or jax.Array

PEAK = 1.0  # the largest value of an image


def decibels(error: float, peak: float) -> float:
    """`10 log10(peak ** 2 / error)` of a mean squared error; infinity without one."""
    return float('inf') if error == 0 else float(10 * np.log10(peak**2 / error))


def mean_of_squares(difference: jax.Array) -> jax.Array:
    """The float64 mean over an image; the squares are in the image's own precision."""
    squares = jnp.square(difference).astype(jnp.float64)
    return squares.sum(axis=(1, 2)).sum() / difference.size  # row by row: XLA gives rows to several cores


@jax.jit
def _mean_squared_error(prediction: jax.Array, label: jax.Array) -> jax.Array:
    return mean_of_squares(prediction.astype(jnp.float32) - label.astype(jnp.float32))


def psnr(prediction: Array, label: Array) -> float:
    """Peak signal-to-noise ratio in dB, `10 log10(1 / mse)` over pixels and channels.

    Compiles once an image size.

    Args:
        prediction: `[H, W, 3]` in [0, 1], linear (PSNR-l) or `hdr.mu_law` of it (PSNR-mu); not clipped.
        label: the same of the ground truth.

    Returns:
        dB; infinity for equal images.

    Raises:
        DataError: another shape, different shapes, integers, or values that are not finite.
    """
    prediction, label = checked_pair(prediction, label)
    sizes.note(label.shape)
    with jax.enable_x64(True):
        return decibels(float(_mean_squared_error(prediction, label)), PEAK)
