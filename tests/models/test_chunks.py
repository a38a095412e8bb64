"""Tiles against the whole, values and gradients, and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax.models import chunks

pytestmark = pytest.mark.usefixtures('quickly_compiled')

TILES = [(8, 12), (8, 6), (4, 12), (2, 3), (1, 1)]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def same_channels(tile, kernel):
    """Its result can take the place of an input."""
    assert tile['none'] is None
    return jnp.tanh(tile['x'] @ kernel @ kernel.T + tile['other']) * tile['fixed'][..., None]


def other_channels(tile, kernel):
    return jnp.tanh((tile['x'] + tile['other']) @ kernel) * tile['fixed'][..., None]


def sums(images, kernel):
    y = jnp.tanh(images['x'] @ kernel)
    return y.sum((1, 2)), {'products': jnp.einsum('bhwc,bhwd->bcd', y, images['other'])}


def assert_same(run, reference, *args):
    """Values and gradients in all arguments."""

    def total(f):
        def g(*args):
            leaves = jax.tree.leaves(f(*args))
            return sum((leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in leaves), leaves

        return jax.jit(jax.value_and_grad(g, argnums=tuple(range(len(args))), has_aux=True))

    for a, b in zip(*(jax.tree.leaves(total(f)(*args)) for f in (run, reference)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * max(1, float(jnp.abs(b).max())))


@pytest.mark.parametrize('f', [same_channels, other_channels])
@pytest.mark.parametrize(('tile', 'recompute'), [(TILES[0], False), *((tile, True) for tile in TILES)])
def test_tiles_give_the_values_and_gradients_of_the_whole(f, tile, recompute):
    images = {'x': normal(0, 2, 8, 12, 3), 'other': normal(1, 2, 8, 12, 3)}
    fixed = {'fixed': normal(2, 1, 8, 12), 'none': None}
    assert_same(
        lambda weights, images: chunks.map_tiles(f, weights, images, fixed, tile, recompute),
        lambda weights, images: f(images | fixed, *weights),
        (normal(3, 3, 5 if f is other_channels else 3),), images,
    )  # fmt: skip


@pytest.mark.parametrize('tile', TILES)
def test_sums_of_tiles_are_the_sums_of_the_whole(tile):
    images = {'x': normal(0, 2, 8, 12, 3), 'other': normal(1, 2, 8, 12, 5)}
    assert_same(
        lambda weights, images: chunks.sum_tiles(sums, weights, images, tile),
        lambda weights, images: sums(images, *weights),
        (normal(3, 3, 4),), images,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('size', 'windows', 'tile'),
    [((128, 128), 32, (16, 128)), ((1024, 1536), 32, (16, 128)), ((40, 56), 32, (8, 56)), ((40, 56), 1, (8, 8)),
     ((8, 8), 32, (8, 8)), ((8 * 37, 8 * 41), 32, (8, 8)), ((40, 56), 0, (8, 8)), ((64, 64), 64, (64, 64))],
)  # fmt: skip
def test_tiles_are_the_largest_that_divide_the_image(size, windows, tile):
    found = chunks.largest_tile(size, 8, windows)
    assert all(side % part == 0 and part % 8 == 0 for side, part in zip(size, found))
    assert found[0] * found[1] == tile[0] * tile[1]


def wide(tile, kernel):
    return jnp.tanh(tile['x'] @ kernel) @ kernel.T


def test_a_chain_of_layers_in_tiles_needs_the_memory_of_two_images():
    """XLA must neither keep a buffer for every loop nor copy the image for every tile."""
    x = jax.ShapeDtypeStruct((1, 64, 64, 16), jnp.float32)
    kernel = jax.ShapeDtypeStruct((16, 1024), jnp.float32)

    def memory(tile):
        def f(x, kernel):
            for _ in range(6):
                x = chunks.map_tiles(wide, (kernel,), {'x': x}, {}, tile, False) + x.mean()
            return x

        return jax.jit(f).lower(x, kernel).compile().memory_analysis().temp_size_in_bytes

    image, hidden = 64 * 64 * 16 * 4, 64 * 64 * 1024 * 4
    assert memory((64, 64)) > hidden
    assert memory((8, 8)) < 3 * image + hidden // 32
