"""PSNR between two images, in NumPy.

Precision follows the release: the difference and its square in float32, the mean in float64.
"""

from typing import Any

import numpy as np

from afunet_jax.errors import DataError

Array = Any  # np.ndarray or jax.Array

PEAK = 1.0  # the largest value of an image


def _checked_image(image: Array, name: str) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise DataError(
            f'A metric takes one image [H, W, 3], but the {name} has the shape {list(image.shape)}. '
            'Pass the images of a batch one by one, and move the colours to the last axis.'
        )
    if 0 in image.shape:
        raise DataError(f'The {name} has no pixels: its shape is {list(image.shape)}.')
    if image.dtype.kind in 'iubcOSU':
        raise DataError(
            f'A metric takes floating-point images in [0, 1], but the {name} holds {image.dtype}. '
            'Divide stored integers by their largest value first.'
        )
    image = image.astype(np.float32, copy=False)
    bad = image.size - np.count_nonzero(np.isfinite(image))
    if bad:
        raise DataError(
            f'The {name} holds {bad} of {image.size} values that are NaN or infinite. '
            'Repair the file or the network that made it: no metric is defined there.'
        )
    return image


def checked_pair(prediction: Array, label: Array) -> tuple[np.ndarray, np.ndarray]:
    """Both images as float32 NumPy arrays, or a DataError that says which rule they break.

    The rules: `[H, W, 3]`, the same shape, floating-point, finite, at least one pixel.
    """
    prediction = _checked_image(prediction, 'prediction')
    label = _checked_image(label, 'label')
    if prediction.shape != label.shape:
        raise DataError(
            f'Prediction and label must have the same shape, but are {list(prediction.shape)} and '
            f'{list(label.shape)}. Crop the padding off the prediction, or compare the right files.'
        )
    return prediction, label


def psnr(prediction: Array, label: Array) -> float:
    """Peak signal-to-noise ratio in dB, `10 log10(1 / mse)` over pixels and channels.

    Args:
        prediction: `[H, W, 3]` in [0, 1], linear (PSNR-l) or `hdr.mu_law` of it (PSNR-mu); not clipped.
        label: the same of the ground truth.

    Returns:
        dB; infinity for equal images.

    Raises:
        DataError: another shape, different shapes, integers, or values that are not finite.
    """
    prediction, label = checked_pair(prediction, label)
    error = np.square(prediction - label).mean(dtype=np.float64)
    return float('inf') if error == 0 else float(10 * np.log10(PEAK**2 / error))
