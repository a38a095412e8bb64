"""SSIM (Wang et al. 2004) between two images, jitted, on JAX's default device.

`ssim` is the figure that papers report and this project's default. `training_ssim` is the other
definition that the release's training log prints; the two differ, so do not compare one with the other.
"""

from typing import Any

import jax
import jax.numpy as jnp

from afunet_jax import sizes
from afunet_jax.metrics.checks import checked_pair, refuse_smaller
from afunet_jax.metrics.similarity import ZERO, Window, gaussian_window, mean_similarity

Array = Any  # np.ndarray or jax.Array

WINDOW = 11  # pixels, a Gaussian
SIGMA = 1.5  # pixels
GAUSSIAN = gaussian_window(WINDOW, SIGMA)
RANGE = 255.0  # `ssim` works on images times this
TRAINING_RANGE = 1.0


def ssim(prediction: Array, label: Array) -> float:
    """Structural similarity, mean over the valid region and the channels.

    Images times 255, clipped to 0..255 and not rounded, in float32; 11x11 Gaussian window of sigma 1.5; the
    rest in float64. Compiles once an image size.

    Args:
        prediction: `[H, W, 3]` in [0, 1], linear (SSIM-l) or `hdr.mu_law` of it (SSIM-mu).
        label: the same of the ground truth.

    Returns:
        At most 1, and 1 for equal images.

    Raises:
        DataError: another shape, different shapes, integers, values that are not finite, or an image
            smaller than the window.
    """
    prediction, label = checked_pair(prediction, label)
    refuse_smaller(label, WINDOW)
    sizes.note(label.shape)
    with jax.enable_x64(True):
        return float(_ssim(prediction, label))


def training_ssim(prediction: Array, label: Array) -> float:
    """The SSIM of the release's training log: float32, zero padding, full size, range 0..1, not clipped.

    Arguments, result and errors are those of `ssim`; images may be smaller than the window.
    """
    prediction, label = checked_pair(prediction, label)
    sizes.note(label.shape)
    with jax.enable_x64(True):
        return float(_training_ssim(prediction, label))


@jax.jit
def _ssim(prediction: jax.Array, label: jax.Array) -> jax.Array:
    # Scaled and clipped in float32, as in the release.
    scaled = (jnp.clip(image.astype(jnp.float32) * RANGE, 0, RANGE) for image in (prediction, label))
    return mean_similarity(*scaled, RANGE, Window(GAUSSIAN))


@jax.jit
def _training_ssim(prediction: jax.Array, label: jax.Array) -> jax.Array:
    window = Window(GAUSSIAN, border=ZERO, precision='float32')
    return mean_similarity(prediction, label, TRAINING_RANGE, window)
