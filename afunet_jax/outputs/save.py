"""Files of an HDR image, `.hdr` and `.exr`, and of pictures, PNG and JPEG. Written whole or not at all.

What the exposure in a header means: the pixels divided by it are radiance in the caller's unit, the same for all
images of one shoot. It is said, never applied: readers show the pixels as they are, and few look at the line.

    .hdr   the line `EXPOSURE=`, defined so by Radiance. 32 bits a pixel; no negative values
    .exr   the attribute `exposure` (a float; OpenEXR has no standard one for it), and where given the standard ones
           `expTime` (seconds) and `whiteLuminance` (cd/m2 of the value 1); `chromaticities` say BT.709
"""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import OpenEXR
from PIL import Image, ImageCms

from afunet_jax import files, image_io
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.outputs import colour, marks, png

PathLike = str | os.PathLike

HDR_ENDINGS = ('.hdr', '.exr')
PICTURE_ENDINGS = ('.png', '.jpg', '.jpeg')
PRECISIONS = {'half': np.float16, 'float': np.float32}  # of OpenEXR
HALF_LARGEST = 65504.0
JPEG_QUALITY = 95
JPEG_LARGEST = 65500  # pixels a side, of libjpeg
FULL_CHROMA = 0  # Pillow's subsampling of JPEG: none


def save_hdr(
    path: PathLike,
    image: np.ndarray,
    exposure: float | None = None,
    precision: str = 'half',
    exposure_time: float | None = None,
    white_luminance: float | None = None,
) -> None:
    """Writes linear values as Radiance or OpenEXR, by the name's ending.

    Args:
        path: ends in `.hdr` or `.exr`; its folder must exist.
        image: `[H, W, 3]` float, linear RGB with BT.709 primaries, finite. In a `.hdr` not negative.
        exposure: the pixels divided by it are radiance in the caller's unit; goes into the header. None: not said.
        precision: of OpenEXR: 'half', 11 bits down to 6e-5 and fewer below, up to 65504; or 'float', 24 bits.
        exposure_time: seconds, of OpenEXR's `expTime`.
        white_luminance: cd/m2 of the value 1, of OpenEXR's `whiteLuminance`.

    Raises:
        DataError: the image's shape or values, or the file cannot be written.
        ConfigError: another ending or precision, or a number in the header that is not positive.
    """
    path = pathlib.Path(path)
    ending = _ending(path, HDR_ENDINGS, 'HDR images')
    image = _checked(path, image)
    numbers = {'exposure': exposure, 'exposure_time': exposure_time, 'white_luminance': white_luminance}
    for name, value in numbers.items():
        if value is not None and not 0 < value < np.inf:
            raise ConfigError(f'{path}: {name} is a positive number, not {value}')
    if ending == '.hdr':
        if exposure_time is not None or white_luminance is not None:
            raise ConfigError(f'{path}: Radiance has no place for exposure_time and white_luminance. Write an .exr')
        _write_radiance(path, image, exposure)
        return
    if precision not in PRECISIONS:
        raise ConfigError(f'{path}: precision is one of {", ".join(PRECISIONS)}, not {precision!r}')
    if precision == 'half' and np.abs(image).max() > HALF_LARGEST:
        raise DataError(f'{path}: half floats end at {HALF_LARGEST:.0f}, the image has values up to '
                        f'{np.abs(image).max():.6g}. Write it with precision float.')
    attributes = {'exposure': exposure, 'expTime': exposure_time, 'whiteLuminance': white_luminance}
    _write_openexr(path, image.astype(PRECISIONS[precision]), attributes)


