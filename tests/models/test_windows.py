"""Windows: against slow loops over pixels."""

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
    regions = jnp.asarray(windows.shift_regions(height, width, 8, 4))
    mask = np.asarray(windows.shift_mask(windows.regions_of_windows(regions, 8)))
    assert mask.shape == (height * width // 64, 64, 64)
    per_image = height * width // 64
    for n, i, j in np.ndindex(per_image, 64, 64):
        top, left = n // (width // 8) * 8, n % (width // 8) * 8
        (yi, xi), (yj, xj) = ((top + p // 8, left + p % 8) for p in (i, j))
        same = region(yi, height) == region(yj, height) and region(xi, width) == region(xj, width)
        assert mask[n, i, j] == (0 if same else -100)


@pytest.mark.parametrize(('height', 'width', 'by'), [(8, 16, 4), (8, 16, -4), (24, 8, -4), (5, 7, 3), (5, 7, -1)])
def test_shifts_and_their_gradients_are_numpy_s_roll(height, width, by):
    image, gradient = np.random.default_rng(0).normal(size=(2, 2, height, width, 3)).astype(np.float32)
    shifted, pull = jax.vjp(lambda x: windows.shift(x, by), image)
    np.testing.assert_array_equal(shifted, np.roll(image, (by, by), (1, 2)))
    np.testing.assert_array_equal(pull(gradient)[0], np.roll(gradient, (-by, -by), (1, 2)))
