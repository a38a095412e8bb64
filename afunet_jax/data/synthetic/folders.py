"""Writing a set of synthetic scenes in Kalantari's layout, whole or not at all."""

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence

from afunet_jax import image_io
from afunet_jax.data.progress import ProgressLine
from afunet_jax.data.scenes import MAX_EV, Scene
from afunet_jax.data.synthetic.compose import make_scene
from afunet_jax.errors import DataError

PathLike = str | pathlib.Path
Progress = Callable[[int, int, str], None]
MANIFEST = 'synthetic.json'
GENERATOR = 'afunet_jax.data.synthetic'
VERSION = 1  # raise it when the same seed gives other pixels
TEST_OFFSET = 1_000_000  # index of the first test scene: no training scene comes near it
SPLITS = {'Training': 0, 'Test/Test-set': TEST_OFFSET}
NAMES = ('1_short.tif', '2_medium.tif', '3_long.tif')
SMALLEST = 32  # pixels: figures and textures need some room


def _manifest(train: int, test: int, height: int, width: int, seed: int, evs) -> dict:
    """What a set is made of; two equal manifests mean the same files."""
    return {
        'generator': GENERATOR,
        'version': VERSION,
        'seed': seed,
        'train': train,
        'test': test,
        'height': height,
        'width': width,
        'evs': None if evs is None else [float(ev) for ev in evs],
    }


def check_request(train: int, test: int, height: int, width: int, seed: int, evs) -> None:
    """The rules of a request; the message names the value."""
    if min(train, test) < 0 or train + test == 0 or train > TEST_OFFSET:
        raise DataError(
            f'Synthetic scenes: train and test must be 0 to {TEST_OFFSET} and not both 0, '
            f'they are {train} and {test}.'
        )
    if min(height, width) < SMALLEST:
        raise DataError(
            f'Synthetic scenes must be at least {SMALLEST} pixels high and wide, not {height}x{width}.'
        )
    if seed < 0:
        raise DataError(f'Synthetic scenes: the seed must be 0 or more, it is {seed}.')
    check_evs('Synthetic scenes', evs)


def check_evs(what: str, evs: Sequence[float] | None) -> None:
    """Raises a `DataError` unless `evs` are exposures that the readers accept, from 0 stops; None draws them."""
    if evs is not None and not (len(evs) == 3 and evs[0] == 0 and 0 < evs[1] < evs[2] <= MAX_EV):
        raise DataError(
            f'{what}: give three rising exposures from 0 to at most {MAX_EV:g} EV, such as 0 2 4, not {list(evs)}.'
        )


