"""One photo from disk: its values, tone curve, and what its EXIF says.

- JPEG, 8-bit PNG, TIFF and HEIC: as stored; another ICC profile than sRGB is converted by LittleCMS.
- 16-bit PNG and TIFF, HEIC of more than 8 bits: as stored; ICC profiles of curves and a matrix are applied, others
  are passed over with a warning.
- Camera raw: LibRaw; demosaiced, linear, the camera's white balance, nothing brightened, primaries of sRGB.
- `.hdr`, `.exr` and TIFF of floats: linear; negative values become 0 with a warning; clipped from `full_scale` on.

EXIF orientation is applied. Grey becomes three equal channels with a warning. An alpha channel is dropped if it is
opaque, else the file is refused. A file's size is read from its header, and refused above `max_pixels`, before
anything is decoded. The first page of a TIFF counts.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import math
import pathlib
import struct
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin

from afunet_jax import hdr, image_io
from afunet_jax.errors import DataError
from afunet_jax.outputs import png
from afunet_jax.photos import colour, response
from afunet_jax.photos.response import ToneCurve

PathLike = image_io.PathLike

MAX_PIXELS = image_io.MAX_PIXELS  # three such frames are 3 GB
SATURATED = hdr.SATURATED / 65535  # share of full scale, as stored
FULL_SCALE = 1.0  # of files of floats
OVERFLOW_SHARE = 0.001  # of values above the full scale of floats: more of them, and it is probably wrong
FULL_SCALE_CURE = ('Give the value at which the frames are clipped: --full_scale= (predict.py), or full_scale '
                   '(afunet_jax.load).')
LARGEST_APEX = 64  # stops: times, apertures and sensitivities beyond 2 ** 64 and 2 ** -64 are none

RAW_SUFFIXES = frozenset(
    '.3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 '
    '.rwl .sr2 .srf .srw .x3f'.split()
)
PHOTO_SUFFIXES = RAW_SUFFIXES | frozenset('.tif .tiff .png .jpg .jpeg .heic .heif .hif'.split())
FLOAT_SUFFIXES = frozenset(('.hdr', '.pic', '.exr'))
KINDS = 'jpeg', 'png', 'tiff', 'heif', 'raw', 'radiance', 'exr'

HEIF_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')
HDR_TRANSFERS = {16: 'PQ', 18: 'HLG'}  # ITU-T H.273; not made for one exposure of a bracket
_MAGIC = {'tiff': image_io.TIFF_MAGIC, 'png': image_io.PNG_MAGIC, 'jpeg': image_io.JPEG_MAGIC,
          'exr': image_io.EXR_MAGIC}  # fmt: skip
_START = image_io.RADIANCE_PREAMBLE  # bytes that tell the format

PREVIEW_SIDE = 256  # pixels, the longer side, at least
PREVIEW_SAMPLES = 4  # a side, at least, in a block of the preview
DARK = 0.02  # linear share of full scale below which noise and a camera's toe decide

_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SAMPLE_FORMAT, _TIFF_DNG_VERSION = 256, 257, 339, 50706
_TIFF_FLOATS = 3
_PNG_EXIF_TEXT = 'Raw profile type exif'  # ImageMagick's, in hexadecimal behind three lines


class PhotoWarning(UserWarning):
    """Something in a photo was changed, passed over, or contradicts something else."""


@dataclasses.dataclass(frozen=True)
class Exif:
    """What a file says about how it was taken; None where it says nothing.

    Attributes:
        seconds: exposure time.
        aperture: f-number.
        iso: sensitivity.
        camera: maker and model.
        orientation: 1..8, as it still has to be applied to what the decoder gives.
    """

    seconds: float | None = None
    aperture: float | None = None
    iso: float | None = None
    camera: str | None = None
    orientation: int = 1

    @property
    def ev(self) -> float | None:
        """Stops: log2(seconds * iso / 100 / aperture ** 2); None without a time. Missing others count as 100 and 1."""
        if self.seconds is None:
            return None
        return math.log2(self.seconds * (self.iso or 100) / 100 / (self.aperture or 1) ** 2)

    def __str__(self) -> str:
        if self.seconds is None:
            return 'no exposure time'
        time = f'1/{1 / self.seconds:.4g} s' if self.seconds < 0.5 else f'{self.seconds:.4g} s'
        return (time + (f' f/{self.aperture:g}' if self.aperture else '') + (f' ISO {self.iso:g}' if self.iso else ''))


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
        kind: one of `KINDS`.
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


@dataclasses.dataclass
class _Stored:
    """What a file's reader hands over: upright pixels, and what came with them."""

    values: np.ndarray
    bits: int
    exif: Exif
    profile: bytes | None = None
    white_balance: tuple[float, ...] | None = None


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
    kind = _kind(path, image_io.read_start(path, _START))
    if kind == 'raw':
        stored = _read_raw(path, max_pixels, white_balance)
    else:
        stored = _READERS[kind](path, max_pixels)
    if stored.values.dtype == np.float32:
        values = _not_negative(path, stored.values, full_scale)
        return Frame(path, kind, stored.bits, values, None, stored.exif, full_scale)
    values = _three_channels(path, stored.values)
    values, tone, notes = _in_srgb(path, kind, values, stored.profile, curve)
    return Frame(path, kind, stored.bits, values, tone, stored.exif, white_balance=stored.white_balance, notes=notes)


