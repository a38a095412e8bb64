"""HDR images: linear floats; Radiance `.hdr`, and TIFF to read."""

import pathlib

import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.image_io import opencv
from afunet_jax.image_io.content import MAX_PIXELS, PathLike, read_bytes, write_atomically
from afunet_jax.image_io.radiance import RADIANCE_MAGIC, decode_radiance, radiance_start
from afunet_jax.image_io.rgbe import from_rgbe, to_rgbe
from afunet_jax.image_io.tiff import TIFF_MAGIC, check_tiff


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
        image = decode_radiance(path, data[magic:], max_pixels)
    elif data.startswith(TIFF_MAGIC):
        check_tiff(path, data, max_pixels=max_pixels)
        image = opencv.decode(path, data)
    else:
        raise DataError(f'{path}: not an HDR image that can be read here, it starts with {data[:10]!r}. '
                        'Radiance .hdr and TIFF of floats are read; convert it to Radiance .hdr.')
    if image.dtype not in (np.float32, np.float64) or image.ndim != 3 or image.shape[-1] != 3:
        raise DataError(f'{path}: an HDR image has three channels of floats, this one is {image.dtype} of '
                        f'shape {image.shape}. Export it as Radiance .hdr or as RGB TIFF of 32-bit floats.')
    return np.ascontiguousarray(image[..., ::-1], dtype=np.float32)


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
    encoded = opencv.encode(path, '.hdr', exact)
    write_atomically(path, encoded.replace(b'#?RGBE', RADIANCE_MAGIC[0], 1))
