"""One photo from disk: its values, tone curve, and what its EXIF says.

- JPEG, 8-bit PNG, TIFF and HEIC: as stored; another ICC profile than sRGB is converted by LittleCMS.
- 16-bit PNG and TIFF, HEIC of more than 8 bits: as stored; ICC profiles of curves and a matrix are applied, others
  are passed over with a warning.
- Camera raw: LibRaw; demosaiced, linear, the camera's white balance, nothing brightened, primaries of sRGB.
- `.hdr`, `.exr` and TIFF of floats: linear; negative values become 0 with a warning; clipped from `full_scale` on. The
  primaries of a TIFF's ICC profile are converted.

EXIF orientation is applied. Grey becomes three equal channels with a warning. An alpha channel is dropped if it is
opaque, else the file is refused; a TIFF of floats has three channels, or is. A file's size is read from its header, and
refused above `max_pixels`, before anything is decoded. The first page of a TIFF counts.
"""

import dataclasses
import functools
import hashlib
import pathlib
import warnings

import cv2
import numpy as np

from afunet_jax import hdr, image_io
from afunet_jax.errors import DataError
from afunet_jax.photos import colour, decoders, response
from afunet_jax.photos.exif import Exif, PhotoWarning
from afunet_jax.photos.response import ToneCurve

PathLike = image_io.PathLike

MAX_PIXELS = image_io.MAX_PIXELS  # three such frames are 3 GB
SATURATED = hdr.SATURATED / 65535  # share of full scale, as stored
FULL_SCALE = 1.0  # of files of floats
OVERFLOW_SHARE = 0.001  # of values above the full scale of floats: more of them, and it is probably wrong
FULL_SCALE_CURE = ('Give the value at which the frames are clipped: --full_scale= (predict.py), or full_scale '
                   '(afunet_jax.load).')

PREVIEW_SIDE = 256  # pixels, the longer side, at least
PREVIEW_SAMPLES = 4  # a side, at least, in a block of the preview
DARK = 0.02  # linear share of full scale below which noise and a camera's toe decide


@dataclasses.dataclass(frozen=True)
class Preview:
    """A small picture to measure exposures on.

    Attributes:
        luminance: `[h, w]` float32, linear mean of the channels, 1 at full scale.
        unclipped: `[h, w]` bool, no sample of the block is saturated.
    """

    luminance: np.ndarray
    unclipped: np.ndarray

    def exposed(self, dark: float = DARK) -> np.ndarray:
        """`[h, w]` bool: not saturated, and above `dark`, linear."""
        return self.unclipped & (self.luminance > dark)


