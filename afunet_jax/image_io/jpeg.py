"""JPEG: its markers and frame header, held against the file's length."""

import re
import struct
from collections.abc import Iterator

from afunet_jax.errors import DataError
from afunet_jax.image_io.content import FETCH_AGAIN, MAX_PIXELS, PathLike, check_expansion, check_size

JPEG_MAGIC = b'\xff\xd8\xff'
_START, _SCAN, _END = 0xD8, 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that a height and width follow
_MARKER = re.compile(rb'\xff([^\x00\xff\xd0-\xd7])', re.DOTALL)  # not: a stored 255, fill bytes, restarts
_TEMPORARY = 0x01  # stands alone, without a length


def check_jpeg(path: PathLike, data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Holds a JPEG against its own end marker and header, before anything is decoded.

    Raises:
        DataError: truncated, damaged, or too large.
    """
    if _END not in (marker for marker, _ in _markers(data)):
        raise DataError(f'{path}: truncated, the JPEG has no end ({len(data)} bytes). {FETCH_AGAIN}')
    height, width, pixel_bytes = _size(path, data)
    check_size(path, height, width, max_pixels)
    check_expansion(path, height * width * pixel_bytes, len(data))


def _size(path: PathLike, data: bytes) -> tuple[int, int, int]:
    """Height, width and bytes a pixel: the first frame header (ITU-T T.81, B.2.2)."""
    try:
        for marker, place in _markers(data):
            if marker in _FRAMES:
                return *struct.unpack_from('>HH', data, place + 3), data[place + 7]
            if marker == _SCAN:
                break
        raise ValueError('none before the first scan')
    except (struct.error, ValueError, IndexError) as error:
        raise DataError(f'{path}: damaged, the JPEG has no frame header ({error}). {FETCH_AGAIN}') from error


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers up to the end of the first image, and where what they begin starts (ITU-T T.81, B.1.1).

    Segments are passed over by their length, and with them previews; behind the end may be anything, as a film.
    A scan has no markers but those that the pattern leaves out.
    """
    marker, place = 0, len(JPEG_MAGIC) - 1
    while marker not in (_START, _END) and (found := _MARKER.search(data, place)):
        marker, place = found[1][0], found.end()
        yield marker, place
        if marker != _TEMPORARY:
            place += int.from_bytes(data[place:place + 2])
