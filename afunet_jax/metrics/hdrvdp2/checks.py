"""What HDR-VDP-2 asks of a pair of images, each rule with its error."""

from typing import Any

import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.metrics.hdrvdp2.pyramid import SMALLEST_SIDE
from afunet_jax.metrics.hdrvdp2.viewing import SRGB_DISPLAY, Viewing

Array = Any  # np.ndarray or jax.Array

# An sRGB display wants [0, 1]. Predictions overshoot, and radiance merged from short exposures reaches
# 2 ** 3 or so; a larger value is an 8-bit one or an absolute luminance.
GROUND_TRUTH_LIMIT = 2.0
PREDICTION_LIMIT = 16.0


def _checked_image(image: Array, name: str) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise DataError(
            f'HDR-VDP-2 takes one image [H, W, 3], but the {name} has the shape {list(image.shape)}. '
            'Move the colours to the last axis; for several images call hdrvdp2_batch.'
        )
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise DataError(
            f'The pyramid of HDR-VDP-2 needs at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels, but the {name} '
            f'has {image.shape[0]}x{image.shape[1]}. Use whole images, not small crops.'
        )
    if image.dtype.kind in 'iubcOSU':
        raise DataError(
            f'HDR-VDP-2 takes linear RGB in floating point, but the {name} holds {image.dtype}. '
            'Convert stored integers to linear values first.'
        )
    image = image if image.dtype == np.float64 else image.astype(np.float32, copy=False)
    bad = image.size - np.count_nonzero(np.isfinite(image))
    if bad:
        raise DataError(
            f'The {name} holds {bad} of {image.size} values that are NaN or infinite. '
            'Repair the file or the network that made it: no metric is defined there.'
        )
    return image


def _check_ground_truth(image: np.ndarray) -> None:
    low, high = image.min(), image.max()
    if low < 0:
        raise DataError(
            f'The ground truth is radiance and cannot be negative, but its smallest value is {low:g}. '
            'Pass the linear image itself, not a normalised or a difference image.'
        )
    if high == 0:
        raise DataError(
            'The ground truth is zero everywhere, so there is nothing to compare with. '
            'Check the file it came from.'
        )


def _check_range(image: np.ndarray, name: str, limit: float) -> None:
    high = np.abs(image).max()
    if high > limit:
        raise DataError(
            f'An sRGB display takes linear values in [0, 1], but the {name} reaches {high:g} (at most '
            f'{limit:g} is accepted), which looks like 8-bit values or cd/m2. Divide both images by the same '
            'number, so that the ground truth lies in [0, 1], or choose the preset bt709-1000.'
        )


def checked_pair(prediction: Array, ground_truth: Array, viewing: Viewing) -> tuple[np.ndarray, np.ndarray]:
    """Both images as float32 or float64 NumPy arrays, or a DataError that says which rule they break.

    The rules: `[H, W, 3]`, equal shapes, sides of at least `SMALLEST_SIDE`, floating point, finite; a
    ground truth without negative values and not black; for an sRGB display values near [0, 1]. A
    prediction may be negative: the display model continues below 0, as in the original.
    """
    prediction = _checked_image(prediction, 'prediction')
    ground_truth = _checked_image(ground_truth, 'ground truth')
    if prediction.shape != ground_truth.shape:
        raise DataError(
            f'Prediction and ground truth must have the same shape, but are {list(prediction.shape)} and '
            f'{list(ground_truth.shape)}. Crop the padding off the prediction, or compare the right files.'
        )
    _check_ground_truth(ground_truth)
    if viewing.encoding == SRGB_DISPLAY:
        _check_range(ground_truth * viewing.scale, 'ground truth', GROUND_TRUTH_LIMIT)
        _check_range(prediction * viewing.scale, 'prediction', PREDICTION_LIMIT)
    return prediction, ground_truth
