"""PSNR and SSIM on perceptually uniform values, for absolute luminance: jitted, float64.

Computed on JAX's default device; each function compiles once an image size.

R. K. Mantiuk, M. Azimi: PU21, a novel perceptually uniform encoding for adapting existing quality metrics
for HDR, Picture Coding Symposium 2021; the variant banding_glare, which the authors recommend.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax import sizes
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics.checks import checked_label, checked_unit_pair, refuse_negative, refuse_smaller
from afunet_jax.metrics.psnr import decibels, mean_of_squares
from afunet_jax.metrics.similarity import REPEAT, Window, mean_similarity
from afunet_jax.metrics.ssim import GAUSSIAN

Array = Any  # np.ndarray or jax.Array

# p1 to p7 of banding_glare, fitted to the visibility of banding with glare in the eye.
PARAMETERS = (
    0.353487901,
    0.3734658629,
    8.277049286e-05,
    0.9062562627,
    0.09150303166,
    0.9099517204,
    596.3148142,
)
SMALLEST, LARGEST = 0.005, 10_000.0  # cd/m2; values beyond are clipped
LUMINANCE = (0.212656, 0.715158, 0.072186)  # of linear BT.709 red, green and blue
# Of the authors' own toolbox, whatever the display: 100 cd/m2 are encoded as 256.
AUTHORS_RANGE = 256.0
WINDOW = Window(GAUSSIAN, border=REPEAT)


def pu21_encode(luminance: Array) -> np.ndarray:
    """PU21 values of luminance or linear RGB in cd/m2: 0 at 0.005, 256 at 100, 595 at 10,000.

    Returns:
        float64 of the same shape, read-only; values outside 0.005 to 10,000 cd/m2 are clipped first.
    """
    sizes.note(np.shape(luminance))
    with jax.enable_x64(True):
        return np.asarray(_jit_encoded(np.asarray(luminance)))


def _encoded(luminance: jax.Array) -> jax.Array:
    p1, p2, p3, p4, p5, p6, p7 = PARAMETERS
    power = _power(jnp.clip(luminance.astype(jnp.float64), SMALLEST, LARGEST), p4)
    return p7 * (_power((p1 + p2 * power) / (1 + p3 * power), p5) - p6)


def _power(base: jax.Array, exponent: float) -> jax.Array:
    """`base ** exponent` of positive numbers; XLA on a CPU takes twice as long for the operator."""
    return jnp.exp(exponent * jnp.log(base))


_jit_encoded = jax.jit(_encoded)


def _absolute(
    prediction: Array, label: Array, display_peak: float | None
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Both images as RGB, the cd/m2 of their value 1, and the luminance of the brightest white."""
    if np.ndim(prediction) == np.ndim(label) == 2:  # luminance alone is a grey image
        prediction, label = (
            np.repeat(np.asarray(image)[..., None], 3, axis=-1) for image in (prediction, label)
        )
    if display_peak is None:
        prediction, label = checked_label(prediction, label)
        peak = _checked_absolute(float(label.max()))
    else:
        peak = _checked_peak(display_peak)
        prediction, label = checked_unit_pair(prediction, label)
    refuse_negative(prediction, 'prediction')
    return prediction, label, 1.0 if display_peak is None else peak, peak


def _checked_absolute(largest: float) -> float:
    if largest <= 1:
        raise DataError(
            f'PU21 takes cd/m2, but the label reaches only {largest:g}, which looks like [0, 1]. Say by '
            'display_peak to how many cd/m2 the value 1 belongs; display_peak=1 if these are cd/m2 indeed.'
        )
    return largest


def _checked_peak(peak: float) -> float:
    if not SMALLEST < peak <= LARGEST:
        raise ConfigError(f'display_peak is a luminance of {SMALLEST} to {LARGEST:g} cd/m2, not {peak}')
    return float(peak)


def pu21_psnr(
    prediction: Array, label: Array, display_peak: float | None, value_range: float | None = None
) -> float:
    """PSNR of PU21 values, `20 log10(value_range / rmse)` over pixels and channels.

    Figures of different display peaks or ranges cannot be compared with each other.

    Args:
        prediction: linear RGB `[H, W, 3]` or luminance `[H, W]`, not negative.
        label: the same of the ground truth.
        display_peak: cd/m2 of the value 1, for images in [0, 1]; None for images in cd/m2.
        value_range: the largest PU21 value. None: that of the display's peak, or of the label's maximum;
            `AUTHORS_RANGE` is what the authors' toolbox takes.

    Returns:
        dB; infinity for equal images.

    Raises:
        DataError: another shape, different shapes, integers, values that are not finite or negative, a
            label that is zero everywhere; with a display peak values far above 1, without one a label
            that does not exceed 1.
        ConfigError: a display peak that PU21 does not reach.
    """
    prediction, label, scale, peak = _absolute(prediction, label, display_peak)
    sizes.note(label.shape)
    with jax.enable_x64(True):
        error = float(_mean_squared_error(prediction, label, scale))
    return decibels(error, _range(value_range, peak))


def pu21_ssim(
    prediction: Array, label: Array, display_peak: float | None, value_range: float | None = None
) -> float:
    """SSIM of the PU21 values of the luminance, as MATLAB's two-dimensional `ssim`.

    11x11 Gaussian window of sigma 1.5, edges repeated, mean over all pixels. RGB is taken as BT.709.
    Arguments and errors are those of `pu21_psnr`; images smaller than the window are a DataError too.

    Returns:
        At most 1, and 1 for equal images.
    """
    prediction, label, scale, peak = _absolute(prediction, label, display_peak)
    refuse_smaller(label, WINDOW.side)
    sizes.note(label.shape)
    with jax.enable_x64(True):
        return float(_luminance_similarity(prediction, label, scale, _range(value_range, peak)))


def _range(value_range: float | None, peak: float) -> float:
    return float(pu21_encode(peak)) if value_range is None else value_range


@jax.jit
def _mean_squared_error(prediction: jax.Array, label: jax.Array, scale: jax.Array) -> jax.Array:
    prediction, label = (_encoded(scale * image.astype(jnp.float64)) for image in (prediction, label))
    return mean_of_squares(prediction - label)


@jax.jit
def _luminance_similarity(
    prediction: jax.Array, label: jax.Array, scale: jax.Array, value_range: jax.Array
) -> jax.Array:
    def encoded_luminance(image: jax.Array) -> jax.Array:
        red, green, blue = jnp.moveaxis(scale * image.astype(jnp.float64), -1, 0)
        weights = LUMINANCE
        return _encoded(weights[0] * red + weights[1] * green + weights[2] * blue)[..., None]

    return mean_similarity(encoded_luminance(prediction), encoded_luminance(label), value_range, WINDOW)
