"""SSIM as other programs define it, each under its own name, jitted, in float64 on JAX's default device.

They differ from `ssim` in window, border, range and clipping, hence in the third or fourth digit: never
compare figures of different names. None of them clips; all take values in [0, 1] and a range of 1.

| name | window | border | statistics |
|---|---|---|---|
| `skimage_ssim` | Gaussian 11x11, sigma 1.5, each channel | cut off | as in Wang et al. 2004 |
| `skimage_default_ssim` | uniform 7x7, each channel | cut off | sample variances, n / (n - 1) |
| `matlab_ssim` | Gaussian 11x11x11, sigma 1.5, rows, columns, colours | repeated | as in Wang et al. 2004 |
"""

from typing import Any

import jax

from afunet_jax import sizes
from afunet_jax.metrics.checks import checked_unit_pair, refuse_negative, refuse_smaller
from afunet_jax.metrics.similarity import REPEAT, Window, mean_similarity
from afunet_jax.metrics.ssim import GAUSSIAN

Array = Any  # np.ndarray or jax.Array

RANGE = 1.0  # of floating-point images: MATLAB's for class single and double, scikit-image's data_range=1
UNIFORM_SIDE = 7  # pixels, scikit-image's default

SKIMAGE = Window(GAUSSIAN)
SKIMAGE_DEFAULT = Window((1 / UNIFORM_SIDE,) * UNIFORM_SIDE, sample=True)
MATLAB = Window(GAUSSIAN, border=REPEAT, colours=True)

_mean_similarity = jax.jit(mean_similarity, static_argnames='window')


def _similarity(prediction: Array, label: Array, window: Window) -> float:
    prediction, label = checked_unit_pair(prediction, label)
    refuse_negative(prediction, 'prediction')
    refuse_smaller(label, window.side)
    sizes.note(label.shape)
    with jax.enable_x64(True):
        return float(_mean_similarity(prediction, label, RANGE, window))


def skimage_ssim(prediction: Array, label: Array) -> float:
    """scikit-image's `structural_similarity` with the arguments that make it Wang's SSIM.

    `structural_similarity(label, prediction, data_range=1.0, channel_axis=-1, gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False)`. Within [0, 1] it differs from `ssim` by rounding alone; a
    prediction beyond 1 is not clipped here. Compiles once an image size.

    Args:
        prediction: `[H, W, 3]`, not negative, near [0, 1]: linear, or `hdr.mu_law` of it.
        label: the same of the ground truth.

    Returns:
        At most 1, and 1 for equal images.

    Raises:
        DataError: another shape, different shapes, integers, values that are not finite, negative or far
            above 1, a label that is zero everywhere, or an image smaller than the window.
    """
    return _similarity(prediction, label, SKIMAGE)


def skimage_default_ssim(prediction: Array, label: Array) -> float:
    """scikit-image's `structural_similarity` with its defaults, as many repositories call it.

    `structural_similarity(label, prediction, data_range=1.0, channel_axis=-1)`: 7x7 uniform window, sample
    covariance. Arguments, result and errors are those of `skimage_ssim`.
    """
    return _similarity(prediction, label, SKIMAGE_DEFAULT)


def matlab_ssim(prediction: Array, label: Array) -> float:
    """MATLAB's `ssim(prediction, label)` on an H x W x 3 array, which it takes for a volume.

    The window, 11x11x11 with sigma 1.5, runs over the colours too, with the edges of all three axes
    repeated; the mean is over every value. DynamicRange 1 (of class single and double), the default
    RegularizationConstants [1e-4, 9e-4, 4.5e-4], Exponents [1 1 1]. This is what SAFNet's figures use,
    where prediction and label have been read from `.hdr` files in class single; here all is float64.

    Arguments, result and errors are those of `skimage_ssim`. (MATLAB itself takes smaller images too.)
    """
    return _similarity(prediction, label, MATLAB)
