"""Checkpoints in Orbax format, and weights from wherever a user has them.

A working directory of training holds

    config.json            the configuration of the run
    checkpoints/STEP/      the latest checkpoints: parameters, optimizer state; step, data position, config
    best/STEP/             the parameters that validated best, with the same description
    run.lock               held by the process that trains here, and says which that is

A checkpoint is written into a folder `.saving*` beside its place, gets a manifest with the SHA-256 of each of its files
(`afunet_jax.manifest`), and is renamed when all of it is on the disk. Orbax alone would not do: it checks
only part of what it writes. What is read is verified first.

Format version 1 has no manifest. It can be read; damage in it is found where Orbax finds it.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from flax import traverse_util

from afunet_jax import files, manifest, parallel, safetensors_weights, torch_weights
from afunet_jax.errors import CheckpointError, ConfigError, WeightsError
from afunet_jax.models import afunet

FORMAT_VERSION = 2
WITHOUT_MANIFEST = 1  # the last format version that had none
LATEST, BEST = 'checkpoints', 'best'
CONFIG_FILE = 'config.json'
LOCK = 'run.lock'
STATE, PARAMS, ABOUT = 'state', 'params', 'about'  # items of a checkpoint
CLEARING_SECONDS = 5.0  # to remove what a failed save has left, at most
SAVING = '.saving'  # begins the names of folders that are being written
UNFINISHED = (f'{SAVING}*', '*.orbax-checkpoint-tmp*')  # left by killed processes; the second by format version 1
MOST_SHAPE = 50  # characters of a shape in a message
MOST_REASON = 400  # characters of an error of a library
DAMAGED = '.damaged'  # ends the names of checkpoints that were set aside
DESCRIBED = '/.zarray'  # ends the name of an array's description in Orbax's store (Zarr, version 2)
PACKINGS = ('zstd', None)  # of chunks; TensorStore unpacks no more of them than a chunk has
KINDS = {'step': int, 'config': dict, 'data_position': dict, 'log': dict, 'validation': dict}  # in a description
MOST_CONFIG_BYTES = 10_000_000
SINCE = {'model.head': 'sigmoid'}  # settings that runs of older releases did not have, and what those did


_one_at_a_time = threading.Lock()  # Orbax counts its saves in one place, for all threads


class DamagedError(CheckpointError):
    """A checkpoint does not hold what was written."""


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
        """Saves in the background; the arrays are NumPy, and copied.

        Args:
            step: number of finished steps.
            params: the tree of parameters.
            state: whatever else is needed to go on (the optimizer's state).
            about: JSON-able description: config, data position, figures.

        Raises:
            CheckpointError: the save before this one has failed.
        """
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
            return _about(path, _verify(path))
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
        verified = _verify(path)
        about = _about(path, verified)
        found = [_read_arrays(path / item, like, _described(path / item, verified), verified)
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
        alone = _alone(process, path.name)
        self._handlers = {item: ocp.StandardCheckpointHandler(multiprocessing_options=alone) for item in items}
        self._handlers[ABOUT] = ocp.JsonCheckpointHandler(multiprocessing_options=alone)
        self._alone = alone
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        with _said(path):
            path.mkdir(parents=True, exist_ok=True)
            for pattern in UNFINISHED if process == 0 else ():
                for left_behind in path.glob(pattern):
                    shutil.rmtree(left_behind, ignore_errors=True)

    def steps(self) -> list[int]:
        return [int(p.name) for p in self.path.iterdir() if _is_step(p.name) and p.is_dir()]

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
                f'{self.path}: a checkpoint cannot be written ({_reason(error)}). Those before it are whole. '
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
        place, before = self.path / str(step), None
        if place.exists():
            before = self._aside(place)
        temporary.rename(place)
        manifest.sync(self.path)
        if before:
            shutil.rmtree(before, ignore_errors=True)
        others = sorted(other for other in self.steps() if other != step)  # what was saved last stays at any step
        for old in others[: max(0, len(others) + 1 - self._keep)]:
            self._remove(self.path / str(old))

    def _remove(self, place: pathlib.Path) -> None:
        shutil.rmtree(self._aside(place), ignore_errors=True)

    def _aside(self, place: pathlib.Path) -> pathlib.Path:
        """Renames it: no part of it shall pass for a checkpoint while it is removed."""
        return place.rename(self.path / f'{SAVING}-no-more-{place.name}')


def _alone(process: int, name: str) -> ocp.options.MultiprocessingOptions:
    """Orbax's options for what one of several processes does by itself: by default it waits for all of them."""
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f'{name}_{process}'
    )