def _kind(path: pathlib.Path, start: bytes) -> str:
    if path.suffix.lower() in RAW_SUFFIXES:
        return 'raw'
    for kind, magic in _MAGIC.items():
        if start.startswith(magic):
            return kind
    if start[4:8] == b'ftyp' and (start[8:12] in HEIF_BRANDS):
        return 'heif'
    if image_io.radiance_start(start) is not None:
        return 'radiance'
    what = 'a PDF document' if b'%PDF-' in start[:1024] else f'it starts with {start[:12]!r}'
    raise DataError(f'{path}: not a photo that can be read ({what}). TIFF, PNG, JPEG, HEIC, camera raw (by its '
                    'ending), Radiance .hdr and OpenEXR are read: export the photo as one of these.')


# ---- TIFF, PNG, JPEG --------------------------------------------------------------------------------


def _read_tiff(path: pathlib.Path, max_pixels: int) -> _Stored:
    data = image_io.read_bytes(path)
    try:
        tags = image_io.tiff_tags(data)
        height, width = tags[_TIFF_HEIGHT][0], tags[_TIFF_WIDTH][0]
    except (struct.error, KeyError, IndexError, MemoryError) as error:
        raise DataError(f'{path}: truncated or damaged, its TIFF directory cannot be read. '
                        'Copy or download it again.') from error
    image_io.check_size(path, height, width, max_pixels)
    if _TIFF_DNG_VERSION in tags:
        raise DataError(f'{path}: a camera raw file (DNG) under another name. Name it .dng.')
    exif = Image.Exif()
    _attempt(path, lambda: _load_tiff_exif(exif, io.BytesIO(data)))
    about = _exif(path, exif)
    profile = exif.get(ExifTags.Base.InterColorProfile)
    # OpenCV turns TIFFs upright itself (since 4.1.1), and no other format under IMREAD_UNCHANGED.
    about = dataclasses.replace(about, orientation=1)
    if tags.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == _TIFF_FLOATS:
        return _Stored(image_io.read_hdr(path, max_pixels), 32, about)
    image_io.check_ldr_file(path, data, grey=True, max_pixels=max_pixels)
    return _decoded(path, data, about, profile)


