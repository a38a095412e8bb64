"""Pixel mathematics: against the release's scene, inverses, and NumPy against JAX."""

import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax import hdr

rng = np.random.default_rng(0)


@pytest.mark.parametrize('as_array', [np.asarray, jnp.asarray], ids=['numpy', 'jax'])
def test_functions_keep_their_kind_of_array_and_float32(as_array):
    x = as_array(rng.random((4, 5, 3), np.float32))
    for y in (hdr.to_radiance(x, 4.0), hdr.from_radiance(x, 4.0), hdr.mu_law(x), hdr.inverse_mu_law(x),
              hdr.exposure_time(x), hdr.weighted_merge([x] * 3, [x] * 3),
              hdr.network_input(as_array(np.stack([x] * 3)), np.float32([0, 2, 4]))):  # fmt: skip
        assert isinstance(y, type(x)) and y.dtype == np.float32


def test_network_input_is_radiance_then_ldr_of_each_exposure():
    ldrs = rng.random((3, 4, 5, 3), np.float32)
    x = hdr.network_input(ldrs, np.float32([0, 2, 4]))
    for i, time in enumerate((1.0, 4.0, 16.0)):
        np.testing.assert_allclose(x[..., 6 * i : 6 * i + 3], ldrs[i].astype(np.float64) ** 2.2 / time, rtol=1e-6)
        np.testing.assert_array_equal(x[..., 6 * i + 3 : 6 * i + 6], ldrs[i])


def test_numpy_and_jax_agree_to_a_few_ulps():
    ldrs = rng.random((3, 16, 16, 3), np.float32)
    evs = np.float32([0, 2, 4])
    np.testing.assert_allclose(
        hdr.network_input(jnp.asarray(ldrs), jnp.asarray(evs)), hdr.network_input(ldrs, evs), rtol=1e-6
    )


def test_a_weighted_merge_has_triangle_weights_that_stay_1_in_lights_and_shades():
    ldrs = rng.random((3, 16, 16, 3), np.float32)
    radiances = rng.random((3, 16, 16, 3), np.float32)
    expected = np.zeros(ldrs.shape[1:])
    for pixel in np.ndindex(expected.shape):
        values = [float(ldr[pixel]) for ldr in ldrs]
        weights = [2 * min(value, 1 - value) for value in values]
        weights[0] = weights[0] if values[0] <= 0.5 else 1.0
        weights[2] = weights[2] if values[2] >= 0.5 else 1.0
        expected[pixel] = sum(w * r[pixel] for w, r in zip(weights, radiances)) / sum(weights)
    np.testing.assert_allclose(hdr.weighted_merge(radiances, ldrs), expected, rtol=1e-5)
    np.testing.assert_allclose(hdr.weighted_merge(*map(jnp.asarray, (radiances, ldrs))), expected, rtol=1e-5)


def test_stored_values_are_divided_by_two_to_the_sixteenth():
    assert hdr.decode_ldr(np.uint16([0, 32768, 65535])).tolist() == [0.0, 0.5, 65535 / 65536]


def test_radiance_and_ldr_are_inverse_below_saturation():
    radiance = rng.random((8, 8, 3), np.float32) / 4
    np.testing.assert_allclose(hdr.to_radiance(hdr.from_radiance(radiance, 4.0), 4.0), radiance, rtol=1e-5)
    assert hdr.from_radiance(np.float32([0.5]), 4.0) == 1


def test_mu_law_is_eq_17_and_has_an_inverse():
    x = np.linspace(0, 1, 1001, dtype=np.float32)
    expected = np.log(1 + 5000 * x.astype(np.float64)) / np.log(5001)
    np.testing.assert_allclose(hdr.mu_law(x), expected, atol=2e-7)
    np.testing.assert_allclose(hdr.inverse_mu_law(hdr.mu_law(x)), x, atol=1e-6)
    assert hdr.mu_law(x)[0] == 0 and hdr.mu_law(x)[-1] == pytest.approx(1, abs=1e-6)
