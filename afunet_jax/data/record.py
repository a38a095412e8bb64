"""Which files a training was begun with, so that the run that goes on has the same.

`data.json` in the working directory lists every file of the training scenes with size, time and SHA-256. Size
and time are compared first; where they differ (the data set was copied, say), the contents decide.

While it runs, a training holds its scenes in memory: files that change or disappear then do not touch it. It is the
next start that reads them, and stops.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from afunet_jax import files
from afunet_jax.data import datasets
from afunet_jax.data.layouts import get_layout
from afunet_jax.data.scenes import find_scenes
from afunet_jax.errors import DataError

NAME = 'data.json'
MOST_NAMED = 10  # files in a message


def check(workdir: pathlib.Path, data: Any) -> None:
    """Compares the data with the record of a run, if it has one.

    Args:
        workdir: of the run.
        data: the config's `data` section.

    Raises:
        DataError: a file is missing, new, or has other contents; names them.
    """
    path = workdir / NAME
    if not path.exists():
        return
    known = _read(path)
    folder, found = _training_files(data)
    wrong = [f'{folder / name}: is missing' for name in known if name not in found]
    wrong += [f'{folder / name}: was not there' for name in found if name not in known]
    wrong += [
        f'{folder / name}: has other contents' for name, file in found.items()
        if name in known and not _same(file, known[name])
    ]  # fmt: skip
    if wrong:
        more = f'\n  and {len(wrong) - MOST_NAMED} more' if len(wrong) > MOST_NAMED else ''
        raise DataError(
            'the training data have changed since this run was begun; restore them, or use a new --workdir:\n  '
            + '\n  '.join(wrong[:MOST_NAMED]) + more
        )  # fmt: skip


def write(workdir: pathlib.Path, data: Any) -> None:
    """Writes the record of a new run; one that is there stays."""
    if (workdir / NAME).exists():
        return
    _, found = _training_files(data)
    described = {name: _describe(file) for name, file in found.items()}
    try:
        files.write_json(workdir / NAME, described)
    except OSError as error:
        raise DataError(f'{workdir / NAME}: cannot be written ({error.strerror}); make room') from error


def _training_files(data: Any) -> tuple[pathlib.Path, dict[str, pathlib.Path]]:
    """The data set's folder, and its files by their names in there."""
    folder = datasets.ensure_folder(data)
    scenes = find_scenes(folder, get_layout(data.layout), 'train', data.follow_links)
    found = [p for s in scenes for p in (*s.ldrs, s.exposures, *([s.label] if s.label else []))]
    return folder, {pathlib.Path(os.path.relpath(path, folder)).as_posix(): path for path in found}


def _describe(path: pathlib.Path) -> dict[str, Any]:
    try:
        status = path.stat()
        with path.open('rb') as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}); it was there when the training began') from error
    return {'bytes': status.st_size, 'time_ns': status.st_mtime_ns, 'sha256': digest}


def _same(path: pathlib.Path, known: dict[str, Any]) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    if status.st_size != known['bytes']:
        return False
    return status.st_mtime_ns == known['time_ns'] or _describe(path)['sha256'] == known['sha256']


def _read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(path.read_text(encoding='utf-8'))
        if all({'bytes', 'time_ns', 'sha256'} <= set(entry) for entry in known.values()):
            return known
        raise ValueError('entries are not complete')
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f'{path}: cannot be read ({error}); restore it, or delete it to go unchecked') from error