@contextlib.contextmanager
def _reader(handler: type[ocp.CheckpointHandler]) -> Iterator[ocp.Checkpointer]:
    alone = _alone(parallel.process_index(), 'read')
    with ocp.Checkpointer(handler(multiprocessing_options=alone), multiprocessing_options=alone) as reader:
        yield reader


def _is_step(name: str) -> bool:
    """Whether a folder has the name that a step gives it; not 007, nor digits of other scripts."""
    return name.isascii() and name.isdecimal() and name == str(int(name))


@contextlib.contextmanager
def _said(path: pathlib.Path) -> Iterator[None]:
    """Turns what the system refuses into a message with the path and the cure."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f'{error.filename or path}: cannot be written ({_reason(error)}); make room, or use another --workdir'
        ) from error


def _reason(error: BaseException) -> str:
    text = getattr(error, 'strerror', None) or ' '.join(str(error).split()) or type(error).__name__
    for reason in map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
        if reason in text:  # somewhere among the traces of Orbax's threads
            return reason
    return text if len(text) <= MOST_REASON else f'... {text[-MOST_REASON:]}'  # the system's reason stands at the end


def _verify(path: pathlib.Path) -> bool:
    """Holds a checkpoint against its manifest; False if it is of a format that has none.

    Raises:
        DamagedError, CheckpointError: as in `Checkpoints.restore`.
    """
    try:
        _check_version(manifest.read(path), path)
        manifest.verify(path)
        return True
    except FileNotFoundError:
        if _about(path, False).get('format_version', FORMAT_VERSION) > WITHOUT_MANIFEST:
            raise DamagedError(f'{path}: damaged checkpoint: {manifest.NAME} is missing') from None
        return False
    except manifest.DamageError as error:
        raise DamagedError(f'{path}: damaged checkpoint: {error}') from error


def _about(path: pathlib.Path, verified: bool) -> dict[str, Any]:
    try:
        with _reader(ocp.JsonCheckpointHandler) as reader:
            about = reader.restore(path / ABOUT)
    except Exception as error:  # Orbax raises many kinds
        raise _unreadable(path, error, verified) from error
    if not isinstance(about, dict):
        raise _unreadable(path, TypeError(f'its description is {type(about).__name__}'), verified)
    _check_version(about, path)
    if wrong := _wrong_in(about):
        raise _unreadable(path, TypeError(f'its description has {", ".join(wrong)}'), verified)
    return about


def _wrong_in(about: Mapping[str, Any]) -> list[str]:
    """Entries of a description that are not of the kind that this package writes."""
    wrong = [f'{key}={about[key]!r:.50}' for key, kind in KINDS.items() if type(about.get(key, kind())) is not kind]
    if not wrong and about.get('step', 0) < 0:
        wrong.append(f'step={about["step"]}')
    figures = {} if wrong else about.get('validation', {})
    return wrong + [f'{key:.50}={value!r:.50}' for key, value in figures.items() if type(value) not in (int, float)]


def _described(path: pathlib.Path, verified: bool) -> dict[str, dict[str, Any]]:
    """What is said of each array of an item, by its name, parts joined by a point; no array is read."""
    base = {'driver': 'file', 'path': f'{path}/'}
    try:
        store = tensorstore.KvStore.open({'driver': 'ocdbt', 'base': base}).result()
        names = [name.decode() for name in store.list().result() if name.endswith(DESCRIBED.encode())]
        texts = {name.removesuffix(DESCRIBED): store.read(name) for name in names}
        found = {name: json.loads(text.result().value) for name, text in texts.items()}
        return {name: {**about, 'shape': tuple(about['shape'])} for name, about in found.items()}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unreadable(path.parent, error, verified) from error


def _check_described(path: pathlib.Path, like: Any, described: Mapping[str, Mapping[str, Any]], verified: bool) -> None:
    """Holds stored arrays against a tree before any is read: TensorStore takes the memory that a description asks for.

    Raises:
        CheckpointError: an array is missing, of another shape or type, or stored in a way that nothing here writes.
    """
    for key, leaf in jax.tree_util.tree_leaves_with_path(like):
        name = jax.tree_util.keystr(key, simple=True, separator='.')
        if name not in described:
            raise _unreadable(path.parent, LookupError(f'{path.name}.{name} is missing'), verified)
        about, shape, dtype = described[name], np.shape(leaf), np.asarray(leaf).dtype
        if about['shape'] != shape:  # Orbax reads such arrays all the same
            raise CheckpointError(
                f'{path.parent}: {path.name}.{name} has shape {about["shape"]!s:.{MOST_SHAPE}}, not {shape}; it is of '
                'another network'
            )
        if about.get('dtype') not in (dtype.str, dtype.name) or not _is_plain(about):
            wrong = TypeError(f'{path.name}.{name} is no plain array of {dtype}')
            raise _unreadable(path.parent, wrong, verified)


def _is_plain(about: Mapping[str, Any]) -> bool:
    """Whether an array is stored as Orbax does it: chunks no larger than itself, packed so that they take no more."""
    chunks, packing = about.get('chunks'), about.get('compressor')
    if not isinstance(chunks, list) or len(chunks) != len(about['shape']):
        return False
    kind = packing.get('id') if isinstance(packing, dict) else packing
    sides = zip(chunks, about['shape'], strict=True)
    fits = all(type(chunk) is int and 1 <= chunk <= max(side, 1) for chunk, side in sides)
    return fits and kind in PACKINGS and not about.get('filters')


def _read_arrays(path: pathlib.Path, like: Any, described: Mapping[str, Mapping[str, Any]], verified: bool) -> Any:
    """A tree of NumPy arrays with the shapes and types of `like`; `described` is what is said of them."""
    _check_described(path, like, described, verified)
    try:
        with _reader(ocp.StandardCheckpointHandler) as reader:
            found = jax.tree.map(np.asarray, reader.restore(path, args=ocp.args.StandardRestore(like)))
    except Exception as error:  # Orbax raises many kinds
        raise _unreadable(path.parent, error, verified) from error
    kinds = [(np.shape(leaf), np.asarray(leaf).dtype) for leaf in jax.tree.leaves(like)]
    if [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(found)] != kinds:
        wrong = TypeError(f'{path.name} is described as other arrays than those that are stored')
        raise _unreadable(path.parent, wrong, verified)
    return found


def _unreadable(path: pathlib.Path, error: Exception, verified: bool) -> CheckpointError:
    """Where the files are as they were written, it is no damage that an older checkpoint could mend."""
    kind = CheckpointError if verified else DamagedError
    reason = str(error) if len(str(error)) <= MOST_REASON else f'{str(error)[:MOST_REASON]} ...'
    return kind(f'{path}: cannot be read as a checkpoint{"" if verified else ", or is damaged"} ({reason})')


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
        with _said(path):
            files.write_json(path, config)


@contextlib.contextmanager
def locked_workdir(workdir: str | pathlib.Path) -> Iterator[None]:
    """Holds a working directory, made if absent, against a second run; see `files.locked`.

    Raises:
        CheckpointError: another run works there; names its host, process and start.
    """
    workdir = pathlib.Path(workdir)
    try:
        with _said(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            lock = contextlib.ExitStack()
            lock.enter_context(files.locked(workdir / LOCK))
    except files.LockedError as error:
        raise CheckpointError(
            f'{workdir}: another run trains here ({error}); wait for it, end it, or use another --workdir'
        ) from error
    with lock:
        yield


def load_params(path: str | pathlib.Path) -> dict[str, Any]:
    """Parameters from a working directory of training, one checkpoint in it, a `.safetensors`, or a PyTorch `.pth`.

    See `load_weights`, which also tells the architecture.
    """
    return load_weights(path)[1]


def load_weights(path: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Architecture and parameters.

    Args:
        path: a `.safetensors` file of ours; a `.pth` file; a checkpoint's directory (`WORKDIR/checkpoints/STEP`);
            or a working directory, of which the best parameters are taken, or the latest if none were validated.

    Returns:
        `(settings, params)`: AFUNet's attributes, and its parameters as NumPy arrays.

    Raises:
        WeightsError: a file that is no `.safetensors` or `.pth` with AFUNet's weights, or parameters of another
            architecture.
        CheckpointError: a directory without a readable checkpoint.
    """
    path = pathlib.Path(path).absolute()
    if path.is_dir():
        about, params = load_checkpoint(path)
        return dict(about['config']['model']), params
    if not path.exists():
        raise WeightsError(
            f'{path}: no such file or directory; --weights takes a .safetensors, a .pth, a workdir or a '
            'checkpoint in one'
        )
    if path.suffix == safetensors_weights.SUFFIX:
        about, params = safetensors_weights.read(path)
        return about['model'], params
    state_dict = torch_weights.read_pth(path)
    try:
        return torch_weights.architecture(state_dict), torch_weights.from_state_dict(state_dict)
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error


