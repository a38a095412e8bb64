"""From radiance frames to a bracket: exposure, noise, gamma and quantisation."""

import dataclasses
import math

import numpy as np

from afunet_jax import hdr

STORED_MAX = 65535  # of a 16-bit file
SATURATED_SHARE = (
    0.125,
    0.28,
)  # of the middle exposure's pixels, any channel; with noise it stays in 10 to 30 %
TYPICAL_SHARE = 0.19  # fewer saturate only where more would clip the label
CLIPPED_SHARE = 0.025  # at most this share of the label should be above 1, where SATURATED_SHARE allows it


@dataclasses.dataclass(frozen=True)
class Noise:
    """A sensor's noise.

    Attributes:
        full_well: electrons at radiance * time = 1; the shot noise of n electrons is sqrt(n).
        read: read noise, electrons (standard deviation).
    """

    full_well: float = 30000.0
    read: float = 4.0


NOISELESS = Noise(full_well=math.inf, read=0.0)


def brightness(rng, frame: np.ndarray, middle_time: float) -> float:
    """The factor for a scene's radiance that saturates a realistic share of the middle exposure.

    Args:
        rng: draws the wanted share.
        frame: radiance of the middle exposure, `[H, W, 3]`.
        middle_time: its relative exposure time.

    Returns:
        The factor: 12.5 to 28 % of the pixels saturate, fewer rather than more where the short
        exposure would lose highlights too.
    """
    peak = frame.max(-1)
    low, high = SATURATED_SHARE
    wanted = rng.uniform(TYPICAL_SHARE, high)
    limit = (hdr.SATURATED / STORED_MAX) ** hdr.GAMMA / middle_time
    few, many, top = np.quantile(peak, [1 - low, 1 - wanted, 1 - CLIPPED_SHARE])
    return float(max(min(limit / many, 1.0 / top), limit / few))


def _srgb(linear: np.ndarray) -> np.ndarray:
    """The tone curve of IEC 61966-2-1: linear [0, 1] to encoded [0, 1]."""
    curve = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(linear <= np.float32(0.0031308), np.float32(12.92) * linear, curve)


CURVES = {'gamma': lambda linear: hdr.from_radiance(linear, 1.0), 'srgb': lambda x: _srgb(np.clip(x, 0, 1))}
BITS = (8, 16)


def expose(
    rng, radiance: np.ndarray, time: float, noise: Noise, bits: int = 16, curve: str = 'gamma'
) -> np.ndarray:
    """A stored exposure: `radiance * time`, shot and read noise, clipping, tone curve, quantisation.

    Args:
        rng: draws the noise.
        radiance: float32 `[H, W, 3]`.
        time: relative exposure time.
        noise: of the sensor; the shot noise is normal with the variance of a Poisson variable.
        bits: one of `BITS`; 8-bit values are spread over 16 bits as `257 v`.
        curve: a name in `CURVES`: 'gamma' is 2.2.

    Returns:
        uint16 `[H, W, 3]`.
    """
    signal = np.minimum(radiance * np.float32(time), np.float32(1))
    if noise != NOISELESS:
        variance = signal / np.float32(noise.full_well) + np.float32((noise.read / noise.full_well) ** 2)
        signal = signal + np.sqrt(variance) * rng.standard_normal(signal.shape, np.float32)
    largest = 2**bits - 1
    return np.round(CURVES[curve](signal) * largest).astype(np.uint16) * np.uint16(STORED_MAX // largest)
