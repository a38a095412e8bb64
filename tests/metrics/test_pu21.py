"""PU21 against its published values, its inverse, scikit-image and scipy."""

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio

from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics import pu21_encode, pu21_psnr, pu21_ssim
from afunet_jax.metrics.pu21 import AUTHORS_RANGE

METRICS = [pu21_psnr, pu21_ssim]
P = [0.353487901, 0.3734658629, 8.277049286e-05, 0.9062562627, 0.09150303166, 0.9099517204, 596.3148142]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    label = rng.random((24, 31, 3)) ** 3
    return np.clip(label + 0.05 * rng.standard_normal(label.shape), 0, 1), label


def decoded(values):
    """Luminance of PU21 values: the equation solved for it."""
    inner = np.maximum(values / P[6] + P[5], 0) ** (1 / P[4])
    return (np.maximum(inner - P[0], 0) / (P[1] - P[2] * inner)) ** (1 / P[3])


def encoded(luminance):
    """The equation in logarithms, luminance within the limits."""
    power = np.exp(P[3] * np.log(luminance))
    return P[6] * np.exp(P[4] * (np.log(P[0] + P[1] * power) - np.log1p(P[2] * power))) - P[6] * P[5]


def test_published_values():
    # The authors: 0 to about 256 for 0.005 to 100 cd/m2, and 595 at 10,000.
    np.testing.assert_allclose(pu21_encode([0.005, 100, 10_000]), [0, 256, 595], rtol=0, atol=0.5)


def test_is_inverted():
    luminance = np.geomspace(0.005, 10_000, 500)
    np.testing.assert_allclose(decoded(pu21_encode(luminance)), luminance, rtol=1e-6)
    np.testing.assert_allclose(pu21_encode(luminance), encoded(luminance), rtol=0, atol=1e-10)
    assert (np.diff(pu21_encode(luminance)) > 0).all()


def test_clips_to_what_was_measured():
    np.testing.assert_array_equal(pu21_encode([0, 0.001, 1e6]), pu21_encode([0.005, 0.005, 1e4]))


@pytest.mark.parametrize('peak', [100, 1000, 4000])
def test_psnr_agrees_with_scikit_image(images, peak):
    prediction, label = (encoded(np.clip(peak * image, 0.005, 1e4)) for image in images)
    for value_range in (None, AUTHORS_RANGE):
        expected = peak_signal_noise_ratio(
            label, prediction, data_range=value_range or encoded(np.float64(peak))
        )
        assert pu21_psnr(*images, display_peak=peak, value_range=value_range) == pytest.approx(
            expected, abs=1e-9
        )


@pytest.mark.parametrize('peak', [100, 1000])
def test_ssim_agrees_with_a_direct_sum(images, peak):
    distance = np.arange(-5, 6)
    window = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2))
    window /= window.sum()
    luminance = [peak * (0.212656 * i[..., 0] + 0.715158 * i[..., 1] + 0.072186 * i[..., 2]) for i in images]
    x, y = (encoded(np.clip(i, 0.005, 1e4)) for i in luminance)
    mx, my, xx, yy, xy = (ndimage.convolve(i, window, mode='nearest') for i in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * encoded(np.float64(peak))) ** 2, (0.03 * encoded(np.float64(peak))) ** 2
    top = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
    expected = np.mean(top / ((mx**2 + my**2 + c1) * (xx - mx**2 + yy - my**2 + c2)))
    assert pu21_ssim(*images, display_peak=peak) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize('metric', METRICS)
def test_images_in_cd_per_square_metre(metric, images):
    prediction, label = images
    label[0, 0] = 1  # so that the label's maximum is the display's peak
    expected = metric(prediction, label, display_peak=1000)
    assert metric(1000 * prediction, 1000 * label, display_peak=None) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('metric', METRICS)
def test_luminance_alone_is_a_grey_image(metric, images):
    grey = [image[..., 0] for image in images]
    repeated = [np.stack([image] * 3, axis=-1) for image in grey]
    assert metric(*grey, display_peak=1000) == pytest.approx(metric(*repeated, display_peak=1000), abs=1e-9)


def test_a_brighter_display_shows_more():
    label = np.full((16, 16, 3), 0.01)
    found = [
        pu21_psnr(label * 1.05, label, display_peak=peak, value_range=AUTHORS_RANGE)
        for peak in (10, 100, 1000)
    ]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize('metric', METRICS)
def test_equal_images(metric, images):
    assert metric(images[1], images[1], display_peak=1000) == pytest.approx(
        math.inf if metric is pu21_psnr else 1
    )


@pytest.mark.parametrize('metric', METRICS)
@pytest.mark.parametrize('peak', [0, -1, 20_000, math.nan, math.inf])
def test_display_peaks_beyond_the_encoding_are_refused(metric, peak, images):
    with pytest.raises(ConfigError, match='display_peak'):
        metric(*images, display_peak=peak)


@pytest.mark.parametrize('metric', METRICS)
def test_relative_values_are_not_taken_for_absolute_ones(metric, images):
    with pytest.raises(DataError, match='looks like.*display_peak'):
        metric(*images, display_peak=None)
    with pytest.raises(DataError, match='8-bit values or cd/m2'):
        metric(*(1000 * image for image in images), display_peak=1000)


@pytest.mark.parametrize('metric', METRICS)
def test_the_display_peak_must_be_named(metric, images):
    with pytest.raises(TypeError):
        metric(*images)


def test_ssim_refuses_images_smaller_than_the_window(images):
    small = [image[:10] for image in images]
    with pytest.raises(DataError, match='at least 11x11.*10x31'):
        pu21_ssim(*small, display_peak=1000)
    assert math.isfinite(pu21_psnr(*small, display_peak=1000))
