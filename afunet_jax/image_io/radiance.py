"""Radiance `.hdr`: its header, held against the file's length, its orientation, and its pixels."""

import pathlib
import re
import struct

import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.image_io import opencv
from afunet_jax.image_io.content import FETCH_AGAIN, PathLike, check_expansion, check_size
from afunet_jax.image_io.rgbe import from_rgbe

RADIANCE_MAGIC = (b'#?RADIANCE', b'#?RGBE')
RADIANCE_PREAMBLE = 4096  # bytes of text that may stand before the magic words
_LONGEST = 2**20  # bytes of a header
_FORMAT = b'32-bit_rle_rgbe'
_RLE_WIDTHS = range(8, 32768)  # narrower and wider images are stored flat, 4 bytes a pixel


def radiance_start(data: bytes) -> int | None:
    """Where the magic words of a Radiance file are: its start, or after lines of text; None if nowhere."""
    match = re.search(rb'^#\?(?:RADIANCE|RGBE)\b', data[:RADIANCE_PREAMBLE], re.MULTILINE)
    return None if match is None else match.start()


def radiance_size(path: PathLike, data: bytes) -> tuple[int, int]:
    """Height and width of the image as it is meant to be seen, from the header alone.

    Raises:
        DataError: the header has no end, another FORMAT, or no size.
    """
    lines, length, orientation, _ = _layout(pathlib.Path(path), data)
    return (length, lines) if orientation.startswith('X') else (lines, length)


def decode_radiance(path: pathlib.Path, data: bytes, max_pixels: int) -> np.ndarray:
    """The pixels of a file whose magic words are its first. OpenCV decodes them under the plainest header: -Y +X.

    Returns:
        `[H, W, 3]` float32, in the order B, G, R, as OpenCV's.

    Raises:
        DataError: truncated, damaged, or too large.
    """
    lines, length, orientation, start = _layout(path, data)
    check_size(path, lines, length, max_pixels)
    check_expansion(path, lines * length * 4, len(data))
    pixels = data[start:]
    if _in_old_code(pixels, lines, length):
        image = from_rgbe(_decode_old_code(path, pixels, lines, length))[..., ::-1]
    else:
        _check_flat_pixels(path, pixels, lines, length)
        plain = b'#?RADIANCE\nFORMAT=%s\n\n-Y %d +X %d\n' % (_FORMAT, lines, length)
        image = opencv.decode(path, plain + pixels, opencv.THROUGH_TMP)
    # The first axis of the file comes first in its size; -Y counts from the top, +X from the left.
    first, second = orientation[1], orientation[3]
    if first == ('+' if orientation[0] == 'Y' else '-'):
        image = image[::-1]
    if second == ('+' if orientation[2] == 'Y' else '-'):
        image = image[:, ::-1]
    return image.swapaxes(0, 1) if orientation[0] == 'X' else image


def _layout(path: pathlib.Path, data: bytes) -> tuple[int, int, str, int]:
    """Number of scan lines, their length, orientation as in 'Y-X+', and where the pixels start."""
    header, resolution, start = _header(path, data)
    formats = [line.partition(b'=')[2].strip() for line in header if line.startswith(b'FORMAT=')]
    if formats != [_FORMAT]:
        raise DataError(f'{path}: the header must say FORMAT={_FORMAT.decode()} once, it says '
                        f'{[f.decode(errors="replace") for f in formats]}. Convert it to RGBE.')
    match = re.fullmatch(rb'([+-])([YX]) +(\d{1,10}) +([+-])([YX]) +(\d{1,10})', resolution.strip())
    if match is None or match[2] == match[5] or 0 in (int(match[3]), int(match[6])):
        raise DataError(f'{path}: the size must read "-Y height +X width", or another orientation of Y and X, it '
                        f'reads {resolution[:40]!r}. Copy it again, or export it anew.')
    orientation = (match[2] + match[1] + match[5] + match[4]).decode()
    return int(match[3]), int(match[6]), orientation, start


def _header(path: pathlib.Path, data: bytes) -> tuple[list[bytes], bytes, int]:
    """The header's lines up to the empty one, the line of the size, and where the pixels start."""
    match = re.match(rb'((?:[^\n]+\n)*?)\r?\n([^\n]*)\n', data[:_LONGEST])
    if match is None:
        raise DataError(f'{path}: truncated, the Radiance header has no end within {_LONGEST} bytes. '
                        f'{FETCH_AGAIN}')
    return match[1].splitlines(), match[2], match.end()


def _in_new_code(pixels: bytes, length: int) -> bool:
    return length in _RLE_WIDTHS and pixels[:4] == struct.pack('>BBH', 2, 2, length)


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
                        f'pixels and {lines * length} are expected. {FETCH_AGAIN}')
    source = np.maximum.accumulate(np.where(marks, 0, order))
    return np.repeat(found[source], counts, axis=0).reshape(lines, length, 4)


def _check_flat_pixels(path: pathlib.Path, pixels: bytes, lines: int, length: int) -> None:
    """Flat pixels have a known length; the length of RLE is found out by decoding it."""
    found, flat = len(pixels), lines * length * 4
    if not _in_new_code(pixels, length) and found != flat:
        raise DataError(f'{path}: truncated or damaged, {found} bytes of pixels and {flat} expected. '
                        f'{FETCH_AGAIN}')
