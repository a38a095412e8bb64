"""What a working directory of training holds, and by which names."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

import orbax.checkpoint as ocp

from afunet_jax.errors import CheckpointError

FORMAT_VERSION = 2
WITHOUT_MANIFEST = 1  # the last format version that had none
LATEST, BEST = 'checkpoints', 'best'
CONFIG_FILE = 'config.json'
LOCK = 'run.lock'
STATE, PARAMS, ABOUT = 'state', 'params', 'about'  # items of a checkpoint
MOST_REASON = 400  # characters of an error of a library


class DamagedError(CheckpointError):
    """A checkpoint does not hold what was written."""


def is_step(name: str) -> bool:
    """Whether a folder has the name that a step gives it; not 007, nor digits of other scripts."""
    return name.isascii() and name.isdecimal() and name == str(int(name))


def acting_alone(process: int, name: str) -> ocp.options.MultiprocessingOptions:
    """Orbax's options for what one of several processes does by itself: by default it waits for all of them."""
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f'{name}_{process}'
    )


@contextlib.contextmanager
def said(path: pathlib.Path) -> Iterator[None]:
    """Turns what the system refuses into a message with the path and the cure."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f'{error.filename or path}: cannot be written ({reason_of(error)}); make room, or use another --workdir'
        ) from error


def reason_of(error: BaseException) -> str:
    """One line that says why a write has failed."""
    text = getattr(error, 'strerror', None) or ' '.join(str(error).split()) or type(error).__name__
    for reason in map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
        if reason in text:  # somewhere among the traces of Orbax's threads
            return reason
    return text if len(text) <= MOST_REASON else f'... {text[-MOST_REASON:]}'  # the system's reason stands at the end
