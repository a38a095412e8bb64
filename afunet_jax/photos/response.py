"""Tone curves: what a stored value says about the light that fell on the sensor.

A curve maps whole stored values to linear values, 0 to 1 at full scale. The network was trained on frames encoded
with gamma 2.2 in 16 bits; `encode` brings every frame there, and what was clipped stays clipped.

Defaults by type of file: camera raw, `.exr`, `.hdr` and TIFFs of floats are linear. JPEG, HEIC and 8-bit PNG and
TIFF are made for display: sRGB, as their standards say. Cameras add contrast to it: where the steps of a bracket do
not fit sRGB, `estimate_response` measures the camera's own curve. 16-bit TIFF and PNG: the curve of their ICC
profile, and gamma 2.2 without one, as the benchmarks are.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from scipy import optimize

from afunet_jax import hdr
from afunet_jax.errors import DataError

LINEAR, GAMMA, SRGB = 'linear', 'gamma2.2', 'srgb'
AUTO, ESTIMATE = 'auto', 'estimate'
NAMED = LINEAR, GAMMA, SRGB
CHOICES = AUTO, ESTIMATE, *NAMED

FULL_SCALE_16 = 65535
ROWS_AT_ONCE = 256  # of float images, to keep temporaries small

SRGB_THRESHOLD, SRGB_SLOPE, SRGB_OFFSET, SRGB_POWER = 0.04045, 12.92, 0.055, 2.4  # IEC 61966-2-1

SAMPLE_SIDE = 640  # longest side of the images that samples are taken from
FLAT_SIDE = 5  # pixels; a sample's neighbourhood must be flat
SAMPLE_LEVELS = 32  # samples are spread over so many levels of brightness
SAMPLES_A_LEVEL = 128
FEWEST_SAMPLES = 49
MEASURED = 3, 252  # stored values that count: beyond them noise and clipping decide
STYLE_TERMS = 5  # of the polynomial by which a camera's curve differs from sRGB
STYLE_PRIOR = 0.5  # standard deviation of each, where the photos do not say
VALUE_ERROR = 1.0  # standard deviation of a stored value: rounding, noise, compression
LOG_ERROR = 0.03  # of the logarithm of light: what is not the same in two frames


@dataclasses.dataclass(frozen=True)
class ToneCurve:
    """Stored whole values to linear ones.

    Attributes:
        name: 'linear', 'gamma2.2', 'srgb', 'estimated', or 'ICC profile'.
        table: `[levels, 1]` or `[levels, 3]` float64, rising from 0 to 1; 256 or 65536 levels.
    """

    name: str
    table: np.ndarray

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Stored `[..., 3]` uint8 or uint16 to linear float32, 1 at full scale."""
        return self._look_up(self.table.astype(np.float32), values)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Stored `[..., 3]` to gamma 2.2 in 16 bits; full scale becomes 65535, gamma 2.2 stays as it is."""
        return self._look_up(encode_linear(self.table), values)

    def _look_up(self, table: np.ndarray, values: np.ndarray) -> np.ndarray:
        if table.shape[1] == 1:
            return table[:, 0][values]
        return np.stack([table[:, i][values[..., i]] for i in range(3)], axis=-1)


def encode_linear(linear: np.ndarray) -> np.ndarray:
    """Linear values, 1 at full scale, to gamma 2.2 in uint16; clipped to 0..65535."""
    return np.rint(FULL_SCALE_16 * np.clip(linear, 0, 1) ** (1 / hdr.GAMMA)).astype(np.uint16)


def encode_image(linear: np.ndarray, full_scale: float = 1.0) -> np.ndarray:
    """`encode_linear` of `[H, W, 3]` float32 over its full scale, some rows at a time."""
    out = np.empty(linear.shape, np.uint16)
    for row in range(0, len(linear), ROWS_AT_ONCE):
        out[row:row + ROWS_AT_ONCE] = encode_linear(linear[row:row + ROWS_AT_ONCE] / full_scale)
    return out


def decode_16(encoded: np.ndarray) -> np.ndarray:
    """The inverse of `encode_linear`: uint16 of gamma 2.2 to linear float32, 1 at full scale."""
    return tone_curve(GAMMA, 16).decode(encoded)


def srgb_to_linear(encoded: np.ndarray) -> np.ndarray:
    """The sRGB curve, 0..1 to 0..1 (IEC 61966-2-1)."""
    power = ((encoded + SRGB_OFFSET) / (1 + SRGB_OFFSET)) ** SRGB_POWER
    return np.where(encoded <= SRGB_THRESHOLD, encoded / SRGB_SLOPE, power)


@functools.lru_cache
def tone_curve(name: str, bits: int) -> ToneCurve:
    """A named curve for 8 or 16 bits.

    Raises:
        DataError: not a name of `NAMED`.
    """
    check_choice(name, NAMED)
    encoded = np.linspace(0, 1, 2**bits)
    table = {LINEAR: lambda x: x, GAMMA: lambda x: x**hdr.GAMMA, SRGB: srgb_to_linear}[name](encoded)
    return ToneCurve(name, table[:, None])


def check_choice(name: str, choices: Sequence[str] = CHOICES) -> None:
    """Raises a `DataError` if a curve's name is none of the choices."""
    if name not in choices:
        raise DataError(f'A tone curve is one of {", ".join(choices)}, not {name!r}.')


def default_curve(kind: str, bits: int) -> str:
    """The curve of a type of file that says nothing itself: see the module's docstring.

    Args:
        kind: of `decoders.KINDS`.
        bits: a stored value has: 8, 16, or 32 for floats.
    """
    if bits == 32 or kind == 'raw':
        return LINEAR
    return SRGB if bits == 8 or kind == 'heif' else GAMMA


