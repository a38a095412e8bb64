"""Checkpoints in Orbax format, and weights from wherever a user has them.

A working directory of training holds

    config.json            the configuration of the run
    checkpoints/STEP/      the latest checkpoints: parameters, optimizer state; step, data position, config
    best/STEP/             the parameters that validated best, with the same description
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from afunet_jax import files, safetensors_weights, torch_weights
from afunet_jax.errors import CheckpointError, WeightsError
from afunet_jax.models import afunet

FORMAT_VERSION = 1
LATEST, BEST = 'checkpoints', 'best'
CONFIG_FILE = 'config.json'
STATE, PARAMS, ABOUT = 'state', 'params', 'about'  # items of a checkpoint


class Checkpoints:
    """The checkpoints of one working directory, as training writes them.

    In a run of several processes each has its own view of the directory, which must be shared, and none
    waits for another: the state is the same in all of them, so the main process alone calls `save` and
    `save_best`.
    """

    def __init__(self, workdir: str | pathlib.Path, keep: int = 2, process: int = 0):
        """`keep` latest checkpoints stay; `process` is the number of this process."""
        workdir = pathlib.Path(workdir).absolute()
        self._latest = _manager(workdir / LATEST, keep, (PARAMS, STATE, ABOUT), process)
        self._best = _manager(workdir / BEST, 1, (PARAMS, ABOUT), process)

    def save(self, step: int, params: Any, state: Any, about: Mapping[str, Any]) -> None:
        """Saves in the background; the arrays are NumPy.

        Args:
            step: number of finished steps.
            params: the tree of parameters.
            state: whatever else is needed to go on (the optimizer's state).
            about: JSON-able description: config, data position, figures.
        """
        self._latest.save(step, args=ocp.args.Composite(**{
            PARAMS: ocp.args.StandardSave(params), STATE: ocp.args.StandardSave(state), ABOUT: _json(step, about),
        }))  # fmt: skip

    def save_best(self, step: int, params: Any, about: Mapping[str, Any]) -> None:
        """Replaces the best parameters."""
        self._best.save(step, args=ocp.args.Composite(**{
            PARAMS: ocp.args.StandardSave(params), ABOUT: _json(step, about),
        }))  # fmt: skip

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, None if there is none."""
        return self._latest.latest_step()

    def best_about(self) -> dict[str, Any] | None:
        """Description of the best parameters, None if there are none."""
        step = self._best.latest_step()
        if step is None:
            return None
        return self._best.restore(step, args=ocp.args.Composite(**{ABOUT: ocp.args.JsonRestore()}))[ABOUT]

    def restore(self, step: int, params: Any, state: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Reads `(params, state, about)`; the arguments are trees of the same shapes.

        Raises:
            CheckpointError: it cannot be read, or has other shapes.
        """
        try:
            found = self._latest.restore(step, args=ocp.args.Composite(**{
                PARAMS: ocp.args.StandardRestore(params),
                STATE: ocp.args.StandardRestore(state),
                ABOUT: ocp.args.JsonRestore(),
            }))  # fmt: skip
        except Exception as error:  # Orbax raises many kinds
            raise CheckpointError(f'{self._latest.directory}/{step}: cannot be restored ({error})') from error
        _check_version(found[ABOUT], self._latest.directory / str(step))
        return found[PARAMS], found[STATE], found[ABOUT]

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._latest.wait_until_finished()
        self._best.wait_until_finished()

    def close(self) -> None:
        """Finishes the writing and lets go of the directory."""
        self._latest.close()
        self._best.close()


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
        if any((path.parent / name).is_dir() for name in (LATEST, BEST)):
            raise CheckpointError(
                f'{workdir}: has checkpoints but no {CONFIG_FILE}; restore it, or use a new --workdir'
            )
        return
    before, now = flat(_read_json(path)), flat(json.loads(json.dumps(config)))
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
        files.write_json(path, config)


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
    defaults = {'order': 'AF', 'ablation': 'M4'}  # what PyTorch files do not tell
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


def _manager(directory: pathlib.Path, keep: int, items: tuple[str, ...], process: int) -> ocp.CheckpointManager:
    directory.mkdir(parents=True, exist_ok=True)  # Orbax makes it only where all processes take part
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f'{directory.name}_{process}'
    )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=False, cleanup_tmp_directories=process == 0, multiprocessing_options=alone
    )
    return ocp.CheckpointManager(directory, options=options, item_names=items)


def _json(step: int, about: Mapping[str, Any]) -> ocp.args.JsonSave:
    return ocp.args.JsonSave({'format_version': FORMAT_VERSION, 'step': step, **about})


def _checkpoint_in(path: pathlib.Path) -> pathlib.Path:
    """The checkpoint that a directory stands for."""
    if (path / PARAMS).is_dir():
        return path
    for folder in (path / BEST, path / LATEST, path):
        steps = [int(p.name) for p in folder.glob('*') if p.name.isdigit() and (p / PARAMS).is_dir()]
        if steps:
            return folder / str(max(steps))
    raise CheckpointError(
        f'{path}: no checkpoint here; expected a working directory of train.py (with {BEST}/ or {LATEST}/), '
        'or one checkpoint in it'
    )


def load_checkpoint(path: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(about, params)` of a checkpoint, or of a working directory as in `load_weights`.

    `about` holds `config`, `step`, `data_position`, and of a best one `validation`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = _checkpoint_in(pathlib.Path(path).absolute())
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            about = reader.restore(path / ABOUT)
        settings = about['config']['model']
        shapes = afunet.parameter_shapes(afunet.build(settings))
        template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        with ocp.StandardCheckpointer() as reader:
            params = reader.restore(path / PARAMS, template)
    except Exception as error:  # Orbax raises many kinds
        raise CheckpointError(f'{path}: cannot be read as a checkpoint, or is damaged ({error})') from error
    _check_version(about, path)
    return about, jax.tree.map(np.asarray, params)


def _check_version(about: Mapping[str, Any], path: Any) -> None:
    if about.get('format_version', 0) > FORMAT_VERSION:
        raise CheckpointError(
            f'{path}: format version {about["format_version"]}, this release reads up to {FORMAT_VERSION}; '
            'update afunet_jax'
        )


def _read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path}: cannot be read ({error}); restore it, or use a new --workdir') from error
