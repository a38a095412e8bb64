"""Images on disk: 16-bit TIFF, PNG, JPEG and Radiance .hdr, read and written through OpenCV.

In memory an image is `[H, W, 3]`, colours in the order R, G, B. LDR images are uint16 (8 bits are
spread over 0..65535), HDR images are float32 and linear. A file is read whole or refused: before
OpenCV decodes it, its own index (TIFF), header (Radiance) or end marker (PNG, JPEG) is held against
its length, because some decoders fill what is missing and say so only in a log. Every error is a
`DataError` that names the file and the cure. Files are written under a temporary name, then moved.
"""

import os
import pathlib
import re
import struct
import warnings

import cv2
import numpy as np

from afunet_jax import files
from afunet_jax.errors import DataError

PathLike = str | os.PathLike

EIGHT_TO_SIXTEEN_BITS = 257  # 255 * 257 == 65535
RGBE_BIAS = 136  # a stored exponent e scales the mantissas by 2 ** (e - 136): 128, and 8 bits of mantissa
RGBE_LARGEST = 255.0 * 2.0 ** (255 - RGBE_BIAS)  # the largest value that RGBE holds
RADIANCE_MAGIC = (b'#?RADIANCE', b'#?RGBE')
RADIANCE_FORMAT = b'32-bit_rle_rgbe'
RLE_WIDTHS = range(8, 32768)  # narrower and wider images are stored flat, 4 bytes a pixel
TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two are BigTIFF
TIFF_LZW = 5  # compression, TIFF 6.0
PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
PNG_END = b'IEND\xaeB`\x82'
JPEG_MAGIC, JPEG_SCAN, JPEG_END = b'\xff\xd8\xff', b'\xff\xda', b'\xff\xd9'

_EXPONENT_SCALES = np.ldexp(np.ones(256, np.float32), np.arange(256) - RGBE_BIAS)
_EXPONENT_SCALES[0] = 0.0  # e = 0 is black

_FETCH_AGAIN = 'Copy or download it again.'


class EightBitWarning(UserWarning):
    """An 8-bit image stands where the benchmarks have 16 bits: banding in dark parts."""


def _silence_opencv() -> None:
    # What OpenCV logs, the errors here say with the file's name. The function moved in OpenCV 5.
    if hasattr(cv2, 'setLogLevel'):
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


_silence_opencv()


# ---- reading ---------------------------------------------------------------------------------------


def read_ldr(path: PathLike) -> np.ndarray:
    """Reads a gamma-encoded LDR image.

    16-bit TIFF (uncompressed, LZW or deflate) and 16-bit PNG are read as they are. 8-bit TIFF, PNG and
    JPEG are accepted with an `EightBitWarning` and multiplied by 257, so that 255 becomes 65535.

    Args:
        path: the file; its format is told by its content, not by its name.

    Returns:
        `[H, W, 3]` uint16, RGB, 0..65535.

    Raises:
        DataError: missing, empty, truncated or damaged; another format; alpha, grey, palette or float.
    """
    path = pathlib.Path(path)
    data = _read_bytes(path)
    _check_ldr_file(path, data)
    image = _decode(path, data)
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f'{path}: an LDR image holds 8 or 16 bits a value, this one {image.dtype}. '
                        'Export it as 16-bit RGB TIFF.')
    if image.ndim != 3 or image.shape[-1] != 3:
        channels = 1 if image.ndim == 2 else image.shape[-1]
        raise DataError(f'{path}: an LDR image has the three channels R, G, B, this one has {channels} '
                        '(grey or alpha?). Export it as RGB without alpha.')
    if image.dtype == np.uint8:
        warnings.warn(f'{path}: 8 bits a value, spread over 16. The benchmarks and the published weights '
                      'use 16-bit TIFF.', EightBitWarning, stacklevel=2)
        return image[..., ::-1] * np.uint16(EIGHT_TO_SIXTEEN_BITS)
    return np.ascontiguousarray(image[..., ::-1])


