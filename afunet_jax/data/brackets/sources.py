"""Which HDR images there are, whose they are, and which split each one serves; reading and enlarging them."""

import csv
import dataclasses
import functools
import hashlib
import pathlib

import cv2
import numpy as np

from afunet_jax import image_io
from afunet_jax.errors import DataError

PathLike = image_io.PathLike
SPLITS = ('train', 'validation', 'test')
PROJECTIONS = ('panorama', 'photo')
BUILT_IN = pathlib.Path(__file__).with_name('sources.csv')
COLUMNS = ('file', 'split', 'projection')  # must be there and filled in
LARGEST_WIDTH = 2048  # wider images are reduced: enough for pictures of 1000 rows, and 100 MB a panorama
KEPT = 20  # images in the memory of a process, and as many enlarged panoramas: 2.5 GB if all are of the largest width
ENLARGEMENT = 2  # linear sampling of a copy this much larger is about as sharp as cubic sampling


@dataclasses.dataclass(frozen=True)
class Source:
    """A row of the CSV. `file`, `split` and `projection` are needed, the others may be empty.

    Attributes:
        file: name in the folder of images: Radiance `.hdr`, or a TIFF of floats.
        split: one of `SPLITS`: the only one whose scenes may show this image.
        projection: 'panorama' (equirectangular, twice as wide as high) or 'photo'.
        sha256: of the file; empty: not checked.
        kind: day, night or interior; for people.
        licence, credit: of the image.
        repository, path, commit: where on GitHub it comes from.
        note: what was done to it since.
        folder: where the file is; not a column.
    """

    file: str
    split: str
    projection: str
    sha256: str = ''
    kind: str = ''
    licence: str = ''
    credit: str = ''
    repository: str = ''
    path: str = ''
    commit: str = ''
    note: str = ''
    folder: str = ''

    @property
    def where(self) -> str:
        """Where to get it, one sentence."""
        note = f' ({self.note})' if self.note else ''
        if not self.repository:
            return f'The CSV does not say where it comes from{note}; put it there, or take it out of the CSV.'
        return f'It is {self.path} of https://github.com/{self.repository} at commit {self.commit}{note}.'


def read_table(path: PathLike = BUILT_IN) -> tuple[Source, ...]:
    """Reads a CSV of sources; its columns are the attributes of `Source`, in any order.

    Raises:
        DataError: it cannot be read, a column is missing or unknown, a value breaks a rule, or a file is
            named twice.
    """
    path = pathlib.Path(path)
    try:
        with path.open(newline='', encoding='utf-8') as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'{path}: cannot be read as CSV ({error}). Check the path and the text.') from error
    known = [field.name for field in dataclasses.fields(Source) if field.name != 'folder']
    wrong = [c for c in columns if c not in known] + [c for c in COLUMNS if c not in columns]
    if wrong:
        raise DataError(f'{path}: the columns {", ".join(COLUMNS)} are needed and {", ".join(known[3:])} allowed; '
                        f'missing or unknown: {", ".join(wrong)}.')
    sources = tuple(_source(path, number, row) for number, row in enumerate(rows, 2))
    names = [source.file for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f'{path}: named more than once: {", ".join(twice)}. An image serves one split.')
    return sources


def _source(path: pathlib.Path, line: int, row: dict) -> Source:
    values = {key: (value or '').strip() for key, value in row.items() if key is not None}
    for column, allowed in (('split', SPLITS), ('projection', PROJECTIONS)):
        if values[column] not in allowed:
            raise DataError(f'{path}, line {line}: {column} is one of {", ".join(allowed)}, '
                            f'not {values[column]!r}.')
    if not values['file'] or pathlib.PurePath(values['file']).name != values['file']:
        raise DataError(f'{path}, line {line}: file must be the bare name of a file, it is {values["file"]!r}.')
    return Source(**values)


def read_sources(folder: PathLike, table: PathLike | None = None, splits=SPLITS) -> dict[str, tuple[Source, ...]]:
    """The sources of each split, after a check that every file is there and is the right one.

    Args:
        folder: of the HDR images; files that the CSV does not name are not used.
        table: the CSV; None: the one of the package.
        splits: those whose files are needed.

    Returns:
        split -> its sources, in the order of the CSV.

    Raises:
        DataError: a file is missing, is another one, two are the same, or a split has no image.
    """
    folder, table = pathlib.Path(folder), pathlib.Path(BUILT_IN if table is None else table)
    found = {split: [] for split in splits}
    owners: dict[str, Source] = {}
    for source in read_table(table):
        if source.split in found:
            digest = _checked(folder / source.file, source)
            same = owners.setdefault(digest, source)
            if same is not source:
                raise DataError(f'{folder}: {same.file} and {source.file} are the same image. Take one out of '
                                f'{table.name}: an image serves one split.')
            found[source.split].append(dataclasses.replace(source, folder=str(folder)))
    for split, sources in found.items():
        if not sources:
            raise DataError(f'{table}: no image for the split {split}. Name one, or ask for 0 {split} scenes.')
    return {split: tuple(sources) for split, sources in found.items()}


def _checked(path: pathlib.Path, source: Source) -> str:
    """The file's SHA-256, which is the source's."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f'{path}: missing. {source.where} To use images of your own, give --sources=CSV.') from error
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}). Check its rights.') from error
    if source.sha256 and digest != source.sha256.lower():
        raise DataError(f'{path}: another file than the CSV names (SHA-256 {digest[:12]}..., wanted '
                        f'{source.sha256[:12]}...). {source.where}')
    return digest


def enlarge(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cubic interpolation to `size` (columns, rows), held within each pixel's neighbourhood: lamps do not ring.

    Args:
        image: float32 `[H, W, 3]`, linear.
        size: larger than the image, or equal.
    """
    box = np.ones((3, 3), np.uint8)
    nearest = lambda x: cv2.resize(x, size, interpolation=cv2.INTER_NEAREST)
    low, high = nearest(cv2.erode(image, box)), nearest(cv2.dilate(image, box))
    return np.clip(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), low, high)


@functools.lru_cache(KEPT)
def read_image(source: Source) -> np.ndarray:
    """The radiance of a source, float32 `[H, W, 3]`, at most `LARGEST_WIDTH` wide; the last `KEPT` are kept.

    Raises:
        DataError: not readable, negative or not finite values, all black, or no equirectangular panorama.
    """
    path = pathlib.Path(source.folder) / source.file
    image = image_io.read_hdr(path)
    height, width = image.shape[:2]
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() > 0):
        raise DataError(f'{path}: radiance must be finite, not negative and not all 0. Clip or repair the image.')
    if source.projection == 'panorama' and width != 2 * height:
        raise DataError(f'{path}: an equirectangular panorama is twice as wide as high, this image is '
                        f'{width}x{height}. Say projection photo in the CSV, or complete the panorama.')
    if width > LARGEST_WIDTH:
        size = (LARGEST_WIDTH, round(height * LARGEST_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    image.setflags(write=False)
    return image


@functools.lru_cache(KEPT)
def panorama_texture(source: Source) -> np.ndarray:
    """A panorama `ENLARGEMENT` times larger, without a seam at its left and right end."""
    image = read_image(source)
    rim = 4  # columns: more than the reach of cubic interpolation
    wrapped = np.concatenate([image[:, -rim:], image, image[:, :rim]], 1)
    size = (wrapped.shape[1] * ENLARGEMENT, wrapped.shape[0] * ENLARGEMENT)
    texture = np.ascontiguousarray(enlarge(wrapped, size)[:, rim * ENLARGEMENT : -rim * ENLARGEMENT])
    texture.setflags(write=False)
    return texture
