"""The neural contrast sensitivity function: how sensitive vision is to a frequency at a luminance."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax.metrics.hdrvdp2.optics import frequencies, surrounded_filter
from afunet_jax.metrics.hdrvdp2.receptors import LOG_RANGE

Array = Any  # np.ndarray or jax.Array

TABLE_SAMPLES = 256
CORNER_FREQUENCY = 7.0  # cycles per degree
# Columns: adapting luminance in cd/m2, a1, a2, a3, a4; the table of HDR-VDP-2.2.1.
NCSF = np.array(
    [
        [0.002, 0.991265, 3.74038, 0.50722, 4.46044],
        [0.02, 0.800889, 3.54104, 0.682505, 4.94958],
        [0.2, 0.476505, 4.37453, 0.750315, 5.28678],
        [2.0, 0.405782, 4.40602, 0.935314, 5.61425],
        [20.0, 0.334278, 3.79542, 1.07327, 6.4635],
        [150.0, 0.394533, 2.7755, 1.16577, 7.45665],
    ]
)


def neural_csf(rho: Array, log_luminance: Array, xp: ModuleType = np) -> Array:
    """Sensitivity at `rho` cycles per degree and log10 adapting luminance; 0 at `rho` = 0.

    Beyond the table's luminances the nearest one holds. `xp` is NumPy or `jax.numpy`.
    """
    known = np.log10(NCSF[:, 0])
    a1, a2, a3, a4 = (xp.interp(log_luminance, known, column) for column in NCSF[:, 1:].T)
    rise = -xp.expm1(-((rho / CORNER_FREQUENCY) ** 2))
    return a4 * xp.sqrt(rise**a3 / (1 + (a1 * rho) ** a2))


def sensitivity_tables(band_frequency: np.ndarray) -> np.ndarray:
    """Sensitivity of each band over `TABLE_SAMPLES` equal steps of log10 luminance, `[B, samples]`."""
    log_luminance = np.linspace(*LOG_RANGE, TABLE_SAMPLES)
    return np.stack([neural_csf(frequency, log_luminance) for frequency in band_frequency])


def filter_base_band(
    base: jax.Array, luminance: jax.Array, frequency: jax.Array, surround: jax.Array
) -> jax.Array:
    """The base band `[h, w]` as vision passes it; its mean is lost, because sensitivity to it is 0.

    Args:
        base: base band of the pyramid.
        luminance: mean adapting luminance of its image, cd/m2, a scalar.
        frequency: of the base band, cycles per degree, a scalar.
        surround: the value around it.
    """
    rho = frequencies(*base.shape, 2 * np.sqrt(2).item() * frequency)
    transfer = neural_csf(rho, jnp.log10(luminance), jnp)
    return surrounded_filter(base, transfer, surround)
