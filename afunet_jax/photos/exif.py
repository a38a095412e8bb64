"""What a photo says about how it was taken."""

import dataclasses
import math
import pathlib
import struct
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from afunet_jax import image_io

LARGEST_EV = 64  # stops, either way, of an exposure
LARGEST_APEX = 64  # stops: times, apertures and sensitivities beyond 2 ** 64 and 2 ** -64 are none


class PhotoWarning(UserWarning):
    """Something in a photo was changed, passed over, or contradicts something else."""


@dataclasses.dataclass(frozen=True)
class Exif:
    """What a file says about how it was taken; None where it says nothing.

    Attributes:
        seconds: exposure time.
        aperture: f-number.
        iso: sensitivity.
        camera: maker and model.
        orientation: 1..8, as it still has to be applied to what the decoder gives.
    """

    seconds: float | None = None
    aperture: float | None = None
    iso: float | None = None
    camera: str | None = None
    orientation: int = 1

    @property
    def ev(self) -> float | None:
        """Stops: log2(seconds * iso / 100 / aperture ** 2); None without a time, or beyond `LARGEST_EV`.

        A missing sensitivity counts as 100, a missing aperture as 1.
        """
        if self.seconds is None:
            return None
        ev = math.log2(self.seconds * (self.iso or 100) / 100 / (self.aperture or 1) ** 2)
        return ev if abs(ev) <= LARGEST_EV else None

    def __str__(self) -> str:
        if self.seconds is None:
            return 'no exposure time'
        time = f'1/{1 / self.seconds:.4g} s' if self.seconds < 0.5 else f'{self.seconds:.4g} s'
        return (time + (f' f/{self.aperture:g}' if self.aperture else '') + (f' ISO {self.iso:g}' if self.iso else ''))


def from_tags(path: pathlib.Path, exif: Image.Exif) -> Exif:
    """What Pillow's tags say; those that are damaged are warned of and count as missing."""
    inner = attempt(path, lambda: dict(exif.get_ifd(ExifTags.IFD.Exif))) or {}
    tags = {**dict(attempt(path, lambda: dict(exif)) or {}), **inner}
    base = ExifTags.Base
    seconds, aperture = as_number(tags.get(base.ExposureTime)), as_number(tags.get(base.FNumber))
    speed = as_number(tags.get(base.ShutterSpeedValue), -LARGEST_APEX, LARGEST_APEX)
    stops = as_number(tags.get(base.ApertureValue), most=LARGEST_APEX)
    if seconds is None and speed is not None:
        seconds = 2.0**-speed
    if aperture is None and stops is not None:
        aperture = 2.0 ** (stops / 2)
    names = [str(tags[tag]).strip('\0 ') for tag in (base.Make, base.Model) if tags.get(tag)]
    orientation = tags.get(base.Orientation)
    return Exif(
        seconds, aperture, as_number(tags.get(base.ISOSpeedRatings)), ' '.join(names) or None,
        orientation if orientation in range(1, 9) else 1,
    )  # fmt: skip


def as_number(value: Any, least: float = 2.0**-LARGEST_APEX, most: float = 2.0**LARGEST_APEX) -> float | None:
    """A number of this range, or None."""
    try:
        number = float(value[0] if isinstance(value, tuple) else value)
    except (TypeError, ValueError, IndexError, ArithmeticError):
        return None
    return number if least <= number <= most else None


def load_tiff_tags(exif: Image.Exif, file: BinaryIO) -> None:
    """By itself, Pillow reads the header of a TIFF, but not that of a BigTIFF, whose first directory is at byte 8."""
    start = file.read(16)
    if start.startswith(image_io.TIFF_MAGIC[3]):
        raise ValueError('a big-endian BigTIFF, whose ICC profile is not read either; export it as TIFF')
    exif.endian, exif.bigtiff = '<' if start.startswith(b'II') else '>', start.startswith(image_io.TIFF_MAGIC[2:])
    exif.load_from_fp(file, *struct.unpack_from(exif.endian + ('8xQ' if exif.bigtiff else '4xI'), start))


def attempt(path: pathlib.Path, read: Callable[[], Any]) -> Any:
    """What EXIF readers raise on damaged tags is of every kind; such tags count as missing."""
    try:
        return read()
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, struct.error, ArithmeticError) as error:
        warnings.warn(f'{path}: its EXIF cannot be read and is passed over ({error}).', PhotoWarning, stacklevel=4)
        return None
