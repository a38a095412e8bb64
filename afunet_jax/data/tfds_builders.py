"""The data sets as TensorFlow Datasets, prepared once and read at random, without TensorFlow.

One builder serves every layout: a row of `layouts.LAYOUTS` is one of its configurations. Scenes are
stored in array_record files, one scene a file, images compressed by zlib. That is a shard-based builder:
TFDS's others sort the examples first, and call TensorFlow to do so once a split exceeds 1 GB.

Prepared data lie in `data_dir/LAYOUT-FINGERPRINT/hdr_scenes/LAYOUT/VERSION`. The fingerprint is made of
the names, sizes and times of the source files. When one of them changes, the data are prepared anew in
another folder; the old one is never read again and can be deleted. TFDS writes into a folder
`incomplete.*` and renames it at the end, so that what a killed process leaves behind is never taken for
complete data.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import itertools
import os
import pathlib
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds

from afunet_jax import image_io
from afunet_jax.data.layouts import LAYOUTS, SPLITS, Layout, get_layout
from afunet_jax.data.progress import ProgressLine
from afunet_jax.data.scenes import Scene, SceneFiles, find_scenes, read_scene, scene_problems
from afunet_jax.errors import ConfigError, DataError

PathLike = str | os.PathLike
Progress = Callable[[int, int, str], None]  # scenes done, scenes in all, name of the last one

FORMAT_VERSION = '1.0.0'  # of the prepared data; raise it when the features change
FINGERPRINT_DIGITS = 16
READ_THREADS = 1  # scenes decompressed ahead; each takes some 200 MB meanwhile

# What TFDS and array_record raise on missing, truncated or altered files. Some files read as empty records.
_READ_ERRORS = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, zlib.error)


@dataclasses.dataclass(frozen=True)
class Source:
    """The scenes of a data folder, and a fingerprint of their files.

    Attributes:
        layout: of the folder.
        splits: the scenes of each split that the folder has, in order.
        fingerprint: hexadecimal; another one as soon as a file's name, size or time changes.
    """

    layout: Layout
    splits: dict[str, list[SceneFiles]]
    fingerprint: str

    @property
    def scenes(self) -> list[SceneFiles]:
        """The scenes of all splits."""
        return [files for scenes in self.splits.values() for files in scenes]


def find_source(folder: PathLike, layout: Layout, follow_links: bool = False) -> Source:
    """Finds the scenes of every split that is in the folder. Files are not opened.

    Raises:
        DataError: the folder does not exist or has no split of the layout, a split has no scenes, or a symbolic
            link leads out of the folder and `follow_links` is not set; a scene's name is not readable.
    """
    folder = pathlib.Path(folder)
    present = [split for split in SPLITS if _has_split(folder, layout, split)]
    # Where there is none, looking for one raises the error that says what should be there.
    wanted = present or [split for split in SPLITS if layout.folders(split)][:1]
    splits = {split: find_scenes(folder, layout, split, follow_links) for split in wanted}
    for scene in itertools.chain(*splits.values()):
        if not scene.name.isprintable():  # bytes that are no UTF-8 are surrogates to Python
            raise DataError(f'{folder}: the name of scene {scene.name!r} is no readable UTF-8, and cannot be stored. '
                            'Rename its folder.')  # fmt: skip
    return Source(layout, splits, _fingerprint(folder, layout, splits))


def _has_split(folder: pathlib.Path, layout: Layout, split: str) -> bool:
    return any((folder / name).is_dir() for names in layout.folders(split) for name in names)


def _fingerprint(folder: pathlib.Path, layout: Layout, splits: dict[str, list[SceneFiles]]) -> str:
    digest = hashlib.sha256(f'{FORMAT_VERSION} {layout.name}'.encode())
    for split, scenes in splits.items():
        for files in scenes:
            paths = [*files.ldrs, files.exposures, *([files.label] if files.label else [])]
            stamps = [(os.path.relpath(path, folder), *_size_and_time(path)) for path in paths]
            digest.update(repr((split, files.name, stamps)).encode())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def _size_and_time(path: pathlib.Path) -> tuple[int, int]:
    """Bytes and nanoseconds; (-1, -1) for a file that is not there, which reading will complain about."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


# ---- the builder ------------------------------------------------------------------------------------


@dataclasses.dataclass(eq=False, kw_only=True)
class SceneConfig(tfds.core.BuilderConfig):
    """One layout as a configuration of `HdrScenes`."""

    layout: Layout


class _SceneInfo(tfds.core.DatasetInfo):
    """TFDS's own looks in Google's bucket, which has nothing of ours, and leaves an empty folder in /tmp each time."""

    def initialize_from_bucket(self) -> None:
        pass


