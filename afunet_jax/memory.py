"""Memory of the process that is free, and that the C library keeps for itself."""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax

LONG_COMPILATION = 1.0  # seconds; shorter ones leave little behind
M_ARENA_MAX = -8  # mallopt's name for the number of heaps, from glibc's malloc.h


def give_back() -> None:
    """Has the C library return what is free to the system. glibc's knows how; with others nothing happens."""
    if trim := _of_libc('malloc_trim'):
        trim(0)


@functools.cache
def compile_in_less() -> None:
    """From now on compilations need less memory, and leave less behind.

    To be called before the first computation, while JAX has no threads: they share as many heaps as there are cores,
    where glibc has eight for each, and no thread can use what another has freed in its own (140 MB of 1,470 for a
    training step on two cores). And `give_back` follows every long compilation, which would leave 500 MB.
    """
    if set_option := _of_libc('mallopt'):
        set_option(M_ARENA_MAX, max(2, os.cpu_count() or 2))
    jax.monitoring.register_event_duration_secs_listener(_after)


def _of_libc(name: str) -> Callable[..., int] | None:
    """A function that glibc has, and other C libraries need not have."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == 'linux' else None


def _after(event: str, seconds: float, **_: Any) -> None:
    if 'compile' in event and seconds >= LONG_COMPILATION:
        give_back()
