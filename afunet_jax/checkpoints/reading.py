"""Checkpoints are verified, then read: no array before what is said of it fits the network.

`verified` in these functions: whether a manifest vouches for the files, so that what cannot be read is no damage.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from afunet_jax import manifest, parallel, safetensors_weights
from afunet_jax.checkpoints.layout import (
    ABOUT,
    BEST,
    FORMAT_VERSION,
    LATEST,
    MOST_REASON,
    PARAMS,
    WITHOUT_MANIFEST,
    DamagedError,
    acting_alone,
    is_step,
)
from afunet_jax.errors import CheckpointError, ConfigError, WeightsError
from afunet_jax.models import afunet

MOST_SHAPE = 50  # characters of a shape in a message
DESCRIBED = '/.zarray'  # ends the name of an array's description in Orbax's store (Zarr, version 2)
PACKINGS = ('zstd', None)  # of chunks; TensorStore unpacks no more of them than a chunk has
KINDS = {'step': int, 'config': dict, 'data_position': dict, 'log': dict, 'validation': dict}  # in a description


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


def _checkpoint_in(path: pathlib.Path) -> pathlib.Path:
    """The checkpoint that a directory stands for."""
    if (path / PARAMS).is_dir():
        return path
    for folder in (path / BEST, path / LATEST, path):
        steps = [int(p.name) for p in folder.glob('*') if is_step(p.name) and (p / PARAMS).is_dir()]
        if steps:
            return folder / str(max(steps))
    raise CheckpointError(
        f'{path}: no checkpoint here; expected a working directory of train.py (with {BEST}/ or {LATEST}/), '
        'or one checkpoint in it'
    )


def _load(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    verified = verify(path)
    about = read_about(path, verified)
    described = descriptions(path / PARAMS, verified)
    stored = {name.replace('.', '/'): array['shape'] for name, array in described.items()}
    try:
        model = afunet.build(about['config']['model'])
        safetensors_weights.check_extent(path, model, stored)
        shapes = afunet.parameter_shapes(model)
    except (LookupError, TypeError, ValueError, ArithmeticError, WeightsError, ConfigError) as error:
        raise _unreadable(path, error, verified) from error
    template = jax.tree.map(_without_memory, shapes)
    return about, read_arrays(path / PARAMS, template, described, verified)


def _without_memory(shape: jax.ShapeDtypeStruct) -> np.ndarray:
    """An array of that shape and type that repeats one number."""
    return np.broadcast_to(np.zeros((), shape.dtype), shape.shape)


def _cure(path: pathlib.Path) -> str:
    """Where else there are weights."""
    others = sorted(p for p in path.parent.parent.glob('*/[0-9]*') if p != path and (p / PARAMS).is_dir())
    named = ' or '.join(str(p) for p in others if p.parent.name in (BEST, LATEST))
    return 'Restore it from a backup' + (f', or name another one: --weights={named}' if named else '')


def verify(path: pathlib.Path) -> bool:
    """Holds a checkpoint against its manifest; False if it is of a format that has none.

    Raises:
        DamagedError, CheckpointError: as in `Checkpoints.restore`.
    """
    try:
        _check_version(manifest.read(path), path)
        manifest.verify(path)
        return True
    except FileNotFoundError:
        if read_about(path, False).get('format_version', FORMAT_VERSION) > WITHOUT_MANIFEST:
            raise DamagedError(f'{path}: damaged checkpoint: {manifest.NAME} is missing') from None
        return False
    except manifest.DamageError as error:
        raise DamagedError(f'{path}: damaged checkpoint: {error}') from error


def read_about(path: pathlib.Path, verified: bool) -> dict[str, Any]:
    """A checkpoint's description: step, configuration, data position, figures.

    Raises:
        CheckpointError: it cannot be read, is not of the kinds that this package writes, or is of a later format.
    """
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


def _check_version(about: Mapping[str, Any], path: Any) -> None:
    version = about.get('format_version', 0)
    if type(version) is not int or version > FORMAT_VERSION:
        raise CheckpointError(
            f'{path}: format version {version!r:.{MOST_SHAPE}}, this release reads up to {FORMAT_VERSION}; '
            'update afunet_jax'
        )


def descriptions(path: pathlib.Path, verified: bool) -> dict[str, dict[str, Any]]:
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


def read_arrays(path: pathlib.Path, like: Any, described: Mapping[str, Mapping[str, Any]], verified: bool) -> Any:
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


@contextlib.contextmanager
def _reader(handler: type[ocp.CheckpointHandler]) -> Iterator[ocp.Checkpointer]:
    alone = acting_alone(parallel.process_index(), 'read')
    with ocp.Checkpointer(handler(multiprocessing_options=alone), multiprocessing_options=alone) as reader:
        yield reader


def _unreadable(path: pathlib.Path, error: Exception, verified: bool) -> CheckpointError:
    """Where the files are as they were written, it is no damage that an older checkpoint could mend."""
    kind = CheckpointError if verified else DamagedError
    reason = str(error) if len(str(error)) <= MOST_REASON else f'{str(error)[:MOST_REASON]} ...'
    return kind(f'{path}: cannot be read as a checkpoint{"" if verified else ", or is damaged"} ({reason})')
