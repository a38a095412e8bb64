"""What all SSIMs share against scipy and Wang's formula as it stands; strips, precision, compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from afunet_jax.metrics import (
    matlab_ssim,
    psnr,
    pu21_psnr,
    pu21_ssim,
    similarity,
    skimage_ssim,
    ssim,
    training_ssim,
)
from afunet_jax.metrics.similarity import Window, gaussian_window, mean_similarity

GAUSSIAN = gaussian_window(11, 1.5)
MODES = {'cut': 'nearest', 'repeat': 'nearest', 'zero': 'constant'}  # ours to scipy's
METRICS = {
    'psnr': psnr,
    'ssim': ssim,
    'training_ssim': training_ssim,
    'skimage_ssim': skimage_ssim,
    'matlab_ssim': matlab_ssim,
    'pu21_psnr': lambda *pair: pu21_psnr(*pair, display_peak=1000),
    'pu21_ssim': lambda *pair: pu21_ssim(*pair, display_peak=1000),
}


def pair_of(height, width, channels=3, noise=0.1):
    rng = np.random.default_rng(height)
    label = rng.random((height, width, channels))
    return np.clip(label + noise * rng.standard_normal(label.shape), 0, 1), label


def found(x, y, window, value_range=1.0):
    with jax.enable_x64(True):
        return float(jax.jit(lambda x, y: mean_similarity(x, y, value_range, window))(x, y))


def scipy_mean(image, window):
    for axis in (0, 1):
        image = ndimage.correlate1d(image, window.weights, axis, mode=MODES[window.border])
    if window.colours:
        image = ndimage.correlate1d(image, window.weights, 2, mode='nearest')
    half = window.side // 2
    return image[half:-half, half:-half] if window.border == 'cut' else image


def wang(x, y, window, value_range=1.0):
    """Eq. (13) of Wang et al. with its five means."""
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    mx, my, xx, yy, xy = (scipy_mean(i, window) for i in (x, y, x * x, y * y, x * y))
    factor = window.side**2 / (window.side**2 - 1) if window.sample else 1
    top = (2 * mx * my + c1) * (2 * factor * (xy - mx * my) + c2)
    return np.mean(top / ((mx**2 + my**2 + c1) * (factor * (xx - mx**2 + yy - my**2) + c2)))


@pytest.mark.parametrize('border', MODES)
@pytest.mark.parametrize('colours', [False, True])
def test_means_are_those_of_scipy(border, colours):
    window, image = Window(GAUSSIAN, border, colours), pair_of(17, 21)[1]
    with jax.enable_x64(True):
        means = np.asarray(window.means(window.padded(jnp.asarray(image))))
    expected = scipy_mean(image, window)
    np.testing.assert_allclose(means.reshape(expected.shape), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ('window', 'shape'),
    [
        (Window(GAUSSIAN), (11, 11, 3)),  # one value
        (Window(GAUSSIAN), (34, 30, 3)),  # one strip
        (Window(GAUSSIAN), (35, 30, 1)),  # a strip and a row
        (Window(GAUSSIAN, 'repeat', colours=True), (47, 13, 3)),  # two strips less a row
        (Window(GAUSSIAN, 'zero'), (5, 9, 3)),  # smaller than the window
        (Window((0.2,) * 5, sample=True), (77, 8, 2)),
    ],
)
def test_is_the_formula_of_wang(window, shape):
    x, y = pair_of(*shape)
    for value_range in (1.0, 255.0):
        arguments = value_range * x, value_range * y, window, value_range
        assert found(*arguments) == pytest.approx(wang(*arguments), abs=1e-12)


@pytest.mark.parametrize('strip', [1, 7, 1000])
def test_strips_do_not_change_the_mean(strip, monkeypatch):
    x, y = pair_of(40, 23)
    expected = found(x, y, Window(GAUSSIAN))
    monkeypatch.setattr(similarity, 'STRIP', strip)
    assert found(x, y, Window(GAUSSIAN)) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize('noise', [0.1, 1e-4])
def test_float32_is_used_where_it_is_asked_for(noise):
    x, y = pair_of(30, 30, noise=noise)
    single = found(x, y, Window(GAUSSIAN, precision='float32'))
    assert single != found(x, y, Window(GAUSSIAN)) == pytest.approx(single, abs=1e-7)


def test_equal_images_are_exactly_one():
    y = pair_of(40, 23)[1]
    for precision in ('float32', 'float64'):
        assert found(y, y, Window(GAUSSIAN, 'repeat', colours=True, precision=precision)) == 1


@pytest.mark.parametrize('metric', METRICS.values(), ids=METRICS)
def test_metrics_do_not_depend_on_the_precision_of_the_program(metric):
    pair = [image.astype(np.float32) for image in pair_of(20, 19)]
    expected = metric(*pair)
    assert not jax.config.jax_enable_x64 and jnp.zeros(1, float).dtype == jnp.float32
    with jax.enable_x64(True):
        assert metric(*pair) == expected
    with jax.default_matmul_precision('bfloat16'):
        assert metric(*pair) == expected


@pytest.mark.parametrize('metric', METRICS.values(), ids=METRICS)
def test_metrics_compile_once_a_size(metric):
    first, second = ([image.astype(np.float32) for image in pair_of(20, 19, noise=n)] for n in (0.1, 0.2))
    second[1] *= 0.9  # other values, other maxima
    metric(*first)
    jax.config.update('jax_no_tracing', True)
    try:
        assert metric(*second) != metric(*first)
    finally:
        jax.config.update('jax_no_tracing', False)
