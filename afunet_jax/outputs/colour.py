"""Luminance, transfer functions and primaries. NumPy arrays in, float32 out."""

import numpy as np

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of BT.709 and sRGB, ITU-R BT.709-6
BT709_CHROMATICITIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # x, y of red, green, blue, white
BT709_TO_BT2020 = np.array(  # linear light, ITU-R BT.2087-0, Eq. (M2)
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]], np.float32
)
SRGB_LINEAR_END, SRGB_SLOPE, SRGB_OFFSET, SRGB_GAMMA = 0.0031308, 12.92, 0.055, 2.4  # IEC 61966-2-1
PQ_PEAK = 10000.0  # cd/m2 of the code value 1, SMPTE ST 2084
_PQ_M1, _PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
_PQ_C1, _PQ_C2, _PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def luminance(image: np.ndarray) -> np.ndarray:
    """Relative luminance of linear BT.709 colours: `[..., 3]` to `[...]`, in the image's unit."""
    return image @ LUMINANCE


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB code values; both in [0, 1], values outside are clipped."""
    linear = np.clip(linear, 0.0, 1.0).astype(np.float32)
    power = (1 + SRGB_OFFSET) * linear ** np.float32(1 / SRGB_GAMMA) - SRGB_OFFSET
    return np.where(linear <= SRGB_LINEAR_END, SRGB_SLOPE * linear, power).astype(np.float32)


def encode_pq(luminance: np.ndarray) -> np.ndarray:
    """Light in cd/m2 to code values in [0, 1] (inverse EOTF of ST 2084); clipped to 0 and 10000 cd/m2."""
    y = (np.clip(luminance, 0.0, PQ_PEAK) / np.float64(PQ_PEAK)) ** _PQ_M1  # in float32, 16 bits would be off by one
    return (((_PQ_C1 + _PQ_C2 * y) / (1 + _PQ_C3 * y)) ** _PQ_M2).astype(np.float32)


def decode_pq(code: np.ndarray) -> np.ndarray:
    """Code values in [0, 1] to light in cd/m2 (EOTF of ST 2084)."""
    root = np.asarray(code, np.float64) ** (1 / _PQ_M2)
    y = np.maximum(root - _PQ_C1, 0.0) / (_PQ_C2 - _PQ_C3 * root)
    return (PQ_PEAK * y ** (1 / _PQ_M1)).astype(np.float32)
