"""Scenes: three exposures of a moving scene and its ground truth, found on disk and read.

One set of rules, in `inspect_scene`, says what is wrong with a scene. `read_scene` raises on it,
`scene_problems` lists it.
"""

import dataclasses
import fnmatch
import os
import pathlib
import re
from collections.abc import Iterable

import numpy as np

from afunet_jax import image_io
from afunet_jax.data.layouts import Layout
from afunet_jax.errors import DataError
from afunet_jax.files import natural_key

PathLike = image_io.PathLike
EXPOSURES = 3
MAX_EXPOSURE_BYTES = 65536  # of the file of exposures
MAX_EV = 60.0  # stops either way: 2 ** EV and all that is computed with it fit into float32
FOLLOW_LINKS = 'data.follow_links'  # the config's key


@dataclasses.dataclass(frozen=True)
class SceneFiles:
    """Where a scene's files are. Nothing is opened yet, and nothing checked.

    Attributes:
        name: of the scene, unique in its split.
        ldrs: the exposures that were found, sorted by name, short to long: three if all is well.
        exposures: the file of EV stops; it may be missing.
        label: the ground truth, which may be missing; None where the data set has none.
    """

    name: str
    ldrs: tuple[pathlib.Path, ...]
    exposures: pathlib.Path
    label: pathlib.Path | None


@dataclasses.dataclass(frozen=True)
class Scene:
    """A scene in memory, in its storage types.

    Attributes:
        name: of the scene.
        ldrs: `[3, H, W, 3]` uint16, gamma-encoded, short to long.
        evs: `[3]` float32, exposures in stops, ascending.
        label: `[H, W, 3]` float32, linear, finite, not negative; None without ground truth.
    """

    name: str
    ldrs: np.ndarray
    evs: np.ndarray
    label: np.ndarray | None


@dataclasses.dataclass
class Inspection:
    """What could be read of a scene, and everything that is wrong with it.

    Attributes:
        ldrs: `[H, W, 3]` uint16 each, None for a file that cannot be read.
        evs: as in the file, None if it cannot be read.
        label: `[H, W, 3]` float32, None if there is none or it cannot be read.
        problems: messages, each with the file and the cure.
    """

    ldrs: list[np.ndarray | None] = dataclasses.field(default_factory=list)
    evs: np.ndarray | None = None
    label: np.ndarray | None = None
    problems: list[str] = dataclasses.field(default_factory=list)


# ---- finding ----------------------------------------------------------------------------------------


def find_scenes(folder: PathLike, layout: Layout, split: str, follow_links: bool = False) -> list[SceneFiles]:
    """Finds the scenes of one split.

    Args:
        folder: the data set's folder.
        layout: of the data set, from `layouts.get_layout`.
        split: 'train' or 'test'.
        follow_links: also symbolic links that lead out of the folder. The folder itself may be a link in any case.

    Returns:
        The scenes, sorted by name, numbers by value. Files are not opened.

    Raises:
        ConfigError: another name of a split.
        DataError: the folder does not exist, is no such data set, or has no scenes; two scenes of the
            split have the same name; or a link leads out of the folder.
    """
    places = split_folders(folder, layout, split)
    if not follow_links:
        _check_links(folder, places)
    scenes = [scene for place in places for scene in _scenes_in(place, layout)]
    if not follow_links:
        _check_links(folder, [path for scene in scenes for path in _paths(scene)])
    scenes.sort(key=lambda scene: natural_key(scene.name))
    for one, other in zip(scenes, scenes[1:]):
        if one.name == other.name:
            raise DataError(f'Two scenes are called {one.name}: {one.exposures.parent} and '
                            f'{other.exposures.parent}. Rename one of these folders.')
    if not scenes:
        raise DataError(f'No scenes in {", ".join(map(str, places))}. Layout {layout.name} expects '
                        f'{_files_of(layout)} there for each of them.')
    return scenes


def split_folders(folder: PathLike, layout: Layout, split: str) -> list[pathlib.Path]:
    """The existing folders that hold a split's scenes: the first of the layout's alternatives that is there.

    Raises:
        ConfigError: another name of a split.
        DataError: there is no such folder, or one of several that belong together is missing.
    """
    folder = pathlib.Path(folder)
    alternatives = layout.folders(split)
    if not alternatives:
        raise DataError(f'Data set {layout.name} has no {split} scenes. Choose another split or data set.')
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder. '
                        f'Give the folder that holds {_alternatives(alternatives)}.')
    for names in alternatives:
        places = [folder / name for name in names]
        missing = [str(place) for place in places if not place.is_dir()]
        if len(missing) == len(places):
            continue
        if missing:
            raise DataError(f'{", ".join(missing)}: no such folder; the {split} scenes of {layout.name} are '
                            f'{" and ".join(names)} together. Copy it there, or all of them to '
                            f'{folder / alternatives[0][0]}.')
        return places
    raise DataError(f'{folder}: not a data set of layout {layout.name}, it has no '
                    f'{_alternatives(alternatives)} for the {split} scenes. '
                    'Give the folder that holds it, or choose another layout.')