def check_architecture(settings: Mapping[str, Any], wanted: Mapping[str, Any], path: str | pathlib.Path) -> None:
    """Raises WeightsError if weights of `settings` do not fit the `wanted` network's architecture."""
    defaults = {'order': 'AF', 'ablation': 'M4', 'head': 'sigmoid'}  # what PyTorch files do not tell
    settings = {**defaults, **settings}
    differing = [
        f'{key} is {settings.get(key)!r} in the weights, {value!r} in the config'
        for key, value in wanted.items()
        if key not in afunet.NOT_ARCHITECTURE and settings.get(key) != value
    ]
    if differing:
        raise WeightsError(
            f'{path}: weights of another architecture: ' + '; '.join(differing)
            + '. Use the config they were trained with, or set config.model to their values'
        )  # fmt: skip


def _checkpoint_in(path: pathlib.Path) -> pathlib.Path:
    """The checkpoint that a directory stands for."""
    if (path / PARAMS).is_dir():
        return path
    for folder in (path / BEST, path / LATEST, path):
        steps = [int(p.name) for p in folder.glob('*') if _is_step(p.name) and (p / PARAMS).is_dir()]
        if steps:
            return folder / str(max(steps))
    raise CheckpointError(
        f'{path}: no checkpoint here; expected a working directory of train.py (with {BEST}/ or {LATEST}/), '
        'or one checkpoint in it'
    )


