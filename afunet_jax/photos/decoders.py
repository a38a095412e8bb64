"""Files of every kind to upright pixels and what came with them."""

import dataclasses
import io
import itertools
import pathlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin

from afunet_jax import image_io
from afunet_jax.errors import DataError
from afunet_jax.image_io import PathLike, upright
from afunet_jax.outputs import marks, png
from afunet_jax.photos import response
from afunet_jax.photos.exif import Exif, as_number, attempt, from_tags, load_tiff_tags

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
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SAMPLE_FORMAT, _TIFF_DNG_VERSION = 256, 257, 339, 50706
_TIFF_FLOATS = 3
_PNG_EXIF_TEXT = 'Raw profile type exif'  # ImageMagick's, in hexadecimal behind three lines


@dataclasses.dataclass
class Stored:
    """What a file's reader hands over: upright pixels, and what came with them."""

    values: np.ndarray
    bits: int
    exif: Exif
    profile: bytes | None = None
    white_balance: tuple[float, ...] | None = None


def decode(path: pathlib.Path, max_pixels: int, white_balance: tuple[float, ...] | None = None) -> tuple[str, Stored]:
    """Reads a file by its content, camera raw by its name.

    Args:
        path: the file.
        max_pixels: larger images are refused before they are decoded.
        white_balance: multipliers for a raw file; None: the camera's.

    Returns:
        `(kind, stored)`, the kind one of `KINDS`.

    Raises:
        DataError: as `frames.read_frame`, but for an alpha.
    """
    kind = _kind(path, image_io.read_start(path, _START))
    if kind == 'raw':
        return kind, _read_raw(path, max_pixels, white_balance)
    return kind, _READERS[kind](path, max_pixels)


def is_photo(path: PathLike) -> bool:
    """Whether a file is of a kind that is read here, and not one of our results; True if it cannot be read at all."""
    path = pathlib.Path(path)
    try:
        with open(path, 'rb') as file:
            _kind(path, file.read(_START))
    except OSError:
        return True
    except DataError:
        return False
    return not marks.is_ours(path)


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


def _read_tiff(path: pathlib.Path, max_pixels: int) -> Stored:
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
    attempt(path, lambda: load_tiff_tags(exif, io.BytesIO(data)))
    about = from_tags(path, exif)
    profile = exif.get(ExifTags.Base.InterColorProfile)
    about = dataclasses.replace(about, orientation=1)  # `image_io` turns TIFFs upright itself
    if tags.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == _TIFF_FLOATS:
        return Stored(image_io.read_hdr(path, max_pixels), 32, about, profile)
    image_io.check_ldr_file(path, data, grey=True, max_pixels=max_pixels)
    return _decoded(path, data, about, profile)


def _read_png_or_jpeg(path: pathlib.Path, max_pixels: int) -> Stored:
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
    attempt(path, lambda: exif.load(about.get('exif') or chunks.get(b'eXIf') or _exif_of_text(about)))
    return _decoded(path, data, from_tags(path, exif), about.get('icc_profile'))


def _exif_of_text(about: dict[str, Any]) -> bytes:
    return bytes.fromhex(''.join(about.get(_PNG_EXIF_TEXT, '').split('\n')[3:]))


def _refuse_hdr(path: pathlib.Path, transfer: int | None = None) -> None:
    if transfer in HDR_TRANSFERS:
        raise DataError(f'{path}: an HDR image already ({HDR_TRANSFERS[transfer]}), not one exposure of a bracket. '
                        'Take the photos without the camera\'s HDR mode.')


def _decoded(path: pathlib.Path, data: bytes, exif: Exif, profile: bytes | None) -> Stored:
    values = image_io.decode(path, data)
    if values.dtype not in (np.uint8, np.uint16):
        raise DataError(f'{path}: a photo holds 8 or 16 bits a value, or 32-bit floats, this one {values.dtype}. '
                        'Export it as 16-bit TIFF.')
    if values.ndim == 3 and values.shape[-1] >= 3:
        values = values[..., [2, 1, 0, *range(3, values.shape[-1])]]
    return Stored(upright(values, exif.orientation), values.dtype.itemsize * 8, exif, profile)


def _read_heif(path: pathlib.Path, max_pixels: int) -> Stored:
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
    attempt(path, lambda: exif.load(image.info.get('exif') or b''))
    # libheif has turned the image upright: the EXIF orientation must not be applied again.
    about = dataclasses.replace(from_tags(path, exif), orientation=1)
    return Stored(values, bits, about, image.info.get('icc_profile'))


def _read_raw(path: pathlib.Path, max_pixels: int, white_balance: tuple[float, ...] | None) -> Stored:
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
    return Stored(values, 16, exif, white_balance=balance)


def _raw_exif(path: pathlib.Path, raw: Any) -> Exif:
    """LibRaw's own; tags that it leaves out come from the file, where that is a TIFF inside."""
    other = raw.other
    tags = Image.Exif()
    data = image_io.read_start(path, 4)
    if data in image_io.TIFF_MAGIC:
        with open(path, 'rb') as file:
            attempt(path, lambda: load_tiff_tags(tags, file))
            found = from_tags(path, tags)
    else:
        found = Exif()
    return Exif(
        as_number(other.shutter_speed) or found.seconds, as_number(other.aperture) or found.aperture,
        as_number(other.iso_speed) or found.iso, found.camera, found.orientation,
    )  # fmt: skip


def _read_radiance(path: pathlib.Path, max_pixels: int) -> Stored:
    data = image_io.read_bytes(path)
    image_io.check_size(path, *image_io.radiance_size(path, data[image_io.radiance_start(data) or 0:]), max_pixels)
    return Stored(image_io.read_hdr(path, max_pixels), 32, Exif())


def _read_exr(path: pathlib.Path, max_pixels: int) -> Stored:
    image_io.check_size(path, *image_io.exr_size(path), max_pixels)
    return Stored(image_io.read_exr(path, max_pixels), 32, Exif())


def _missing(path: pathlib.Path, what: str, package: str) -> DataError:
    return DataError(f'{path}: reading {what} needs a package that is not installed. Run: pip install {package}')


_READERS: dict[str, Callable[[pathlib.Path, int], Stored]] = {
    'tiff': _read_tiff, 'png': _read_png_or_jpeg, 'jpeg': _read_png_or_jpeg, 'heif': _read_heif,
    'radiance': _read_radiance, 'exr': _read_exr,
}  # fmt: skip