def _paths(scene: SceneFiles) -> list[pathlib.Path]:
    return [*scene.ldrs, scene.exposures, *([scene.label] if scene.label else [])]


def _check_links(folder: PathLike, paths: Iterable[pathlib.Path]) -> None:
    """Raises a DataError that names the first link out of the folder."""
    home = pathlib.Path(os.path.realpath(folder))
    for path in paths:
        if pathlib.Path(os.path.realpath(path)).is_relative_to(home):
            continue
        steps = [path, *path.parents]
        link = next(step for step in reversed(steps) if step.is_symlink() and step.is_relative_to(folder)
                    and not pathlib.Path(os.path.realpath(step)).is_relative_to(home))  # fmt: skip
        raise DataError(f'{link}: a symbolic link out of the data folder, to {os.path.realpath(link)}. Copy what it '
                        f'stands for, or set {FOLLOW_LINKS}=True if the folder is yours.')


def _alternatives(alternatives: tuple[tuple[str, ...], ...]) -> str:
    return ' or '.join(' + '.join(names) for names in alternatives)


def _files_of(layout: Layout) -> str:
    return ', '.join((*layout.ldrs, layout.exposures, *([layout.label] if layout.label else [])))


def _scenes_in(place: pathlib.Path, layout: Layout) -> list[SceneFiles]:
    patterns = [_name_regex(pattern) for pattern in layout.scene]
    folders = [child.name for child in _visible(place) if child.is_dir()]
    matches = [pattern.fullmatch(folder) for folder in folders for pattern in patterns]
    return [_files(place, layout, scene) for scene in sorted({match['scene'] for match in matches if match})]


def _name_regex(pattern: str) -> re.Pattern[str]:
    before, after = pattern.split('{scene}')
    return re.compile(re.escape(before) + '(?P<scene>.+)' + re.escape(after))


def _files(place: pathlib.Path, layout: Layout, scene: str) -> SceneFiles:
    ldrs = [path for pattern in layout.ldrs for path in _matching(place, pattern, scene)]
    return SceneFiles(
        name=scene,
        ldrs=tuple(sorted(ldrs, key=lambda path: path.name)),
        exposures=_one(place, layout.exposures, scene),
        label=_one(place, layout.label, scene) if layout.label else None,
    )


def _one(place: pathlib.Path, pattern: str, scene: str) -> pathlib.Path:
    """The file that matches, or where it should be."""
    found = _matching(place, pattern, scene)
    return found[0] if found else place / pattern.format(scene=scene)


def _matching(place: pathlib.Path, pattern: str, scene: str) -> list[pathlib.Path]:
    wanted = pathlib.PurePosixPath(pattern)
    folder = place / str(wanted.parent).format(scene=scene)
    if not folder.is_dir():
        return []
    return [path for path in _visible(folder) if fnmatch.fnmatchcase(path.name.lower(), wanted.name.lower())]


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    # Archives made on a Mac leave a hidden ._name.tif beside each name.tif.
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
    except OSError as error:
        raise DataError(f'{folder}: cannot be read ({error.strerror}); change its permissions') from error


# ---- reading ----------------------------------------------------------------------------------------


def read_scene(
    files: SceneFiles, subtract_min_ev: bool = False, max_pixels: int = image_io.MAX_PIXELS
) -> Scene:
    """Reads a scene and checks it.

    Args:
        files: from `find_scenes`, or made by hand.
        subtract_min_ev: the shortest exposure becomes 0 stops, as in some other projects. The published
            weights were trained without.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        The scene in its storage types.

    Raises:
        DataError: with everything that `scene_problems` finds, one a line.
    """
    found = inspect_scene(files, max_pixels)
    if found.problems:
        raise DataError('\n'.join(found.problems))
    evs = found.evs - found.evs.min() if subtract_min_ev else found.evs
    return Scene(files.name, np.stack(found.ldrs), evs, found.label)


def scene_problems(files: SceneFiles, max_pixels: int = image_io.MAX_PIXELS) -> list[str]:
    """Everything that is wrong with a scene, each with the file and the cure; empty if it can be read."""
    return inspect_scene(files, max_pixels).problems