def load_checkpoint(path: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(about, params)` of a checkpoint, or of a working directory as in `load_weights`.

    `about` holds `config`, `step`, `data_position`, and of a best one `validation`. All of its files are verified. A
    damaged one is an error: an older one would give other figures without a word.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    given = pathlib.Path(path).absolute()
    path = _checkpoint_in(given)
    while True:
        try:
            return _load(path)
        except DamagedError as error:
            if not path.exists() and (newer := _checkpoint_in(given)) != path:  # training has replaced it meanwhile
                path = newer
                continue
            raise CheckpointError(f'{error}. {_cure(path)}') from error


def _load(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    verified = _verify(path)
    about = _about(path, verified)
    described = _described(path / PARAMS, verified)
    stored = {name.replace('.', '/'): array['shape'] for name, array in described.items()}
    try:
        model = afunet.build(about['config']['model'])
        safetensors_weights.check_extent(path, model, stored)
        shapes = afunet.parameter_shapes(model)
    except (LookupError, TypeError, ValueError, ArithmeticError, WeightsError, ConfigError) as error:
        raise _unreadable(path, error, verified) from error
    template = jax.tree.map(_without_memory, shapes)
    return about, _read_arrays(path / PARAMS, template, described, verified)


def _without_memory(shape: jax.ShapeDtypeStruct) -> np.ndarray:
    """An array of that shape and type that repeats one number."""
    return np.broadcast_to(np.zeros((), shape.dtype), shape.shape)


def _cure(path: pathlib.Path) -> str:
    """Where else there are weights."""
    others = sorted(p for p in path.parent.parent.glob('*/[0-9]*') if p != path and (p / PARAMS).is_dir())
    named = ' or '.join(str(p) for p in others if p.parent.name in (BEST, LATEST))
    return 'Restore it from a backup' + (f', or name another one: --weights={named}' if named else '')


def _check_version(about: Mapping[str, Any], path: Any) -> None:
    version = about.get('format_version', 0)
    if type(version) is not int or version > FORMAT_VERSION:
        raise CheckpointError(
            f'{path}: format version {version!r:.{MOST_SHAPE}}, this release reads up to {FORMAT_VERSION}; '
            'update afunet_jax'
        )


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
