"""Windows of an image: partition, shift, mask, relative positions. Array functions without parameters.

An image `[B, H, W, C]` is cut into `nH * nW` windows of `w x w` pixels, numbered row by row; the
N = w * w pixels of a window are numbered row by row as well. H and W must be multiples of w.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CPU_CHUNK = 32  # windows at once: fastest of 4 to 128 on two cores, forward and backward
OTHER_REGION = -100.0  # added to the logits of pixels that the cyclic shift brought together


@dataclasses.dataclass(frozen=True)
class Chunks:
    """How much is computed at once. Changes speed and memory, and no value beyond rounding.

    Attributes:
        windows: windows at once; 0: all; -1: `CPU_CHUNK` on a CPU, where a chunk stays in the cache, else all.
        remat: whether a gradient computes the inside of a block anew instead of keeping it: 'on', 'off', or
            'auto': on a CPU, where it is faster, too, but not elsewhere.
        size: pixels of a window.
    """

    windows: int = -1
    remat: str = 'auto'
    size: int = 64

    @property
    def at_once(self) -> int:
        """Windows at once, 0 for all, with the default of this machine filled in."""
        return (CPU_CHUNK if on_cpu() else 0) if self.windows < 0 else self.windows

    @property
    def tokens(self) -> int:
        """Tokens at once, 0 for all."""
        return self.at_once * self.size

    @property
    def recompute(self) -> bool:
        """`remat` with the default of this machine filled in."""
        return on_cpu() if self.remat == 'auto' else self.remat == 'on'


def on_cpu() -> bool:
    """Whether arrays are computed on a CPU unless asked otherwise."""
    return jax.default_backend() == 'cpu'


def map_chunks(f: Callable[..., jax.Array], weights: Any, rows: Any, at_once: int, chunks: Chunks) -> jax.Array:
    """`f(rows, *weights)`, computed `at_once` rows at a time.

    Args:
        f: treats every row (window or token) by itself.
        weights: passed whole to every call.
        rows: tree of arrays with the same leading axis; None stays None.
        at_once: rows a call; 0: all in one.
        chunks: for `recompute`.

    Returns:
        The results, along the leading axis.
    """
    call = lambda weights, rows: f(rows, *weights)  # noqa: E731
    if chunks.recompute:
        call = jax.checkpoint(call)
    count = jax.tree.leaves(rows)[0].shape[0]
    if not at_once or count <= at_once:
        return call(weights, rows)
    whole = count // at_once * at_once
    stacked = jax.tree.map(lambda x: x[:whole].reshape(-1, at_once, *x.shape[1:]), rows)
    result = jax.lax.map(lambda chunk: call(weights, chunk), stacked)
    result = result.reshape(whole, *result.shape[2:])
    if whole == count:
        return result
    rest = call(weights, jax.tree.map(lambda x: x[whole:], rows))
    return jnp.concatenate([result, rest])


def partition(image: jax.Array, window: int) -> jax.Array:
    """`[B, H, W, C]` to windows `[B * nH * nW, N, C]`."""
    batch, height, width, channels = image.shape
    x = image.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, window * window, channels)


def merge(x: jax.Array, shape: tuple[int, int, int], window: int) -> jax.Array:
    """The inverse of `partition`: windows to the image `[B, H, W, C]` of shape (B, H, W)."""
    batch, height, width = shape
    x = x.reshape(batch, height // window, width // window, window, window, x.shape[-1])
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, x.shape[-1])


def split_heads(x: jax.Array, heads: int, parts: int) -> jax.Array:
    """`[n, N, parts * heads * d]` to `[parts, n, heads, N, d]`: channels lie by part (of q, k, v), then head."""
    n, tokens, channels = x.shape
    return x.reshape(n, tokens, parts, heads, channels // (parts * heads)).transpose(2, 0, 3, 1, 4)


def join_heads(x: jax.Array) -> jax.Array:
    """The inverse of `split_heads` for one part: `[n, heads, N, d]` to `[n, N, heads * d]`."""
    n, heads, tokens, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(n, tokens, heads * d)


@functools.lru_cache(maxsize=None)
def relative_position_index(window: int) -> np.ndarray:
    """Row of the position table for query i and key j, int32 `[N, N]`.

    `(y_i - y_j + w - 1) * (2 w - 1) + (x_i - x_j + w - 1)`: the table has `(2 w - 1) ** 2` rows.
    """
    y, x = np.divmod(np.arange(window * window), window)
    rows = y[:, None] - y[None, :] + window - 1
    columns = x[:, None] - x[None, :] + window - 1
    return (rows * (2 * window - 1) + columns).astype(np.int32)


def region_edges(window: int, shift: int) -> tuple[slice, slice, slice]:
    """The three regions of one direction of a shifted image: those that keep their neighbours."""
    return slice(0, -window), slice(-window, -shift), slice(-shift, None)


def shift_regions(batch: int, height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Number of the region that each pixel of a shifted image belongs to, int32 `[B * windows, N]`."""
    region = np.zeros((height, width), np.int32)
    for i, rows in enumerate(region_edges(window, shift)):
        for j, columns in enumerate(region_edges(window, shift)):
            region[rows, columns] = 3 * i + j
    region = region.reshape(height // window, window, width // window, window)
    return np.tile(region.transpose(0, 2, 1, 3).reshape(-1, window * window), (batch, 1))


def shift_mask(regions: jax.Array) -> jax.Array:
    """What a shifted block adds to its logits: 0 within a region, -100 between two. `[n, N]` to `[n, N, N]`.

    Of a 1024x1536 image it would take 400 MB: make it for a chunk of windows, not for all.
    """
    same = regions[:, :, None] == regions[:, None, :]
    return jnp.where(same, 0.0, OTHER_REGION).astype(jnp.float32)