# ---- estimated from a bracket -----------------------------------------------------------------------


def estimate_response(images: Sequence[np.ndarray], evs: Sequence[float]) -> ToneCurve:
    """A camera's response from a bracket, in the way of Debevec and Malik, SIGGRAPH 1997, Eq. (2).

    Where a place holds the values i and j in two frames, log L(j) - log L(i) is the logarithm of the ratio of their
    exposures. Their L is free at every value and smooth; here it is sRGB whose slope d log L / d log z is multiplied by
    exp(a polynomial of z), which rises always and has so few unknowns that noise, compression and motion, whose
    equations Cauchy's loss leaves out, do not bend it. The three channels have one curve, so that greys stay grey.

    Args:
        images: `[H, W, 3]` uint8 each, two or more, of one scene, in any order.
        evs: their exposures in stops.

    Returns:
        A curve of 256 levels, 1 at 255.

    Raises:
        DataError: not 8 bits, or too few places to measure at.
    """
    if any(image.dtype != np.uint8 for image in images):
        raise DataError('A tone curve is estimated from 8-bit frames only; 16-bit and raw frames have a known one. '
                        'Choose curve=auto, or one of ' + ', '.join(NAMED) + '.')
    order = np.argsort(evs)
    samples = _flat_samples([_shrunk(images[i]) for i in order])
    darker, brighter, stops = _pairs(samples, np.asarray(evs, np.float64)[order])
    slope = np.gradient(_style_logs(np.zeros(STYLE_TERMS)))
    error = np.sqrt(VALUE_ERROR**2 * (slope[darker - 1] ** 2 + slope[brighter - 1] ** 2) + LOG_ERROR**2)

    def residuals(style: np.ndarray) -> np.ndarray:
        logs = _style_logs(style)
        off = logs[brighter - 1] - logs[darker - 1] - stops * np.log(2)
        return np.concatenate([off / error, style / STYLE_PRIOR])

    found = optimize.least_squares(residuals, np.zeros(STYLE_TERMS), loss='cauchy')
    return ToneCurve('estimated', np.concatenate([[0.0], np.exp(_style_logs(found.x))])[:, None])


def _style_logs(style: np.ndarray) -> np.ndarray:
    """Logarithms of the linear values of the stored ones from 1 to 255, rising to 0."""
    stored = np.arange(1, 256) / 255
    base = np.gradient(np.log(srgb_to_linear(stored)), np.log(stored))
    slope = base * np.exp(np.polynomial.chebyshev.chebval(2 * stored - 1, style))
    logs = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(np.log(stored)))])
    return logs - logs[-1]


def _pairs(samples: list[np.ndarray], evs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of the same places and channels in two frames that both hold them, and the stops between the frames.

    Raises:
        DataError: too few.
    """
    found = []
    for i, j in itertools.combinations(range(len(evs)), 2):
        both = (samples[i] > 0) & (samples[i] < samples[j])
        found.append((samples[i][both], samples[j][both], np.full(both.sum(), evs[j] - evs[i])))
    darker, brighter, stops = map(np.concatenate, zip(*found))
    if len(stops) < FEWEST_SAMPLES:
        raise DataError(f'A tone curve cannot be estimated: only {len(stops)} values of flat places are well exposed '
                        f'in two frames, {FEWEST_SAMPLES} are needed. Choose a curve.')
    return darker.astype(int), brighter.astype(int), stops


def _shrunk(image: np.ndarray) -> np.ndarray:
    step = max(1, -(-max(image.shape[:2]) // SAMPLE_SIDE))
    return cv2.resize(image, (max(1, image.shape[1] // step), max(1, image.shape[0] // step)),
                      interpolation=cv2.INTER_AREA)  # fmt: skip


def _flat_samples(images: list[np.ndarray]) -> list[np.ndarray]:
    """Each image's values at the same flat places, `[n, 3]`, spread over all levels.

    They are means of the neighbourhoods, against noise and compression; 0 where a value there is not within `MEASURED`.
    """
    kernel = np.ones((FLAT_SIDE, FLAT_SIDE), np.uint8)
    values, greens = [], np.stack([image[..., 1].astype(np.float32) for image in images])
    spread = np.zeros(greens.shape[1:], np.float32)
    for image in images:
        least, most = cv2.erode(image, kernel), cv2.dilate(image, kernel)
        held = (least >= MEASURED[0]) & (most <= MEASURED[1])
        values.append(np.where(held, cv2.blur(image, (FLAT_SIDE, FLAT_SIDE)), 0))
        spread = np.maximum(spread, most[..., 1].astype(np.float32) - least[..., 1])
    rising = (np.diff(greens, axis=0) >= 0).all(0) & (greens[-1] > greens[0])
    level = np.argsort(np.argsort(greens.mean(0), axis=None)).reshape(spread.shape) * SAMPLE_LEVELS // spread.size
    chosen = []
    for one in range(SAMPLE_LEVELS):
        places = np.flatnonzero(rising & (level == one))
        chosen.extend(places[np.argsort(spread.flat[places], kind='stable')][:SAMPLES_A_LEVEL])
    if len(chosen) < FEWEST_SAMPLES:
        raise DataError(f'A tone curve cannot be estimated: only {len(chosen)} places grow brighter with the exposure, '
                        f'{FEWEST_SAMPLES} are needed. Check the order of the exposures, or choose a curve.')
    return [one.reshape(-1, 3)[chosen] for one in values]
