"""The registry: every metric by name, on images with every mistake that a user can make."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax import evaluation, hdr
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics import (
    hdrvdp2,
    matlab_ssim,
    pu21_psnr,
    pu21_ssim,
    skimage_default_ssim,
    skimage_ssim,
    training_ssim,
)  # fmt: skip
from afunet_jax.metrics.hdrvdp2 import PRESETS
from afunet_jax.metrics.registry import METRICS, find_metrics

QUICK = [name for name in METRICS if not name.startswith('hdrvdp2')]
FUNCTIONS = {  # those with the rules for radiance built in
    'skimage_ssim': skimage_ssim,
    'skimage_default_ssim': skimage_default_ssim,
    'matlab_ssim': matlab_ssim,
    'pu21_psnr': lambda *pair: pu21_psnr(*pair, display_peak=1000),
    'pu21_ssim': lambda *pair: pu21_ssim(*pair, display_peak=1000),
}
EVERYTHING = {**METRICS, **FUNCTIONS}


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    label = rng.random((24, 31, 3), np.float32) ** 3
    return np.clip(label + 0.05 * rng.standard_normal(label.shape, np.float32), 0, 1), label


def test_names_are_keys_and_titles_differ():
    assert all(name == metric.name for name, metric in METRICS.items())
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


def test_the_evaluation_s_figures_have_the_same_names(images):
    images[0][:4] -= 0.2  # a network's output may be negative
    for name, expected in evaluation.score(*images).items():
        assert METRICS[name](*images) == expected, name


def test_functions_get_the_values_that_their_metric_says(images):
    tau = [hdr.mu_law(image) for image in images]
    assert METRICS['matlab_ssim_l'](*images) == matlab_ssim(*images)
    assert METRICS['matlab_ssim_mu'](*images) == matlab_ssim(*tau)
    assert METRICS['skimage_ssim_mu'](*images) == skimage_ssim(*tau)
    assert METRICS['skimage_default_ssim_l'](*images) == skimage_default_ssim(*images)
    assert METRICS['training_ssim_mu'](*images) == training_ssim(*tau)
    assert METRICS['pu21_psnr_4000'](*images) == pu21_psnr(*images, display_peak=4000)
    assert METRICS['pu21_ssim_1000'](*images) == pu21_ssim(*images, display_peak=1000)


@pytest.mark.parametrize('preset', PRESETS)
def test_hdrvdp2_has_an_entry_for_each_preset(preset, images):
    assert METRICS[f'hdrvdp2_{preset}'](*images) == hdrvdp2(*images, preset=preset).q


@pytest.mark.parametrize('name', QUICK)
def test_figures_lie_in_the_range_and_better_images_win(name, images):
    metric, (prediction, label) = METRICS[name], images
    low, high = metric.range
    close, far = (metric(label + s * (prediction - label), label) for s in (0.2, 1))
    assert low <= min(close, far) and max(close, far) <= high
    assert (close > far) == metric.higher_is_better
    best = metric(label, label)
    assert best == pytest.approx(high) or (best == high == math.inf)


@pytest.mark.parametrize('name', QUICK)
def test_takes_jax_arrays_and_negative_predictions(name, images):
    metric = METRICS[name]
    assert metric(*map(jnp.asarray, images)) == metric(*images)
    prediction, label = images
    negative = np.where(prediction < 0.01, -0.01, prediction)
    clipped = np.maximum(negative, 0)
    assert math.isfinite(metric(negative, label))
    if metric.clips:
        assert metric(negative, label) == metric(clipped, label)


@pytest.mark.parametrize('name', EVERYTHING)
def test_refuses_different_shapes(name, images):
    with pytest.raises(DataError, match='same shape'):
        EVERYTHING[name](images[0][:-1], images[1])


@pytest.mark.parametrize('name', EVERYTHING)
@pytest.mark.parametrize('which', [0, 1])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_refuses_values_that_are_not_finite(name, which, value, images):
    images[which][3, 4, 1] = value
    with pytest.raises(DataError, match='1 of 2232 values'):
        EVERYTHING[name](*images)


@pytest.mark.parametrize('name', EVERYTHING)
def test_refuses_a_negative_label(name, images):
    images[1][3, 4, 1] = -0.1
    with pytest.raises(DataError, match='cannot be negative.*-0.1'):
        EVERYTHING[name](*images)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_functions_refuse_a_negative_prediction(name, images):
    images[0][3, 4, 1] = -0.1
    with pytest.raises(DataError, match='cannot be negative.*prediction is -0.1'):
        FUNCTIONS[name](*images)


@pytest.mark.parametrize('name', EVERYTHING)
def test_refuses_a_label_of_zeros(name, images):
    with pytest.raises(DataError, match='zero everywhere'):
        EVERYTHING[name](images[0], np.zeros_like(images[1]))


@pytest.mark.parametrize('name', EVERYTHING)
@pytest.mark.parametrize('scale', [255, 4000])
def test_refuses_8_bit_values_and_cd_per_square_metre(name, scale, images):
    with pytest.raises(DataError, match='looks like 8-bit values or cd/m2'):
        EVERYTHING[name](scale * images[0], images[1])
    with pytest.raises(DataError, match='looks like 8-bit values or cd/m2'):
        EVERYTHING[name](scale * images[0], scale * images[1])


@pytest.mark.parametrize('name', EVERYTHING)
def test_refuses_integers(name, images):
    with pytest.raises(DataError, match='uint8'):
        EVERYTHING[name](*((255 * image).astype(np.uint8) for image in images))


@pytest.mark.parametrize('name', [name for name in EVERYTHING if 'ssim' in name and 'training' not in name])
def test_refuses_images_smaller_than_the_window(name, images):
    with pytest.raises(DataError, match='the size of its window'):
        EVERYTHING[name](*(image[:6] for image in images))


def test_metrics_are_found_by_a_list_of_names():
    assert [metric.name for metric in find_metrics(['ssim_mu', 'psnr_l'])] == ['ssim_mu', 'psnr_l']
    assert find_metrics([]) == []
    with pytest.raises(ConfigError, match="'psnr'.*psnr_l, psnr_mu"):
        find_metrics(['psnr'])
    with pytest.raises(ConfigError, match="'psnr_l' is named twice"):
        find_metrics(['psnr_l', 'ssim_l', 'psnr_l'])
