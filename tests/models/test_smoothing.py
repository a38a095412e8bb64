"""Smoothing by given guides, against sums over neighbours in float64."""

import jax
import numpy as np
import pytest

from afunet_jax import hdr
from afunet_jax.models.smoothing import FEATURES, RADIUS, STEEPEST, WIDTHS, smoothed

SIZE = (2, 9, 12)


def given(seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    guides = rng.standard_normal((*size, WIDTHS + FEATURES)).astype(np.float32)
    guides[..., 0] += 4
    return rng.random((*size, 3), np.float32), guides


def by_loops(image, guides):
    """The definition, pixel by pixel."""
    image, guides = np.float64(image), np.float64(guides)
    tau, result = np.log1p(5000 * image) / np.log(5001), np.empty(image.shape)
    _, rows, columns = image.shape[:3]
    mirror = lambda i, length: abs(i) if i < length else 2 * (length - 1) - i  # noqa: E731
    for at in np.ndindex(image.shape[:3]):
        b, i, j = at
        total, weights = 0, 0
        for di in range(-RADIUS, RADIUS + 1):
            for dj in range(-RADIUS, RADIUS + 1):
                q = (b, mirror(i + di, rows), mirror(j + dj, columns))
                away = np.exp(guides[at][0]) * ((tau[at] - tau[q]) ** 2).mean()
                away += np.exp(guides[at][1]) * (di**2 + dj**2) + ((guides[at][2:] - guides[q][2:]) ** 2).sum()
                total, weights = total + np.exp(-away) * image[q], weights + np.exp(-away)
        result[at] = total / weights
    return result


def test_it_is_what_its_definition_says():
    image, guides = given()
    np.testing.assert_allclose(jax.jit(smoothed)(image, guides), by_loops(image, guides), rtol=1e-5)


@pytest.mark.parametrize('deviation', [1, 100, 1e4])
def test_results_lie_between_the_values_around_whatever_the_guides(deviation):
    image, guides = given()
    image[:, :4] *= 1e6
    found = np.asarray(jax.jit(smoothed)(image, deviation * guides))
    padded = np.pad(image, ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode='reflect')
    around = np.lib.stride_tricks.sliding_window_view(padded, (2 * RADIUS + 1,) * 2, (1, 2))
    least, largest = around.min((-2, -1)), around.max((-2, -1))
    assert (found >= least * (1 - 1e-5)).all() and (found <= largest * (1 + 1e-5)).all()


@pytest.mark.parametrize('width', range(WIDTHS))
def test_a_steep_width_leaves_the_image_as_it_is(width):
    image, guides = given()
    guides[..., width] = 2 * STEEPEST
    np.testing.assert_allclose(jax.jit(smoothed)(image, guides), image, rtol=1e-6)


def test_noise_goes_and_edges_of_values_and_of_features_stay():
    rng = np.random.default_rng(0)
    truth = np.full((1, 32, 32, 3), 0.2)
    truth[:, :, 16:] = 0.4
    noisy = np.float32(truth + 0.002 * rng.standard_normal(truth.shape))
    guides = np.zeros((1, 32, 32, WIDTHS + FEATURES), np.float32)
    guides[..., 0], guides[..., 1] = 8, -5
    error = lambda image: np.sqrt(((image - truth) ** 2).mean())  # noqa: E731
    of_values = error(jax.jit(smoothed)(noisy, guides))
    guides[..., 0] = -20
    blurred = error(jax.jit(smoothed)(noisy, guides))
    guides[:, :, 16:, 2] = 5
    of_features = error(jax.jit(smoothed)(noisy, guides))
    assert of_values < 0.3 * error(noisy) and of_features < 0.3 * error(noisy) and blurred > 5 * error(noisy)


def test_gradients_are_those_of_differences_and_finite_where_widths_are_steepest():
    image, guides = given(1)
    target = np.random.default_rng(2).standard_normal(image.shape).astype(np.float32)
    loss = lambda image, guides: (hdr.mu_law(smoothed(image, guides)) * target).sum()  # noqa: E731
    gradients = jax.jit(jax.grad(loss, (0, 1)))(image, guides)
    rng = np.random.default_rng(3)
    for k, (values, gradient) in enumerate(zip((image, guides), gradients)):
        way = rng.standard_normal(values.shape) * (0.1 * values if k == 0 else 1)
        ends = []
        for sign in (1, -1):
            moved = [np.float64(image), np.float64(guides)]
            moved[k] = moved[k] + sign * 1e-5 * way
            ends.append((np.log1p(5000 * by_loops(*moved)) / np.log(5001) * target).sum())
        np.testing.assert_allclose((gradient * way).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-3)
    guides[..., :WIDTHS] = 100
    assert all(np.isfinite(g).all() for g in jax.jit(jax.grad(loss, (0, 1)))(image, guides))
