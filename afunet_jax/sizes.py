"""What JAX keeps for images of many sizes: bounded here, for the network and for all metrics.

A jitted function keeps its program of every size, and JAX keeps what it traced for one, even of a program that is
dropped: a few MB a size for PSNR and SSIM, tens of MB and hundreds of memory mappings for HDR-VDP-2 (Linux allows a
process 65,530 of them). So a size is told to `note` before it is used. Beyond `KEPT` of them all are let go; what is
used again is then compiled again, or read from the compilation cache on disk.

Not the least recently used one alone: JAX has no public way to forget one size. Compiled objects
(`jax.stages.Compiled`) stay as long as somebody holds them.
"""

import contextlib
import contextvars
import gc
import threading
from collections.abc import Hashable, Iterator

import jax

from afunet_jax import memory

KEPT = 16

_lock = threading.Lock()
_noted: set[Hashable] = set()
_kept = contextvars.ContextVar('kept', default=False)


def note(size: Hashable) -> None:
    """Tells that programs of a size will be used: an array's shape, or whatever names it. May be called in threads."""
    with _lock:
        if size in _noted or _kept.get():
            return
        if len(_noted) >= KEPT:
            _let_go()
        _noted.add(size)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Inside, no size is noted and nothing let go: for few sizes that come again and again, as in validations."""
    token = _kept.set(True)
    try:
        yield
    finally:
        _kept.reset(token)


def _let_go() -> None:
    _noted.clear()
    jax.clear_caches()
    gc.collect()  # what was traced refers to itself
    memory.give_back()
