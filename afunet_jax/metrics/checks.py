"""The rules for images that metrics take, each with its error: one place for all metrics."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from afunet_jax.errors import DataError

Array = Any  # np.ndarray or jax.Array

NAMES = 'prediction', 'label'
# Ground truths lie in [0, 1]. Predictions overshoot, and radiance merged from short exposures reaches
# 2 ** 3 or so; a larger value is an 8-bit one or an absolute luminance.
LABEL_LIMIT = 2.0
PREDICTION_LIMIT = 16.0
LARGEST = float(np.finfo(np.float32).max)
NOT_FLOATING = 'iubcOSU'  # kinds of NumPy types: integers, booleans, complex numbers, objects, texts


def checked_image(image: Array, name: str) -> np.ndarray:
    """The image as a NumPy array, float64 if it was and float32 otherwise, or a DataError.

    The rules: `[H, W, 3]`, at least one pixel, floating-point, finite in float32.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise DataError(
            f'A metric takes one image [H, W, 3], but the {name} has the shape {list(image.shape)}. Move '
            'the colours to the last axis; pass the images of a batch one by one (for HDR-VDP-2 call '
            'hdrvdp2_batch).'
        )
    if 0 in image.shape:
        raise DataError(f'The {name} has no pixels: its shape is {list(image.shape)}. Pass a whole image.')
    if image.dtype.kind in NOT_FLOATING:
        raise DataError(
            f'A metric takes floating-point images, but the {name} holds {image.dtype}. '
            'Divide stored integers by their largest value first.'
        )
    image = image if image.dtype == np.float64 else image.astype(np.float32, copy=False)
    if not (image.min() >= -LARGEST and image.max() <= LARGEST):  # NaN fails both
        bad = image.size - np.count_nonzero(np.abs(image) <= LARGEST)
        raise DataError(
            f'The {name} holds {bad} of {image.size} values that are NaN, infinite or too large for float32. '
            'Repair the file or the network that made it: no metric is defined there.'
        )
    return image


def checked_pair(
    prediction: Array, label: Array, names: Sequence[str] = NAMES
) -> tuple[np.ndarray, np.ndarray]:
    """Both images as `checked_image` gives them, or a DataError; they must have the same shape."""
    prediction, label = (checked_image(*pair) for pair in zip((prediction, label), names))
    if prediction.shape != label.shape:
        raise DataError(
            f'The {names[0]} and the {names[1]} must have the same shape, but are '
            f'{list(prediction.shape)} and {list(label.shape)}. Crop the padding off the prediction, or '
            'compare the right files.'
        )
    return prediction, label


def checked_label(
    prediction: Array, label: Array, names: Sequence[str] = NAMES
) -> tuple[np.ndarray, np.ndarray]:
    """The rules of `checked_pair`, and a ground truth without negative values that is not zero everywhere."""
    prediction, label = checked_pair(prediction, label, names)
    refuse_negative(label, names[1])
    if label.max() == 0:
        raise DataError(
            f'The {names[1]} is zero everywhere, so there is nothing to compare with. '
            'Check the file it came from.'
        )
    return prediction, label


def checked_unit_pair(prediction: Array, label: Array) -> tuple[np.ndarray, np.ndarray]:
    """The rules of `checked_label` and `refuse_absolute`."""
    prediction, label = checked_label(prediction, label)
    refuse_absolute(prediction, label)
    return prediction, label


def refuse_absolute(
    prediction: np.ndarray,
    label: np.ndarray,
    names: Sequence[str] = NAMES,
    scale: float = 1.0,
    cure: str = '',
) -> None:
    """A DataError for values that, times `scale`, are not near [0, 1].

    The limits are `LABEL_LIMIT` and `PREDICTION_LIMIT` in magnitude. The error ends with `cure`.
    """
    for image, name, limit in ((label, names[1], LABEL_LIMIT), (prediction, names[0], PREDICTION_LIMIT)):
        reached = scale * max(image.max(), image.min(), key=abs)
        if abs(reached) > limit:
            raise DataError(
                f'The metric takes values in [0, 1], but the {name} reaches {reached:g} (at most '
                f'{limit:g} is accepted), which looks like 8-bit values or cd/m2. Divide both images by the same '
                f'number, so that the {names[1]} lies in [0, 1]{cure}.'
            )


def refuse_negative(image: np.ndarray, name: str) -> None:
    """A DataError if radiance holds negative values, which no `.hdr` file can hold."""
    if image.min() < 0:
        raise DataError(
            f'Radiance cannot be negative, but the smallest value of the {name} is {image.min():g}. Pass '
            'the image itself, not a difference; clip a prediction at 0 first, as a .hdr file does.'
        )


def refuse_smaller(image: np.ndarray, side: int, reason: str = 'the size of its window') -> None:
    """A DataError if a side of `[H, W, ...]` has fewer pixels than the metric needs, for this reason."""
    if min(image.shape[:2]) < side:
        raise DataError(
            f'This metric needs at least {side}x{side} pixels, {reason}, but the images have '
            f'{image.shape[0]}x{image.shape[1]}. Use larger images.'
        )
