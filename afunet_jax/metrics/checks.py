"""The rules for pairs of images beyond those of `psnr`: what radiance in [0, 1] may hold."""

from typing import Any

import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.metrics.psnr import checked_pair

Array = Any  # np.ndarray or jax.Array

# Ground truths lie in [0, 1]. Predictions overshoot, and radiance merged from short exposures reaches
# 2 ** 3 or so; a larger value is an 8-bit one or an absolute luminance.
LABEL_LIMIT = 2.0
PREDICTION_LIMIT = 16.0


def checked_label(prediction: Array, label: Array) -> tuple[np.ndarray, np.ndarray]:
    """Both images as NumPy arrays in their own precision, or a DataError.

    The rules: those of `psnr`, and a ground truth that has no negative value and is not zero everywhere.
    """
    checked_pair(prediction, label)
    prediction, label = np.asarray(prediction), np.asarray(label)
    _refuse_negative(label, 'label')
    if label.max() == 0:
        raise DataError(
            'The label is zero everywhere, so there is nothing to compare with. Check the file it came from.'
        )
    return prediction, label


def checked_unit_pair(prediction: Array, label: Array) -> tuple[np.ndarray, np.ndarray]:
    """The rules of `checked_label`, and values near [0, 1]: at most `LABEL_LIMIT` and `PREDICTION_LIMIT`."""
    prediction, label = checked_label(prediction, label)
    for image, name, limit in ((label, 'label', LABEL_LIMIT), (prediction, 'prediction', PREDICTION_LIMIT)):
        if image.max() > limit:
            raise DataError(
                f'The metric takes values in [0, 1], but the {name} reaches {image.max():g} (at most '
                f'{limit:g} is accepted), which looks like 8-bit values or cd/m2. Divide both images by the '
                'same number, so that the label lies in [0, 1].'
            )
    return prediction, label


def refuse_negative_prediction(prediction: np.ndarray) -> None:
    """A DataError if a prediction holds negative values, which no `.hdr` file can hold."""
    _refuse_negative(prediction, 'prediction')


def refuse_smaller(image: np.ndarray, window: int) -> None:
    """A DataError if `[H, W, ...]` is smaller than a window of so many pixels."""
    if min(image.shape[:2]) < window:
        raise DataError(
            f'This SSIM needs at least {window}x{window} pixels, the size of its window, but the images have '
            f'{image.shape[0]}x{image.shape[1]}. Use larger images.'
        )


def _refuse_negative(image: np.ndarray, name: str) -> None:
    if image.min() < 0:
        raise DataError(
            f'Radiance cannot be negative, but the smallest value of the {name} is {image.min():g}. Pass '
            'the image itself, not a difference; clip a prediction at 0 first, as a .hdr file '
            'does.'
        )