def _read_png_or_jpeg(path: pathlib.Path, max_pixels: int) -> _Stored:
    data = image_io.read_bytes(path)
    image_io.check_ldr_file(path, data, max_pixels=max_pixels)
    # The plugins themselves: Image.open has a limit of its own, for the whole process.
    plugin = PngImagePlugin.PngImageFile if data.startswith(image_io.PNG_MAGIC) else JpegImagePlugin.JpegImageFile
    try:
        header = plugin(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        raise DataError(f'{path}: damaged, its header cannot be read ({error}). Copy or download it again.') from error
    image_io.check_size(path, header.height, header.width, max_pixels)
    if header.mode in ('P', 'PA', '1', 'CMYK'):
        raise DataError(f'{path}: the colours are {header.mode} (a palette, black and white, or CMYK). '
                        'Export it as RGB.')
    about, chunks = header.info, {}
    if plugin is PngImagePlugin.PngImageFile:
        chunks = dict(itertools.takewhile(lambda chunk: chunk[0] != b'IEND', png.chunks_of(data)))
        _refuse_hdr(path, *chunks.get(b'cICP', b'')[1:2])
    exif = Image.Exif()
    # Pillow finds eXIf behind the pixels only if it decodes them.
    _attempt(path, lambda: exif.load(about.get('exif') or chunks.get(b'eXIf') or _exif_of_text(about)))
    return _decoded(path, data, _exif(path, exif), about.get('icc_profile'))


def _exif_of_text(about: dict[str, Any]) -> bytes:
    return bytes.fromhex(''.join(about.get(_PNG_EXIF_TEXT, '').split('\n')[3:]))


def _refuse_hdr(path: pathlib.Path, transfer: int | None = None) -> None:
    if transfer in HDR_TRANSFERS:
        raise DataError(f'{path}: an HDR image already ({HDR_TRANSFERS[transfer]}), not one exposure of a bracket. '
                        'Take the photos without the camera\'s HDR mode.')


def _decoded(path: pathlib.Path, data: bytes, exif: Exif, profile: bytes | None) -> _Stored:
    values = image_io.decode(path, data)
    if values.dtype not in (np.uint8, np.uint16):
        raise DataError(f'{path}: a photo holds 8 or 16 bits a value, or 32-bit floats, this one {values.dtype}. '
                        'Export it as 16-bit TIFF.')
    if values.ndim == 3 and values.shape[-1] >= 3:
        values = values[..., [2, 1, 0, *range(3, values.shape[-1])]]
    return _Stored(upright(values, exif.orientation), values.dtype.itemsize * 8, exif, profile)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation, 1..8 (Exif 2.32, tag 274); other numbers change nothing."""
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1), 6: lambda x: x.swapaxes(0, 1)[:, ::-1],
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: lambda x: x.swapaxes(0, 1)[::-1],
    }  # fmt: skip
    return np.ascontiguousarray(turns[orientation](image)) if orientation in turns else image


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


# ---- EXIF -------------------------------------------------------------------------------------------


def _attempt(path: pathlib.Path, read: Callable[[], Any]) -> Any:
    """What EXIF readers raise on damaged tags is of every kind; such tags count as missing."""
    try:
        return read()
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, struct.error, ArithmeticError) as error:
        warnings.warn(f'{path}: its EXIF cannot be read and is passed over ({error}).', PhotoWarning, stacklevel=4)
        return None


def _load_tiff_exif(exif: Image.Exif, file: BinaryIO) -> None:
    """By itself, Pillow reads the header of a TIFF, but not that of a BigTIFF, whose first directory is at byte 8."""
    start = file.read(16)
    if start.startswith(image_io.TIFF_MAGIC[3]):
        raise ValueError('a big-endian BigTIFF, whose ICC profile is not read either; export it as TIFF')
    exif.endian, exif.bigtiff = '<' if start.startswith(b'II') else '>', start.startswith(image_io.TIFF_MAGIC[2:])
    exif.load_from_fp(file, *struct.unpack_from(exif.endian + ('8xQ' if exif.bigtiff else '4xI'), start))


def _exif(path: pathlib.Path, exif: Image.Exif) -> Exif:
    inner = _attempt(path, lambda: dict(exif.get_ifd(ExifTags.IFD.Exif))) or {}
    tags = {**dict(_attempt(path, lambda: dict(exif)) or {}), **inner}
    base = ExifTags.Base
    seconds, aperture = _number(tags.get(base.ExposureTime)), _number(tags.get(base.FNumber))
    speed = _number(tags.get(base.ShutterSpeedValue), -LARGEST_APEX, LARGEST_APEX)
    stops = _number(tags.get(base.ApertureValue), most=LARGEST_APEX)
    if seconds is None and speed is not None:
        seconds = 2.0**-speed
    if aperture is None and stops is not None:
        aperture = 2.0 ** (stops / 2)
    names = [str(tags[tag]).strip('\0 ') for tag in (base.Make, base.Model) if tags.get(tag)]
    orientation = tags.get(base.Orientation)
    return Exif(
        seconds, aperture, _number(tags.get(base.ISOSpeedRatings)), ' '.join(names) or None,
        orientation if orientation in range(1, 9) else 1,
    )  # fmt: skip


def _number(value: Any, least: float = 2.0**-LARGEST_APEX, most: float = 2.0**LARGEST_APEX) -> float | None:
    """A number of this range, or None."""
    try:
        number = float(value[0] if isinstance(value, tuple) else value)
    except (TypeError, ValueError, IndexError, ArithmeticError):
        return None
    return number if least <= number <= most else None


# ---- colours ----------------------------------------------------------------------------------------


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
        warnings.warn(f'{path}: its ICC profile is passed over ({error}): colours are taken for sRGB\'s. Export it as '
                      'sRGB if they look wrong.', PhotoWarning, stacklevel=3)
        return values, tone, ()


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


# ---- HEIC, camera raw, floats -----------------------------------------------------------------------


def _missing(path: pathlib.Path, what: str, package: str) -> DataError:
    return DataError(f'{path}: reading {what} needs a package that is not installed. Run: pip install {package}')


def _read_heif(path: pathlib.Path, max_pixels: int) -> _Stored:
    try:
        import pillow_heif
    except ImportError as error:
        raise _missing(path, 'HEIC', 'pillow-heif') from error
    try:
        image = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
        image_io.check_size(path, image.size[1], image.size[0], max_pixels)
        values = np.asarray(image)
    except (OSError, ValueError, EOFError, LookupError, RuntimeError, SyntaxError) as error:
        raise DataError(f'{path}: truncated or damaged, libheif cannot read it ({error}). '
                        'Copy or download it again.') from error
    _refuse_hdr(path, image.info.get('nclx_profile', {}).get('transfer_characteristics'))
    bits = image.info.get('bit_depth', 8)
    if values.dtype == np.uint16:  # left-aligned: full scale is not 65535
        full = (2**bits - 1) << (16 - bits)
        values = (np.minimum(values, full).astype(np.uint32) * response.FULL_SCALE_16 // full).astype(np.uint16)
    exif = Image.Exif()
    _attempt(path, lambda: exif.load(image.info.get('exif') or b''))
    # libheif has turned the image upright: the EXIF orientation must not be applied again.
    about = dataclasses.replace(_exif(path, exif), orientation=1)
    return _Stored(values, bits, about, image.info.get('icc_profile'))


def _read_raw(path: pathlib.Path, max_pixels: int, white_balance: tuple[float, ...] | None) -> _Stored:
    try:
        import rawpy
    except ImportError as error:
        raise _missing(path, 'camera raw', 'rawpy') from error
    raw = rawpy.RawPy()
    try:
        raw.open_file(str(path))
        image_io.check_size(path, raw.sizes.height, raw.sizes.width, max_pixels)
        raw.unpack()
        balance = white_balance or tuple(map(float, raw.camera_whitebalance))
        # adjust_maximum_thr: by default LibRaw brightens each frame by its own largest value.
        values = raw.postprocess(
            gamma=(1, 1), output_bps=16, no_auto_bright=True, adjust_maximum_thr=0.0,
            output_color=rawpy.ColorSpace.sRGB, **({'user_wb': list(balance)} if min(balance[:3]) > 0 else {}),
        )  # fmt: skip
        exif = _raw_exif(path, raw)
    except (rawpy.LibRawError, OSError, ValueError) as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise DataError(f'{path}: damaged, or of a camera that LibRaw does not read ({reason}). Copy it again, or '
                        'export it as 16-bit TIFF with a linear curve.') from error
    finally:
        raw.close()
    return _Stored(values, 16, exif, white_balance=balance)


def _raw_exif(path: pathlib.Path, raw: Any) -> Exif:
    """LibRaw's own; tags that it leaves out come from the file, where that is a TIFF inside."""
    other = raw.other
    tags = Image.Exif()
    data = image_io.read_start(path, 4)
    if data in image_io.TIFF_MAGIC:
        with open(path, 'rb') as file:
            _attempt(path, lambda: _load_tiff_exif(tags, file))
            found = _exif(path, tags)
    else:
        found = Exif()
    return Exif(
        _number(other.shutter_speed) or found.seconds, _number(other.aperture) or found.aperture,
        _number(other.iso_speed) or found.iso, found.camera, found.orientation,
    )  # fmt: skip


def _read_radiance(path: pathlib.Path, max_pixels: int) -> _Stored:
    data = image_io.read_bytes(path)
    image_io.check_size(path, *image_io.radiance_size(path, data[image_io.radiance_start(data) or 0:]), max_pixels)
    return _Stored(image_io.read_hdr(path, max_pixels), 32, Exif())


def _read_exr(path: pathlib.Path, max_pixels: int) -> _Stored:
    image_io.check_size(path, *image_io.exr_size(path), max_pixels)
    return _Stored(image_io.read_exr(path, max_pixels), 32, Exif())


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


_READERS: dict[str, Callable[[pathlib.Path, int], _Stored]] = {
    'tiff': _read_tiff, 'png': _read_png_or_jpeg, 'jpeg': _read_png_or_jpeg, 'heif': _read_heif,
    'radiance': _read_radiance, 'exr': _read_exr,
}  # fmt: skip
