"""Images on disk: 16-bit TIFF, PNG, JPEG and Radiance .hdr, read and written through OpenCV; OpenEXR read.

In memory an image is `[H, W, 3]`, colours in the order R, G, B. LDR images are uint16 (8 bits are
spread over 0..65535), HDR images are float32 and linear. A file is read whole or refused: before
OpenCV decodes it, its own index (TIFF), header (Radiance) or end marker (PNG, JPEG) is held against
its length, because some decoders fill what is missing and say so only in a log. Its size is taken from there too:
more than `max_pixels`, or more than so short a file can hold, is refused before memory is asked for. Every error is a
`DataError` that names the file and the cure. Files are written under a temporary name, then moved.
"""

import os
import pathlib
import re
import stat
import struct
import warnings
from collections.abc import Iterator

import cv2
import numpy as np

from afunet_jax import files
from afunet_jax.errors import DataError

PathLike = str | os.PathLike

MAX_PIXELS = 160_000_000  # of one image: more than any camera has; as float32 RGB they are 1.9 GB
MAX_FILE_BYTES = 4 * 2**30  # of one image: read whole into memory
MAX_EXPANSION = 4096  # bytes of pixels to a byte of file; deflate reaches 1032, LZW about 2500
EIGHT_TO_SIXTEEN_BITS = 257  # 255 * 257 == 65535
RGBE_BIAS = 136  # a stored exponent e scales the mantissas by 2 ** (e - 136): 128, and 8 bits of mantissa
RGBE_LARGEST = 255.0 * 2.0 ** (255 - RGBE_BIAS)  # the largest value that RGBE holds
RADIANCE_MAGIC = (b'#?RADIANCE', b'#?RGBE')
RADIANCE_PREAMBLE = 4096  # bytes of text that may stand before the magic words
RADIANCE_LONGEST = 2**20  # bytes of a header
RADIANCE_FORMAT = b'32-bit_rle_rgbe'
RLE_WIDTHS = range(8, 32768)  # narrower and wider images are stored flat, 4 bytes a pixel
EXR_MAGIC = b'v/1\x01'
TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two are BigTIFF
TIFF_LZW = 5  # compression, TIFF 6.0
PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
PNG_END = b'IEND\xaeB`\x82'
JPEG_MAGIC, JPEG_START, JPEG_SCAN, JPEG_END = b'\xff\xd8\xff', 0xD8, 0xDA, 0xD9
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that a height and width follow

_JPEG_MARKER = re.compile(rb'\xff([^\x00\xff\xd0-\xd7])', re.DOTALL)  # not: a stored 255, fill bytes, restarts
_JPEG_TEMPORARY = 0x01  # stands alone, without a length

_EXPONENT_SCALES = np.ldexp(np.ones(256, np.float32), np.arange(256) - RGBE_BIAS)
_EXPONENT_SCALES[0] = 0.0  # e = 0 is black

_FETCH_AGAIN = 'Copy or download it again.'
_TEMPORARY = ' (Or is /tmp full, or not to be written? OpenCV passes .hdr through a file there.)'


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


