"""How the network is computed: speed and memory, not values."""

import dataclasses

import jax

from afunet_jax.models import chunks

CPU_CHUNK = 32  # windows at once: fastest of 4 to 128 on two cores, forward and backward
ATTENTIONS = ('plain', 'fused')


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the network is computed. Changes speed and memory, and no value beyond rounding.

    Attributes:
        chunk_windows: windows at once; 0: all; -1: `CPU_CHUNK` on a CPU, where a chunk stays in the cache, else all.
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

    def tile(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Size of the tiles in which images `[B, H, W, ...]` are computed, see `chunks.map_tiles`."""
        batch, *size = shape[:3]
        return chunks.largest_tile(tuple(size), self.window, self.at_once // batch) if self.at_once else tuple(size)

    @property
    def recompute(self) -> bool:
        """`remat` with the default of this machine filled in."""
        return on_cpu() if self.remat == 'auto' else self.remat == 'on'


def on_cpu() -> bool:
    """Whether arrays are computed on a CPU unless asked otherwise."""
    return jax.default_backend() == 'cpu'