def read_hdr(path: PathLike) -> np.ndarray:
    """Reads a linear HDR image: Radiance `.hdr`, or a TIFF of floats.

    RGBE is decoded as `mantissa * 2 ** (e - 136)`, without the 0.5 that some readers add. A header's
    EXPOSURE is not applied: the benchmarks' labels are used as they are stored.

    Returns:
        `[H, W, 3]` float32, RGB. The values are not checked: a label's rules are `data.scenes`' matter.

    Raises:
        DataError: missing, empty, truncated or damaged; another format; not three channels.
    """
    path = pathlib.Path(path)
    data = _read_bytes(path)
    if data.startswith(RADIANCE_MAGIC):
        image = _decode(path, _plain_radiance(path, data))
    elif data.startswith(TIFF_MAGIC):
        _check_tiff(path, data)
        image = _decode(path, data)
    else:
        raise DataError(f'{path}: not an HDR image that can be read here, it starts with {data[:10]!r}. '
                        'Radiance .hdr and TIFF of floats are read; convert it to Radiance .hdr.')
    if image.dtype not in (np.float32, np.float64) or image.ndim != 3 or image.shape[-1] != 3:
        raise DataError(f'{path}: an HDR image has three channels of floats, this one is {image.dtype} of '
                        f'shape {image.shape}. Export it as Radiance .hdr or as RGB TIFF of 32-bit floats.')
    return np.ascontiguousarray(image[..., ::-1], dtype=np.float32)


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}). '
                        'Check the path and its rights.') from error
    if not data:
        raise DataError(f'{path}: the file is empty (0 bytes). {_FETCH_AGAIN}')
    return data


def _decode(path: pathlib.Path, data: bytes) -> np.ndarray:
    """OpenCV's decoder on bytes, so that any path will do; `[H, W]` or `[H, W, C]`, BGR."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(f'{path}: damaged, its pixels cannot be decoded ({error.err}). '
                        f'{_FETCH_AGAIN}') from error
    if image is None:
        raise DataError(f'{path}: the pixels cannot be decoded: damaged, truncated, or of a kind '
                        f'that OpenCV does not read. {_FETCH_AGAIN} If that does not help, export it anew.')
    return image


def _check_ldr_file(path: pathlib.Path, data: bytes) -> None:
    if data.startswith(TIFF_MAGIC):
        _check_tiff(path, data)
    elif data.startswith(PNG_MAGIC):
        if PNG_END not in data:
            raise DataError(f'{path}: truncated, the PNG has no end ({len(data)} bytes). {_FETCH_AGAIN}')
    elif data.startswith(JPEG_MAGIC):
        # The end marker cannot occur inside a scan; a preview has its own, before the last scan starts.
        if data.rfind(JPEG_END) <= data.rfind(JPEG_SCAN):
            raise DataError(f'{path}: truncated, the JPEG has no end ({len(data)} bytes). {_FETCH_AGAIN}')
    else:
        raise DataError(f'{path}: not a TIFF, PNG or JPEG image, it starts with {data[:10]!r}. '
                        'Export it as 16-bit RGB TIFF.')


# ---- TIFF: its directory against its length -------------------------------------------------------

_TIFF_TYPES = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # BYTE, SHORT, LONG, LONG8: all that the tags below use
_TIFF_PHOTOMETRIC, _TIFF_RGB, _TIFF_YCBCR = 262, 2, 6
_TIFF_PLANAR, _TIFF_INTERLEAVED = 284, 1
_TIFF_DATA_TAGS = ((273, 279), (324, 325))  # offsets and byte counts, of strips or of tiles
_TIFF_COLOURS = {0: 'grey', 1: 'grey', 3: 'a palette', 4: 'a mask', 5: 'CMYK', 8: 'Lab'}


def _check_tiff(path: pathlib.Path, data: bytes) -> None:
    """Every strip or tile of the first image lies inside the file, and it is what OpenCV reads rightly."""
    try:
        tags = _tiff_tags(data)
        pieces = [(tags[where], tags[count]) for where, count in _TIFF_DATA_TAGS if where in tags]
        end = max(start + size for starts, sizes in pieces for start, size in zip(starts, sizes, strict=True))
    except (struct.error, KeyError, ValueError) as error:
        raise DataError(f'{path}: truncated or damaged, its TIFF directory cannot be read in '
                        f'{len(data)} bytes. {_FETCH_AGAIN}') from error
    if end > len(data):
        raise DataError(f'{path}: truncated, its pixels end at byte {end} and the file at {len(data)}. '
                        f'{_FETCH_AGAIN}')
    colour = tags.get(_TIFF_PHOTOMETRIC, (_TIFF_RGB,))[0]
    if colour not in (_TIFF_RGB, _TIFF_YCBCR):
        raise DataError(f'{path}: the colours must be RGB, this TIFF holds '
                        f'{_TIFF_COLOURS.get(colour, colour)}. Export it as RGB.')
    # OpenCV mixes up colours that are stored apart, without a word.
    if tags.get(_TIFF_PLANAR, (_TIFF_INTERLEAVED,))[0] != _TIFF_INTERLEAVED:
        raise DataError(f'{path}: this TIFF stores red, green and blue apart, which is not read. '
                        'Export it with interleaved channels.')


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """The whole-number tags of the first directory of a TIFF or BigTIFF (TIFF 6.0, section 2)."""
    order = '<' if data[:2] == b'II' else '>'
    big = data[2:4] in (b'+\0', b'\0+')
    pointer, number, entry = ('Q', 'Q', 'HHQ8s') if big else ('I', 'H', 'HHI4s')
    (place,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + number, data, place)
    place += struct.calcsize(order + number)
    size = struct.calcsize(order + entry)
    tags = {}
    for i in range(entries):
        tag, kind, count, value = struct.unpack_from(order + entry, data, place + i * size)
        if kind not in _TIFF_TYPES:
            continue
        values = f'{order}{count}{_TIFF_TYPES[kind]}'
        if struct.calcsize(values) <= len(value):
            tags[tag] = struct.unpack_from(values, value)
        else:
            tags[tag] = struct.unpack_from(values, data, struct.unpack(order + pointer, value)[0])
    return tags


# ---- Radiance ---------------------------------------------------------------------------------------


def _plain_radiance(path: pathlib.Path, data: bytes) -> bytes:
    """The same pixels under the plainest header: OpenCV wants FORMAT last and nothing after it."""
    header, resolution, start = _radiance_header(path, data)
    formats = [line.partition(b'=')[2].strip() for line in header if line.startswith(b'FORMAT=')]
    if formats != [RADIANCE_FORMAT]:
        raise DataError(f'{path}: the header must say FORMAT={RADIANCE_FORMAT.decode()} once, it says '
                        f'{[f.decode(errors="replace") for f in formats]}. Convert it to RGBE.')
    match = re.fullmatch(rb'-Y +(\d+) +\+X +(\d+)', resolution.strip())
    if match is None or 0 in map(int, match.groups()):
        raise DataError(f'{path}: the size must read "-Y height +X width", rows from the top, it reads '
                        f'{resolution[:40]!r}. Convert it to that orientation, or copy it again.')
    height, width = map(int, match.groups())
    _check_radiance_pixels(path, data, start, height, width)
    plain = b'#?RADIANCE\nFORMAT=%s\n\n-Y %d +X %d\n' % (RADIANCE_FORMAT, height, width)
    return plain + data[start:]


def _radiance_header(path: pathlib.Path, data: bytes) -> tuple[list[bytes], bytes, int]:
    """The header's lines up to the empty one, the line of the size, and where the pixels start."""
    match = re.match(rb'((?:[^\n]+\n)*?)\r?\n([^\n]*)\n', data)
    if match is None:
        raise DataError(f'{path}: truncated, the Radiance header has no end. {_FETCH_AGAIN}')
    return match[1].splitlines(), match[2], match.end()