class HdrScenes(tfds.core.ShardBasedBuilder):
    """Three exposures and a ground truth per example, in any layout of `layouts.LAYOUTS`.

    Features: `name`; `ldrs` uint16 `[3, H, W, 3]`, short to long; `evs` float32 `[3]`, in stops as in
    the file; `label` float32 `[H, W, 3]`, linear, which data sets without ground truth don't have.
    H and W may differ from scene to scene. `prepare` is the way to make one; by TFDS alone it is
    `download_and_prepare(file_format='array_record', download_config=...)` with the data folder as
    `manual_dir`.
    """

    VERSION = tfds.core.Version(FORMAT_VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'The folder of the data set, laid out as afunet_jax/data/layouts.py says.'
    BUILDER_CONFIGS = [
        SceneConfig(name=name, description=layout.source, layout=layout) for name, layout in LAYOUTS.items()]

    source: Source | None = None  # what `prepare` has found; None: look in manual_dir
    progress: Progress | None = None
    max_pixels: int = image_io.MAX_PIXELS  # of one image

    def _info(self) -> tfds.core.DatasetInfo:
        def image(*shape: int | None, dtype: type) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding='zlib')

        features = {
            'name': tfds.features.Text(),
            'ldrs': image(3, None, None, 3, dtype=np.uint16),
            'evs': tfds.features.Tensor(shape=(3,), dtype=np.float32),
        }
        if self.builder_config.layout.label is not None:
            features['label'] = image(None, None, 3, dtype=np.float32)
        return _SceneInfo(
            builder=self, description=self.builder_config.description,
            features=tfds.features.FeaturesDict(features), metadata=tfds.core.MetadataDict())

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        source = self.source or find_source(dl_manager.manual_dir, self.builder_config.layout)
        self.info.metadata['names'] = {
            split: [files.name for files in scenes] for split, scenes in source.splits.items()}
        scenes = source.scenes
        shards = iter([functools.partial(self._example, scenes, place) for place in range(len(scenes))])
        return {split: list(itertools.islice(shards, len(own))) for split, own in source.splits.items()}

    def _example(self, scenes: Sequence[SceneFiles], place: int) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            scene = read_scene(scenes[place], max_pixels=self.max_pixels)
        except DataError:
            raise DataError(_list_problems(scenes[place:], self.max_pixels)) from None
        example = {'name': scene.name, 'ldrs': scene.ldrs, 'evs': scene.evs}
        yield place, example if scene.label is None else example | {'label': scene.label}
        if self.progress is not None:
            self.progress(place + 1, len(scenes), scene.name)


def _list_problems(scenes: Sequence[SceneFiles], max_pixels: int) -> str:
    """Everything that is wrong with any of these scenes."""
    found = [(files.name, scene_problems(files, max_pixels)) for files in scenes]
    bad = [f'{name}: {problem}' for name, problems in found for problem in problems]
    names = [name for name, problems in found if problems]
    return '\n'.join([f'Scenes that cannot be used: {", ".join(names)}. Mend or remove them.', *bad])


# ---- preparing --------------------------------------------------------------------------------------


def prepare(
    folder: PathLike,
    layout_name: str,
    data_dir: PathLike,
    progress: Progress | str | None = 'stderr',
    follow_links: bool = False,
    max_pixels: int = image_io.MAX_PIXELS,
) -> HdrScenes:
    """Prepares a data folder if that was not done yet, and returns its builder.

    Safe to call from several processes at once: one prepares, the others wait. Needs up to 30 bytes of
    disk a pixel.

    Args:
        folder: the data set as it was downloaded; only read.
        layout_name: a key of `layouts.LAYOUTS`.
        data_dir: where prepared data go. It is made if need be, and can serve many data sets.
        progress: called after each scene; 'stderr': a line there; None: silent.
        follow_links: also symbolic links that lead out of the folder.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        ConfigError: no such layout.
        DataError: the folder is no such data set; one or more scenes are bad, all are listed; files
            changed meanwhile; or `data_dir` cannot be written.
    """
    layout = get_layout(layout_name)
    source = find_source(folder, layout, follow_links)
    home = pathlib.Path(data_dir) / f'{layout.name}-{source.fingerprint}'
    builder = _builder_at(home, layout)
    if builder.data_path.exists():
        return builder
    try:
        with _locked(home, verbose=progress is not None):
            builder = _builder_at(home, layout)  # another process may have prepared it meanwhile
            if not builder.data_path.exists():
                line = ProgressLine(f'Preparing {layout.name}') if progress == 'stderr' else progress
                builder.max_pixels = max_pixels
                _build(builder, source, pathlib.Path(folder), line, follow_links)
    except (OSError, RuntimeError) as error:  # array_record's for a full disk is no OSError
        raise DataError(f'{home}: cannot store the prepared data: {error}. Give a data_dir that can be '
                        'written and has room for 30 bytes per pixel of every scene.') from error
    return builder


