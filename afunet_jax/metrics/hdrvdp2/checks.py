"""What HDR-VDP-2 asks of a pair of images, beyond the rules of all metrics."""

from typing import Any

import numpy as np

from afunet_jax.metrics.checks import checked_label, refuse_absolute, refuse_smaller
from afunet_jax.metrics.hdrvdp2.pyramid import SMALLEST_SIDE
from afunet_jax.metrics.hdrvdp2.viewing import SRGB_DISPLAY, Viewing

Array = Any  # np.ndarray or jax.Array

NAMES = 'prediction', 'ground truth'


def checked_pair(prediction: Array, ground_truth: Array, viewing: Viewing) -> tuple[np.ndarray, np.ndarray]:
    """Both images as float32 or float64 NumPy arrays, or a DataError that says which rule they break.

    The rules: `[H, W, 3]`, equal shapes, sides of at least `SMALLEST_SIDE`, floating point, finite; a
    ground truth without negative values and not black; for an sRGB display values near [0, 1]. A
    prediction may be negative: the display model continues below 0, as in the original.
    """
    prediction, ground_truth = checked_label(prediction, ground_truth, NAMES)
    refuse_smaller(ground_truth, SMALLEST_SIDE, 'for its pyramid')
    if viewing.encoding == SRGB_DISPLAY:
        cure = ', or choose the preset bt709-1000'
        refuse_absolute(prediction, ground_truth, NAMES, viewing.scale, cure)
    return prediction, ground_truth