def save_picture(path: PathLike, picture: np.ndarray) -> None:
    """Writes a picture for ordinary screens as PNG or JPEG, marked as sRGB.

    Args:
        path: ends in `.png`, `.jpg` or `.jpeg`; its folder must exist.
        picture: `[H, W, 3]` uint8, sRGB, as `tonemapping.tone_map` returns it.

    Raises:
        DataError: another shape or type, or the file cannot be written.
        ConfigError: another ending.
    """
    path = pathlib.Path(path)
    ending = _ending(path, PICTURE_ENDINGS, 'pictures')
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise DataError(f'{path}: a picture is uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}. '
                        'Tone-map the image first.')
    check_picture_size(path, *picture.shape[:2])
    encoded, found = io.BytesIO(), Image.fromarray(np.ascontiguousarray(picture))
    if ending == '.png':
        found.save(encoded, 'PNG')
        image_io.write_atomically(path, png.insert(encoded.getvalue(), png.srgb() | marks.png_text()))
        return
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    try:
        found.save(encoded, 'JPEG', quality=JPEG_QUALITY, subsampling=FULL_CHROMA, icc_profile=profile,
                   comment=marks.SOFTWARE)  # fmt: skip
    except (OSError, ValueError) as error:
        raise DataError(f'{path}: cannot be written as JPEG ({error}). Write a .png.') from error
    image_io.write_atomically(path, encoded.getvalue())


def check_picture_size(path: PathLike, height: int, width: int) -> None:
    """Refuses a picture that the format cannot hold.

    Raises:
        DataError: a JPEG of more than 65500 pixels a side.
    """
    if pathlib.Path(path).suffix.lower() != '.png' and max(height, width) > JPEG_LARGEST:
        raise DataError(f'{path}: a JPEG has at most {JPEG_LARGEST} pixels a side, the image is {width}x{height}. '
                        'Write a .png, or reduce it by max_side.')


def _ending(path: pathlib.Path, endings: tuple[str, ...], what: str) -> str:
    ending = path.suffix.lower()
    if ending not in endings:
        raise ConfigError(f'{path}: {what} are written as {", ".join(endings)}, not as {ending or "this"}. '
                          'Choose one of these endings.')
    return ending


def _checked(path: pathlib.Path, image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size or not np.issubdtype(image.dtype, np.floating):
        raise DataError(f'{path}: an HDR image to write is [H, W, 3] of floats, not {image.dtype} '
                        f'{list(image.shape)}. Convert it first.')
    image = np.ascontiguousarray(image, dtype=np.float32)
    if not np.isfinite(image).all():
        raise DataError(f'{path}: {int((~np.isfinite(image)).sum())} values are NaN or infinite. '
                        'Nothing was written; merge the photos anew, or set these values.')
    return image


def _write_radiance(path: pathlib.Path, image: np.ndarray, exposure: float | None) -> None:
    smallest, largest = float(image.min()), float(image.max())
    if smallest < 0 or largest > image_io.RGBE_LARGEST:
        raise DataError(f'{path}: Radiance holds values from 0 to {image_io.RGBE_LARGEST:.3g}, the image has '
                        f'{smallest:.6g} to {largest:.6g}. Write an .exr with precision float.')
    with _replacing(path) as temporary:
        image_io.write_hdr(temporary, image)
        head, line, rest = temporary.read_bytes().partition(b'FORMAT=')
        said = b'' if exposure is None else b'EXPOSURE=%.9g\n' % exposure
        temporary.write_bytes(head + b'SOFTWARE=' + marks.SOFTWARE.encode() + b'\n' + said + line + rest)


def _write_openexr(path: pathlib.Path, image: np.ndarray, attributes: dict[str, float | None]) -> None:
    header = {
        'compression': OpenEXR.ZIP_COMPRESSION, 'type': OpenEXR.scanlineimage,
        'chromaticities': colour.BT709_CHROMATICITIES, 'software': marks.SOFTWARE,
        **{name: float(value) for name, value in attributes.items() if value is not None},
    }  # fmt: skip
    with _replacing(path) as temporary:
        OpenEXR.File(header, {'RGB': image}).write(str(temporary))


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """`files.replacing`, for a folder that exists, with errors that name the file."""
    try:
        path.parent.stat()
        with files.replacing(path) as temporary:
            yield temporary
    except (OSError, RuntimeError) as error:  # OpenEXR's are RuntimeErrors
        reason = getattr(error, 'strerror', None) or error
        raise DataError(f'{path}: cannot be written ({reason}). Check that the folder exists, its rights, and the '
                        'space left.') from error
