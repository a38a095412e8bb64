"""LDR images: 8 or 16 bits a value, gamma-encoded; TIFF, PNG and JPEG."""

import pathlib
import warnings

import cv2
import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.image_io import opencv
from afunet_jax.image_io.content import MAX_PIXELS, PathLike, read_bytes, write_atomically
from afunet_jax.image_io.jpeg import JPEG_MAGIC, check_jpeg
from afunet_jax.image_io.png import PNG_MAGIC, check_png
from afunet_jax.image_io.tiff import TIFF_MAGIC, check_tiff

EIGHT_TO_SIXTEEN_BITS = 257  # 255 * 257 == 65535
_LZW = 5  # compression, TIFF 6.0


class EightBitWarning(UserWarning):
    """An 8-bit image stands where the benchmarks have 16 bits: banding in dark parts."""


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
    image = opencv.decode(path, data)
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
        check_tiff(path, data, grey, max_pixels)
    elif data.startswith(PNG_MAGIC):
        check_png(path, data, max_pixels)
    elif data.startswith(JPEG_MAGIC):
        check_jpeg(path, data, max_pixels)
    else:
        raise DataError(f'{path}: not a TIFF, PNG or JPEG image, it starts with {data[:10]!r}. '
                        'Export it as 16-bit RGB TIFF.')


def write_ldr(path: PathLike, image: np.ndarray) -> None:
    """Writes an image of 8 or 16 bits as PNG, or as TIFF with LZW, by the name's ending.

    Args:
        path: ends in `.png`, `.tif` or `.tiff`; its folder must exist.
        image: `[H, W, 3]` uint8 or uint16, RGB.

    Raises:
        DataError: another shape, type or ending, or the file cannot be written.
    """
    path = pathlib.Path(path)
    lzw = [cv2.IMWRITE_TIFF_COMPRESSION, _LZW]
    options = {'.png': [], '.tif': lzw, '.tiff': lzw}
    ending = path.suffix.lower()
    if ending not in options:
        raise DataError(f'{path}: images are written as {", ".join(options)}. Choose one of these endings.')
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype not in (np.uint8, np.uint16):
        raise DataError(f'{path}: an image to write is uint8 or uint16 [H, W, 3], not {image.dtype} '
                        f'{list(image.shape)}. Convert it first.')
    write_atomically(path, opencv.encode(path, ending, image, options[ending]))
