"""The only file that knows devices: data parallelism with `jax.pmap`, on one host or several.

Every device holds a copy of the state and a share of the global batch; gradients are averaged over
all devices. Devices are numbered 0 to D - 1 over all processes, and device i holds the rows
i * B / D to (i + 1) * B / D of the global batch, so that results do not depend on D beyond rounding.
"""

import contextlib
import hashlib
import itertools
import os
import pathlib
import platform
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from afunet_jax import memory
from afunet_jax.errors import ConfigError, TrainingError

AXIS = 'devices'
HEARTBEAT_SECONDS = 40  # after so long without a sign of life of a process, jax ends the others
OUT_OF_MEMORY = 'RESOURCE_EXHAUSTED'
OWN_FAULTS = ('INVALID_ARGUMENT',)  # errors of XLA that are not about other processes
SIGNALLED = 128  # exit statuses from here on mean the end by a signal
BARRIER_SECONDS = 24 * 60 * 60  # that processes wait for a living one, which may prepare a data set
SLURM_MARK = 'SLURM_STEP_NUM_TASKS'  # set inside `srun`, where jax finds the hosts by itself

_barriers = itertools.count()  # no two have the same name


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the other processes of a training run; does nothing for a run of one process.

    Args:
        coordinator: `host:port` of process 0, or None: then SLURM's environment tells, if it says
            that the step has several tasks.
        num_processes, process_id: needed with `coordinator`.

    Raises:
        ConfigError: only some of the three are given, the address has no port, or jax says what is wrong. (Where a
            process never comes, jax ends the others by itself, after 5 minutes.)
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise ConfigError('several hosts need --coordinator=host:port, --num_processes and --process_id, all three')
    if coordinator is not None and not re.fullmatch(r'.+:\d+', coordinator):
        raise ConfigError(f'--coordinator is host:port of process 0, but it is {coordinator!r}')
    if not any(given) and int(os.environ.get(SLURM_MARK, '1')) < 2:
        return
    jax.config.update('jax_enable_preemption_service', False)  # it takes SIGTERM for itself; see `signals`
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f'the processes of this run did not find each other: {error}') from error


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around the work of several processes: says what it means when they lose each other.

    Raises:
        TrainingError: a process cannot go on because another one has ended, or memory is not enough.
    """
    try:
        yield
    except MemoryError as error:
        raise _out_of_memory(error) from error
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY in str(error):
            raise _out_of_memory(error) from error
        if jax.process_count() == 1 or any(mark in str(error) for mark in OWN_FAULTS):
            raise
        raise TrainingError(
            f'process {jax.process_index()} of {jax.process_count()} has lost another one, whose own output says why '
            f'({str(error).splitlines()[0]}). Start all of them again: training goes on from the last checkpoint'
        ) from error


def _out_of_memory(error: BaseException) -> TrainingError:
    reason = (str(error).splitlines() or ['MemoryError'])[0]
    return TrainingError(
        f'memory is not enough ({reason}). Lower train.batch_size or train.crop_size, compute fewer windows at once '
        '(model.chunk_windows=32), or have gradients compute blocks anew (model.remat=on); the last two change no figure'
    )


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Around a whole program: after an error, one of several processes ends without waiting for the others.

    jax would wait for them at the exit, and they for this one in their next step. An end in agreement (status 0, or
    after a signal, when all have saved) is left to jax.
    """
    try:
        yield
    except SystemExit as end:
        if jax.distributed.is_initialized() and isinstance(end.code, int) and 0 < end.code < SIGNALLED:
            _leave(end.code)
        raise
    except BaseException:
        if jax.distributed.is_initialized():
            traceback.print_exc()
            _leave(1)
        raise


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second run starts at once; in `JAX_COMPILATION_CACHE_DIR` if set.

    A folder for every kind of processor: code compiled for one may not run on another that shares the disk.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
    except RuntimeError:
        told = 'no home directory: compiled programs are not kept; JAX_COMPILATION_CACHE_DIR can name a place for them'
        print(told, file=sys.stderr)
        return
    processor = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    jax.config.update('jax_compilation_cache_dir', str(cache / 'afunet_jax' / 'compiled' / processor))


def _processor() -> str:
    """What code can be compiled for: the machine's kind and the features of its processor."""
    features = pathlib.Path('/proc/cpuinfo')
    lines = features.read_text().splitlines() if features.exists() else []
    return platform.machine() + next((line for line in lines if line.startswith(('flags', 'Features'))), '')


