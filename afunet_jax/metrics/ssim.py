"""SSIM (Wang et al. 2004) between two images, on the CPU, independent of JAX's precision settings.

`ssim` is the figure that papers report and this project's default. `training_ssim` is the other
definition that the release's training log prints; the two differ, so do not compare one with the other.
"""

from typing import Any

import cv2
import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.metrics.psnr import checked_pair

Array = Any  # np.ndarray or jax.Array

WINDOW = 11  # pixels, a Gaussian
SIGMA = 1.5  # pixels
K1, K2 = 0.01, 0.03  # the stabilising constants are (K * range) ** 2
RANGE = 255.0  # `ssim` works on images times this
TRAINING_RANGE = 1.0


def gaussian_window() -> np.ndarray:
    """The one-dimensional window, `[WINDOW]` float64, with the sum 1."""
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(distance**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _smooth(image: np.ndarray) -> np.ndarray:
    """Gaussian means over a zero-padded `[H, W]` image, in its own precision and size."""
    window = gaussian_window()
    return cv2.sepFilter2D(image, -1, window, window, borderType=cv2.BORDER_CONSTANT)


def _ssim_map(x: np.ndarray, y: np.ndarray, value_range: float) -> np.ndarray:
    """SSIM at every pixel of two `[H, W]` images, zero-padded."""
    c1, c2 = (K1 * value_range) ** 2, (K2 * value_range) ** 2
    mean_x, mean_y = _smooth(x), _smooth(y)
    variances = (_smooth(x * x) - mean_x**2) + (_smooth(y * y) - mean_y**2)
    covariance = _smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _per_channel(image: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(image[..., c]) for c in range(image.shape[-1])]


def ssim(prediction: Array, label: Array) -> float:
    """Structural similarity, mean over the valid region and the channels.

    Images times 255, clipped to 0..255 and not rounded; 11x11 Gaussian window of sigma 1.5; float64.

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
    if min(prediction.shape[:2]) < WINDOW:
        raise DataError(
            f'SSIM needs at least {WINDOW}x{WINDOW} pixels, the size of its window, but the images have '
            f'{prediction.shape[0]}x{prediction.shape[1]}. Use larger images.'
        )
    # Scaled and clipped in float32, as in the release; the rest in float64.
    scaled = (np.clip(image * np.float32(RANGE), 0, RANGE) for image in (prediction, label))
    images = [image.astype(np.float64) for image in scaled]
    border = WINDOW // 2
    valid = (slice(border, -border), slice(border, -border))
    means = [_ssim_map(x, y, RANGE)[valid].mean() for x, y in zip(*map(_per_channel, images))]
    return float(np.mean(means))


def training_ssim(prediction: Array, label: Array) -> float:
    """The SSIM of the release's training log: float32, zero padding, full size, range 0..1, not clipped.

    Arguments, result and errors are those of `ssim`; images may be smaller than the window.
    """
    prediction, label = checked_pair(prediction, label)
    pairs = zip(_per_channel(prediction), _per_channel(label))
    return float(np.mean([_ssim_map(x, y, TRAINING_RANGE).mean(dtype=np.float64) for x, y in pairs]))
