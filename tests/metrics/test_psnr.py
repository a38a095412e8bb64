"""PSNR against the release, scikit-image, and the rules for its inputs."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import golden_metric_pair
from skimage.metrics import peak_signal_noise_ratio

from afunet_jax import hdr
from afunet_jax.errors import DataError
from afunet_jax.metrics import psnr, ssim, training_ssim

METRICS = [psnr, ssim, training_ssim]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.random((32, 40, 3), np.float32), rng.random((32, 40, 3), np.float32)


@pytest.mark.parametrize('name', 'abc')
def test_matches_the_release(golden, name):
    prediction, label = golden_metric_pair(name)
    expected = np.load(golden / 'metrics.npz')
    assert psnr(prediction, label) == pytest.approx(expected[f'{name}_psnr_l'].item(), abs=1e-5)
    found = psnr(hdr.mu_law(prediction), hdr.mu_law(label))
    assert found == pytest.approx(expected[f'{name}_psnr_mu'].item(), abs=1e-5)


def test_agrees_with_scikit_image(images):
    prediction, label = (image.astype(np.float64) for image in images)
    expected = peak_signal_noise_ratio(label, prediction, data_range=1.0)
    assert psnr(*images) == pytest.approx(expected, abs=1e-5)


def test_known_value():
    label = np.zeros((4, 4, 3), np.float32)
    assert psnr(label + np.float32(0.1), label) == pytest.approx(20.0, abs=1e-5)


def test_is_not_clipped():
    label = np.ones((4, 4, 3), np.float32)
    assert psnr(label + 1, label) == 0.0


def test_equal_images_are_infinite(images):
    assert psnr(images[0], images[0]) == math.inf


def test_is_symmetric(images):
    assert psnr(*images) == psnr(images[1], images[0])


@pytest.mark.parametrize('metric', METRICS)
def test_takes_jax_arrays_and_returns_a_float(metric, images):
    found = metric(*map(jnp.asarray, images))
    assert type(found) is float
    assert found == metric(*images)


@pytest.mark.parametrize('metric', METRICS)
def test_leaves_its_inputs_alone(metric, images):
    copies = [image.copy() for image in images]
    metric(*images)
    assert all(np.array_equal(*pair) for pair in zip(images, copies))


@pytest.mark.parametrize('metric', METRICS)
@pytest.mark.parametrize('shape', [(32, 40), (1, 32, 40, 3), (3, 32, 40), (32, 40, 4), ()])
def test_refuses_what_is_not_one_rgb_image(metric, shape):
    image = np.zeros(shape, np.float32)
    with pytest.raises(DataError, match=r'\[H, W, 3\].*prediction'):
        metric(image, image)


@pytest.mark.parametrize('metric', METRICS)
def test_refuses_different_shapes(metric, images):
    with pytest.raises(DataError, match=r'\[32, 40, 3\] and \[31, 40, 3\]'):
        metric(images[0], images[1][:-1])
    with pytest.raises(DataError, match='same shape'):
        metric(images[0], images[1][:, :1])  # would broadcast


@pytest.mark.parametrize('metric', METRICS)
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('name', ['prediction', 'label'])
def test_refuses_values_that_are_not_finite(metric, value, name, images):
    images[0 if name == 'prediction' else 1][3, 4, 1] = value
    with pytest.raises(DataError, match=f'{name} holds 1 of 3840 values'):
        metric(*images)


@pytest.mark.parametrize('metric', METRICS)
def test_refuses_float64_values_that_float32_cannot_hold(metric, images):
    prediction = images[0].astype(np.float64)
    prediction[3, 4, 1] = -1e39
    with pytest.raises(DataError, match='prediction holds 1 of 3840 values.*too large for float32'):
        metric(prediction, images[1])


@pytest.mark.parametrize('metric', METRICS)
def test_refuses_integers(metric):
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(DataError, match='uint8'):
        metric(image, image)


@pytest.mark.parametrize('metric', METRICS)
def test_refuses_an_empty_image(metric):
    image = np.zeros((0, 16, 3), np.float32)
    with pytest.raises(DataError, match='no pixels'):
        metric(image, image)