def free_memory() -> int | None:
    """Bytes that are free where arrays are computed: on the first device, or here; None if unknown."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if 'bytes_limit' in stats:
        return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
    return memory.free() if jax.default_backend() == 'cpu' else None


def process_index() -> int:
    """Number of this process, from 0."""
    return jax.process_index()


def process_count() -> int:
    """Number of processes of the run."""
    return jax.process_count()


def is_main() -> bool:
    """Whether this process writes the logs and prints the progress."""
    return jax.process_index() == 0


def device_count() -> int:
    """Number of devices of the run, over all processes."""
    return jax.device_count()


def describe() -> str:
    """The devices in words, for logs: `4 x NVIDIA H100 in 1 process`."""
    kind = jax.devices()[0].device_kind
    processes = jax.process_count()
    return f'{jax.device_count()} x {kind} in {processes} process{"es" if processes > 1 else ""}'


def check_batch_size(batch_size: int) -> int:
    """The share of one device.

    Raises:
        ConfigError: the devices do not divide the batch; says which sizes and numbers would fit.
    """
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        fitting = [d for d in range(1, devices) if batch_size >= 1 and batch_size % d == 0]
        below, above = batch_size // devices * devices, (batch_size // devices + 1) * devices
        sizes = ' or '.join(str(size) for size in (below, above) if size >= devices)
        raise ConfigError(
            f'the global batch is split evenly over the devices, but train.batch_size={batch_size} on {devices} '
            f'devices leaves a remainder; use a batch of {sizes}'
            + (f', or make {" or ".join(map(str, fitting))} devices visible' if fitting else '')
        )
    return batch_size // devices


def replicate(tree: Any) -> Any:
    """A copy of the tree's arrays for every device of this process: a leading axis of devices."""
    local = jax.local_device_count()
    stacked = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], local, 0), tree)  # JAX may take it as its own
    # Placed as `pmap` places its results, or the step would compile twice; copied one by one, for a program of
    # 1,500 arguments takes 100 MB and seconds.
    like = jax.pmap(lambda x: x, axis_name=AXIS)(np.zeros(local))
    return jax.device_put(stacked, like.sharding)


def unreplicate(tree: Any) -> Any:
    """The first local device's copy, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data).reshape(x.shape[1:]), tree)


def shard(batch: Any) -> Any:
    """This process's rows, `[b, ...]`, to its devices: `[local devices, b / local devices, ...]`."""
    local = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(local, x.shape[0] // local, *x.shape[1:]), batch)


def program(function: Callable[..., Any], donate_argnums: int | tuple[int, ...] = ()) -> Callable[..., Any]:
    """The function compiled for every device at once; the memory of arguments that are donated is reused.

    Its arguments and results have a leading axis of this process's devices, which the function does not see.
    """
    memory.give_back_after_compilations()
    return jax.pmap(function, axis_name=AXIS, donate_argnums=donate_argnums)


def mean(tree: Any) -> Any:
    """Mean over all devices, inside a step."""
    return jax.lax.pmean(tree, AXIS)


def total(value: jax.Array) -> jax.Array:
    """Sum over all devices, inside a step."""
    return jax.lax.psum(value, AXIS)


def on_devices(value: int) -> np.ndarray:
    """The same number for every device of this process: a step's argument that needs no transfer of its own."""
    return np.full(jax.local_device_count(), value, np.int32)


def positions(rows: int) -> jax.Array:
    """Places of this device's `rows` examples in the global batch, inside a step. int32 `[rows]`."""
    return jax.lax.axis_index(AXIS) * rows + jnp.arange(rows)


def barrier(name: str) -> None:
    """Waits until every process is here, for hours if one of them has as much to do.

    By jax's coordination service, which notices if one dies. Devices would have to be connected for it, and gloo gives
    up connecting them after 30 seconds.
    """
    ocp.multihost.get_barrier_sync_fn()(key=f'{name} {next(_barriers)}', timeout_ms=1000 * BARRIER_SECONDS)


def check_same(what: Mapping[str, bytes]) -> None:
    """Compares what must be the same in all processes.

    Args:
        what: in words, to a digest of it.

    Raises:
        ConfigError: a process has another one; says which process and what. In all processes.
    """
    if jax.process_count() == 1:
        return
    digests = [np.frombuffer(hashlib.sha256(value).digest(), np.uint8) for value in what.values()]
    found = multihost_utils.process_allgather(np.stack(digests))  # [process, what, 32]
    wrong = [
        f'process {process} has another {name} than process 0'
        for process in range(len(found)) for i, name in enumerate(what) if (found[process, i] != found[0, i]).any()
    ]  # fmt: skip
    if wrong:
        raise ConfigError(
            f'{"; ".join(wrong)}. All processes of a run start with the same command, and see the same workdir and data'
        )


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """Sum of the processes' arrays, the same in each of them."""
    if jax.process_count() == 1:
        return values
    return multihost_utils.process_allgather(values).sum(0)
