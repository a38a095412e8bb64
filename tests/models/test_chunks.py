"""Chunks against the whole, values and gradients, and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax.models import chunks


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def same_shape(rows, kernel):
    """Its result can take the place of a row."""
    assert rows['none'] is None
    return jnp.tanh(rows['x'] @ kernel @ kernel.T + rows['other']) * rows['keep'][:, None, None]


def other_shape(rows, kernel):
    assert rows['none'] is None
    return jnp.tanh((rows['x'] + rows['other']) @ kernel).sum(1) * rows['keep'][:, None]


def sums(rows, kernel):
    y = jnp.tanh(rows['x'] @ kernel) * rows['other']
    return y.sum(1), {'products': jnp.einsum('bpc,bpd->bcd', y, rows['x'])}


def assert_same(run, reference, *args):
    """Values and gradients in all arguments."""

    def total(f):
        def g(*args):
            leaves = jax.tree.leaves(f(*args))
            return sum((leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in leaves), leaves

        return jax.jit(jax.value_and_grad(g, argnums=tuple(range(len(args))), has_aux=True))

    for a, b in zip(*(jax.tree.leaves(total(f)(*args)) for f in (run, reference)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * max(1, float(jnp.abs(b).max())))


@pytest.mark.parametrize('f', [same_shape, other_shape])
@pytest.mark.parametrize(('at_once', 'recompute'), [(0, False), (0, True), (1, True), (3, True), (5, True), (12, True),
                                                    (50, True), (5, False)])  # fmt: skip
def test_chunks_give_the_values_and_gradients_of_the_whole(f, at_once, recompute):
    rows = {'x': normal(0, 12, 4, 3), 'other': normal(1, 12, 4, 3)}
    fixed = {'keep': normal(2, 12), 'none': None}
    assert_same(
        lambda weights, rows: chunks.map_chunks(f, weights, rows, fixed, at_once, recompute),
        lambda weights, rows: f(rows | fixed, *weights),
        (normal(3, 3, 5),), rows,
    )  # fmt: skip


@pytest.mark.parametrize('at_once', [0, 1, 4, 12, 50])
def test_sums_of_chunks_are_the_sums_of_the_whole(at_once):
    rows = {'x': normal(0, 2, 12, 3), 'other': normal(1, 2, 12, 5)}
    assert_same(
        lambda weights, rows: chunks.sum_chunks(sums, weights, rows, at_once),
        lambda weights, rows: sums(rows, *weights),
        (normal(3, 3, 5),), rows,
    )  # fmt: skip


def wide(rows, kernel):
    return jnp.tanh(rows['x'] @ kernel) @ kernel.T


def test_a_chain_of_chunked_layers_needs_the_memory_of_one_map():
    """XLA must neither keep a buffer for every loop nor copy the map for every chunk."""
    x = jax.ShapeDtypeStruct((4096, 16), jnp.float32)
    kernel = jax.ShapeDtypeStruct((16, 1024), jnp.float32)

    def chain(at_once):
        def f(x, kernel):
            for _ in range(6):
                x = chunks.map_chunks(wide, (kernel,), {'x': x}, {}, at_once, False) + x.mean()
            return x

        return jax.jit(f).lower(x, kernel).compile().memory_analysis().temp_size_in_bytes

    image, hidden = 4096 * 16 * 4, 4096 * 1024 * 4
    assert chain(0) > hidden
    assert chain(32) < 3 * image + hidden // 64