def read_ldr(path: PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a gamma-encoded LDR image.

    16-bit TIFF (uncompressed, LZW or deflate) and 16-bit PNG are read as they are. 8-bit TIFF, PNG and
    JPEG are accepted with an `EightBitWarning` and multiplied by 257, so that 255 becomes 65535.

    Args:
        path: the file; its format is told by its content, not by its name.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        `[H, W, 3]` uint16, RGB, 0..65535.

    Raises:
        DataError: missing, empty, truncated or damaged; another format; alpha, grey, palette or float; too large.
    """
    path = pathlib.Path(path)
    data = read_bytes(path)
    check_ldr_file(path, data, max_pixels=max_pixels)
    image = decode(path, data)
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


def read_hdr(path: PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a linear HDR image: Radiance `.hdr`, or a TIFF of floats.

    RGBE is decoded as `mantissa * 2 ** (e - 136)`, without the 0.5 that some readers add. A header's
    EXPOSURE is not applied: the benchmarks' labels are used as they are stored. Lines of text before the
    magic words, comments anywhere in the header, all eight orientations, and the run-length code of before 1991
    are read.

    Args:
        path: the file.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        `[H, W, 3]` float32, RGB. The values are not checked: a label's rules are `data.scenes`' matter.

    Raises:
        DataError: missing, empty, truncated or damaged; another format; not three channels; too large.
    """
    path = pathlib.Path(path)
    data = read_bytes(path)
    if (magic := radiance_start(data)) is not None:
        image = _decode_radiance(path, data[magic:], max_pixels)
    elif data.startswith(TIFF_MAGIC):
        _check_tiff(path, data, max_pixels=max_pixels)
        image = decode(path, data)
    else:
        raise DataError(f'{path}: not an HDR image that can be read here, it starts with {data[:10]!r}. '
                        'Radiance .hdr and TIFF of floats are read; convert it to Radiance .hdr.')
    if image.dtype not in (np.float32, np.float64) or image.ndim != 3 or image.shape[-1] != 3:
        raise DataError(f'{path}: an HDR image has three channels of floats, this one is {image.dtype} of '
                        f'shape {image.shape}. Export it as Radiance .hdr or as RGB TIFF of 32-bit floats.')
    return np.ascontiguousarray(image[..., ::-1], dtype=np.float32)


def read_bytes(path: PathLike) -> bytes:
    """A file's content.

    Raises:
        DataError: missing, empty, not readable, no file (a pipe or device could go on for ever), or larger than
            `MAX_FILE_BYTES`.
    """
    return read_start(path, MAX_FILE_BYTES)


def file_bytes(path: PathLike) -> int:
    """A file's length.

    Raises:
        DataError: as `read_bytes`.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise DataError(f'{path}: cannot be read ({getattr(error, "strerror", error)}). '
                        'Check the path and its rights.') from error
    if stat.S_ISDIR(status.st_mode) or not stat.S_ISREG(status.st_mode):
        raise DataError(f'{path}: cannot be read, it is not a file. Check the path.')
    if not status.st_size:
        raise DataError(f'{path}: the file is empty (0 bytes). {_FETCH_AGAIN}')
    if status.st_size > MAX_FILE_BYTES:
        raise DataError(f'{path}: {status.st_size} bytes are more than the {MAX_FILE_BYTES} that an image may have. '
                        'Make it smaller.')
    return status.st_size


def check_size(path: PathLike, height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuses an image by the size that its header gives.

    Raises:
        DataError: empty, or more than `max_pixels`.
    """
    if height < 1 or width < 1:
        raise DataError(f'{path}: the header says {width}x{height} pixels. {_FETCH_AGAIN}')
    if height * width > max_pixels:
        raise DataError(f'{path}: {width}x{height} pixels ({height * width / 1e6:.1f} megapixels) are more than '
                        f'max_pixels={max_pixels} allows. Make it smaller, or raise the limit if the memory is there '
                        '(6 bytes a pixel for each frame, and what the network needs).')


def check_expansion(path: PathLike, pixel_bytes: int, file_length: int) -> None:
    """Refuses a file that promises more pixels than its length can hold: a bomb, or damaged.

    Raises:
        DataError: more than `MAX_EXPANSION` bytes of pixels to a byte.
    """
    if pixel_bytes > MAX_EXPANSION * file_length:
        raise DataError(f'{path}: truncated or damaged, its header promises {pixel_bytes} bytes of pixels, and '
                        f'{file_length} bytes cannot hold them. {_FETCH_AGAIN}')


def decode(path: PathLike, data: bytes) -> np.ndarray:
    """OpenCV's decoder on a file's bytes, so that any path will do.

    The orientation of a TIFF is applied, the EXIF orientation of other formats is not.

    Returns:
        `[H, W]`, or `[H, W, C]` in the order B, G, R, A, in the file's own type.

    Raises:
        DataError: the pixels cannot be decoded.
    """
    hint = _TEMPORARY if data.startswith(RADIANCE_MAGIC) else ''
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(f'{path}: damaged, its pixels cannot be decoded ({error.err}). '
                        f'{_FETCH_AGAIN}{hint}') from error
    if image is None:
        raise DataError(f'{path}: the pixels cannot be decoded: damaged, truncated, or of a kind '
                        f'that OpenCV does not read. {_FETCH_AGAIN} If that does not help, export it anew.{hint}')
    return image


def check_ldr_file(path: PathLike, data: bytes, grey: bool = False, max_pixels: int = MAX_PIXELS) -> None:
    """Holds a TIFF, PNG or JPEG against its own index or end marker, before anything is decoded.

    Args:
        path: for the messages.
        data: the file's bytes.
        grey: accept TIFFs of one channel, where black is zero.
        max_pixels: larger images are refused.

    Raises:
        DataError: another format, truncated, too large, or of colours that OpenCV does not read rightly.
    """
    if data.startswith(TIFF_MAGIC):
        _check_tiff(path, data, grey, max_pixels)
        return
    if data.startswith(PNG_MAGIC):
        _check_png_chunks(path, data)
    elif data.startswith(JPEG_MAGIC):
        if JPEG_END not in (marker for marker, _ in _jpeg_markers(data)):
            raise DataError(f'{path}: truncated, the JPEG has no end ({len(data)} bytes). {_FETCH_AGAIN}')
    else:
        raise DataError(f'{path}: not a TIFF, PNG or JPEG image, it starts with {data[:10]!r}. '
                        'Export it as 16-bit RGB TIFF.')
    height, width, pixel_bytes = _png_size(path, data) if data.startswith(PNG_MAGIC) else _jpeg_size(path, data)
    check_size(path, height, width, max_pixels)
    check_expansion(path, height * width * pixel_bytes, len(data))


def _check_png_chunks(path: PathLike, data: bytes) -> None:
    """Every chunk lies inside the file: OpenCV asks for a chunk's memory before it looks whether it is there."""
    place, kind, headers = len(PNG_MAGIC), b'', 0
    while kind != PNG_END[:4]:
        if place + 12 > len(data):
            raise DataError(f'{path}: truncated, the PNG has no end ({len(data)} bytes). {_FETCH_AGAIN}')
        length, kind = struct.unpack_from('>I4s', data, place)
        place += 12 + length  # with its length, its name and its checksum
        headers += kind == b'IHDR'
    if place > len(data) or headers != 1:
        raise DataError(f'{path}: truncated or damaged, a PNG chunk ends at byte {place} of {len(data)}, or there are '
                        f'{headers} headers. {_FETCH_AGAIN}')


def _png_size(path: PathLike, data: bytes) -> tuple[int, int, int]:
    """Height, width and bytes a pixel: the first chunk (PNG 3, 11.2.1)."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    try:
        kind, width, height, bits, colour = struct.unpack_from('>4sIIBB', data, len(PNG_MAGIC) + 4)
        if kind != b'IHDR' or colour not in channels:
            raise ValueError(f'{kind!r}, colours of type {colour}')
    except (struct.error, ValueError) as error:
        raise DataError(f'{path}: damaged, the PNG has no header that can be read ({error}). {_FETCH_AGAIN}') from error
    return height, width, -(-channels[colour] * bits // 8)


def _jpeg_size(path: PathLike, data: bytes) -> tuple[int, int, int]:
    """Height, width and bytes a pixel: the first frame header (ITU-T T.81, B.2.2)."""
    try:
        for marker, place in _jpeg_markers(data):
            if marker in JPEG_FRAMES:
                return *struct.unpack_from('>HH', data, place + 3), data[place + 7]
            if marker == JPEG_SCAN:
                break
        raise ValueError('none before the first scan')
    except (struct.error, ValueError, IndexError) as error:
        raise DataError(f'{path}: damaged, the JPEG has no frame header ({error}). {_FETCH_AGAIN}') from error


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers up to the end of the first image, and where what they begin starts (ITU-T T.81, B.1.1).

    Segments are passed over by their length, and with them previews; behind the end may be anything, as a film.
    A scan has no markers but those that the pattern leaves out.
    """
    marker, place = 0, len(JPEG_MAGIC) - 1
    while marker not in (JPEG_START, JPEG_END) and (found := _JPEG_MARKER.search(data, place)):
        marker, place = found[1][0], found.end()
        yield marker, place
        if marker != _JPEG_TEMPORARY:
            place += int.from_bytes(data[place:place + 2])


# ---- TIFF: its directory against its length -------------------------------------------------------

_TIFF_TYPES = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # BYTE, SHORT, LONG, LONG8: all that the tags below use
_TIFF_PHOTOMETRIC, _TIFF_BLACK_IS_ZERO, _TIFF_RGB, _TIFF_YCBCR = 262, 1, 2, 6
_TIFF_PLANAR, _TIFF_INTERLEAVED = 284, 1
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_SAMPLES = 256, 257, 258, 277
_TIFF_DATA_TAGS = ((273, 279), (324, 325))  # offsets and byte counts, of strips or of tiles
_TIFF_COLOURS = {0: 'grey', 1: 'grey', 3: 'a palette', 4: 'a mask', 5: 'CMYK', 8: 'Lab'}


def _check_tiff(path: PathLike, data: bytes, grey: bool = False, max_pixels: int = MAX_PIXELS) -> None:
    """Every strip or tile of the first image lies inside the file, and it is what OpenCV reads rightly."""
    try:
        tags = tiff_tags(data)
        pieces = [(tags[where], tags[count]) for where, count in _TIFF_DATA_TAGS if where in tags]
        end = max(start + size for starts, sizes in pieces for start, size in zip(starts, sizes, strict=True))
        height, width = tags[_TIFF_HEIGHT][0], tags[_TIFF_WIDTH][0]
    except (struct.error, KeyError, ValueError) as error:
        raise DataError(f'{path}: truncated or damaged, its TIFF directory cannot be read in '
                        f'{len(data)} bytes. {_FETCH_AGAIN}') from error
    if end > len(data):
        raise DataError(f'{path}: truncated, its pixels end at byte {end} and the file at {len(data)}. '
                        f'{_FETCH_AGAIN}')
    check_size(path, height, width, max_pixels)
    bits = max(tags.get(_TIFF_BITS, (1,))) * tags.get(_TIFF_SAMPLES, (1,))[0]
    check_expansion(path, height * width * bits // 8, len(data))
    colour = tags.get(_TIFF_PHOTOMETRIC, (_TIFF_RGB,))[0]
    if colour not in (_TIFF_RGB, _TIFF_YCBCR) and not (grey and colour == _TIFF_BLACK_IS_ZERO):
        raise DataError(f'{path}: the colours must be RGB, this TIFF holds '
                        f'{_TIFF_COLOURS.get(colour, colour)}. Export it as RGB.')
    # OpenCV mixes up colours that are stored apart, without a word.
    if tags.get(_TIFF_PLANAR, (_TIFF_INTERLEAVED,))[0] != _TIFF_INTERLEAVED:
        raise DataError(f'{path}: this TIFF stores red, green and blue apart, which is not read. '
                        'Export it with interleaved channels.')


def tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """The whole-number tags of the first directory of a TIFF or BigTIFF (TIFF 6.0, section 2); empty ones are left out.

    Raises:
        struct.error: a place or a count beyond the end; values that together are longer than the file.
    """
    order = '<' if data[:2] == b'II' else '>'
    big = data[2:4] in (b'+\0', b'\0+')
    pointer, number, entry = ('Q', 'Q', 'HHQ8s') if big else ('I', 'H', 'HHI4s')
    (place,) = _unpack(order + pointer, data, 8 if big else 4)
    (entries,) = _unpack(order + number, data, place)
    place += struct.calcsize(order + number)
    size = struct.calcsize(order + entry)
    tags, room = {}, len(data)
    for i in range(entries):
        tag, kind, count, value = _unpack(order + entry, data, place + i * size)
        if kind not in _TIFF_TYPES or not count:
            continue
        values = f'{order}{count}{_TIFF_TYPES[kind]}'
        room -= struct.calcsize(values)
        if room < 0:  # thousands of tags that share one long place would fill the memory
            raise struct.error(f'the values of the tags are longer than {len(data)} bytes')
        if struct.calcsize(values) <= len(value):
            tags[tag] = struct.unpack_from(values, value)
        else:
            tags[tag] = _unpack(values, data, struct.unpack(order + pointer, value)[0])
    return tags


def _unpack(values: str, data: bytes, place: int) -> tuple:
    """`struct.unpack_from`, for places that need not fit into 63 bits."""
    if place > len(data):
        raise struct.error(f'byte {place} of {len(data)}')
    return struct.unpack_from(values, data, place)


# ---- Radiance ---------------------------------------------------------------------------------------


def radiance_start(data: bytes) -> int | None:
    """Where the magic words of a Radiance file are: its start, or after lines of text; None if nowhere."""
    match = re.search(rb'^#\?(?:RADIANCE|RGBE)\b', data[:RADIANCE_PREAMBLE], re.MULTILINE)
    return None if match is None else match.start()


def radiance_size(path: PathLike, data: bytes) -> tuple[int, int]:
    """Height and width of the image as it is meant to be seen, from the header alone.

    Raises:
        DataError: the header has no end, another FORMAT, or no size.
    """
    lines, length, orientation, _ = _radiance_layout(pathlib.Path(path), data)
    return (length, lines) if orientation.startswith('X') else (lines, length)


def _decode_radiance(path: pathlib.Path, data: bytes, max_pixels: int) -> np.ndarray:
    """`[H, W, 3]` float32, BGR. OpenCV decodes the pixels under the plainest header: FORMAT last, -Y +X."""
    lines, length, orientation, start = _radiance_layout(path, data)
    check_size(path, lines, length, max_pixels)
    check_expansion(path, lines * length * 4, len(data))
    pixels = data[start:]
    if _in_old_code(pixels, lines, length):
        image = from_rgbe(_decode_old_code(path, pixels, lines, length))[..., ::-1]
    else:
        _check_radiance_pixels(path, pixels, lines, length)
        plain = b'#?RADIANCE\nFORMAT=%s\n\n-Y %d +X %d\n' % (RADIANCE_FORMAT, lines, length)
        image = decode(path, plain + pixels)
    # The first axis of the file comes first in its size; -Y counts from the top, +X from the left.
    first, second = orientation[1], orientation[3]
    if first == ('+' if orientation[0] == 'Y' else '-'):
        image = image[::-1]
    if second == ('+' if orientation[2] == 'Y' else '-'):
        image = image[:, ::-1]
    return image.swapaxes(0, 1) if orientation[0] == 'X' else image


def _radiance_layout(path: pathlib.Path, data: bytes) -> tuple[int, int, str, int]:
    """Number of scan lines, their length, orientation as in 'Y-X+', and where the pixels start."""
    header, resolution, start = _radiance_header(path, data)
    formats = [line.partition(b'=')[2].strip() for line in header if line.startswith(b'FORMAT=')]
    if formats != [RADIANCE_FORMAT]:
        raise DataError(f'{path}: the header must say FORMAT={RADIANCE_FORMAT.decode()} once, it says '
                        f'{[f.decode(errors="replace") for f in formats]}. Convert it to RGBE.')
    match = re.fullmatch(rb'([+-])([YX]) +(\d{1,10}) +([+-])([YX]) +(\d{1,10})', resolution.strip())
    if match is None or match[2] == match[5] or 0 in (int(match[3]), int(match[6])):
        raise DataError(f'{path}: the size must read "-Y height +X width", or another orientation of Y and X, it '
                        f'reads {resolution[:40]!r}. Copy it again, or export it anew.')
    orientation = (match[2] + match[1] + match[5] + match[4]).decode()
    return int(match[3]), int(match[6]), orientation, start


def _radiance_header(path: pathlib.Path, data: bytes) -> tuple[list[bytes], bytes, int]:
    """The header's lines up to the empty one, the line of the size, and where the pixels start."""
    match = re.match(rb'((?:[^\n]+\n)*?)\r?\n([^\n]*)\n', data[:RADIANCE_LONGEST])
    if match is None:
        raise DataError(f'{path}: truncated, the Radiance header has no end within {RADIANCE_LONGEST} bytes. '
                        f'{_FETCH_AGAIN}')
    return match[1].splitlines(), match[2], match.end()


def _in_new_code(pixels: bytes, length: int) -> bool:
    return length in RLE_WIDTHS and pixels[:4] == struct.pack('>BBH', 2, 2, length)


def _in_old_code(pixels: bytes, lines: int, length: int) -> bool:
    """Shorter than flat pixels, and with marks of a repetition: 1, 1, 1, count."""
    return (not _in_new_code(pixels, length) and len(pixels) < lines * length * 4
            and (np.frombuffer(pixels[:len(pixels) // 4 * 4], np.uint8).reshape(-1, 4)[:, :3] == 1).all(-1).any())


def _decode_old_code(path: pathlib.Path, pixels: bytes, lines: int, length: int) -> np.ndarray:
    """The run-length code of before 1991, to `[lines, length, 4]` uint8.

    1, 1, 1, n repeats the pixel before it n times; marks in a row are digits of one count, the lowest first.
    """
    found = np.frombuffer(pixels[:len(pixels) // 4 * 4], np.uint8).reshape(-1, 4)
    marks = (found[:, :3] == 1).all(-1)
    order = np.arange(len(found))
    digit = order - 1 - np.maximum.accumulate(np.where(marks, -1, order))  # 0 for the first mark after a pixel
    shift = 8 * np.clip(digit, 0, 3)
    counts = np.where(marks, found[:, 3].astype(np.int64) << shift, 1)
    if marks[0] or len(pixels) % 4 or counts.sum() != lines * length:
        raise DataError(f'{path}: truncated or damaged, its run-length code of before 1991 gives {counts.sum()} '
                        f'pixels and {lines * length} are expected. {_FETCH_AGAIN}')
    source = np.maximum.accumulate(np.where(marks, 0, order))
    return np.repeat(found[source], counts, axis=0).reshape(lines, length, 4)


def _check_radiance_pixels(path: pathlib.Path, pixels: bytes, lines: int, length: int) -> None:
    """Flat pixels have a known length; the length of RLE is found out by decoding it."""
    found, flat = len(pixels), lines * length * 4
    if not _in_new_code(pixels, length) and found != flat:
        raise DataError(f'{path}: truncated or damaged, {found} bytes of pixels and {flat} expected. '
                        f'{_FETCH_AGAIN}')


# ---- OpenEXR ----------------------------------------------------------------------------------------

_GREY = ('Y',)
_REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # primaries and white where a header names none
_CHROMATICITY_TOLERANCE = 0.005


class ExrWarning(UserWarning):
    """Something in an OpenEXR file was changed or passed over."""


def exr_size(path: PathLike) -> tuple[int, int]:
    """Height and width of an OpenEXR file's pixels (its data window), from the header alone.

    Raises:
        DataError: missing, damaged, several images in one file, or the OpenEXR package is not installed.
    """
    file = _open_exr(path, header_only=True)
    if len(file.parts) != 1:
        raise DataError(f'{path}: {len(file.parts)} images in one file. Export one of them alone.')
    try:
        (left, top), (right, bottom) = file.header()['dataWindow']
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f'{path}: damaged, its header gives no data window. {_FETCH_AGAIN}') from error
    return int(bottom) - int(top) + 1, int(right) - int(left) + 1  # their difference may not fit into 32 bits


def read_exr(path: PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a linear image from OpenEXR (half, float or uint; scan lines or tiles, every compression).

    Channels R, G, B are taken, of the only layer if they are named `layer.R`; Y alone becomes three equal
    channels with a warning. Primaries other than Rec. 709 are not converted: an `ExrWarning` says so. Values
    may be negative or above 1.

    Args:
        path: the file.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        `[H, W, 3]` float32, RGB: the data window.

    Raises:
        DataError: missing, truncated or damaged; deep; several images; no R, G, B; an alpha below 1; NaN or infinite
            values; too large.
    """
    path = pathlib.Path(path)
    height, width = exr_size(path)
    check_size(path, height, width, max_pixels)
    check_expansion(path, height * width * 3 * 2, file_bytes(path))  # three channels of half floats are the least
    file = _open_exr(path)
    channels = {name: channel.pixels for name, channel in _exr_part(path, file).items()}
    colours, alpha = _exr_colours(path, channels)
    if {channel.shape for channel in (*colours, *([] if alpha is None else [alpha]))} != {(height, width)}:
        raise DataError(f'{path}: its channels have not all {width}x{height} pixels. Export them at full size.')
    image = np.stack(colours, axis=-1).astype(np.float32)
    if alpha is not None and alpha.min() < 1:
        raise DataError(f'{path}: the alpha channel is not opaque (smallest {alpha.min():.3g}). '
                        'Flatten the image on a background.')
    if not np.isfinite(image).all():
        raise DataError(f'{path}: {int((~np.isfinite(image)).sum())} values of {image.size} are NaN or infinite. '
                        'Export it anew.')
    primaries = file.header().get('chromaticities')
    if primaries is not None and not np.allclose(primaries, _REC709, atol=_CHROMATICITY_TOLERANCE):
        warnings.warn(f'{path}: its primaries are not those of Rec. 709 and sRGB; colours are used as they are '
                      'stored.', ExrWarning, stacklevel=2)
    return image


def _open_exr(path: PathLike, header_only: bool = False):
    try:
        import OpenEXR
    except ImportError as error:
        raise DataError(f'{path}: reading OpenEXR needs a package that is not installed. '
                        'Run: pip install OpenEXR') from error
    if read_start(path, len(EXR_MAGIC)) != EXR_MAGIC:
        raise DataError(f'{path}: not an OpenEXR file. {_FETCH_AGAIN}')
    try:
        file = OpenEXR.File(str(path), separate_channels=True, header_only=header_only)
        file.header()
        return file
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise DataError(f'{path}: truncated or damaged, OpenEXR cannot read it ({error}). {_FETCH_AGAIN}') from error


def _exr_part(path: pathlib.Path, file) -> dict:
    try:
        if 'deep' in str(file.header().get('type')):
            raise DataError(f'{path}: deep images are not read. Flatten it.')
        return file.channels()
    except (RuntimeError, ValueError) as error:
        raise DataError(f'{path}: truncated or damaged, OpenEXR cannot read it ({error}). {_FETCH_AGAIN}') from error


def _exr_colours(path: pathlib.Path, channels: dict[str, np.ndarray]):
    """R, G, B and the alpha, if there is one."""
    layers = {name.rpartition('.')[0] for name in channels}
    complete = [layer for layer in layers if {_named(layer, c) for c in 'RGB'} <= set(channels)]
    layer = '' if '' in complete else complete[0] if len(complete) == 1 else None
    if layer is not None:
        return [channels[_named(layer, c)] for c in 'RGB'], channels.get(_named(layer, 'A'))
    if set(channels) - {'A'} == set(_GREY):
        warnings.warn(f'{path}: grey, used as three equal channels.', ExrWarning, stacklevel=3)
        return [channels['Y']] * 3, channels.get('A')
    raise DataError(f'{path}: the channels R, G, B are wanted once, it has {", ".join(sorted(channels))}. '
                    'Export it as RGB.')


def _named(layer: str, channel: str) -> str:
    return f'{layer}.{channel}' if layer else channel


def read_start(path: PathLike, count: int) -> bytes:
    """The first `count` bytes of a file, fewer if it is shorter.

    Raises:
        DataError: missing, empty, or not readable.
    """
    file_bytes(path)
    try:
        with open(path, 'rb') as file:
            return file.read(count)
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}). Check the path and its rights.') from error


# ---- RGBE -------------------------------------------------------------------------------------------


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
        raise DataError(f'{path}: OpenCV cannot encode an image of shape {list(image.shape)} as {ending}.'
                        + (_TEMPORARY if ending == '.hdr' else ''))
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
