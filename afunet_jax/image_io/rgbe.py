"""RGBE, the four bytes of a Radiance pixel: three mantissas and the exponent that they share."""

import numpy as np

from afunet_jax.errors import DataError

RGBE_BIAS = 136  # a stored exponent e scales the mantissas by 2 ** (e - 136): 128, and 8 bits of mantissa
RGBE_LARGEST = 255.0 * 2.0 ** (255 - RGBE_BIAS)  # the largest value that RGBE holds
_EXPONENT_SCALES = np.ldexp(np.ones(256, np.float32), np.arange(256) - RGBE_BIAS)
_EXPONENT_SCALES[0] = 0.0  # e = 0 is black


def from_rgbe(rgbe: np.ndarray) -> np.ndarray:
    """RGBE bytes to linear values, `mantissa * 2 ** (e - 136)`; e = 0 is black.

    Args:
        rgbe: `[..., 4]` uint8.

    Returns:
        `[..., 3]` float32, exact.
    """
    return rgbe[..., :3] * _EXPONENT_SCALES[rgbe[..., 3:]]


def to_rgbe(image: np.ndarray) -> np.ndarray:
    """Linear values to the nearest RGBE bytes; the inverse of `from_rgbe`, exact for all it returns.

    The relative error is at most 1/256 of the pixel's largest channel.

    Args:
        image: `[..., 3]` float32, finite, 0 to `RGBE_LARGEST`.

    Returns:
        `[..., 4]` uint8.

    Raises:
        DataError: negative, NaN or infinite values, or values too large for RGBE.
    """
    largest = image.max(axis=-1)
    if not (image.min(initial=0.0) >= 0.0 and largest.max(initial=0.0) <= RGBE_LARGEST):
        raise DataError(f'RGBE holds values from 0 to {RGBE_LARGEST:.3g}, the image has values outside '
                        f'(smallest {image.min()}, largest {image.max()}). Clip them first.')
    exponent = np.frexp(largest)[1]  # largest < 2 ** exponent
    # A largest channel that rounds to 256 / 256 needs the next exponent.
    exponent += np.rint(np.ldexp(largest, 8 - exponent)) > 255
    exponent = np.maximum(exponent, 1 - (RGBE_BIAS - 8))  # the smallest stored exponent is 1
    rgbe = np.empty((*image.shape[:-1], 4), np.uint8)
    rgbe[..., :3] = np.rint(np.ldexp(image, (8 - exponent)[..., None]))
    rgbe[..., 3] = np.where(rgbe[..., :3].any(axis=-1), exponent + (RGBE_BIAS - 8), 0)
    return rgbe