@dataclasses.dataclass(frozen=True)
class Frame:
    """One exposure.

    Attributes:
        path: of the file.
        kind: one of `decoders.KINDS`.
        bits: a value had in the file: 8, 10, 12, 16, or 32 for floats.
        values: `[H, W, 3]` RGB, upright: uint8 or uint16 as `curve` encodes them, or float32, linear, not negative.
        curve: what the whole values mean; None for floats.
        full_scale: the float value that counts as clipped.
        exif: time, aperture, sensitivity, camera; the pixels are upright whatever its orientation says.
        white_balance: of a raw file: the multipliers used (R, G, B, second G).
        notes: what was done to the file, for the user.
    """

    path: pathlib.Path
    kind: str
    bits: int
    values: np.ndarray
    curve: ToneCurve | None
    exif: Exif = Exif()
    full_scale: float = FULL_SCALE
    white_balance: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape[:2]

    def linear(self) -> np.ndarray:
        """`[H, W, 3]` float32, 1 at full scale; files of floats may go beyond."""
        return self._linear(self.values)

    def encoded(self) -> np.ndarray:
        """`[H, W, 3]` uint16 in gamma 2.2, as the network takes it; full scale is 65535."""
        if self.curve is None:
            return response.encode_image(self.values, self.full_scale)
        return self.curve.encode(self.values)

    @property
    def saturated(self) -> np.ndarray:
        """`[H, W]` bool: a channel of the pixel is clipped, or so near that it may be."""
        return self._saturated(self.values)

    @functools.cached_property
    def preview(self) -> Preview:
        """A small linear picture."""
        block = max(1, max(self.size) // PREVIEW_SIDE)
        values = self.values[::max(1, block // PREVIEW_SAMPLES), ::max(1, block // PREVIEW_SAMPLES)]
        luminance, clipped = self._linear(values).mean(-1), self._saturated(values).astype(np.float32)
        if block < PREVIEW_SAMPLES:  # nothing to average: blur instead
            luminance = cv2.blur(luminance, (PREVIEW_SAMPLES + 1,) * 2)
            clipped = cv2.blur(clipped, (PREVIEW_SAMPLES + 1,) * 2)
        shape = max(1, self.size[1] // block), max(1, self.size[0] // block)
        small = [cv2.resize(x, shape, interpolation=cv2.INTER_AREA) for x in (luminance, clipped)]
        return Preview(small[0], small[1] == 0)

    @functools.cached_property
    def digest(self) -> bytes:
        """The same for the same pixels."""
        return hashlib.blake2b(np.ascontiguousarray(self.values), digest_size=16).digest()

    def _linear(self, values: np.ndarray) -> np.ndarray:
        if self.curve is None:
            return values / np.float32(self.full_scale)
        return self.curve.decode(values)

    def _saturated(self, values: np.ndarray) -> np.ndarray:
        full = self.full_scale if self.curve is None else SATURATED * np.iinfo(values.dtype).max
        return (values >= full).any(-1)


def read_frame(
    path: PathLike,
    curve: str = response.AUTO,
    max_pixels: int = MAX_PIXELS,
    full_scale: float = FULL_SCALE,
    white_balance: tuple[float, ...] | None = None,
) -> Frame:
    """Reads a photo: see the module's table.

    Args:
        path: the file; its format is told by its content, camera raw by its name.
        curve: 'auto' (`response.default_curve`, or the ICC profile's), or one of `response.NAMED`.
        max_pixels: larger images are refused before they are decoded.
        full_scale: the value of float files at which the frame is clipped.
        white_balance: multipliers for a raw file; None: the camera's.

    Returns:
        The frame, upright.

    Raises:
        DataError: missing, empty, truncated or damaged; no photo; too large; an alpha that is not opaque; a reader
            that is not installed.
    """
    path = pathlib.Path(path)
    response.check_choice(curve, (response.AUTO, *response.NAMED))
    kind, stored = decoders.decode(path, max_pixels, white_balance)
    if stored.values.dtype == np.float32:
        values = _not_negative(path, stored.values, full_scale)
        values, notes = _floats_in_srgb(path, values, stored.profile, full_scale)
        return Frame(path, kind, stored.bits, values, None, stored.exif, full_scale, notes=notes)
    values = _three_channels(path, stored.values)
    values, tone, notes = _in_srgb(path, kind, values, stored.profile, curve)
    return Frame(path, kind, stored.bits, values, tone, stored.exif, white_balance=stored.white_balance, notes=notes)


def _three_channels(path: pathlib.Path, values: np.ndarray) -> np.ndarray:
    channels = 1 if values.ndim == 2 else values.shape[-1]
    if channels not in (1, 2, 3, 4):
        raise DataError(f'{path}: {channels} channels; a photo has R, G, B. Export it as RGB.')
    if channels in (2, 4):
        alpha, full = values[..., -1], np.iinfo(values.dtype).max
        if alpha.min() < full:
            raise DataError(f'{path}: the alpha channel is not opaque (smallest value {alpha.min()} of {full}). '
                            'Flatten the image on a background.')
        values = values[..., :-1]
    if channels < 3:
        warnings.warn(f'{path}: grey, used as three equal channels.', PhotoWarning, stacklevel=3)
        values = np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=-1)
    return np.ascontiguousarray(values)


def _not_negative(path: pathlib.Path, values: np.ndarray, full_scale: float) -> np.ndarray:
    if not full_scale > 0:
        raise DataError(f'{path}: full_scale must be above 0, it is {full_scale}.')
    if not np.isfinite(values).all():
        raise DataError(f'{path}: {int((~np.isfinite(values)).sum())} values of {values.size} are NaN or infinite. '
                        'Export it anew.')
    if negative := int((values < 0).sum()):
        warnings.warn(f'{path}: {negative} of {values.size} values are negative; they become 0.',
                      PhotoWarning, stacklevel=3)  # fmt: skip
        values = np.maximum(values, 0)
    if (values > full_scale).mean() > OVERFLOW_SHARE:
        warnings.warn(f'{path}: {100 * (values > full_scale).mean():.1f} % of the values are above full_scale='
                      f'{full_scale:g} (the largest is {values.max():g}) and count as clipped. {FULL_SCALE_CURE}',
                      PhotoWarning, stacklevel=3)  # fmt: skip
    return values


def _in_srgb(path: pathlib.Path, kind: str, values: np.ndarray, profile: bytes | None, curve: str):
    """Values with the primaries of sRGB, their tone curve, and notes."""
    bits = values.dtype.itemsize * 8
    default = response.default_curve(kind, bits)
    tone = response.tone_curve(default if curve == response.AUTO else curve, bits)
    if not profile:
        return values, tone, ()
    try:
        if bits == 8:
            values, note = colour.srgb_from_profile(values, profile)
            return values, tone, (note,) if note else ()
        return _in_srgb_16(values, colour.matrix_profile(profile), tone if curve != response.AUTO else None)
    except ValueError as error:
        _pass_over(path, error)
        return values, tone, ()


def _floats_in_srgb(path: pathlib.Path, values: np.ndarray, profile: bytes | None, full_scale: float):
    """Linear values with the primaries of sRGB, and notes. The curves of the profile do not concern floats."""
    if not profile:
        return values, ()
    try:
        found = colour.matrix_profile(profile)
    except ValueError as error:
        _pass_over(path, error)
        return values, ()
    if found.is_srgb_primaries:
        return values, ()
    converted = colour.to_srgb_primaries(values / np.float32(full_scale), found.matrix, values >= full_scale)
    return np.maximum(converted, 0) * np.float32(full_scale), ('colours converted from its ICC profile',)


def _pass_over(path: pathlib.Path, error: ValueError) -> None:
    warnings.warn(f'{path}: its ICC profile is passed over ({error}): colours are taken for sRGB\'s. Export it as '
                  'sRGB if they look wrong.', PhotoWarning, stacklevel=4)


def _in_srgb_16(values: np.ndarray, profile: colour.MatrixProfile, tone: ToneCurve | None):
    curve = tone or ToneCurve('ICC profile', profile.curves)
    if profile.is_srgb_primaries:
        return values, curve, () if tone else ('tone curve of its ICC profile',)
    out = np.empty_like(values)
    for row in range(0, len(values), response.ROWS_AT_ONCE):
        part = values[row:row + response.ROWS_AT_ONCE]
        linear = colour.to_srgb_primaries(curve.decode(part), profile.matrix, part == response.FULL_SCALE_16)
        out[row:row + response.ROWS_AT_ONCE] = response.encode_linear(linear)
    return out, response.tone_curve(response.GAMMA, 16), ('colours and tone curve converted from its ICC profile',)
