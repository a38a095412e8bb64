"""HDR images as small files that a browser decodes without a library: a JPEG and a coarse map of gains.

`linear = base ** BASE_POWER * 2 ** gain`. The gain is the logarithm of the brightest value near a pixel,
stored once a cell of `CELL` x `CELL` pixels and interpolated between the cells' centres; the base is what is
left, always in [0, 1], and 8 bits are enough for it. A lamp and a night sky each get the full range of the
JPEG, so that -6 to +6 stops show no bands. The idea is that of gain maps (ISO 21496-1), with the roles of
base and gain swapped. `report.js` decodes the same way as `decode_hdr`.
"""

import dataclasses

import cv2
import numpy as np

CELL = 8  # pixels of a side
BASE_POWER = 3.0  # the base is stored as a cube root, as lightness is in CIELAB
DARKEST_LOG2 = -24.0  # gains do not go below: darker surroundings are black at every exposure shown
GAIN_CODES = 255
FULL_CHROMA = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444  # coloured lights are small
ERROR_LIMIT = 0.1  # mu-law error that the error map shows as its brightest colour
ERROR_POWER = 0.5  # code = (error / limit) ** power: small errors are seen too


@dataclasses.dataclass(frozen=True)
class GainMapped:
    """An encoded HDR image.

    Attributes:
        base: uint8 `[H, W, 3]`, to be stored as JPEG.
        gains: uint8 `[ceil(H / CELL), ceil(W / CELL)]`; code 0 means `low`, code 255 `high`.
        low: log2 of the smallest gain.
        high: log2 of the largest gain.
    """

    base: np.ndarray
    gains: np.ndarray
    low: float
    high: float


def encode_hdr(image: np.ndarray) -> GainMapped:
    """Encodes a linear image, float `[H, W, 3]`, finite; negative values become 0."""
    image = np.maximum(image, 0).astype(np.float32)
    codes, low, high = _gain_codes(image.max(-1))
    scale = np.exp2(-_interpolate(_gains(codes, low, high), image.shape[:2]))
    base = np.minimum(image * scale[..., None], 1) ** (1 / BASE_POWER)
    return GainMapped(np.round(255 * base).astype(np.uint8), codes, low, high)


def decode_hdr(encoded: GainMapped) -> np.ndarray:
    """The linear image, `[H, W, 3]` float32: what the page shows."""
    base = encoded.base / np.float32(255)
    gain = _interpolate(_gains(encoded.gains, encoded.low, encoded.high), base.shape[:2])
    return base**BASE_POWER * np.exp2(gain)[..., None]


def encode_error(prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The error map, uint8 `[H, W]`: the largest of the channels' errors; mu-law values `[H, W, 3]`."""
    error = np.abs(prediction - label).max(-1)
    return encode_map(np.minimum(error / ERROR_LIMIT, 1) ** ERROR_POWER)


def encode_map(values: np.ndarray) -> np.ndarray:
    """A map `[H, W]` in [0, 1] as uint8."""
    return np.round(255 * values).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """A JPEG of uint8 `[H, W]` or `[H, W, 3]` RGB."""
    bgr = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, FULL_CHROMA]
    done, encoded = cv2.imencode('.jpg', bgr, options)
    assert done, image.shape
    return encoded.tobytes()


def _gain_codes(brightness: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Codes of the brightest value around each cell, rounded up so that the base never exceeds 1."""
    height, width = brightness.shape
    padded = np.pad(brightness, ((0, -height % CELL), (0, -width % CELL)))
    rows, columns = (side // CELL for side in padded.shape)
    brightest = padded.reshape(rows, CELL, columns, CELL).max((1, 3))
    brightest = cv2.dilate(brightest, np.ones((3, 3)))  # interpolation reads the neighbours
    gains = np.log2(np.maximum(brightest, 2.0**DARKEST_LOG2))
    low, high = float(gains.min()), float(gains.max())
    codes = np.ceil((gains - low) / max(high - low, 1e-6) * GAIN_CODES)
    return np.clip(codes, 0, GAIN_CODES).astype(np.uint8), low, high


def _gains(codes: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.float32(low) + codes * np.float32((high - low) / GAIN_CODES)


def _interpolate(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear between the cells' centres; constant outside of them."""
    first_rows, second_rows, rows = _neighbours(size[0], cells.shape[0])
    first_columns, second_columns, columns = _neighbours(size[1], cells.shape[1])
    across = cells[:, first_columns] * (1 - columns) + cells[:, second_columns] * columns
    return across[first_rows] * (1 - rows[:, None]) + across[second_rows] * rows[:, None]


def _neighbours(pixels: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every pixel the cells before and after it, and the weight of the one after."""
    place = np.clip((np.arange(pixels, dtype=np.float32) + 0.5) / CELL - 0.5, 0, cells - 1)
    before = place.astype(int)
    return before, np.minimum(before + 1, cells - 1), place - before
