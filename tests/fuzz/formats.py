"""What is fuzzed: undamaged files of each format, how they are damaged, what reads them, and what it must give.

Images are here, the rest is in `trees`. All of it is built and read in a process of its own, `server`; nothing here is
imported by the tests themselves.
"""

import dataclasses
import pathlib
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import OpenEXR
import tifffile
from fuzz import mutations, values
from fuzz.mutations import pick
from photos.photo_files import write_dng
from PIL import Image

from afunet_jax import image_io
from afunet_jax.data import scenes
from afunet_jax.photos import exposures, frames

HEIGHT, WIDTH = 40, 48
OFTEN = 6


# What damage that knows a format raises where it comes second.
DAMAGED_ALREADY = (struct.error, ValueError, LookupError, RecursionError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError,
                   SyntaxError, TypeError, RuntimeError, OSError, MemoryError)  # fmt: skip


class Wrong(Exception):
    """A damaged file was read, and what came out is not what is in it."""


@dataclasses.dataclass
class Mutant:
    """A damaged input: what was done to which seed, and the result."""

    seed: str
    kind: str
    data: bytes


@dataclasses.dataclass(frozen=True)
class Format:
    """Attributes:
    build: writes undamaged files into a folder.
    pattern: which of them are seeds.
    damage: functions `(rng, data, other) -> data`; the generic ones come besides.
    readers: by name, called with the path of the damaged file.
    declared: bytes of the image that a file declares, 0 if none or more than is allowed.
    check: `(reader, mutant, result, result of the seed)`, raises `Wrong`.
    place: where the damaged file goes, given the folder and the seed's name.
    put: puts a damaged file there, given the path and its content.
    """

    build: Callable
    pattern: str
    damage: tuple
    readers: dict
    declared: Callable = lambda data: 0
    check: Callable = lambda reader, mutant, result, original: None
    place: Callable = lambda folder, seed: folder / f'damaged{pathlib.Path(seed).suffix}'
    put: Callable = lambda path, data: path.write_bytes(data)
    generic: float = 0.5  # share of cases that damage bytes alone
    often: tuple[str, ...] = ()  # names of seeds that are taken more often


# ---- images -----------------------------------------------------------------------------------------


def picture(dtype=np.uint16, height=HEIGHT, width=WIDTH, channels=3):
    rng = np.random.default_rng(5)
    smooth = np.linspace(0, 0.9, width)[None, :, None] * np.linspace(0.3, 1, height)[:, None, None]
    image = smooth * rng.uniform(0.5, 1, channels) + rng.uniform(0, 0.05, (height, width, channels))
    full = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    return (image * full).astype(dtype)


def build_tiff(folder):
    for name, options in {
        'none': {}, 'lzw': {'compression': 'lzw', 'predictor': True}, 'deflate': {'compression': 'zlib'},
        'tiles': {'tile': (16, 16), 'compression': 'zlib'}, 'big': {'bigtiff': True}, 'end': {'byteorder': '>'},
    }.items():  # fmt: skip
        tifffile.imwrite(folder / f'{name}.tif', picture(), photometric='rgb', metadata=None, **options)
    image_io.write_ldr(folder / 'ours.tif', picture())
    tifffile.imwrite(folder / 'float.tif', picture(np.float32), photometric='rgb', metadata=None)
    tifffile.imwrite(folder / 'eight.tif', picture(np.uint8), photometric='rgb', metadata=None)
    tifffile.imwrite(folder / 'jpeg.tif', picture(np.uint8), photometric='ycbcr', compression='jpeg', metadata=None)


def build_png(folder):
    image_io.write_ldr(folder / 'sixteen.png', picture())
    exif = Image.Exif()
    exif[274], exif[271] = 1, 'Maker'
    exif.get_ifd(34665).update({33434: 0.01, 33437: 8.0, 34855: 100})
    Image.fromarray(picture(np.uint8)).save(folder / 'eight.png', exif=exif)
    Image.fromarray(picture(np.uint8)[..., 0]).save(folder / 'grey.png')
    Image.fromarray(picture(np.uint8, channels=4) | np.uint8([0, 0, 0, 255])).save(folder / 'alpha.png')


def build_jpeg(folder):
    exif = Image.Exif()
    exif[274], exif[271] = 6, 'Maker'
    Image.fromarray(picture(np.uint8)).save(folder / 'exif.jpg', exif=exif, quality=90)
    Image.fromarray(picture(np.uint8)).save(folder / 'progressive.jpg', progressive=True)