def _check_radiance_pixels(path: pathlib.Path, data: bytes, start: int, height: int, width: int) -> None:
    """Flat pixels have a known length; the length of RLE is found out by decoding it."""
    new_rle = width in RLE_WIDTHS and data[start:start + 4] == struct.pack('>BBH', 2, 2, width)
    found, flat = len(data) - start, height * width * 4
    if new_rle or found == flat:
        return
    if found < flat and width in RLE_WIDTHS:
        raise DataError(f'{path}: truncated, or in the run-length code of before 1991, which is not read '
                        f'({found} bytes of pixels, {flat} expected). Copy it again, or convert it.')
    raise DataError(f'{path}: truncated or damaged, {found} bytes of pixels and {flat} expected. '
                    f'{_FETCH_AGAIN}')


def from_rgbe(rgbe: np.ndarray) -> np.ndarray:
    """RGBE bytes to linear values, `mantissa * 2 ** (e - 136)`; e = 0 is black.

    Args:
        rgbe: `[..., 4]` uint8.

    Returns:
        `[..., 3]` float32, exact.
    """
    return rgbe[..., :3] * _EXPONENT_SCALES[rgbe[..., 3:]]


def to_rgbe(image: np.ndarray) -> np.ndarray:
    """Linear values to the nearest RGBE bytes; the inverse of `from_rgbe`, exact for all it returns.

    The relative error is at most 1/256 of the pixel's largest channel.

    Args:
        image: `[..., 3]` float32, finite, 0 to `RGBE_LARGEST`.

    Returns:
        `[..., 4]` uint8.

    Raises:
        DataError: negative, NaN or infinite values, or values too large for RGBE.
    """
    largest = image.max(axis=-1)
    if not (image.min(initial=0.0) >= 0.0 and largest.max(initial=0.0) <= RGBE_LARGEST):
        raise DataError(f'RGBE holds values from 0 to {RGBE_LARGEST:.3g}, the image has values outside '
                        f'(smallest {image.min()}, largest {image.max()}). Clip them first.')
    exponent = np.frexp(largest)[1]  # largest < 2 ** exponent
    # A largest channel that rounds to 256 / 256 needs the next exponent.
    exponent += np.rint(np.ldexp(largest, 8 - exponent)) > 255
    exponent = np.maximum(exponent, 1 - (RGBE_BIAS - 8))  # the smallest stored exponent is 1
    rgbe = np.empty((*image.shape[:-1], 4), np.uint8)
    rgbe[..., :3] = np.rint(np.ldexp(image, (8 - exponent)[..., None]))
    rgbe[..., 3] = np.where(rgbe[..., :3].any(axis=-1), exponent + (RGBE_BIAS - 8), 0)
    return rgbe


