"""Computing much in little memory: a function of rows (windows or tokens), some rows at a time.

Exact: a row's result does not depend on the others, so chunks change values by rounding at most.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Rows = dict[str, jax.Array | None]


def map_chunks(
    f: Callable[..., jax.Array], weights: Any, rows: Rows, fixed: Rows, at_once: int, recompute: bool
) -> jax.Array:
    """`f(rows | fixed, *weights)`, computed `at_once` rows at a time.

    Args:
        f: treats every row by itself; a function of a module, because it must not hold traced values.
        weights: passed whole to every call.
        rows: arrays with the same leading axis.
        fixed: more of them, which have no gradient; None stays None.
        at_once: rows a call; 0: all in one.
        recompute: whether the gradient keeps only `rows` when all is computed in one call; in chunks it always does.

    Returns:
        The results along the leading axis. Memory beyond `rows` and the results: that of one call.
    """
    count = len(next(iter(rows.values())))
    if at_once and count > at_once:
        return _in_chunks(f, at_once, weights, rows, fixed)
    call = lambda weights, rows: f(rows | fixed, *weights)  # noqa: E731
    return (jax.checkpoint(call) if recompute else call)(weights, rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_chunks(f: Callable[..., jax.Array], at_once: int, weights: Any, rows: Rows, fixed: Rows) -> jax.Array:
    shape = jax.eval_shape(lambda rows: f(rows | fixed, *weights), rows)
    target = next((k for k, x in rows.items() if (x.shape, x.dtype) == (shape.shape, shape.dtype)), 'result')
    buffers = rows if target in rows else rows | {target: _buffer(next(iter(rows.values())), shape)}

    def body(buffers: Rows, take: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> Rows:
        result = f(take({name: buffers[name] for name in rows}) | take(fixed), *weights)
        return buffers | {target: put(buffers[target], result)}

    return _for_chunks(body, buffers, shape.shape[0], at_once)[target]


def _forward(f, at_once, weights, rows, fixed):
    return _in_chunks(f, at_once, weights, rows, fixed), (weights, rows, fixed)


def _backward(f, at_once, kept, gradient):
    weights, rows, fixed = kept

    def body(sums: tuple[Any, Rows], take: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> tuple[Any, Rows]:
        to_weights, buffers = sums  # a chunk's rows give way to their gradients
        fixed_part = take(fixed)
        _, pull = jax.vjp(lambda weights, rows: f(rows | fixed_part, *weights), weights, take(buffers))
        more, to_rows = pull(take(gradient))
        return jax.tree.map(jnp.add, to_weights, more), put(buffers, to_rows)

    zeros = jax.tree.map(jnp.zeros_like, weights)
    to_weights, to_rows = _for_chunks(body, (zeros, rows), len(gradient), at_once)
    return to_weights, to_rows, None


_in_chunks.defvjp(_forward, _backward)


def sum_chunks(f: Callable[..., Any], weights: Any, rows: Rows, at_once: int) -> Any:
    """`f(rows, *weights)` of a function that sums over axis 1 of the rows, added up `at_once` rows at a time.

    Args:
        f: adds up what it makes of every row; a function of a module.
        weights: passed whole to every call.
        rows: arrays `[B, count, ...]`.
        at_once: rows a call; 0: all in one.

    Returns:
        A tree of sums. In chunks the gradient keeps only `rows`.
    """
    count = next(iter(rows.values())).shape[1]
    return _sum_in_chunks(f, at_once, weights, rows) if at_once and count > at_once else f(rows, *weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_in_chunks(f: Callable[..., Any], at_once: int, weights: Any, rows: Rows) -> Any:
    def body(sums: Any, take: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> Any:
        return jax.tree.map(jnp.add, sums, f(take(rows), *weights))

    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(f, rows, *weights))
    return _for_chunks(body, sums, next(iter(rows.values())).shape[1], at_once, axis=1)


def _sum_forward(f, at_once, weights, rows):
    return _sum_in_chunks(f, at_once, weights, rows), (weights, rows)


def _sum_backward(f, at_once, kept, gradient):
    def body(sums: tuple[Any, Rows], take: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> tuple[Any, Rows]:
        to_weights, buffers = sums  # as in `_backward`
        _, pull = jax.vjp(lambda weights, rows: f(rows, *weights), kept[0], take(buffers))
        more, to_rows = pull(gradient)
        return jax.tree.map(jnp.add, to_weights, more), put(buffers, to_rows)

    weights, rows = kept
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return _for_chunks(body, (zeros, rows), next(iter(rows.values())).shape[1], at_once, axis=1)


_sum_in_chunks.defvjp(_sum_forward, _sum_backward)


def _for_chunks(body: Callable[..., Any], buffers: Any, count: int, at_once: int, axis: int = 0) -> Any:
    """Runs `body(buffers, take, put)` for every chunk; take and put read and write the chunk's rows of a tree."""

    def chunk(start: Any, size: int, buffers: Any) -> Any:
        def take(tree: Any) -> Any:
            return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis), tree)

        def put(tree: Any, parts: Any) -> Any:
            return jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, start, axis), tree, parts)

        return body(buffers, take, put)

    whole = count // at_once
    buffers = jax.lax.fori_loop(0, whole, lambda i, buffers: chunk(i * at_once, at_once, buffers), buffers)
    return chunk(whole * at_once, count % at_once, buffers) if count % at_once else buffers


def _buffer(source: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """Memory to be overwritten, filled from `source`, an array with the same leading axes.

    Zeros would do if XLA did not allocate the buffers of all loops before the first one runs: nothing tells
    it to wait. Made of the loop's input a buffer lives no longer than its loop.
    """
    first = source.reshape(*source.shape[:1], -1)[:, :1]
    return jnp.broadcast_to(first.reshape(-1, *(1,) * (len(like.shape) - 1)), like.shape).astype(like.dtype)
