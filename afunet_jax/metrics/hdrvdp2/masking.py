"""Visual masking: differences between bands in units of their detection threshold.

Notation: nu = 2 ** (b - 1), the pyramid's gain at band b; S the neural sensitivity, 1 / N of the original;
m the mutual mask. Numerator and denominator carry S ** p, so that float32 does not overflow.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from afunet_jax.metrics.hdrvdp2.resizing import AxisWeights, resize

P = 10**0.544068  # exponent of the difference
Q = 10**0.49576  # exponent of the mask
K_SELF = 10**0.189065
K_ORIENTATIONS = 10**0.449199  # k_xo
K_BANDS = 10**1.52512  # k_xn
PSYCHOMETRIC_SLOPE = 3.5
BOX = 3  # side of the mean that smooths the mask, pixels


class Sizes(NamedTuple):
    """Weights of `resize`: from band b to b + 1; from band b + 1 to b."""

    to_coarser: Sequence[Sequence[AxisWeights]]
    to_finer: Sequence[Sequence[AxisWeights]]


def signed_power(x: jax.Array, exponent: float) -> jax.Array:
    """sign(x) |x| ** exponent."""
    return jnp.sign(x) * jnp.abs(x) ** exponent


def mutual_mask(test: jax.Array, reference: jax.Array) -> jax.Array:
    """3x3 mean of the smaller magnitude of two bands `[O, h, w]`; zeros count beyond the border."""
    smaller = jnp.pad(jnp.minimum(jnp.abs(test), jnp.abs(reference)), ((0, 0), (1, 1), (1, 1)))
    height, width = test.shape[1:]
    rows = sum(smaller[:, i : i + height] for i in range(BOX))
    return sum(rows[:, :, i : i + width] for i in range(BOX)) / BOX**2


def _from_neighbours(masks: Sequence[jax.Array], index: int, sizes: Sizes) -> jax.Array:
    """m_xn `[O, h, w]`, or `[1, h, w]` where a neighbour has one band."""
    orientations, nu = masks[index].shape[0], 2.0**index
    total = jnp.zeros((1, *masks[index].shape[1:]), masks[index].dtype)
    if index > 0:
        finer = resize(masks[index - 1][:orientations], sizes.to_coarser[index - 1])
        total = total + jnp.maximum(finer, 0) / (nu / 2)
    if index < len(masks) - 2:  # the base band is nobody's neighbour
        coarser = resize(masks[index + 1][:orientations], sizes.to_finer[index])
        total = total + jnp.maximum(coarser, 0) / (2 * nu)
    return total


def threshold_units(
    differences: Sequence[jax.Array],
    masks: Sequence[jax.Array],
    sensitivities: Sequence[jax.Array],
    sizes: Sizes,
) -> list[jax.Array]:
    """D of every band, `[O, h, w]`: 1 is a difference at the threshold of detection.

    Args:
        differences: test minus reference, the bands of the pyramid.
        masks: `mutual_mask` of the same bands.
        sensitivities: S at every pixel of each band but the base, `[h, w]`; there S = 1.
        sizes: resize weights between the bands' sizes.
    """
    base = jnp.ones_like(differences[-1][0])
    return [
        _normalised(difference, masks[index], _from_neighbours(masks, index, sizes), s[None], 2.0**index)
        for index, (difference, s) in enumerate(zip(differences, [*sensitivities, base]))
    ]


def _normalised(
    difference: jax.Array, own: jax.Array, neighbours: jax.Array, sensitivity: jax.Array, nu: float
) -> jax.Array:
    others = jnp.maximum(own.sum(0, keepdims=True) - own, 0)
    mask = nu * (
        K_SELF * (own * sensitivity / nu) ** Q
        + K_ORIENTATIONS * (others * sensitivity / nu) ** Q
        + K_BANDS * (neighbours * sensitivity) ** Q
    )
    excitation = nu * signed_power(difference * sensitivity / nu, P)
    return excitation / jnp.sqrt(1 + jnp.square(sensitivity**P * mask))


def detection_units(units: Sequence[jax.Array]) -> list[jax.Array]:
    """The bands that the map is reconstructed from: D with the slope of the psychometric function."""
    slope = PSYCHOMETRIC_SLOPE / P
    return [2.0**index * signed_power(band / 2.0**index, slope) for index, band in enumerate(units)]
