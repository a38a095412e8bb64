"""Windows: against slow loops over pixels; chunks against the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax.models import windows


def test_partition_puts_every_pixel_in_its_place_and_merge_takes_it_back():
    batch, height, width, w = 2, 8, 12, 4
    image = np.arange(batch * height * width * 3).reshape(batch, height, width, 3)
    parts = np.asarray(windows.partition(jnp.asarray(image), w))
    for b, y, x in np.ndindex(batch, height, width):
        number = (b * height // w + y // w) * (width // w) + x // w
        np.testing.assert_array_equal(parts[number, (y % w) * w + x % w], image[b, y, x])
    np.testing.assert_array_equal(windows.merge(parts, (batch, height, width), w), image)


def test_split_heads_finds_part_and_head_and_join_heads_undoes_it():
    n, tokens, parts, heads, d = 2, 5, 3, 4, 2
    x = np.arange(n * tokens * parts * heads * d).reshape(n, tokens, -1)
    split = np.asarray(windows.split_heads(jnp.asarray(x), heads, parts))
    for p, i, h, t in np.ndindex(parts, n, heads, tokens):
        first = (p * heads + h) * d
        np.testing.assert_array_equal(split[p, i, h, t], x[i, t, first : first + d])
    np.testing.assert_array_equal(windows.join_heads(split[1]), x[..., heads * d : 2 * heads * d])


@pytest.mark.parametrize('window', [2, 4, 8])
def test_relative_positions_are_numbered_as_the_contract_says(window):
    index = windows.relative_position_index(window)
    for i, j in np.ndindex(index.shape):
        dy, dx = i // window - j // window, i % window - j % window
        assert index[i, j] == (dy + window - 1) * (2 * window - 1) + dx + window - 1
    assert set(index.ravel()) == set(range((2 * window - 1) ** 2))


def region(position, side):
    """0, 1, 2: before -8, from -8 to -4, after -4."""
    return (position >= side - 8) + (position >= side - 4)


@pytest.mark.parametrize(('height', 'width'), [(16, 24), (8, 16), (16, 8), (8, 8)])
def test_shift_mask_separates_the_nine_regions(height, width):
    mask = np.asarray(windows.shift_mask(jnp.asarray(windows.shift_regions(2, height, width, 8, 4))))
    assert mask.shape == (2 * height * width // 64, 64, 64)
    per_image = height * width // 64
    np.testing.assert_array_equal(mask[:per_image], mask[per_image:])
    for n, i, j in np.ndindex(per_image, 64, 64):
        top, left = n // (width // 8) * 8, n % (width // 8) * 8
        (yi, xi), (yj, xj) = ((top + p // 8, left + p % 8) for p in (i, j))
        same = region(yi, height) == region(yj, height) and region(xi, width) == region(xj, width)
        assert mask[n, i, j] == (0 if same else -100)


def rows_and_weights(count):
    x, keep = (jax.random.normal(jax.random.key(i), (count, *shape)) for i, shape in enumerate([(4, 3), ()]))
    return {'x': x, 'keep': keep, 'none': None}, (jax.random.normal(jax.random.key(2), (3, 5)),)


def f(rows, kernel):
    assert rows['none'] is None
    return jnp.tanh(rows['x'] @ kernel) * rows['keep'][:, None, None]


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.parametrize('at_once', [0, 1, 3, 4, 12, 50])
def test_chunks_give_the_values_and_gradients_of_the_whole(at_once, remat):
    rows, weights = rows_and_weights(12)
    chunks = windows.Chunks(at_once, 'on' if remat else 'off')

    def total(run):
        return lambda weights, x: (run(weights, {**rows, 'x': x}) ** 2).sum()

    chunked = total(lambda weights, rows: windows.map_chunks(f, weights, rows, at_once, chunks))
    whole = total(lambda weights, rows: f(rows, *weights))
    ours, theirs = (jax.jit(jax.value_and_grad(g, argnums=(0, 1)))(weights, rows['x']) for g in (chunked, whole))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_last_chunk_may_be_smaller():
    rows, weights = rows_and_weights(11)
    result = windows.map_chunks(f, weights, rows, 4, windows.Chunks(4, 'off'))
    np.testing.assert_allclose(result, f(rows, *weights), rtol=1e-6)
