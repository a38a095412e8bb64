"""Memory of the process that is free, and that the C library keeps for itself."""

import ctypes
import functools
import sys
from typing import Any

import jax

LONG_COMPILATION = 1.0  # seconds; shorter ones leave little behind


def give_back() -> None:
    """Has the C library return what is free to the system. glibc's knows how; with others nothing happens."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None) if sys.platform == 'linux' else None
    if trim is not None:
        trim(0)


@functools.cache
def give_back_after_compilations() -> None:
    """From now on `give_back` follows every long compilation: XLA leaves 500 MB behind for a training step."""
    jax.monitoring.register_event_duration_secs_listener(_after)


def _after(event: str, seconds: float, **_: Any) -> None:
    if 'compile' in event and seconds >= LONG_COMPILATION:
        give_back()
