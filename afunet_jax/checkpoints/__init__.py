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

    layout     names in a working directory
    saving     checkpoints written by a thread, and the newest whole one restored
    reading    one checkpoint, verified
    workdir    the configuration and the lock
    weights    parameters from a checkpoint, a `.safetensors` or a `.pth`
"""

from afunet_jax.checkpoints.layout import (
    ABOUT,
    BEST,
    CONFIG_FILE,
    FORMAT_VERSION,
    LATEST,
    PARAMS,
    DamagedError,
)
from afunet_jax.checkpoints.reading import load_checkpoint
from afunet_jax.checkpoints.saving import Checkpoints
from afunet_jax.checkpoints.weights import check_architecture, load_params, load_weights
from afunet_jax.checkpoints.workdir import check_workdir, claim_workdir, flat, is_free, locked_workdir

__all__ = [
    'ABOUT', 'BEST', 'CONFIG_FILE', 'FORMAT_VERSION', 'LATEST', 'PARAMS', 'Checkpoints', 'DamagedError',
    'check_architecture', 'check_workdir', 'claim_workdir', 'flat', 'is_free', 'load_checkpoint', 'load_params',
    'load_weights', 'locked_workdir',
]  # fmt: skip
