"""The SSIMs of other programs against those programs, or against a slow sum over the whole window."""

import time

import numpy as np
import pytest
from golden_weights import golden_metric_pair
from scipy import ndimage
from skimage.metrics import structural_similarity

from afunet_jax import hdr
from afunet_jax.errors import DataError
from afunet_jax.metrics import matlab_ssim, skimage_default_ssim, skimage_ssim, ssim

VARIANTS = [skimage_ssim, skimage_default_ssim, matlab_ssim]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    label = rng.random((24, 31, 3), np.float32) ** 3
    return np.clip(label + 0.05 * rng.standard_normal(label.shape, np.float32), 0, 1), label


def scikit_image(prediction, label, **arguments):
    prediction, label = (image.astype(np.float64) for image in (prediction, label))
    return structural_similarity(label, prediction, data_range=1.0, channel_axis=-1, **arguments)


def gaussian_arguments():
    return {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}


def matlab(prediction, label):
    """MATLAB's ssim of a volume, with the full three-dimensional window, from MathWorks' description."""
    radius = 5  # ceil(3 * 1.5)
    distance = np.arange(-radius, radius + 1)
    x, y, z = np.meshgrid(distance, distance, distance, indexing='ij')
    window = np.exp(-(x**2 + y**2 + z**2) / (2 * 1.5**2))
    window /= window.sum()
    a, b = prediction.astype(np.float64), label.astype(np.float64)
    mean_a, mean_b, aa, bb, ab = (
        ndimage.convolve(i, window, mode='nearest') for i in (a, b, a * a, b * b, a * b)
    )
    c1, c2, c3 = 0.01**2, 0.03**2, 0.03**2 / 2
    sigma_a, sigma_b = (np.sqrt(np.maximum(v, 0)) for v in (aa - mean_a**2, bb - mean_b**2))
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast = (2 * sigma_a * sigma_b + c2) / (sigma_a**2 + sigma_b**2 + c2)
    structure = (ab - mean_a * mean_b + c3) / (sigma_a * sigma_b + c3)
    return (luminance * contrast * structure).mean()


@pytest.mark.parametrize('name', 'abc')
def test_agree_with_scikit_image(name):
    pair = golden_metric_pair(name)
    for prediction, label in (pair, [hdr.mu_law(image) for image in pair]):
        assert skimage_ssim(prediction, label) == pytest.approx(
            scikit_image(prediction, label, **gaussian_arguments()), abs=1e-10
        )
        assert skimage_default_ssim(prediction, label) == pytest.approx(
            scikit_image(prediction, label), abs=1e-10
        )


def test_the_gaussian_one_is_ours_within_the_range(images):
    assert skimage_ssim(*images) == pytest.approx(ssim(*images), abs=1e-7)
    beyond = images[0] * 1.5
    assert skimage_ssim(beyond, images[1]) == pytest.approx(
        scikit_image(beyond, images[1], **gaussian_arguments()), abs=1e-10
    )
    assert abs(skimage_ssim(beyond, images[1]) - ssim(beyond, images[1])) > 1e-3  # which clips


@pytest.mark.parametrize('shape', [(24, 31, 3), (11, 40, 3), (13, 11, 3)])
def test_matlab_agrees_with_a_sum_over_the_volume(shape):
    rng = np.random.default_rng(1)
    label = rng.random(shape, np.float32)
    prediction = np.clip(label + 0.2 * rng.standard_normal(shape, np.float32), 0, 1)
    assert matlab_ssim(prediction, label) == pytest.approx(matlab(prediction, label), abs=1e-12)


def test_matlab_mixes_the_colours(images):
    prediction, label = images
    separate = np.mean([matlab(*(image[..., c : c + 1] for image in images)) for c in range(3)])
    assert abs(matlab_ssim(prediction, label) - separate) > 1e-3


def test_matlab_on_constant_images():
    # With variances zero only the luminance term is left.
    label, prediction = np.full((12, 12, 3), 0.5, np.float32), np.full((12, 12, 3), 0.25, np.float32)
    assert matlab_ssim(prediction, label) == pytest.approx((0.25 + 1e-4) / (0.3125 + 1e-4), abs=1e-12)


def test_the_names_stand_for_different_numbers(images):
    found = [variant(*images) for variant in VARIANTS]
    assert min(abs(x - y) for i, x in enumerate(found) for y in found[:i]) > 1e-4


@pytest.mark.parametrize('variant', VARIANTS)
def test_properties(variant, images):
    assert variant(images[1], images[1]) == pytest.approx(1, abs=1e-12)
    assert variant(*images) == pytest.approx(variant(*images[::-1]), abs=1e-12)
    assert variant(*images) == pytest.approx(
        variant(*(np.ascontiguousarray(i.swapaxes(0, 1)) for i in images)), abs=1e-12
    )
    assert type(variant(*images)) is float


@pytest.mark.parametrize(
    ('variant', 'window'), [(skimage_ssim, 11), (skimage_default_ssim, 7), (matlab_ssim, 11)]
)
def test_images_smaller_than_the_window_are_refused(variant, window):
    image = np.full((window, window, 3), 0.5, np.float32)
    assert variant(image, image) == pytest.approx(1)
    with pytest.raises(DataError, match=f'at least {window}x{window}.*{window}x{window - 1}'):
        variant(image[:, 1:], image[:, 1:])


@pytest.mark.parametrize('variant', VARIANTS)
def test_are_fast_at_full_size(variant):
    rng = np.random.default_rng(0)
    pair = rng.random((2, 1000, 1500, 3), np.float32)
    variant(*pair)  # compiles
    start = time.process_time()
    variant(*pair)
    assert time.process_time() - start < 1  # of all cores together, so that a busy machine passes too
