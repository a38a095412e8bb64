"""SSIM as other programs define it, each under its own name, in NumPy and float64.

They differ from `ssim` in window, border, range and clipping, hence in the third or fourth digit: never
compare figures of different names. None of them clips; all take values in [0, 1] and a range of 1.

| name | window | border | statistics |
|---|---|---|---|
| `skimage_ssim` | Gaussian 11x11, sigma 1.5, each channel | cut off | as in Wang et al. 2004 |
| `skimage_default_ssim` | uniform 7x7, each channel | cut off | sample variances, n / (n - 1) |
| `matlab_ssim` | Gaussian 11x11x11, sigma 1.5, rows, columns, colours | repeated | as in Wang et al. 2004 |
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from afunet_jax.metrics.checks import checked_unit_pair, refuse_negative_prediction, refuse_smaller
from afunet_jax.metrics.ssim import K1, K2, WINDOW, gaussian_window

Array = Any  # np.ndarray or jax.Array
Smooth = Callable[[np.ndarray], np.ndarray]

RANGE = 1.0  # of floating-point images: MATLAB's for class single and double, scikit-image's data_range=1
UNIFORM_WINDOW = 7  # pixels, scikit-image's default


def similarity_map(
    x: np.ndarray, y: np.ndarray, smooth: Smooth, value_range: float, sample: float = 1.0
) -> np.ndarray:
    """SSIM at every value: Wang et al. 2004, Eq. (13), exponents 1 and C3 = C2 / 2.

    Args:
        x: an image, float64.
        y: another, of its shape.
        smooth: the local mean of an array.
        value_range: L of the constants `(K L) ** 2`.
        sample: factor of variances and covariance; n / (n - 1) makes them those of a sample.

    Returns:
        An array like x. Variances that rounding made negative count as zero, as in MATLAB.
    """
    c1, c2 = (K1 * value_range) ** 2, (K2 * value_range) ** 2
    mean_x, mean_y = smooth(x), smooth(y)
    variances = np.maximum(smooth(x * x) - mean_x**2, 0) + np.maximum(smooth(y * y) - mean_y**2, 0)
    covariance = smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * sample * covariance + c2) / (sample * variances + c2)


def gaussian_mean(image: np.ndarray) -> np.ndarray:
    """Means of `[H, W]` or `[H, W, 3]` over rows and columns under the Gaussian window, edges repeated."""
    window = gaussian_window()
    return cv2.sepFilter2D(image, -1, window, window, borderType=cv2.BORDER_REPLICATE)


def _uniform_mean(image: np.ndarray) -> np.ndarray:
    return cv2.blur(image, (UNIFORM_WINDOW, UNIFORM_WINDOW), borderType=cv2.BORDER_REPLICATE)


def _colour_window(channels: int) -> np.ndarray:
    """The Gaussian along a short axis with repeated ends, as the matrix `[channels out, channels in]`."""
    matrix = np.zeros((channels, channels))
    for i in range(channels):
        for distance, weight in zip(range(-(WINDOW // 2), WINDOW // 2 + 1), gaussian_window()):
            matrix[i, np.clip(i + distance, 0, channels - 1)] += weight
    return matrix


def _volume_mean(image: np.ndarray) -> np.ndarray:
    return gaussian_mean(image) @ _colour_window(image.shape[-1]).T


def _checked(prediction: Array, label: Array, window: int) -> list[np.ndarray]:
    prediction, label = checked_unit_pair(prediction, label)
    refuse_negative_prediction(prediction)
    refuse_smaller(label, window)
    return [np.ascontiguousarray(image, np.float64) for image in (prediction, label)]


def _inner_mean(values: np.ndarray, window: int) -> float:
    border = window // 2
    return float(values[border:-border, border:-border].mean())


def skimage_ssim(prediction: Array, label: Array) -> float:
    """scikit-image's `structural_similarity` with the arguments that make it Wang's SSIM.

    `structural_similarity(label, prediction, data_range=1.0, channel_axis=-1, gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False)`. Within [0, 1] it differs from `ssim` by rounding alone; a
    prediction beyond 1 is not clipped here.

    Args:
        prediction: `[H, W, 3]`, not negative, near [0, 1]: linear, or `hdr.mu_law` of it.
        label: the same of the ground truth.

    Returns:
        At most 1, and 1 for equal images.

    Raises:
        DataError: another shape, different shapes, integers, values that are not finite, negative or far
            above 1, a label that is zero everywhere, or an image smaller than the window.
    """
    x, y = _checked(prediction, label, WINDOW)
    return _inner_mean(similarity_map(x, y, gaussian_mean, RANGE), WINDOW)


def skimage_default_ssim(prediction: Array, label: Array) -> float:
    """scikit-image's `structural_similarity` with its defaults, as many repositories call it.

    `structural_similarity(label, prediction, data_range=1.0, channel_axis=-1)`: 7x7 uniform window, sample
    covariance. Arguments, result and errors are those of `skimage_ssim`.
    """
    x, y = _checked(prediction, label, UNIFORM_WINDOW)
    values = UNIFORM_WINDOW**2
    return _inner_mean(similarity_map(x, y, _uniform_mean, RANGE, values / (values - 1)), UNIFORM_WINDOW)


def matlab_ssim(prediction: Array, label: Array) -> float:
    """MATLAB's `ssim(prediction, label)` on an H x W x 3 array, which it takes for a volume.

    The window, 11x11x11 with sigma 1.5, runs over the colours too, with the edges of all three axes
    repeated; the mean is over every value. DynamicRange 1 (of class single and double), the default
    RegularizationConstants [1e-4, 9e-4, 4.5e-4], Exponents [1 1 1]. This is what SAFNet's figures use,
    where prediction and label have been read from `.hdr` files in class single; here all is float64.

    Arguments, result and errors are those of `skimage_ssim`. (MATLAB itself takes smaller images too.)
    """
    x, y = _checked(prediction, label, WINDOW)
    return float(similarity_map(x, y, _volume_mean, RANGE).mean())
