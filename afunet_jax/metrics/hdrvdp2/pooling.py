"""From visible differences of every band to the quality Q and to the map of detection probabilities."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# The re-calibration of HDR-VDP-2.2: frequencies in cycles per degree, and a band's weight there.
Q_FREQUENCIES = np.array([60, 30, 15, 7.5, 3.75, 1.875, 0.9375, 0.4688, 0.2344, 0.1172])
Q_WEIGHTS = np.array([0, 0.2832, 0.2832, 0.2142, 0.2690, 0.0398, 0.0003, 0.0003, 0, 0])
Q_EPSILON = 1e-12
Q_BEST = 100.0
MAP_EPSILON = 1e-12


def band_errors(units: Sequence[jax.Array], masks: Sequence[jax.Array]) -> list[jax.Array]:
    """Error of each band `[O]`: root of the sum of squares, over the pixels.

    Args:
        units: `masking.threshold_units`.
        masks: the difference mask at the size of each band, `[h, w]`.
    """
    errors = []
    for band, mask in zip(units, masks):
        pixels = band.shape[1] * band.shape[2]
        errors.append(jnp.sqrt(jnp.square(band * mask[None]).sum((1, 2))) / pixels)
    return errors


def quality(errors: Sequence[np.ndarray], band_frequency: np.ndarray) -> float:
    """Q: 100 for equal images, without a lower bound."""
    clamped = np.clip(band_frequency, Q_FREQUENCIES[-1], Q_FREQUENCIES[0])
    weights = np.interp(clamped, Q_FREQUENCIES[::-1], Q_WEIGHTS[::-1])
    visible = [np.log1p(np.asarray(error, np.float64) / Q_EPSILON).sum() for error in errors]
    return float(Q_BEST - np.dot(weights, visible))


def detection_map(reconstruction: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Probability of detection at each pixel `[H, W]`, and the largest visible contrast in thresholds."""
    magnitude = jnp.abs(reconstruction)
    contrast = magnitude * (magnitude.sum() / (magnitude.max() + MAP_EPSILON))
    return -jnp.expm1(np.log(0.5).item() * contrast), contrast.max()
