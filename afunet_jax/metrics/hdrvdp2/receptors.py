"""Cones and rods: from light on the retina to the achromatic response."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax.metrics.hdrvdp2.stored import load_table
from afunet_jax.metrics.hdrvdp2.viewing import LUMINANCE

SENSITIVITY_CORRECTION = 0.006894596 / 10**-2.4
LOG_RANGE = (-5.0, 5.0)  # log10 cd/m2 that the look-up tables cover
RESPONSE_SAMPLES = 2048
JOINT = (30.162, 4.0627, 1.6596, 0.2712)  # p1..p4: peak, semi-saturation, slopes of cones and rods together
ROD = (1.1732, 1.1478, 1.2167, 0.5547, 2.9899, 1.1414)  # r1..r6
LEAST_CONE_SENSITIVITY = 1e-3
L, M, S, RODS = range(4)  # columns of the receptor tables


class Responses(NamedTuple):
    """Look-up tables over `RESPONSE_SAMPLES` equal steps of log10 luminance in `LOG_RANGE`."""

    cones: np.ndarray
    rods: np.ndarray


def receptor_matrix(encoding: str) -> np.ndarray:
    """Share of each channel's light that L cones, M cones and rods take up, `[C, 3]`."""
    name = 'M_d65.csv' if encoding == LUMINANCE else 'M_ccfl-lcd.csv'
    return load_table(name)[:, [L, M, RODS]]


def joint_sensitivity(luminance: np.ndarray) -> np.ndarray:
    """Contrast sensitivity of cones and rods together at an adapting luminance, cd/m2."""
    p1, p2, p3, p4 = JOINT
    return p1 * ((p2 / luminance) ** p3 + 1) ** -p4


def rod_sensitivity(luminance: np.ndarray) -> np.ndarray:
    """Contrast sensitivity of the rods alone at an adapting luminance, cd/m2."""
    r1, r2, r3, r4, r5, r6 = ROD
    distance = np.abs(np.log10(luminance / r1))
    return 10**r6 * np.where(luminance > r1, np.exp(-(distance**r5) / r4), np.exp(-(distance**r3) / r2))


def _cone_sensitivity(luminance: np.ndarray) -> np.ndarray:
    both = np.maximum(joint_sensitivity(luminance) - rod_sensitivity(luminance), LEAST_CONE_SENSITIVITY)
    return np.interp(np.minimum(2 * luminance, luminance[-1]), luminance, both) / 2


@functools.cache
def response_tables() -> Responses:
    """Responses in just noticeable differences: the integral of sensitivity over the log of luminance."""
    log_luminance = np.linspace(*LOG_RANGE, RESPONSE_SAMPLES)
    luminance = 10**log_luminance
    tables = []
    for sensitivity in (_cone_sensitivity(luminance), rod_sensitivity(luminance)):
        slope = sensitivity * np.log(10)
        steps = (slope[1:] + slope[:-1]) / 2 * np.diff(log_luminance)
        tables.append(SENSITIVITY_CORRECTION * np.concatenate([[0.0], np.cumsum(steps)]))
    return Responses(*tables)


def log_luminance(luminance: jax.Array) -> jax.Array:
    """log10, limited to `LOG_RANGE`."""
    low, high = LOG_RANGE
    return jnp.log10(jnp.clip(luminance, 10**low, 10**high))


def look_up(table: jax.Array, log_value: jax.Array) -> jax.Array:
    """Linear interpolation of a table whose samples are equally spaced over `LOG_RANGE`."""
    low, high = LOG_RANGE
    last = table.shape[0] - 1
    position = jnp.clip((log_value - low) * (last / (high - low)), 0, last)
    below = jnp.minimum(position.astype(jnp.int32), last - 1)
    return table[below] + (table[below + 1] - table[below]) * (position - below)


def achromatic_response(
    retinal: jax.Array, matrix: jax.Array, responses: Responses
) -> tuple[jax.Array, jax.Array]:
    """Achromatic response and adapting luminance, each `[H, W]`, of a retinal image `[C, H, W]`.

    Args:
        retinal: cd/m2.
        matrix: `receptor_matrix`.
        responses: `response_tables`.
    """
    absorbed = [sum(matrix[c, k] * light for c, light in enumerate(retinal)) for k in range(3)]
    l_cones, m_cones, rods = absorbed
    of_cones = sum(look_up(responses.cones, log_luminance(k)) for k in (l_cones, m_cones))
    of_rods = look_up(responses.rods, log_luminance(rods))
    response = (of_cones - of_cones.mean()) + (of_rods - of_rods.mean())
    return response, l_cones + m_cones