def build_radiance(folder):
    image_io.write_hdr(folder / 'rle.hdr', picture(np.float32))
    rgbe = image_io.to_rgbe(picture(np.float32))
    head = b'#?RADIANCE\nEXPOSURE=1\nFORMAT=32-bit_rle_rgbe\n\n'
    (folder / 'flat.hdr').write_bytes(head + b'-Y %d +X %d\n' % (HEIGHT, WIDTH) + rgbe.tobytes())
    (folder / 'turned.hdr').write_bytes(head + b'+X %d -Y %d\n' % (WIDTH, HEIGHT) + rgbe.swapaxes(0, 1).tobytes())
    runs = b''.join(p.tobytes() + bytes([1, 1, 1, WIDTH - 1]) for p in rgbe[:, 0])
    (folder / 'old.hdr').write_bytes(head + b'-Y %d +X %d\n' % (HEIGHT, WIDTH) + runs)


def build_exr(folder):
    # DWA is left out of the writing: what reads it is reached by a changed compression byte.
    for name, compression in {
        'none': OpenEXR.NO_COMPRESSION, 'rle': OpenEXR.RLE_COMPRESSION, 'zip': OpenEXR.ZIP_COMPRESSION,
        'piz': OpenEXR.PIZ_COMPRESSION, 'pxr24': OpenEXR.PXR24_COMPRESSION, 'b44': OpenEXR.B44_COMPRESSION,
    }.items():  # fmt: skip
        dtype = np.float32 if name in ('none', 'zip') else np.float16
        header = {'compression': compression, 'type': OpenEXR.scanlineimage}
        OpenEXR.File(header, {'RGB': picture(np.float32).astype(dtype)}).write(str(folder / f'{name}.exr'))
    header = {'compression': OpenEXR.ZIP_COMPRESSION, 'type': OpenEXR.tiledimage, 'tiles': OpenEXR.TileDescription()}
    OpenEXR.File(header, {'RGBA': np.ones((HEIGHT, WIDTH, 4), np.float16)}).write(str(folder / 'tiles.exr'))


def build_heif(folder):
    import pillow_heif

    exif = Image.Exif()
    exif[274], exif[271] = 1, 'Maker'
    exif.get_ifd(34665).update({33434: 0.01, 33437: 8.0, 34855: 100})
    eight = Image.fromarray(picture(np.uint8, 64, 64))
    pillow_heif.from_pillow(eight).save(folder / 'exif.heic', exif=exif.tobytes())
    ten = pillow_heif.from_bytes('RGB;16', (64, 64), picture(np.uint16, 64, 64).tobytes())
    ten.save(folder / 'ten.heic', quality=-1, chroma=444)
    two = pillow_heif.from_pillow(eight)
    two.add_from_pillow(eight.resize((96, 48)))
    two.save(folder / 'two.heic', quality=20)


def build_dng(folder):
    write_dng(folder / 'plain.dng', picture(np.float32, 64, 96))
    write_dng(folder / 'turned.dng', picture(np.float32, 64, 96), orientation=6, seconds=2.0)


def tiff_size(data):
    tags = image_io.tiff_tags(data)
    return tags[257][0], tags[256][0]


def png_size(data):
    return struct.unpack_from('>II', data, 16)[::-1]


def jpeg_size(data):
    match = re.search(rb'\xff[\xc0-\xc2]..\x08(..)(..)', data, re.DOTALL)
    return [int.from_bytes(side, 'big') for side in match.groups()]


def radiance_size(data):
    match = re.search(rb'\n[+-][YX] (\d+) [+-][YX] (\d+)\n', data)
    return int(match[1]), int(match[2])


def exr_size(data):
    start = next(start for name, _, start, _ in mutations.exr_attributes(data) if name == b'dataWindow')
    left, top, right, bottom = struct.unpack_from('<4i', data, start)
    return bottom - top + 1, right - left + 1


def heif_size(data):
    width, height = struct.unpack_from('>II', data, data.index(b'ispe') + 8)
    return height, width


def declares(size, bytes_a_pixel):
    """Bytes of the declared image; 0 where the header cannot be read or promises more than is allowed."""

    def declared(data):
        try:
            height, width = map(int, size(data))
        except Exception:
            return 0
        pixels = height * width
        return pixels * bytes_a_pixel if height > 0 and width > 0 and pixels <= getattr(image_io, 'MAX_PIXELS', 160_000_000) else 0

    return declared


def same_if_cut(size):
    """A file that was cut off is refused, or gives the pixels of the whole; any file gives the declared size."""

    def check(reader, mutant, result, original):
        if not (result.ndim == 3 and result.shape[-1] == 3):
            raise Wrong(f'{reader} gives the shape {result.shape}')
        if not isinstance(original, str) and mutant.kind == 'truncated' and not np.array_equal(result, original):
            raise Wrong(f'{reader} reads a truncated file, and other pixels than those of the whole')
        try:
            declared = sorted(map(int, size(mutant.data)))
        except (AttributeError, KeyError, struct.error):  # this module's parsers are simpler than those that are tested
            return
        if declared != sorted(result.shape[:2]):
            raise Wrong(f'{reader} gives {result.shape[:2]} pixels, the header says {size(mutant.data)}')

    return check


