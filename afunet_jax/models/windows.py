"""Windows of an image: partition, shift, mask, relative positions. Array functions without parameters.

An image `[B, H, W, C]` is cut into `nH * nW` windows of `w x w` pixels, numbered row by row; the
N = w * w pixels of a window are numbered row by row as well. H and W must be multiples of w.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

OTHER_REGION = -100.0  # added to the logits of pixels that the cyclic shift brought together


def split_heads(tokens: jax.Array, shape: tuple[int, int, int], window: int, heads: int, parts: int) -> jax.Array:
    """Image tokens to windows and heads, in one transpose.

    Args:
        tokens: `[B * H * W, parts * heads * d]`: pixels row by row; channels by part (of q, k, v), then head.
        shape: (B, H, W).
        window: w, the window's side.
        heads: number of heads.
        parts: how many of q, k, v lie side by side in the channels.

    Returns:
        `[parts, B * windows, heads, N, d]`.
    """
    batch, height, width = shape
    d = tokens.shape[-1] // (parts * heads)
    x = tokens.reshape(batch, height // window, window, width // window, window, parts, heads, d)
    x = x.transpose(5, 0, 1, 3, 6, 2, 4, 7)
    return x.reshape(parts, -1, heads, window * window, d)


def join_heads(x: jax.Array, shape: tuple[int, int, int], window: int) -> jax.Array:
    """The inverse of `split_heads` for one part: `[B * windows, heads, N, d]` to `[B * H * W, heads * d]`."""
    batch, height, width = shape
    _, heads, _, d = x.shape
    x = x.reshape(batch, height // window, width // window, heads, window, window, d)
    x = x.transpose(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(batch * height * width, heads * d)


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


def shift_mask(height: int, width: int, window: int, shift: int) -> jax.Array:
    """What a shifted block adds to its logits: 0 within a region, -100 between two. `[windows, N, N]`."""
    region = np.zeros((height, width), np.int32)
    for i, rows in enumerate(region_edges(window, shift)):
        for j, columns in enumerate(region_edges(window, shift)):
            region[rows, columns] = 3 * i + j
    region = region.reshape(height // window, window, width // window, window)
    region = jnp.asarray(region.transpose(0, 2, 1, 3).reshape(-1, window * window))
    # The comparison is left to the compiled program: as a constant the mask of a 1024x1536 image takes 400 MB.
    return jnp.where(region[:, :, None] == region[:, None, :], 0.0, OTHER_REGION).astype(jnp.float32)