# ---- writing ----------------------------------------------------------------------------------------


def write_hdr(path: PathLike, image: np.ndarray) -> None:
    """Writes a Radiance `.hdr`, run-length encoded, rounded to the nearest RGBE (see `to_rgbe`).

    Pixels whose largest channel is below 1e-32 become black.

    Args:
        path: ends in `.hdr`; its folder must exist.
        image: `[H, W, 3]` float32, linear RGB, finite and not negative.

    Raises:
        DataError: another shape or type, negative or non-finite values, or the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != '.hdr':
        raise DataError(f'{path}: HDR images are written as Radiance. Name the file .hdr.')
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.float32:
        raise DataError(f'{path}: an HDR image to write is float32 [H, W, 3], not {image.dtype} '
                        f'{list(image.shape)}. Convert it first.')
    try:
        exact = from_rgbe(to_rgbe(image))  # OpenCV's encoder truncates, which is right for what is exact
    except DataError as error:
        raise DataError(f'{path}: {error}') from error
    encoded = _encode(path, '.hdr', exact, [])
    write_atomically(path, encoded.replace(b'#?RGBE', RADIANCE_MAGIC[0], 1))


def write_ldr(path: PathLike, image: np.ndarray) -> None:
    """Writes an image of 8 or 16 bits as PNG, or as TIFF with LZW, by the name's ending.

    Args:
        path: ends in `.png`, `.tif` or `.tiff`; its folder must exist.
        image: `[H, W, 3]` uint8 or uint16, RGB.

    Raises:
        DataError: another shape, type or ending, or the file cannot be written.
    """
    path = pathlib.Path(path)
    lzw = [cv2.IMWRITE_TIFF_COMPRESSION, TIFF_LZW]
    options = {'.png': [], '.tif': lzw, '.tiff': lzw}
    ending = path.suffix.lower()
    if ending not in options:
        raise DataError(f'{path}: images are written as {", ".join(options)}. Choose one of these endings.')
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype not in (np.uint8, np.uint16):
        raise DataError(f'{path}: an image to write is uint8 or uint16 [H, W, 3], not {image.dtype} '
                        f'{list(image.shape)}. Convert it first.')
    write_atomically(path, _encode(path, ending, image, options[ending]))


def _encode(path: pathlib.Path, ending: str, image: np.ndarray, options: list[int]) -> bytes:
    done, encoded = cv2.imencode(ending, np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise DataError(f'{path}: OpenCV cannot encode an image of shape {list(image.shape)} as {ending}.')
    return encoded.tobytes()


def write_atomically(path: PathLike, data: bytes) -> None:
    """Writes a file under a temporary name beside it, then moves it: no half-written file is ever seen.

    Raises:
        DataError: the folder does not exist or cannot be written, or the disk is full.
    """
    path = pathlib.Path(path)
    try:
        path.parent.stat()  # `replacing` would make the folder
        with files.replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror}). Check that the folder exists, its '
                        'rights, and the space left.') from error
