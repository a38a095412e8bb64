"""Tone curves: what a stored value says about the light that fell on the sensor.

A curve maps whole stored values to linear values, 0 to 1 at full scale. The network was trained on frames encoded
with gamma 2.2 in 16 bits; `encode` brings every frame there, and what was clipped stays clipped.

Defaults by type of file: camera raw, `.exr`, `.hdr` and TIFFs of floats are linear. JPEG, HEIC and 8-bit PNG and
TIFF are made for display: sRGB, as their standards say; cameras add contrast to it, which `estimate_response`
measures. 16-bit TIFF and PNG: the curve of their ICC profile, and gamma 2.2 without one, as the benchmarks are.
"""

import dataclasses
import functools
from collections.abc import Sequence

import cv2
import numpy as np

from afunet_jax import hdr
from afunet_jax.errors import DataError

LINEAR, GAMMA, SRGB = 'linear', 'gamma2.2', 'srgb'
AUTO, ESTIMATE = 'auto', 'estimate'
NAMED = LINEAR, GAMMA, SRGB
CHOICES = AUTO, ESTIMATE, *NAMED

FULL_SCALE_16 = 65535
ROWS_AT_ONCE = 256  # of float images, to keep temporaries small

SRGB_THRESHOLD, SRGB_SLOPE, SRGB_OFFSET, SRGB_POWER = 0.04045, 12.92, 0.055, 2.4  # IEC 61966-2-1

SAMPLES_SIDE = 14  # 14 * 14 places are given to Debevec and Malik's method
SMOOTHNESS = 30.0  # lambda of their Eq. (3)
SAMPLE_SIDE = 640  # longest side of the images that samples are taken from
FLAT_SIDE = 5  # pixels; a sample's neighbourhood must be flat
SAMPLE_LEVELS = 32  # samples are spread over so many levels of brightness
FEWEST_SAMPLES = 49
RESPONSE_ENDS = 3, 252  # beyond them noise and clipping decide: the curve goes on straight, in log and linearly


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
        kind: of `frames.KINDS`.
        bits: a stored value has: 8, 16, or 32 for floats.
    """
    if bits == 32 or kind == 'raw':
        return LINEAR
    return SRGB if bits == 8 or kind == 'heif' else GAMMA


# ---- estimated from a bracket -----------------------------------------------------------------------


def estimate_response(images: Sequence[np.ndarray], evs: Sequence[float]) -> ToneCurve:
    """A camera's response from a bracket, after Debevec and Malik, SIGGRAPH 1997, through OpenCV.

    Their method gets samples from flat places that grow brighter from frame to frame, spread over all levels; one
    curve is taken for the three channels (their geometric mean), so that greys stay grey.

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
    times = np.exp2(np.asarray(evs, np.float64)[order] - np.mean(evs)).astype(np.float32)
    calibrate = cv2.createCalibrateDebevec(SAMPLES_SIDE**2, SMOOTHNESS, False)
    response = calibrate.process(samples, times).reshape(256, 3)
    logs = np.log(np.maximum(response.astype(np.float64), np.finfo(np.float32).tiny)).mean(1)
    return ToneCurve('estimated', _tidied(logs)[:, None])


def _shrunk(image: np.ndarray) -> np.ndarray:
    step = max(1, -(-max(image.shape[:2]) // SAMPLE_SIDE))
    return cv2.resize(image, (max(1, image.shape[1] // step), max(1, image.shape[0] // step)),
                      interpolation=cv2.INTER_AREA)  # fmt: skip


def _flat_samples(images: list[np.ndarray]) -> list[np.ndarray]:
    """Each image's values at the same flat places, as images of which OpenCV takes every pixel."""
    greens = np.stack([image[..., 1].astype(np.float32) for image in images])
    spread = np.zeros(greens.shape[1:], np.float32)
    kernel = np.ones((FLAT_SIDE, FLAT_SIDE), np.uint8)
    for green in greens:
        spread = np.maximum(spread, cv2.dilate(green, kernel) - cv2.erode(green, kernel))
    rising = (np.diff(greens, axis=0) >= 0).all(0) & (greens[-1] > greens[0])
    level = np.argsort(np.argsort(greens.mean(0), axis=None)).reshape(spread.shape) * SAMPLE_LEVELS // spread.size
    wanted = SAMPLES_SIDE**2
    chosen = []
    for one in range(SAMPLE_LEVELS):
        places = np.flatnonzero(rising & (level == one))
        chosen.extend(places[np.argsort(spread.flat[places], kind='stable')][:-(-wanted // SAMPLE_LEVELS)])
    if len(chosen) < FEWEST_SAMPLES:
        raise DataError(f'A tone curve cannot be estimated: only {len(chosen)} places grow brighter with the exposure, '
                        f'{FEWEST_SAMPLES} are needed. Check the order of the exposures, or choose a curve.')
    chosen = np.resize(np.array(chosen), wanted)
    return [image.reshape(-1, 3)[chosen].reshape(SAMPLES_SIDE, SAMPLES_SIDE, 3) for image in images]


def _tidied(logs: np.ndarray) -> np.ndarray:
    """A rising curve, 0 at 0 and 1 at 255, from log exposures."""
    low, high = RESPONSE_ENDS
    linear = np.exp(logs - logs[high])
    linear[:low] = linear[low] * np.arange(low) / low
    slope = (logs[high] - logs[high - 10]) / 10
    linear[high:] = np.exp(np.maximum(slope, 0) * np.arange(256 - high))
    linear = np.maximum.accumulate(linear)
    return linear / linear[-1]
