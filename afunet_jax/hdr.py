"""Pixel mathematics: stored values, radiance, exposure, and the mu-law.

Every function takes NumPy or JAX arrays and returns the same kind, in float32.

Notation: an exposure of `ev` stops has the relative exposure time t = 2 ** ev. An LDR image holds
gamma-encoded values in [0, 1); its radiance is ldr ** 2.2 / t, linear and relative.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

Array = Any  # np.ndarray or jax.Array

GAMMA = 2.2  # of the LDR images of every benchmark
MU = 5000.0  # compression of the mu-law, Kalantari and Ramamoorthi 2017
LDR_SCALE = 65536.0  # 2 ** 16, not 65535: what the released weights expect
SATURATED = 65535 * 0.98  # a stored value above this counts as saturated
LEAST_WEIGHT = 1e-6  # of a merge, where no exposure is trusted


def _numpy_of(x: Array) -> ModuleType:
    return jax.numpy if isinstance(x, jax.Array) else np


def exposure_time(ev: Array) -> Array:
    """Relative exposure time `2 ** ev` of `ev` stops, float32."""
    xp = _numpy_of(ev)
    return xp.exp2(xp.asarray(ev, xp.float32)).astype(xp.float32)


def decode_ldr(stored: Array) -> Array:
    """Stored 16-bit values 0..65535 to gamma-encoded float32 in [0, 1)."""
    xp = _numpy_of(stored)
    return stored.astype(xp.float32) / xp.float32(LDR_SCALE)


def to_radiance(ldr: Array, time: Array, gamma: float = GAMMA) -> Array:
    """Gamma-encoded values in [0, 1] to linear radiance, `ldr ** gamma / (time + 1e-8)`.

    `time` is the relative exposure time, a scalar or an array that broadcasts against `ldr`. Power
    and division are in float32, as in the release: float64 differs by an ulp in thousands of pixels.
    """
    xp = _numpy_of(ldr)
    return ldr ** xp.float32(gamma) / (xp.asarray(time, xp.float32) + xp.float32(1e-8))


def from_radiance(radiance: Array, time: Array, gamma: float = GAMMA) -> Array:
    """Linear radiance to gamma-encoded values in [0, 1], clipped: the inverse of `to_radiance`."""
    xp = _numpy_of(radiance)
    exposed = xp.clip(radiance * xp.asarray(time, xp.float32), 0.0, 1.0)
    return exposed ** xp.float32(1.0 / gamma)


def network_input(ldrs: Array, evs: Array) -> Array:
    """The network's 18 channels from three exposures.

    Args:
        ldrs: gamma-encoded float32 images in [0, 1], `[3, H, W, 3]`, short to long.
        evs: exposures in stops, `[3]`, in the same order.

    Returns:
        `[H, W, 18]` float32: for each exposure its radiance (3 channels), then its LDR values (3).
    """
    xp = _numpy_of(ldrs)
    times = exposure_time(xp.asarray(evs))
    channels = []
    for i in range(3):
        channels += [to_radiance(ldrs[i], times[i]), ldrs[i]]
    return xp.concatenate(channels, axis=-1)


def weighted_merge(radiances: Sequence[Array], ldrs: Sequence[Array]) -> Array:
    """Weighted mean of three radiances, without alignment.

    Triangle weights on the LDR values, zero at 0 and 1 (after Debevec and Malik 1997); the short exposure
    keeps weight 1 in the lights and the long one in the shades, so that the weights never vanish together
    where nothing moves.

    Args:
        radiances: linear, of one scale, three arrays of one shape, short to long.
        ldrs: their gamma-encoded values in [0, 1].
    """
    xp = _numpy_of(ldrs[0])
    short, middle, long = (1 - xp.abs(2 * ldr - 1) for ldr in ldrs)
    weights = xp.where(ldrs[0] > 0.5, 1, short), middle, xp.where(ldrs[2] < 0.5, 1, long)
    total = sum(weight * radiance for weight, radiance in zip(weights, radiances, strict=True))
    return (total / xp.maximum(sum(weights), LEAST_WEIGHT)).astype(xp.float32)


def mu_law(x: Array, mu: float = MU) -> Array:
    """tau(x) = log(1 + mu x) / log(1 + mu), Eq. (17): linear [0, 1] to compressed [0, 1]."""
    xp = _numpy_of(x)
    return xp.log(1.0 + mu * x) / math.log(1.0 + mu)


def inverse_mu_law(y: Array, mu: float = MU) -> Array:
    """The inverse of `mu_law`: compressed [0, 1] to linear [0, 1]."""
    xp = _numpy_of(y)
    return xp.expm1(y * math.log(1.0 + mu)) / mu
