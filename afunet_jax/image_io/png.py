"""PNG: its chunks and header, held against the file's length."""

import struct

from afunet_jax.errors import DataError
from afunet_jax.image_io.content import FETCH_AGAIN, MAX_PIXELS, PathLike, check_expansion, check_size

PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
_END = b'IEND'


def check_png(path: PathLike, data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Holds a PNG against its own chunks and header, before anything is decoded.

    Raises:
        DataError: truncated, damaged, or too large.
    """
    _check_chunks(path, data)
    height, width, pixel_bytes = _size(path, data)
    check_size(path, height, width, max_pixels)
    check_expansion(path, height * width * pixel_bytes, len(data))


def _check_chunks(path: PathLike, data: bytes) -> None:
    """Every chunk lies inside the file: OpenCV asks for a chunk's memory before it looks whether it is there."""
    place, kind, headers = len(PNG_MAGIC), b'', 0
    while kind != _END:
        if place + 12 > len(data):
            raise DataError(f'{path}: truncated, the PNG has no end ({len(data)} bytes). {FETCH_AGAIN}')
        length, kind = struct.unpack_from('>I4s', data, place)
        place += 12 + length  # with its length, its name and its checksum
        headers += kind == b'IHDR'
    if place > len(data) or headers != 1:
        raise DataError(f'{path}: truncated or damaged, a PNG chunk ends at byte {place} of {len(data)}, or there are '
                        f'{headers} headers. {FETCH_AGAIN}')


def _size(path: PathLike, data: bytes) -> tuple[int, int, int]:
    """Height, width and bytes a pixel: the first chunk (PNG 3, 11.2.1)."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    try:
        kind, width, height, bits, colour = struct.unpack_from('>4sIIBB', data, len(PNG_MAGIC) + 4)
        if kind != b'IHDR' or colour not in channels:
            raise ValueError(f'{kind!r}, colours of type {colour}')
    except (struct.error, ValueError) as error:
        raise DataError(f'{path}: damaged, the PNG has no header that can be read ({error}). {FETCH_AGAIN}') from error
    return height, width, -(-channels[colour] * bits // 8)
