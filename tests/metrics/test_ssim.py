"""Both SSIMs against the release, scikit-image and a direct two-dimensional sum."""

import time

import numpy as np
import pytest
from golden_weights import golden_metric_pair
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity

from afunet_jax import hdr
from afunet_jax.errors import DataError
from afunet_jax.metrics import ssim, training_ssim
from afunet_jax.metrics.ssim import GAUSSIAN


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    label = rng.random((48, 37, 3), np.float32)
    return np.clip(label + 0.1 * rng.standard_normal(label.shape, np.float32), 0, 1), label


def scikit_image_ssim(prediction, label):
    return structural_similarity(
        label.astype(np.float64) * 255,
        prediction.astype(np.float64) * 255,
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def zero_padded_ssim(prediction, label):
    window = np.outer(GAUSSIAN, GAUSSIAN)
    c1, c2 = 0.01**2, 0.03**2
    maps = []
    for c in range(3):
        x, y = prediction[..., c].astype(np.float64), label[..., c].astype(np.float64)
        mx, my, xx, yy, xy = (convolve2d(i, window, 'same') for i in (x, y, x * x, y * y, x * y))
        top = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
        maps.append(top / ((mx**2 + my**2 + c1) * (xx - mx**2 + yy - my**2 + c2)))
    return np.mean(maps)


@pytest.mark.parametrize('name', 'abc')
def test_matches_the_release(golden, name):
    prediction, label = golden_metric_pair(name)
    expected = np.load(golden / 'metrics.npz')
    assert ssim(prediction, label) == pytest.approx(expected[f'{name}_ssim_l'].item(), abs=1e-6)
    found = ssim(hdr.mu_law(prediction), hdr.mu_law(label))
    assert found == pytest.approx(expected[f'{name}_ssim_mu'].item(), abs=1e-6)


@pytest.mark.parametrize('name', 'abc')
def test_training_ssim_matches_the_release(golden, name):
    prediction, label = golden_metric_pair(name)
    expected = np.load(golden / 'metrics.npz')
    found = training_ssim(prediction, label)
    assert found == pytest.approx(expected[f'{name}_train_ssim_l'].item(), abs=1e-5)
    found = training_ssim(hdr.mu_law(prediction), hdr.mu_law(label))
    assert found == pytest.approx(expected[f'{name}_train_ssim_mu'].item(), abs=1e-5)


def test_agrees_with_scikit_image(images):
    assert ssim(*images) == pytest.approx(scikit_image_ssim(*images), abs=1e-6)


def test_training_ssim_agrees_with_a_direct_sum(images):
    assert training_ssim(*images) == pytest.approx(zero_padded_ssim(*images), abs=1e-5)


def test_the_two_definitions_differ(images):
    assert abs(ssim(*images) - training_ssim(*images)) > 1e-4


@pytest.mark.parametrize('metric', [ssim, training_ssim])
def test_equal_images_give_one(metric, images):
    assert metric(images[0], images[0]) == 1.0
    constant = np.zeros((16, 16, 3), np.float32)
    assert metric(constant, constant) == 1.0


@pytest.mark.parametrize('metric', [ssim, training_ssim])
def test_is_symmetric(metric, images):
    assert metric(*images) == pytest.approx(metric(images[1], images[0]), abs=1e-6)


def test_clips_to_the_range(images):
    prediction, label = images
    outside = np.where(prediction > 0.5, prediction + 1, prediction - 1).astype(np.float32)
    inside = np.where(prediction > 0.5, 1, 0).astype(np.float32)
    assert ssim(outside, label) == ssim(inside, label)


def test_smallest_image_is_the_window(images):
    prediction, label = (image[:11, :11] for image in images)
    assert ssim(prediction, label) == pytest.approx(scikit_image_ssim(prediction, label), abs=1e-6)
    for smaller in (np.s_[:10], np.s_[:, :10]):
        with pytest.raises(DataError, match='at least 11x11'):
            ssim(prediction[smaller], label[smaller])


def test_is_fast_at_full_size():
    rng = np.random.default_rng(0)
    prediction, label = rng.random((2, 1000, 1500, 3), np.float32)
    ssim(prediction, label)  # compiles
    start = time.process_time()
    found = ssim(prediction, label)
    assert time.process_time() - start < 1  # of all cores together, so that a busy machine passes too
    assert found == pytest.approx(scikit_image_ssim(prediction, label), abs=1e-6)
