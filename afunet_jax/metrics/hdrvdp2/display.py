"""Display models: what light leaves the screen."""

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax.metrics.hdrvdp2.viewing import LUMINANCE, SRGB_DISPLAY

LUMINANCE_WEIGHTS = np.array([0.2126, 0.7152, 0.0722])  # of R, G, B with BT.709 primaries
SRGB_KNEE = 0.04045
SRGB_SLOPE, SRGB_OFFSET, SRGB_EXPONENT = 12.92, 0.055, 2.4
DISPLAY_RANGE = 99.0  # cd/m2 between black and white
DISPLAY_BLACK = 1.0  # cd/m2
DIFFERENCE_THRESHOLD = 0.001  # relative; below it a pixel counts as equal


def displayed(image: jax.Array, encoding: str) -> jax.Array:
    """Light of each channel in cd/m2, `[C, H, W]`, of an image `[H, W, 3]`.

    C is 1 for the encoding 'luminance', otherwise 3. Nothing is clipped.
    """
    if encoding == LUMINANCE:
        weights = LUMINANCE_WEIGHTS.astype(image.dtype)
        return sum(weights[c] * image[..., c] for c in range(3))[None]
    channels = jnp.moveaxis(image, -1, 0)
    return _srgb_display(channels) if encoding == SRGB_DISPLAY else channels


def _srgb_display(value: jax.Array) -> jax.Array:
    above = ((jnp.maximum(value, SRGB_KNEE) + SRGB_OFFSET) / (1 + SRGB_OFFSET)) ** SRGB_EXPONENT
    return DISPLAY_RANGE * jnp.where(value <= SRGB_KNEE, value / SRGB_SLOPE, above) + DISPLAY_BLACK


def difference_mask(test: jax.Array, reference: jax.Array) -> jax.Array:
    """1 where any channel of `[C, H, W]` differs by more than 0.1 % of the reference, else 0: `[H, W]`.

    Where the reference is 0 any difference counts, and where it is negative none.
    """
    difference = jnp.abs(test - reference)
    ratio = difference / jnp.where(reference > 0, reference, 1)
    at_zero = (reference == 0) & (difference > 0)
    differs = jnp.where(reference > 0, ratio > DIFFERENCE_THRESHOLD, at_zero)
    return differs.any(0).astype(test.dtype)
