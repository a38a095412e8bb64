"""Files as bytes: read whole or refused, by limits that hold before memory is asked for; written whole or never."""

import os
import pathlib
import stat

from afunet_jax import files
from afunet_jax.errors import DataError

PathLike = str | os.PathLike

MAX_PIXELS = 160_000_000  # of one image: more than any camera has; as float32 RGB they are 1.9 GB
MAX_FILE_BYTES = 4 * 2**30  # of one image: read whole into memory
MAX_EXPANSION = 4096  # bytes of pixels to a byte of file; deflate reaches 1032, LZW about 2500
FETCH_AGAIN = 'Copy or download it again.'


def read_bytes(path: PathLike) -> bytes:
    """A file's content.

    Raises:
        DataError: missing, empty, not readable, no file (a pipe or device could go on for ever), or larger than
            `MAX_FILE_BYTES`.
    """
    return read_start(path, MAX_FILE_BYTES)


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
        raise DataError(f'{path}: the file is empty (0 bytes). {FETCH_AGAIN}')
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
        raise DataError(f'{path}: the header says {width}x{height} pixels. {FETCH_AGAIN}')
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
                        f'{file_length} bytes cannot hold them. {FETCH_AGAIN}')


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
