"""The checkpoints that training writes, and goes on from."""

import contextlib
import json
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from afunet_jax import manifest
from afunet_jax.checkpoints.layout import (
    ABOUT,
    BEST,
    FORMAT_VERSION,
    LATEST,
    PARAMS,
    STATE,
    DamagedError,
    acting_alone,
    is_step,
    reason_of,
    said,
)
from afunet_jax.checkpoints.reading import descriptions, read_about, read_arrays, verify
from afunet_jax.errors import CheckpointError

CLEARING_SECONDS = 5.0  # to remove what a failed save has left, at most
SAVING = '.saving'  # begins the names of folders that are being written
REPLACED = '.replaced-'  # and of the checkpoint in whose place one will come
UNFINISHED = (f'{SAVING}*', '*.orbax-checkpoint-tmp*')  # left by killed processes; the second by format version 1
DAMAGED = '.damaged'  # ends the names of checkpoints that were set aside
_one_at_a_time = threading.Lock()  # Orbax counts its saves in one place, for all threads


class Checkpoints:
    """The checkpoints of one working directory, as training writes them.

    In a run of several processes each has its own view of the directory, which must be shared, and none
    waits for another: the state is the same in all of them, so the main process alone calls `save` and
    `save_best`.
    """

    def __init__(self, workdir: str | pathlib.Path, keep: int = 2, process: int = 0):
        """`keep` latest checkpoints stay; `process` is the number of this process, of which 0 cleans up."""
        workdir = pathlib.Path(workdir).absolute()
        self._latest = _Folder(workdir / LATEST, keep, (PARAMS, STATE), process)
        self._best = _Folder(workdir / BEST, 1, (PARAMS,), process)
        self._main = process == 0

    def save(self, step: int, params: Any, state: Any, about: Mapping[str, Any]) -> None:
        """Saves in the background; the arrays are NumPy, and copied. Best parameters that are being saved come first.

        Args:
            step: number of finished steps.
            params: the tree of parameters.
            state: whatever else is needed to go on (the optimizer's state).
            about: JSON-able description: config, data position, figures.

        Raises:
            CheckpointError: the save before this one has failed.
        """
        self._best.wait()  # what is saved here says that they are found
        self._latest.save(step, {PARAMS: params, STATE: state}, about)

    def save_best(self, step: int, params: Any, about: Mapping[str, Any]) -> None:
        """Replaces the best parameters. Else as `save`."""
        self._best.save(step, {PARAMS: params}, about)

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, None if there is none."""
        return max(self._latest.steps(), default=None)

    def best_about(self) -> dict[str, Any] | None:
        """Description of the best parameters, None if there are none; damaged ones are set aside with a message."""
        step = max(self._best.steps(), default=None)
        if step is None:
            return None
        path = self._best.path / str(step)
        try:
            return read_about(path, verify(path))
        except DamagedError as error:
            self._set_aside(error, path, 'the next validation writes a new one')
            return None

    def restore(self, step: int, params: Any, state: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Reads `(params, state, about)`; the arguments are trees of the same shapes.

        Raises:
            DamagedError: it is not what was written.
            CheckpointError: it has other shapes, or a later format.
        """
        path = self._latest.path / str(step)
        verified = verify(path)
        about = read_about(path, verified)
        found = [read_arrays(path / item, like, descriptions(path / item, verified), verified)
                 for item, like in ((PARAMS, params), (STATE, state))]  # fmt: skip
        return *found, about

    def restore_newest(self, params: Any, state: Any) -> tuple[int, Any, Any, dict[str, Any]] | None:
        """`(step, params, state, about)` of the newest checkpoint that is whole; None if there is no checkpoint.

        Newer ones that are damaged are named on stderr, and process 0 sets them aside.

        Raises:
            CheckpointError: all are damaged; or one has other shapes, or a later format.
        """
        damaged = []
        for step in sorted(self._latest.steps(), reverse=True):
            try:
                found = self.restore(step, params, state)
            except DamagedError as error:
                damaged.append((error, self._latest.path / str(step)))
                continue
            for error, path in damaged:
                self._set_aside(error, path, f'training goes on from step {step}, the one before it')
            return step, *found
        aside = sorted(self._latest.path.glob(f'*{DAMAGED}'))
        if not damaged and not aside:
            return None
        raise CheckpointError(
            'no checkpoint is whole, and a run is not begun anew where one was:\n  '
            + '\n  '.join([str(error) for error, _ in damaged] + [f'{path}: was set aside' for path in aside])
            + '\nRestore one from a backup, or use a new --workdir (with --weights, if best/ is whole)'
        )

    def _set_aside(self, error: DamagedError, path: pathlib.Path, then: str) -> None:
        if not self._main:
            return
        aside = path.with_name(path.name + DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        print(f'{error}; it is now {aside.name}, and {then}', file=sys.stderr, flush=True)

    def check(self) -> None:
        """Raises the error of a save that has failed in the background, else does nothing."""
        self._latest.check()
        self._best.check()

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
            CheckpointError: a save has failed.
        """
        self._latest.wait()
        self._best.wait()

    def close(self) -> None:
        """Finishes the writing; failures that were not raised yet are lost."""
        for folder in (self._latest, self._best):
            with contextlib.suppress(CheckpointError):
                folder.wait()


class _Folder:
    """Checkpoints of one kind: `path/STEP/ITEM`, the last `keep` of them, written by a thread."""

    def __init__(self, path: pathlib.Path, keep: int, items: Sequence[str], process: int):
        self.path, self._keep, self._process = path, keep, process
        alone = acting_alone(process, path.name)
        self._handlers = {item: ocp.StandardCheckpointHandler(multiprocessing_options=alone) for item in items}
        self._handlers[ABOUT] = ocp.JsonCheckpointHandler(multiprocessing_options=alone)
        self._alone = alone
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        with said(path):
            path.mkdir(parents=True, exist_ok=True)
            if process == 0:
                self._put_back()
            for pattern in UNFINISHED if process == 0 else ():
                for left_behind in path.glob(pattern):
                    shutil.rmtree(left_behind, ignore_errors=True)

    def steps(self) -> list[int]:
        return [int(p.name) for p in self.path.iterdir() if is_step(p.name) and p.is_dir()]

    def save(self, step: int, items: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        self.wait()
        copies = jax.tree.map(lambda x: np.array(x), dict(items))  # training goes on, and reuses the memory
        described = json.loads(json.dumps({'format_version': FORMAT_VERSION, 'step': step, **about}))
        self._thread = threading.Thread(target=self._save, args=(step, copies, described), name='checkpoint')
        self._thread.start()

    def check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise CheckpointError(
                f'{self.path}: a checkpoint cannot be written ({reason_of(error)}). Those before it are whole. '
                'Make room, or mend what the message says; the same command then goes on from the last one'
            ) from error

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _save(self, step: int, items: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        temporary = self.path / f'{SAVING}-{step}'
        try:
            self._write(temporary, items, about)
            manifest.write(temporary, format_version=FORMAT_VERSION, step=step)
            self._put(temporary, step)
        except BaseException as error:  # is raised by the thread that trains
            self._error = error
            self._clear()

    def _clear(self) -> None:
        """Removes what a failed save has left. Orbax's threads go on writing for a moment after the error."""
        with contextlib.suppress(OSError):
            self._put_back()
        end = time.monotonic() + CLEARING_SECONDS
        while (parts := list(self.path.glob(f'{SAVING}*'))) and time.monotonic() < end:
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)
            time.sleep(0.1)

    def _write(self, path: pathlib.Path, items: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        args = {item: ocp.args.StandardSave(tree) for item, tree in items.items()}
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=self._alone), **self._handlers
        )
        with _one_at_a_time, ocp.Checkpointer(handler, multiprocessing_options=self._alone) as writer:
            writer.save(path, args=ocp.args.Composite(**args, **{ABOUT: ocp.args.JsonSave(about)}))

    def _put(self, temporary: pathlib.Path, step: int) -> None:
        """Into its place, and the oldest away, in this order."""
        place, before = self.path / str(step), self.path / f'{REPLACED}{step}'
        if place.exists():
            place.rename(before)
        temporary.rename(place)
        manifest.sync(self.path)
        shutil.rmtree(before, ignore_errors=True)
        others = sorted(other for other in self.steps() if other != step)  # what was saved last stays at any step
        for old in others[: max(0, len(others) + 1 - self._keep)]:
            self._remove(self.path / str(old))

    def _put_back(self) -> None:
        """A checkpoint that was to be replaced by one of the same step, which did not come."""
        for before in self.path.glob(f'{REPLACED}*'):
            place = self.path / before.name.removeprefix(REPLACED)
            if place.exists():
                shutil.rmtree(before, ignore_errors=True)
            else:
                before.rename(place)

    def _remove(self, place: pathlib.Path) -> None:
        """Renames it first: no part of it shall pass for a checkpoint while it is removed."""
        shutil.rmtree(place.rename(self.path / f'{SAVING}-no-more-{place.name}'), ignore_errors=True)
