"""How the network is computed: speed and memory, not values."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jax

from afunet_jax.models import chunks

CPU_CHUNK = 32  # windows at once: fastest of 4 to 128 on two cores, forward and backward
EXPOSURES = 3  # whose features make up the widest maps
ATTENTIONS = ('plain', 'fused')

_for_any_device = contextvars.ContextVar('for_any_device', default=False)


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the network is computed. Changes speed and memory, and no value beyond rounding.

    Attributes:
        chunk_windows: windows of the widest maps at once; 0: all; -1: `CPU_CHUNK` on a CPU, where a chunk stays in the
            cache, else all.
        remat: whether a gradient computes the inside of a block anew instead of keeping it: 'on', 'off', or
            'auto': on a CPU. In chunks it always does.
        attention: of windows, 'plain' by XLA, 'fused' by one kernel on a GPU (see `fused_attention`).
        window: side of a window, pixels.
    """

    chunk_windows: int = -1
    remat: str = 'auto'
    attention: str = 'plain'
    window: int = 8

    @property
    def at_once(self) -> int:
        """Windows at once, 0 for all, with the default of this machine filled in."""
        return (CPU_CHUNK if on_cpu() else 0) if self.chunk_windows < 0 else self.chunk_windows

    def tile(self, shape: tuple[int, ...], exposures: int = EXPOSURES) -> tuple[int, int]:
        """Size of the tiles in which images `[B, H, W, ...]` are computed, see `chunks.map_tiles`.

        `exposures`: of how many the maps are; those of one are narrower, and take more windows at once.
        """
        batch, *size = shape[:3]
        if self.at_once and not all(isinstance(side, int) for side in size):
            return self.window, size[1]  # sizes are symbols: a row of windows
        windows = EXPOSURES // exposures * self.at_once // batch
        return chunks.largest_tile(tuple(size), self.window, windows) if self.at_once else tuple(size)

    @property
    def recompute(self) -> bool:
        """`remat` with the default of this machine filled in."""
        return on_cpu() if self.remat == 'auto' else self.remat == 'on'


def on_cpu() -> bool:
    """Whether arrays are computed on a CPU unless asked otherwise; False inside `for_any_device`."""
    return jax.default_backend() == 'cpu' and not _for_any_device.get()


@contextlib.contextmanager
def for_any_device() -> Iterator[None]:
    """What is traced inside is meant for other machines: it is not written for a CPU because this one has no more."""
    token = _for_any_device.set(True)
    try:
        yield
    finally:
        _for_any_device.reset(token)