def write_scene(folder: PathLike, scene: Scene) -> None:
    """Writes one scene as Kalantari's folder: three TIFFs, `exposure.txt`, `HDRImg.hdr`.

    Args:
        folder: is made.
        scene: with a label.

    Raises:
        DataError: a file cannot be written.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    for name, ldr in zip(NAMES, scene.ldrs):
        image_io.write_ldr(folder / name, ldr)
    image_io.write_hdr(folder / 'HDRImg.hdr', scene.label)
    (folder / 'exposure.txt').write_text(''.join(f'{ev:g}\n' for ev in scene.evs), encoding='utf-8')


def write_whole(folder: PathLike, fill: Callable[[pathlib.Path], None]) -> None:
    """Makes a folder that appears complete or not at all: written beside its final place, then renamed.

    Args:
        folder: must not exist, or be empty.
        fill: writes everything into the empty folder that it is given.

    Raises:
        DataError: the folder holds something, or cannot be made or written; what `fill` raises passes through.
    """
    folder = pathlib.Path(os.path.realpath(folder))  # where a link leads to
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f'{folder}: already holds something. Name another folder, or remove it first.')
    if folder == pathlib.Path.cwd() or os.path.ismount(folder):
        raise DataError(f'{folder}: the working directory, or where a disk is mounted, which no folder can take the '
                        f'place of. Name one inside it: {folder / "scenes"}.')
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(
            tempfile.mkdtemp(prefix=f'.{folder.name}.', suffix='.tmp', dir=folder.parent)
        )
    except OSError as error:
        raise DataError(
            f'{folder}: cannot be made ({error.strerror}). Name a folder that you may write to.'
        ) from error
    try:
        whole = temporary / 'set'
        whole.mkdir()
        fill(whole)
        os.rename(whole, folder)
    except OSError as error:
        raise DataError(
            f'{folder}: cannot be written ({error.strerror}). Free some space, or name another folder.'
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_all(folder: pathlib.Path, wanted: dict, progress: Progress | None) -> None:
    """Every scene of the manifest `wanted`, and the manifest itself, last."""
    counts = dict(zip(SPLITS, (wanted['train'], wanted['test'])))
    jobs = [(split, k) for split in SPLITS for k in range(counts[split])]
    for done, (split, k) in enumerate(jobs, 1):
        scene = make_scene(
            wanted['seed'], SPLITS[split] + k, wanted['height'], wanted['width'], wanted['evs']
        )
        write_scene(folder / split / f'{k + 1:03d}', scene)
        if progress is not None:
            progress(done, len(jobs), scene.name)
    (folder / MANIFEST).write_text(json.dumps(wanted, indent=2) + '\n', encoding='utf-8')


def write_scenes(
    folder: PathLike,
    train: int,
    test: int,
    height: int,
    width: int,
    seed: int = 0,
    evs=(0.0, 2.0, 4.0),
    progress: Progress | str | None = 'stderr',
) -> None:
    """Writes a set of scenes in Kalantari's layout: `Training/NNN` and `Test/Test-set/NNN`.

    The folder appears complete or not at all: it is written beside its final place and then renamed.

    Args:
        folder: must not exist, or be empty.
        train, test: number of scenes; their indices never meet, so no test scene is a training scene.
        height, width: pixels, at least `SMALLEST`.
        seed: 0 or more.
        evs: exposures in stops, from 0, rising; None draws one of `EV_CHOICES` for each scene.
        progress: called with (done, total, name of the scene); 'stderr': a line there; None: silent.

    Raises:
        DataError: the folder holds something, the request breaks a rule, or a file cannot be written.
    """
    check_request(train, test, height, width, seed, evs)
    line = ProgressLine('Painting scenes') if progress == 'stderr' else progress
    write_whole(folder, lambda whole: _write_all(whole, _manifest(train, test, height, width, seed, evs), line))


def _read_manifest(folder: pathlib.Path) -> dict | None:
    """The manifest of a folder, None if the folder is absent or empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        return json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f'{folder}: holds something that is not a set of synthetic scenes (no readable {MANIFEST}). '
            'Nothing was changed. Name another folder.'
        ) from error


def ensure_scenes(
    folder: PathLike,
    train: int,
    test: int,
    height: int,
    width: int,
    seed: int = 0,
    evs=(0.0, 2.0, 4.0),
    progress: Progress | str | None = 'stderr',
) -> None:
    """`write_scenes`, unless the folder already holds exactly these scenes.

    The manifest decides; the scenes' files are not opened.

    Raises:
        DataError: the folder holds something else; nothing is overwritten.
    """
    folder = pathlib.Path(folder)
    wanted = _manifest(train, test, height, width, seed, evs)
    found = _read_manifest(folder)
    if found is None:
        try:
            write_scenes(folder, train, test, height, width, seed, evs, progress)
            return
        except DataError:
            found = _read_manifest(folder)  # another process may have written the same set meanwhile
            if found is None:
                raise
    if found != wanted:
        other = found if isinstance(found, dict) else {}
        keys = [key for key in wanted if other.get(key) != wanted[key]] or ['more entries']
        told = ', '.join(f'{key} is {other.get(key)}, wanted {wanted.get(key)}' for key in keys)
        raise DataError(
            f'{folder}: holds other synthetic scenes ({told}). Nothing was changed. '
            'Name another folder, or remove this one.'
        )
