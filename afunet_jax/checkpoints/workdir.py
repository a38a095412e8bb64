"""A working directory belongs to one configuration, and to one process at a time."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax import traverse_util

from afunet_jax import files
from afunet_jax.checkpoints.layout import BEST, CONFIG_FILE, LATEST, LOCK, said
from afunet_jax.errors import CheckpointError

MOST_CONFIG_BYTES = 10_000_000
# Settings that runs of older releases did not have, and what those did (on a CPU: there was no precision to choose).
SINCE = {'model.head': 'sigmoid', 'model.precision': 'highest', 'eval.align': 'off', 'loss.blend': 'errors'}


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A nested configuration as one mapping with dotted keys, as on the command line."""
    return traverse_util.flatten_dict(tree, sep='.')


def is_free(key: str, free: Sequence[str]) -> bool:
    """Whether a dotted key is one of `free`, or lies in a section that is."""
    return any(key == f or key.startswith(f'{f}.') for f in free)


def check_workdir(workdir: str | pathlib.Path, config: Mapping[str, Any], free: tuple[str, ...]) -> None:
    """Checks that a working directory is new, or belongs to a run with this configuration.

    Args:
        workdir: directory of the run; may be absent.
        config: nested mapping, JSON-able.
        free: dotted keys of values or sections that may differ when a run goes on.

    Raises:
        CheckpointError: it belongs to a run with another configuration; lists what differs.
    """
    path = pathlib.Path(workdir) / CONFIG_FILE
    if not path.exists():
        if any(any((path.parent / name).glob('*')) for name in (LATEST, BEST)):
            raise CheckpointError(
                f'{workdir}: has checkpoints but no {CONFIG_FILE}; restore it, or use a new --workdir'
            )
        return
    before, now = flat(_read_json(path)), flat(json.loads(json.dumps(config)))
    before = {**{key: value for key, value in SINCE.items() if key in now}, **before}
    differing = [
        f'{key}: {before.get(key)!r} there, {now.get(key)!r} now'
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and not is_free(key, free)
    ]
    if differing:
        raise CheckpointError(
            f'{workdir} belongs to a run with another configuration; use a new --workdir, or the same values:\n  '
            + '\n  '.join(differing)
        )


def claim_workdir(workdir: str | pathlib.Path, config: Mapping[str, Any], free: tuple[str, ...]) -> None:
    """`check_workdir`, then writes the configuration into the directory if it is new."""
    check_workdir(workdir, config, free)
    path = pathlib.Path(workdir) / CONFIG_FILE
    if not path.exists():
        with said(path):
            files.write_json(path, config)


def _read_json(path: pathlib.Path) -> Any:
    try:
        if not path.is_file() or path.stat().st_size > MOST_CONFIG_BYTES:
            raise ValueError(f'no file, or one of more than {MOST_CONFIG_BYTES} bytes')
        found = json.loads(path.read_text(encoding='utf-8'))
        if not isinstance(found, dict):
            raise ValueError(f'{type(found).__name__} is no configuration')
        return found
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f'{path}: cannot be read ({error}); restore it, or use a new --workdir') from error


@contextlib.contextmanager
def locked_workdir(workdir: str | pathlib.Path) -> Iterator[None]:
    """Holds a working directory, made if absent, against a second run; see `files.locked`.

    Raises:
        CheckpointError: another run works there; names its host, process and start.
    """
    workdir = pathlib.Path(workdir)
    try:
        with said(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            lock = contextlib.ExitStack()
            lock.enter_context(files.locked(workdir / LOCK))
    except files.LockedError as error:
        raise CheckpointError(
            f'{workdir}: another run trains here ({error}); wait for it, end it, or use another --workdir'
        ) from error
    with lock:
        yield
