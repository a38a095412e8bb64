"""Writing files so that a reader never sees half of one, and folders that one process at a time writes."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

MOST_LOCK_BYTES = 1000  # read of a lock file


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path`, with its suffix; renames it to `path` if the block succeeds."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{path.stem}.', suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno and error.filename in (None, name):  # a full disk names no file, nobody knows the temporary one
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts scene 9 before scene 10; names of the same value (1, 01) stay apart."""
    parts = re.split(r'(\d+)', name)
    return [(1, int(part), '') if part.isdecimal() else (0, 0, part) for part in parts], name


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all; what is no UTF-8 in names of files is written with backslashes."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """Writes indented JSON, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


class LockedError(Exception):
    """Another process holds the file; the argument is what that one wrote into it."""


def this_process() -> str:
    """Who we are, for others who find our lock: host, process id and the time."""
    return f'host {socket.gethostname()}, process {os.getpid()}, since {time.strftime("%Y-%m-%d %H:%M:%S %z")}'


@contextlib.contextmanager
def locked(path: str | pathlib.Path) -> Iterator[int]:
    """Holds a lock file, which says who holds it; gives its descriptor, for programs that shall inherit the lock.

    The system lets go of it when the process ends, in whatever way. It is `flock`: on NFS, Linux passes it on to the
    server, so that it holds between hosts; a file system that knows no locks gets a warning, and no lock. The file
    stays: were it removed, two processes could each hold one of its name.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be made.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(os.read(handle, MOST_LOCK_BYTES).decode(errors='replace').strip()) from error
        except OSError as error:
            print(f'{path}: cannot be locked ({error.strerror}); start no second program here', file=sys.stderr)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f'{this_process()}\n'.encode(), 0)
        yield handle
    finally:
        os.close(handle)
