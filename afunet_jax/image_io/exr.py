"""OpenEXR, by its own package."""

import pathlib
import warnings

import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.image_io.content import (
    FETCH_AGAIN,
    MAX_PIXELS,
    PathLike,
    check_expansion,
    check_size,
    file_bytes,
    read_start,
)

EXR_MAGIC = b'v/1\x01'
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
        raise DataError(f'{path}: damaged, its header gives no data window. {FETCH_AGAIN}') from error
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
        raise DataError(f'{path}: not an OpenEXR file. {FETCH_AGAIN}')
    try:
        file = OpenEXR.File(str(path), separate_channels=True, header_only=header_only)
        file.header()
        return file
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise DataError(f'{path}: truncated or damaged, OpenEXR cannot read it ({error}). {FETCH_AGAIN}') from error


def _exr_part(path: pathlib.Path, file) -> dict:
    try:
        if 'deep' in str(file.header().get('type')):
            raise DataError(f'{path}: deep images are not read. Flatten it.')
        return file.channels()
    except (RuntimeError, ValueError) as error:
        raise DataError(f'{path}: truncated or damaged, OpenEXR cannot read it ({error}). {FETCH_AGAIN}') from error


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
