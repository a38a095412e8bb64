"""Windows: against slow loops over pixels."""

import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax.models import windows


def test_split_heads_puts_every_channel_of_every_pixel_in_its_place():
    batch, height, width, w, heads, d, parts = 2, 8, 12, 4, 3, 2, 3
    tokens = np.arange(batch * height * width * parts * heads * d).reshape(-1, parts * heads * d)
    split = np.asarray(windows.split_heads(jnp.asarray(tokens), (batch, height, width), w, heads, parts))
    image = tokens.reshape(batch, height, width, parts, heads, d)
    for b, y, x in np.ndindex(batch, height, width):
        window = (b * height // w + y // w) * (width // w) + x // w
        np.testing.assert_array_equal(split[:, window, :, (y % w) * w + x % w], image[b, y, x])


def test_join_heads_undoes_split_heads():
    tokens = jnp.arange(2 * 8 * 16 * 24.0).reshape(-1, 24)
    (split,) = windows.split_heads(tokens, (2, 8, 16), 8, 4, 1)
    np.testing.assert_array_equal(windows.join_heads(split, (2, 8, 16), 8), tokens)


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
    mask = np.asarray(windows.shift_mask(height, width, 8, 4))
    assert mask.shape == (height * width // 64, 64, 64)
    for n, i, j in np.ndindex(mask.shape):
        top, left = n // (width // 8) * 8, n % (width // 8) * 8
        (yi, xi), (yj, xj) = ((top + p // 8, left + p % 8) for p in (i, j))
        same = region(yi, height) == region(yj, height) and region(xi, width) == region(xj, width)
        assert mask[n, i, j] == (0 if same else -100)