def inspect_scene(files: SceneFiles, max_pixels: int = image_io.MAX_PIXELS) -> Inspection:
    """Reads all that can be read of a scene and notes all that is wrong: the rules of `read_scene`."""
    found = Inspection()
    found.problems += _name_problems(files)
    for path in files.ldrs:
        found.ldrs.append(_attempt(found.problems, image_io.read_ldr, path, max_pixels))
    found.evs = _attempt(found.problems, read_exposures, files.exposures)
    if found.evs is not None:
        found.problems += _exposure_problems(files.exposures, found.evs)
    if files.label is not None:
        found.label = _attempt(found.problems, image_io.read_hdr, files.label, max_pixels)
    if found.label is not None:
        found.problems += _label_problems(files.label, found.label)
    found.problems += _size_problems(files, found)
    return found


def _attempt(problems: list[str], read, path: pathlib.Path, *limits: int) -> np.ndarray | None:
    try:
        return read(path, *limits)
    except DataError as error:
        problems.append(str(error))
        return None


def read_exposures(path: PathLike) -> np.ndarray:
    """Reads a file of exposures: three EV stops, one a line.

    Returns:
        `[3]` float32, as they stand in the file.

    Raises:
        DataError: missing, empty, longer than `MAX_EXPOSURE_BYTES`, not numbers, not within `MAX_EV`, or not three
            of them.
    """
    path = pathlib.Path(path)
    cure = f'Write {EXPOSURES} numbers in stops, one a line, in the order of the sorted image names.'
    try:
        if not path.is_file() and path.exists():
            raise DataError(f'{path}: the file of exposures cannot be read (it is not a file). {cure}')
        if path.stat().st_size > MAX_EXPOSURE_BYTES:
            raise DataError(f'{path}: the file of exposures is longer than {MAX_EXPOSURE_BYTES} bytes. {cure}')
        words = path.read_text(encoding='utf-8-sig').split()
    except FileNotFoundError as error:
        raise DataError(f'{path}: the file of exposures is missing. {cure}') from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: the file of exposures cannot be read ({error}). {cure}') from error
    if not words:
        raise DataError(f'{path}: the file of exposures is empty. {cure}')
    try:
        evs = np.array([float(word) for word in words], np.float64)
    except ValueError as error:
        raise DataError(f'{path}: an exposure is not a number ({str(error)[:100]}). {cure}') from error
    if len(evs) != EXPOSURES:
        raise DataError(f'{path}: {len(evs)} exposures, {EXPOSURES} are needed. {cure}')
    if not np.isfinite(evs).all():
        raise DataError(f'{path}: exposures must be finite, they are {_listed(evs)}. {cure}')
    if np.abs(evs).max() > MAX_EV:
        raise DataError(f'{path}: exposures are stops from {-MAX_EV:g} to {MAX_EV:g}, they are {_listed(evs)}. {cure}')
    return evs.astype(np.float32)


def _listed(values: Iterable) -> str:
    return ', '.join(f'{value:g}' if isinstance(value, np.floating) else str(value) for value in values)


def _name_problems(files: SceneFiles) -> list[str]:
    folder, names = files.exposures.parent, [path.name for path in files.ldrs]
    if len(names) != EXPOSURES:
        return [f'{folder}: {len(names)} exposures were found ({_listed(names) or "no file"}), {EXPOSURES} '
                'are needed. Keep one short, one middle and one long exposure, named as the layout says.']
    if sorted(names, key=natural_key) != names:
        return [f'{folder}: sorted as text the exposures are {_listed(names)}, by number they are not: which '
                'one the first line of the exposures means is unclear. Give their numbers equal length.']
    return []


def _exposure_problems(path: pathlib.Path, evs: np.ndarray) -> list[str]:
    if (np.diff(evs) > 0).all():
        return []
    return [f'{path}: exposures must rise from each image to the next, they are {_listed(evs)}. Name the '
            'images so that they sort from short to long, and list the stops in that order.']


def _label_problems(path: pathlib.Path, label: np.ndarray) -> list[str]:
    wrong = {'NaN': np.isnan(label), 'infinite': np.isinf(label), 'negative': label < 0}
    return [f'{path}: the label has {int(bad.sum())} {kind} values of {label.size}, the first at row '
            f'{int(row)}, column {int(column)}. Merge the label again, or leave the scene out.'
            for kind, bad in wrong.items() if bad.any()
            for row, column, _ in [np.argwhere(bad)[0]]]


def _size_problems(files: SceneFiles, found: Inspection) -> list[str]:
    """All images that can be read have the size of the first of them."""
    images = [*zip(files.ldrs, found.ldrs), (files.label, found.label)]
    images = [(path, image.shape[:2]) for path, image in images if image is not None]
    return [f'{path}: {_size(size)} pixels, but {images[0][0].name} has {_size(images[0][1])}. All images '
            'of a scene must have one size: crop them alike, or copy the file again.'
            for path, size in images[1:] if size != images[0][1]]


def _size(shape: tuple[int, int]) -> str:
    return f'{shape[1]}x{shape[0]}'
