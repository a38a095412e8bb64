"""Windows of an image: partition, shift, mask, relative positions. Array functions without parameters.

An image `[B, H, W, C]` is cut into `nH * nW` windows of `w x w` pixels, numbered row by row; the
N = w * w pixels of a window are numbered row by row as well. H and W must be multiples of w.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax.models.chunks import memory_like
from afunet_jax.models.execution import on_cpu

OTHER_REGION = -100.0  # added to the logits of pixels that the cyclic shift brought together


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


def shift(image: jax.Array, by: int) -> jax.Array:
    """The cyclic shift of `[B, H, W, C]` by so many pixels down and to the right; by < 0: up and to the left."""
    return _shift_in_place(image, by) if on_cpu() else jnp.roll(image, (by, by), (1, 2))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _shift_in_place(image: jax.Array, by: int) -> jax.Array:
    """Four pieces into one new image: on a CPU twice as fast as `jnp.roll`, which copies all, axis by axis."""
    height, width = image.shape[1:3]
    result = memory_like(image, image)
    for rows, to_row in _pieces(height, by):
        for columns, to_column in _pieces(width, by):
            result = jax.lax.dynamic_update_slice(result, image[:, rows, columns], (0, to_row, to_column, 0))
    return result


_shift_in_place.defvjp(
    lambda image, by: (_shift_in_place(image, by), None), lambda by, _, gradient: (_shift_in_place(gradient, -by),)
)


def _pieces(side: int, by: int) -> list[tuple[slice, int]]:
    """Which pixels of a row of so many go where: a slice, and the place of its first pixel."""
    start = side - by if by > 0 else -by  # of the pixels that come first
    return [(slice(start, side), 0), (slice(0, start), side - start)]


@functools.lru_cache(maxsize=None)
def relative_position_index(window: int) -> np.ndarray:
    """Row of the position table for query i and key j, int32 `[N, N]`.

    `(y_i - y_j + w - 1) * (2 w - 1) + (x_i - x_j + w - 1)`: the table has `(2 w - 1) ** 2` rows.
    """
    y, x = np.divmod(np.arange(window * window), window)
    rows = y[:, None] - y[None, :] + window - 1
    columns = x[:, None] - x[None, :] + window - 1
    return (rows * (2 * window - 1) + columns).astype(np.int32)


def shift_regions(height: int, width: int, window: int, shift: int) -> jax.Array:
    """Number of the region that each pixel of a shifted image belongs to, int32 `[1, H, W]`.

    The image is cut at -window and -shift in each direction: pixels of one region keep their neighbours. Height and
    width may be symbols (`jax.export`).
    """

    def stripe(side: int) -> jax.Array:
        position = jnp.arange(side, dtype=jnp.int32)
        return (position >= side - window).astype(jnp.int32) + (position >= side - shift)

    return (3 * stripe(height)[:, None] + stripe(width)[None])[None]


def regions_of_windows(regions: jax.Array, window: int) -> jax.Array:
    """`shift_regions`, or a tile of it, `[1, H, W]` by windows: `[windows, N]`."""
    return partition(regions[..., None], window)[..., 0]


def shift_mask(regions: jax.Array) -> jax.Array:
    """What a shifted block adds to its logits: 0 within a region, -100 between two. `[n, N]` to `[n, N, N]`.

    Of a 1024x1536 image it would take 400 MB: make it for a chunk of windows, not for all.
    """
    same = regions[:, :, None] == regions[:, None, :]
    return jnp.where(same, 0.0, OTHER_REGION).astype(jnp.float32)
