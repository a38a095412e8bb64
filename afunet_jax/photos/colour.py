"""ICC profiles: to the primaries of sRGB.

8 bits go through LittleCMS (Pillow's ImageCms), which knows every kind of profile. It has no 16-bit RGB in Pillow;
there, profiles made of three curves and a matrix (sRGB, Adobe RGB, Display P3, ProPhoto: what raw converters write)
are applied here in floating point, after ICC.1:2022, 10.6, 10.18 and F.3.
"""

import dataclasses
import io
import struct

import numpy as np
from PIL import Image, ImageCms

SAME = 2  # a profile that moves 8-bit values by no more than this is sRGB
_GRID = 9  # colours a side to find that out
# sRGB's own colorants, adapted to D50 (columns R, G, B; rows X, Y, Z).
SRGB_COLORANTS = np.array([
    [0.4360747, 0.3850649, 0.1430804],
    [0.2225045, 0.7168786, 0.0606169],
    [0.0139322, 0.0971045, 0.7141733],
])  # fmt: skip
SAME_MATRIX = 0.01
_LEVELS = 65536
_HEADER = 128  # bytes


def srgb_from_profile(image: np.ndarray, profile: bytes) -> tuple[np.ndarray, str | None]:
    """8-bit values of an embedded profile to sRGB, by LittleCMS, relative colorimetric.

    Args:
        image: `[H, W, 3]` uint8.
        profile: the ICC profile.

    Returns:
        The image, as it was if the profile is sRGB's, and a note for the user if it was changed. Values of 255 stay.

    Raises:
        ValueError: the profile cannot be used.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(
            opened, ImageCms.createProfile('sRGB'), 'RGB', 'RGB', ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        name = ImageCms.getProfileDescription(opened).strip()
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(str(error)) from error
    grid = np.stack(np.meshgrid(*[np.linspace(0, 255, _GRID).astype(np.uint8)] * 3), axis=-1).reshape(-1, _GRID, 3)
    if np.abs(_apply(transform, grid).astype(int) - grid).max() <= SAME:
        return image, None
    converted = _apply(transform, image)
    converted[image == 255] = 255
    return converted, f'colours converted from {name} to sRGB'


def _apply(transform: ImageCms.ImageCmsTransform, image: np.ndarray) -> np.ndarray:
    return np.array(ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(image)), transform))


@dataclasses.dataclass(frozen=True)
class MatrixProfile:
    """An RGB profile of curves and a matrix.

    Attributes:
        curves: `[65536, 3]` float64, stored 16-bit values to linear ones.
        matrix: `[3, 3]` float64, linear values to linear sRGB.
    """

    curves: np.ndarray
    matrix: np.ndarray

    @property
    def is_srgb_primaries(self) -> bool:
        """Whether the matrix changes nothing that can be seen."""
        return bool(np.abs(self.matrix - np.eye(3)).max() < SAME_MATRIX)


def matrix_profile(profile: bytes) -> MatrixProfile:
    """Reads a profile of curves and a matrix.

    Raises:
        ValueError: damaged, or of another kind (CMYK, grey, tables).
    """
    try:
        if profile[16:20] != b'RGB ' or profile[20:24] != b'XYZ ':
            raise ValueError('not an RGB profile with curves and a matrix')
        (count,) = struct.unpack_from('>I', profile, _HEADER)
        entries = [struct.unpack_from('>4sII', profile, _HEADER + 4 + 12 * i) for i in range(count)]
        tags = {name: profile[start:start + size] for name, start, size in entries}
        columns = [struct.unpack_from('>3i', tags[name], 8) for name in (b'rXYZ', b'gXYZ', b'bXYZ')]
        curves = [_curve(tags[name]) for name in (b'rTRC', b'gTRC', b'bTRC')]
    except (struct.error, KeyError) as error:
        raise ValueError(f'not an RGB profile with curves and a matrix ({error!r})') from error
    return MatrixProfile(np.stack(curves, axis=1), np.linalg.solve(SRGB_COLORANTS, np.array(columns).T / 65536))


def _curve(tag: bytes) -> np.ndarray:
    x = np.linspace(0, 1, _LEVELS)
    if tag[:4] == b'curv':
        (count,) = struct.unpack_from('>I', tag, 8)
        if count == 0:
            return x
        points = np.array(struct.unpack_from(f'>{count}H', tag, 12), np.float64)
        return x ** (points[0] / 256) if count == 1 else np.interp(x, np.linspace(0, 1, count), points / 65535)
    if tag[:4] != b'para':
        raise ValueError(f'a curve of type {tag[:4]!r}')
    (kind,) = struct.unpack_from('>H', tag, 8)
    return np.clip(_parametric(x, kind, tag), 0, 1)


def _parametric(x: np.ndarray, kind: int, tag: bytes) -> np.ndarray:
    """The five kinds of ICC.1:2022, table 68, as one: (a x + b) ** g + e from d on, c x + f below."""
    number = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}.get(kind)
    if number is None:
        raise ValueError(f'a parametric curve of kind {kind}')
    p = np.array(struct.unpack_from(f'>{number}i', tag, 12)) / 65536
    g, a, b = (p[0], 1.0, 0.0) if kind == 0 else p[:3]
    c = d = e = f = 0.0
    if kind in (1, 2):
        d = -b / a
        e = f = p[3] if kind == 2 else 0.0
    elif kind >= 3:
        c, d = p[3:5]
        e, f = p[5:7] if kind == 4 else (0.0, 0.0)
    return np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)


def to_srgb_primaries(linear: np.ndarray, matrix: np.ndarray, saturated: np.ndarray) -> np.ndarray:
    """Linear `[..., 3]` to linear sRGB; what was saturated in the file stays at 1 or above."""
    converted = linear @ matrix.T.astype(np.float32)
    return np.where(saturated, np.maximum(converted, 1), converted)
