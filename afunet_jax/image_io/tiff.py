"""TIFF: its directory, held against the file's length and against what OpenCV reads rightly."""

import struct
from collections.abc import Iterator

from afunet_jax.errors import DataError
from afunet_jax.image_io.content import FETCH_AGAIN, MAX_PIXELS, PathLike, check_expansion, check_size

TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two are BigTIFF
_TYPES = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # BYTE, SHORT, LONG, LONG8: all that the tags below use
_NUMBERS = {**_TYPES, 6: 'b', 8: 'h', 9: 'i'}  # and SBYTE, SSHORT, SLONG, which decoders take for an orientation
_PHOTOMETRIC, _BLACK_IS_ZERO, _RGB, _YCBCR = 262, 1, 2, 6
_PLANAR, _INTERLEAVED = 284, 1
_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _SAMPLES = 256, 257, 258, 274, 277
_DATA_TAGS = ((273, 279), (324, 325))  # offsets and byte counts, of strips or of tiles
_COLOURS = {0: 'grey', 1: 'grey', 3: 'a palette', 4: 'a mask', 5: 'CMYK', 8: 'Lab'}


def check_tiff(path: PathLike, data: bytes, grey: bool = False, max_pixels: int = MAX_PIXELS) -> None:
    """Holds a TIFF against its own directory, before anything is decoded.

    Every strip or tile of the first image must lie inside the file, and its colours be what OpenCV reads rightly.

    Raises:
        DataError: truncated, damaged, too large, not RGB (`grey`: nor one channel where black is zero), or with the
            channels stored apart.
    """
    try:
        tags = tiff_tags(data)
        pieces = [(tags[where], tags[count]) for where, count in _DATA_TAGS if where in tags]
        end = max(start + size for starts, sizes in pieces for start, size in zip(starts, sizes, strict=True))
        height, width = tags[_HEIGHT][0], tags[_WIDTH][0]
    except (struct.error, KeyError, ValueError) as error:
        raise DataError(f'{path}: truncated or damaged, its TIFF directory cannot be read in '
                        f'{len(data)} bytes. {FETCH_AGAIN}') from error
    if end > len(data):
        raise DataError(f'{path}: truncated, its pixels end at byte {end} and the file at {len(data)}. '
                        f'{FETCH_AGAIN}')
    check_size(path, height, width, max_pixels)
    bits = max(tags.get(_BITS, (1,))) * tags.get(_SAMPLES, (1,))[0]
    check_expansion(path, height * width * bits // 8, len(data))
    colour = tags.get(_PHOTOMETRIC, (_RGB,))[0]
    if colour not in (_RGB, _YCBCR) and not (grey and colour == _BLACK_IS_ZERO):
        raise DataError(f'{path}: the colours must be RGB, this TIFF holds '
                        f'{_COLOURS.get(colour, colour)}. Export it as RGB.')
    # OpenCV mixes up colours that are stored apart, without a word.
    if tags.get(_PLANAR, (_INTERLEAVED,))[0] != _INTERLEAVED:
        raise DataError(f'{path}: this TIFF stores red, green and blue apart, which is not read. '
                        'Export it with interleaved channels.')


def tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """The whole-number tags of the first directory of a TIFF or BigTIFF (TIFF 6.0, section 2); empty ones are left out.

    Raises:
        struct.error: a place or a count beyond the end; values that together are longer than the file.
    """
    order, pointer, _ = _formats(data)
    tags, room = {}, len(data)
    for tag, kind, count, value, _ in _entries(data):
        if kind not in _TYPES or not count:
            continue
        values = f'{order}{count}{_TYPES[kind]}'
        room -= struct.calcsize(values)
        if room < 0:  # thousands of tags that share one long place would fill the memory
            raise struct.error(f'the values of the tags are longer than {len(data)} bytes')
        if struct.calcsize(values) <= len(value):
            tags[tag] = struct.unpack_from(values, value)
        else:
            tags[tag] = _unpack(values, data, struct.unpack(order + pointer, value)[0])
    return tags


def as_stored(data: bytes) -> tuple[bytes, int]:
    """A TIFF that says of itself that it is upright, and the orientation that it gave before.

    OpenCV turns TIFFs upright by itself, 8 bits in tiles wrongly: each tile is turned, in its place (OpenCV 5.0).

    Returns:
        `(data, orientation)`, the data as they were where the orientation is 1 or cannot be read.
    """
    order, found = _formats(data)[0], []
    try:
        for tag, kind, count, value, place in _entries(data):
            number = order + _NUMBERS.get(kind, 'x')
            if tag == _ORIENTATION and kind in _NUMBERS and count == 1 and struct.calcsize(number) <= len(value):
                found.append((number, place))
    except struct.error:
        return data, 1
    orientations = [struct.unpack_from(number, data, place)[0] for number, place in found]
    if not orientations or orientations[-1] == 1:
        return data, 1
    changed = bytearray(data)
    for number, place in found:
        struct.pack_into(number, changed, place, 1)
    return bytes(changed), orientations[-1]


def _formats(data: bytes) -> tuple[str, str, str]:
    """Byte order, and the formats of a place and of a directory's entry."""
    big = data[2:4] in (b'+\0', b'\0+')
    return ('<' if data[:2] == b'II' else '>', *(('Q', 'HHQ8s') if big else ('I', 'HHI4s')))


def _entries(data: bytes) -> Iterator[tuple[int, int, int, bytes, int]]:
    """Of each entry of the first directory: tag, type, count, value (or its place), and where that stands."""
    order, pointer, entry = _formats(data)
    number = 'Q' if pointer == 'Q' else 'H'
    (place,) = _unpack(order + pointer, data, 8 if pointer == 'Q' else 4)
    (entries,) = _unpack(order + number, data, place)
    place += struct.calcsize(order + number)
    size = struct.calcsize(order + entry)
    for start in range(place, place + entries * size, size):
        tag, kind, count, value = _unpack(order + entry, data, start)
        yield tag, kind, count, value, start + size - len(value)


def _unpack(values: str, data: bytes, place: int) -> tuple:
    """`struct.unpack_from`, for places that need not fit into 63 bits."""
    if place > len(data):
        raise struct.error(f'byte {place} of {len(data)}')
    return struct.unpack_from(values, data, place)