def whole_or_refused(reader, mutant, result, original):
    """For formats whose size many fields decide: three channels, and no part of a file that was cut off."""
    if not (result.ndim == 3 and result.shape[-1] == 3):
        raise Wrong(f'{reader} gives the shape {result.shape}')
    if not isinstance(original, str) and mutant.kind == 'truncated' and not np.array_equal(result, original):
        raise Wrong(f'{reader} reads a truncated file, and other pixels than those of the whole')


def finite_if_linear(size):
    def check(reader, mutant, result, original):
        same_if_cut(size)(reader, mutant, result, original)
        if reader in ('read_exr', 'read_frame') and not np.isfinite(result).all():
            raise Wrong(f'{reader} gives values that are not finite')

    return check


def read_frame(path):
    return frames.read_frame(path).values


def read_photo_exposures(path):
    return exposures.read_exposure_file(path, ['a', 'b', 'c'], ['a', 'b', 'c'])


def finite(reader, mutant, result, original):
    if not (np.isfinite(result).all() and result.shape == (3,)):
        raise Wrong(f'{reader} gives {result}')


def build_exposures(folder):
    for i, text in enumerate((b'0\n2\n4\n', b'-2.0\r\n0.0\r\n2.0\r\n', b'\xef\xbb\xbf-3 0 3')):
        (folder / f'exposure_{i}.txt').write_bytes(text)


IMAGES = {
    'exposure.txt': Format(
        build_exposures, '*.txt', (values.exposure_text,), {'read_exposures': scenes.read_exposures, 'photos': read_photo_exposures},
        check=finite),
    'TIFF': Format(
        build_tiff, '*.tif', (mutations.tiff_field,), {'read_ldr': image_io.read_ldr, 'read_hdr': image_io.read_hdr, 'read_frame': read_frame},
        declares(tiff_size, 6), same_if_cut(tiff_size)),
    'PNG': Format(
        build_png, '*.png', (mutations.png_chunk,), {'read_ldr': image_io.read_ldr, 'read_frame': read_frame},
        declares(png_size, 6), same_if_cut(png_size)),
    'JPEG': Format(
        build_jpeg, '*.jpg', (mutations.jpeg_marker,), {'read_ldr': image_io.read_ldr, 'read_frame': read_frame},
        declares(jpeg_size, 3), same_if_cut(jpeg_size)),
    '.hdr': Format(
        build_radiance, '*.hdr', (mutations.radiance_text, mutations.radiance_runs), {'read_hdr': image_io.read_hdr, 'read_frame': read_frame},
        declares(radiance_size, 12), same_if_cut(radiance_size)),
    'HEIC': Format(
        build_heif, '*.heic', (mutations.heif_box, mutations.heif_box), {'read_frame': read_frame}, declares(heif_size, 6), whole_or_refused),
    'DNG': Format(
        build_dng, '*.dng', (mutations.tiff_field, mutations.dng_field), {'read_frame': read_frame}, declares(tiff_size, 6), whole_or_refused),
    '.exr': Format(
        build_exr, '*.exr', (mutations.exr_field,), {'read_exr': image_io.read_exr, 'read_frame': read_frame},
        declares(exr_size, 12), finite_if_linear(exr_size)),
}  # fmt: skip


def find(name: str) -> Format:
    """The format of that name."""
    if name in IMAGES:
        return IMAGES[name]
    from fuzz import runs, trees

    return {**trees.FORMATS, **runs.FORMATS}[name]


def seeds_of(form: Format, folder: pathlib.Path) -> list[pathlib.Path]:
    """The undamaged files; those that `form.often` names several times."""
    found = sorted(path for path in folder.glob(form.pattern) if path.is_file() and path.stat().st_size)
    return [path for path in found for _ in range(OFTEN if path.name in form.often else 1)]


def mutant(name: str, seed: int, case: int, folder: pathlib.Path) -> Mutant:
    """The damaged file of one case; the same for the same arguments."""
    form, rng = find(name), mutations.generator(name, seed, case)
    files = seeds_of(form, folder)
    chosen = pick(rng, files)
    data, other = chosen.read_bytes(), pick(rng, files).read_bytes()
    kinds = []
    for _ in range(1 if rng.random() < 0.8 else 2):
        damage = pick(rng, mutations.GENERIC if rng.random() < form.generic else form.damage)
        try:
            data = damage(rng, data, other)
            kinds.append(damage.__name__)
        except DAMAGED_ALREADY:
            data = mutations.extreme(rng, data, other)
            kinds.append('extreme')
    return Mutant(str(chosen), ' + '.join(kinds), data)


warnings.simplefilter('ignore')
cv2.setNumThreads(1)
