"""What a folder holds, file by file, so that any change in it is found.

`manifest.json` lists size and SHA-256 of every file of the folder, and ends with the SHA-256 of its own text before.
It is written last: a folder without it is not whole.
"""

import hashlib
import json
import os
import pathlib
import stat
from typing import Any

from afunet_jax import files

NAME = 'manifest.json'
FILES, OWN = 'files', 'sha256'
SHOWN = 100  # characters of a name in a message


class DamageError(Exception):
    """A folder does not hold what its manifest lists; the message says which file, and what is wrong with it."""


def write(folder: pathlib.Path, **about: Any) -> None:
    """Lists the folder, with what else there is to say `about` it; everything is on disk when this returns."""
    listed = {}
    for path in sorted(p for p in folder.rglob('*') if p.is_file()):
        name = path.relative_to(folder).as_posix()
        listed[name] = {'bytes': path.stat().st_size, 'sha256': _digest(path, sync=True)}
    files.write_text(folder / NAME, _text({**about, FILES: listed}))
    for path in (folder / NAME, folder, *(p for p in folder.rglob('*') if p.is_dir())):
        sync(path)


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest itself, without a look at the files.

    Raises:
        FileNotFoundError: there is none.
        DamageError: it was changed, or lists no files of this folder.
    """
    if not (folder / NAME).is_file():  # opening a pipe would wait for ever
        raise FileNotFoundError(folder / NAME)
    try:
        text = (folder / NAME).read_text(encoding='utf-8')
        found = json.loads(text)
        found.pop(OWN)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError(f'{NAME} cannot be read ({error})') from error
    if text != _text(found):
        raise DamageError(f'{NAME} was changed after it was written')
    _check_list(found.get(FILES))
    return found


def _check_list(listed: Any) -> None:
    """What has checksums that are right may have been written by others all the same."""
    if not isinstance(listed, dict):
        raise DamageError(f'{NAME} has no list of files')
    for name, wanted in listed.items():
        parts = pathlib.PurePosixPath(name).parts
        if not parts or name.startswith('/') or '..' in parts:
            raise DamageError(f'{NAME} lists {name[:SHOWN]!r}, which is no file of this folder')
        if not isinstance(wanted, dict) or not {'bytes', 'sha256'} <= wanted.keys():
            raise DamageError(f'{NAME} lists {name[:SHOWN]!r} without its bytes and sha256')


def verify(folder: pathlib.Path) -> dict[str, Any]:
    """`read`, and holds every file against it.

    Raises:
        FileNotFoundError: there is no manifest.
        DamageError: it, or a file, is not what was written.
    """
    found = read(folder)
    for name, wanted in found[FILES].items():
        path = folder / name
        try:
            found_there = path.stat()
            if not stat.S_ISREG(found_there.st_mode):
                raise DamageError(f'{name} is a folder, a pipe or a device, not a file')
            size = found_there.st_size
            if size != wanted['bytes']:
                raise DamageError(f'{name} has {size} bytes, {wanted["bytes"]} were written')
            if _digest(path) != wanted['sha256']:
                raise DamageError(f'{name} was changed after it was written: its SHA-256 differs')
        except FileNotFoundError as error:
            raise DamageError(f'{name} is missing') from error
        except (OSError, ValueError) as error:  # a name that no file can have, too
            reason = getattr(error, 'strerror', None) or error
            raise DamageError(f'{name[:SHOWN]!r} cannot be read ({reason})') from error
    return found


def sync(path: pathlib.Path) -> None:
    """Has a file, or a folder's list of names, written to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: pathlib.Path, sync: bool = False) -> str:
    with path.open('rb') as file:
        found = hashlib.file_digest(file, 'sha256').hexdigest()
        if sync:
            os.fsync(file.fileno())
    return found


def _text(contents: dict[str, Any]) -> str:
    own = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    return json.dumps({**contents, OWN: own}, indent=1) + '\n'
