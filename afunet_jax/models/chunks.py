"""Computing much in little memory: a function of an image, tile by tile, in place where the input is needed no more.

Exact, without seams: only for functions whose result in a tile depends on that tile alone, such as attention in
windows, or an MLP of every pixel. A tile's result may be written over its input.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Images = dict[str, jax.Array | None]
Size = tuple[int, int]  # height and width, pixels
Body = Callable[[Any, Callable[[Any], Any], Callable[[Any, Any], Any]], Any]


def largest_tile(size: Size, window: int, windows: int) -> Size:
    """The largest tile of at most so many windows (at least one) that divides an image of whole windows."""
    rows, columns = (side // window for side in size)
    fitting = [(i, j) for i in _divisors(rows, windows) for j in _divisors(columns, max(1, windows // i))]
    i, j = max(fitting, key=lambda tile: (tile[0] * tile[1], tile[1]))
    return i * window, j * window


def _divisors(n: int, most: int) -> list[int]:
    return [i for i in range(1, max(1, min(n, most)) + 1) if n % i == 0]


def map_tiles(
    f: Callable[..., jax.Array], weights: Any, images: Images, fixed: Images, tile: Size, recompute: bool,
    over: str | None = None, after: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """`f(images | fixed, *weights)`, computed tile by tile.

    Args:
        f: treats every tile by itself; hashable and free of traced values.
        weights: passed whole to every call.
        images: `[B, H, W, C]`.
        fixed: `[B or 1, H, W]`, without a gradient; None stays None.
        tile: its size, which divides (H, W).
        recompute: whether the gradient keeps only `images` if a tile is the whole image; else it always does.
        over: the image that gives its memory to the result, which must be of its shape and type. One that is needed
            again afterwards is copied, and XLA makes all copies as soon as it can.
        after: without `over`, any image that is computed just before: memory for the result is taken when it is there.

    Returns:
        `[B, H, W, C']`. Memory beyond the images and the result: that of one tile.
    """
    if next(iter(images.values())).shape[1:3] != tile:
        return _in_tiles(f, tile, over, weights, images, fixed, after)
    call = lambda weights, images: f(images | fixed, *weights)  # noqa: E731
    return (jax.checkpoint(call) if recompute else call)(weights, images)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _map_in_tiles(
    f: Callable[..., jax.Array], tile: Size, over: str | None, weights: Any, images: Images, fixed: Images,
    after: jax.Array | None,
) -> jax.Array:  # fmt: skip
    first, target = next(iter(images.values())), over or 'result'
    result = jax.eval_shape(lambda images: f(images | fixed, *weights), images)
    buffers = images if over else images | {target: memory_like(result, first if after is None else after)}

    def body(buffers: Images, take: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> Images:
        part = f(take({name: buffers[name] for name in images}) | take(fixed), *weights)
        return buffers | {target: put(buffers[target], part)}

    return _for_tiles(body, buffers, first.shape[1:3], tile)[target]


def _map_forward(f, tile, over, weights, images, fixed, after):
    return _in_tiles(f, tile, over, weights, images, fixed, after), (weights, images, fixed)


def _map_backward(f, tile, over, kept, gradient):
    return *_gradients(f, tile, *kept, lambda take: take(gradient)), None, None


_map_in_tiles.defvjp(_map_forward, _map_backward)
_in_tiles = jax.jit(_map_in_tiles, static_argnums=(0, 1, 2))  # traced once for all blocks of a kind


def sum_tiles(f: Callable[..., Any], weights: Any, images: Images, tile: Size) -> Any:
    """`f(images, *weights)` of a function that sums over all pixels, added up tile by tile.

    Arguments as for `map_tiles`. Returns a tree of sums; in tiles the gradient keeps only `images`.
    """
    whole = next(iter(images.values())).shape[1:3] == tile
    return f(images, *weights) if whole else _sum_in_tiles(f, tile, weights, images)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_in_tiles(f: Callable[..., Any], tile: Size, weights: Any, images: Images) -> Any:
    def body(sums: Any, take: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> Any:
        return jax.tree.map(jnp.add, sums, f(take(images), *weights))

    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(f, images, *weights))
    return _for_tiles(body, sums, next(iter(images.values())).shape[1:3], tile)


def _sum_forward(f, tile, weights, images):
    return _sum_in_tiles(f, tile, weights, images), (weights, images)


def _sum_backward(f, tile, kept, gradient):
    return _gradients(f, tile, *kept, {}, lambda take: gradient)


_sum_in_tiles.defvjp(_sum_forward, _sum_backward)


def _gradients(
    f: Callable[..., Any], tile: Size, weights: Any, images: Images, fixed: Images,
    gradient_of: Callable[[Callable[[Any], Any]], Any],
) -> tuple[Any, Images]:
    """Gradients to weights and images; `gradient_of(take)` is the gradient to a tile's result."""

    def body(sums: tuple[Any, Images], take: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> Any:
        to_weights, buffers = sums  # a tile of the images gives way to its gradient
        fixed_part = take(fixed)
        _, pull = jax.vjp(lambda weights, images: f(images | fixed_part, *weights), weights, take(buffers))
        more, to_images = pull(gradient_of(take))
        return jax.tree.map(jnp.add, to_weights, more), put(buffers, to_images)

    zeros = jax.tree.map(jnp.zeros_like, weights)
    return _for_tiles(body, (zeros, images), next(iter(images.values())).shape[1:3], tile)


def _for_tiles(body: Body, buffers: Any, size: Size, tile: Size) -> Any:
    """Runs `body(buffers, take, put)` for every tile; take and put read and write that tile of a tree of images."""
    rows, columns = (side // part for side, part in zip(size, tile))

    def step(i: jax.Array, buffers: Any) -> Any:
        corner = (0, i // columns * tile[0], i % columns * tile[1])

        def take(tree: Any) -> Any:
            return jax.tree.map(lambda x: jax.lax.dynamic_slice(
                x, (*corner, *(0,) * (x.ndim - 3)), (x.shape[0], *tile, *x.shape[3:])), tree)  # fmt: skip

        def put(tree: Any, parts: Any) -> Any:
            return jax.tree.map(lambda x, part: jax.lax.dynamic_update_slice(x, part, (*corner, 0)), tree, parts)

        return body(buffers, take, put)

    return jax.lax.fori_loop(0, rows * columns, step, buffers)


def memory_like(image: Any, after: jax.Array) -> jax.Array:
    """Memory of the shape and type of `image`, to be overwritten by a loop, which is taken when `after` is there.

    Zeros would do if XLA did not allocate the buffers of all loops before the first one runs: nothing tells
    it to wait. Filled with a value of `after`, a buffer lives no longer than it must.
    """
    value = after[(0,) * after.ndim].astype(image.dtype)
    return jnp.broadcast_to(value, image.shape)