def _builder_at(home: pathlib.Path, layout: Layout) -> HdrScenes:
    return HdrScenes(data_dir=home, config=layout.name)


def _build(
    builder: HdrScenes, source: Source, folder: pathlib.Path, progress: Progress | None, follow_links: bool
) -> None:
    data_path = pathlib.Path(builder.data_path)
    for left_behind in data_path.parent.glob('incomplete.*'):  # by a killed process; the lock is ours
        shutil.rmtree(left_behind)
    builder.source = source
    builder.progress = progress
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download there
        builder.download_and_prepare(
            file_format='array_record',
            download_config=tfds.download.DownloadConfig(manual_dir=folder, try_download_gcs=False))
    if find_source(folder, source.layout, follow_links).fingerprint != source.fingerprint:
        shutil.rmtree(data_path)
        raise DataError(f'{folder}: files changed while they were prepared. Run again when they are final.')


@contextlib.contextmanager
def _locked(home: pathlib.Path, verbose: bool) -> Iterator[None]:
    """Holds the folder's lock file. The system frees it when the process ends, in whatever way."""
    home.mkdir(parents=True, exist_ok=True)
    with open(home / 'lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if verbose:
                print(f'Another process prepares {home}; waiting for it.', file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---- reading ----------------------------------------------------------------------------------------


def scene_names(builder: HdrScenes, split: str) -> list[str]:
    """The names of a split's scenes, in order. No scene is read.

    Raises:
        ConfigError: the prepared data have no such split.
        DataError: the prepared data are damaged.
    """
    with _readable(builder, 'the list of scenes'):
        names = builder.info.metadata['names']
    if split not in names:
        raise ConfigError(f'The prepared {builder.builder_config.name} has no {split} scenes, only '
                          f'{" and ".join(names)}. Choose another split, or add them to the data folder.')
    return list(names[split])


def iter_scenes(
    builder: HdrScenes, split: str, names: Sequence[str] | None = None, subtract_min_ev: bool = False
) -> Iterator[Scene]:
    """Reads scenes one at a time, the next in the background.

    Args:
        builder: from `prepare`.
        split: 'train' or 'test'.
        names: which scenes, in this order; None: all.
        subtract_min_ev: shift the exposures of each scene so that the shortest has 0 stops.

    Returns:
        An iterator over the scenes; their arrays are read-only.

    Raises:
        ConfigError: the prepared data have no such split or no scene of that name.
        DataError: the prepared data are damaged; raised when the scene is reached.
    """
    known = {name: place for place, name in enumerate(scene_names(builder, split))}
    names = list(known) if names is None else list(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f'The {split} scenes of {builder.builder_config.name} have none called '
                          f'{", ".join(unknown)}. There are: {", ".join(known)}.')
    return _read(builder, split, [(name, known[name]) for name in names], subtract_min_ev)


def load_scenes(
    builder: HdrScenes, split: str, names: Sequence[str] | None = None, subtract_min_ev: bool = False
) -> list[Scene]:
    """`iter_scenes` as a list: 30 bytes a pixel, 3.3 GB for 74 scenes of 1000x1500."""
    return list(iter_scenes(builder, split, names, subtract_min_ev))


def _read(
    builder: HdrScenes, split: str, places: Sequence[tuple[str, int]], subtract_min_ev: bool
) -> Iterator[Scene]:
    with _readable(builder, f'the {split} scenes'):
        examples = builder.as_data_source(split=split)

    def read(name_and_place: tuple[str, int]) -> Scene:
        name, place = name_and_place
        with _readable(builder, f'scene {name}'):
            scene = _to_scene(examples[place])
            if scene.name != name:
                raise ValueError(f'in its place is scene {scene.name}')
        evs = scene.evs - scene.evs.min() if subtract_min_ev else scene.evs
        return dataclasses.replace(scene, evs=evs)

    options = grain.ReadOptions(num_threads=READ_THREADS, prefetch_buffer_size=READ_THREADS)
    return iter(grain.MapDataset.source(places).map(read).to_iter_dataset(options))


def _to_scene(example: Mapping[str, Any]) -> Scene:
    return Scene(example['name'].decode(), example['ldrs'], example['evs'], example.get('label'))


@contextlib.contextmanager
def _readable(builder: HdrScenes, what: str) -> Iterator[None]:
    try:
        yield
    except _READ_ERRORS as error:
        raise DataError(f'{builder.data_dir}: {what} of the prepared data cannot be read ({error}). '
                        'Delete this folder; it will be prepared anew.') from error
