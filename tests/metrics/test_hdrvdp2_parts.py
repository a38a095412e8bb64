"""The parts of HDR-VDP-2, each against the original's values on the way or a direct computation."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from afunet_jax.metrics.hdrvdp2 import csf, display, masking, optics, pooling, pyramid, receptors, stored
from afunet_jax.metrics.hdrvdp2.resizing import bicubic, resize, resize_weights
from afunet_jax.metrics.hdrvdp2.viewing import PRESETS

FOLDER = pathlib.Path(__file__).parents[1] / 'golden' / 'hdrvdp'
SHAPES = [(17, 24), (67, 50)]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope='module')
def original():
    return dict(np.load(FOLDER / 'intermediate_02.npz'))


decompose, reconstruct = jax.jit(pyramid.decompose), jax.jit(pyramid.reconstruct)


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def close(found, expected, relative=1e-10):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=relative * scale)


def summary(x):
    x = np.asarray(x)
    return np.array([x.sum(), np.square(x).sum(), x.min(), x.max()])


def test_every_table_is_described_and_every_description_has_its_table():
    assert {path.name for path in stored.FOLDER.iterdir()} == set(stored.SOURCES)
    assert all(np.isfinite(stored.load_table(name)).all() for name in stored.SOURCES)


def test_pixels_per_degree():
    assert PRESETS['sctnet'].pixels_per_degree_of(96, 128) == pytest.approx(23.78735754772587, rel=1e-14)
    assert PRESETS['safnet'].pixels_per_degree_of(1000, 1500) == pytest.approx(25.342365242086828, rel=1e-14)
    assert PRESETS['safnet'].pixels_per_degree_of(500, 750) == pytest.approx(12.6711826210434, rel=1e-13)
    assert PRESETS['bt709-1000'].pixels_per_degree_of(7, 9) == 30


def test_srgb_display_decodes_without_clipping():
    values = np.array([-0.1, 0.0, 0.04045, 0.5, 1.0, 1.5]).reshape(1, 2, 3)
    decoded = [-0.1 / 12.92, 0, 0.04045 / 12.92] + [((v + 0.055) / 1.055) ** 2.4 for v in (0.5, 1.0, 1.5)]
    found = display.displayed(jnp.asarray(values), 'sRGB-display')
    close(np.moveaxis(np.asarray(found), 0, -1).ravel(), 99 * np.array(decoded) + 1, 1e-14)


def test_difference_mask_at_and_below_zero():
    reference = jnp.array([[[1.0, 1.0, 0.0, 0.0, -1.0, 1.0]]])
    test = jnp.array([[[1.0009, 1.0011, 0.0, 1e-9, 5.0, 0.9985]]])
    assert display.difference_mask(test, reference)[0].tolist() == [0, 1, 0, 1, 0, 1]


def test_optical_transfer(original):
    expected = [0.8085086872, 0.5101323112, 0.3692428869, 0.272968472, 0.1834159436]
    np.testing.assert_allclose(optics.mtf(np.array([1.0, 4, 8, 16, 30])), expected, rtol=1e-9)
    transfer = optics.mtf(optics.frequencies(96, 128, jnp.asarray(original['a_ppd'])))
    close(transfer[0], original['a_mtf_row1'][:129], 1e-14)


def test_surrounded_filter_is_a_filter_in_a_larger_image():
    image, fill = random(11, 14), 0.3
    transfer = optics.mtf(np.hypot(30 * np.fft.fftfreq(22)[:, None], 30 * np.fft.fftfreq(28)[None]))
    large = np.full((22, 28), fill)
    large[:11, :14] = image
    expected = np.fft.ifft2(np.fft.fft2(large) * transfer).real[:11, :14]
    close(optics.surrounded_filter(jnp.asarray(image), transfer[:, :15], fill), expected, 1e-14)


def test_receptor_tables(original):
    tables = receptors.response_tables()
    close(tables.cones, original['pn_jnd_cone'], 1e-14)
    close(tables.rods, original['pn_jnd_rod'], 1e-14)
    close(receptors.receptor_matrix('sRGB-display'), original['a_M_img_lmsr'][:, [0, 1, 3]], 1e-15)
    assert receptors.receptor_matrix('luminance').shape == (1, 3)


def test_look_up_is_linear_interpolation_with_held_ends():
    table, at = random(256), np.linspace(-6, 6, 1001)
    expected = np.interp(at, np.linspace(-5, 5, 256), table)
    close(receptors.look_up(jnp.asarray(table), jnp.asarray(at)), expected, 1e-12)


@pytest.mark.parametrize('name, key', [('pred', 'test'), ('gt', 'reference')])
def test_achromatic_response(original, name, key):
    image = np.load(FOLDER / '02_intermediate_nancy_96x128.npz')[name].astype(np.float64)
    light = display.displayed(jnp.asarray(image), 'sRGB-display')
    transfer = optics.mtf(optics.frequencies(96, 128, jnp.asarray(original['a_ppd'])))
    retinal = optics.retinal_image(optics.scattered(light, transfer, optics.SURROUND))
    matrix = receptors.receptor_matrix('sRGB-display')
    response, luminance = receptors.achromatic_response(retinal, matrix, receptors.response_tables())
    np.testing.assert_allclose([summary(c) for c in light], original[f'a_{key}_img_stats'], rtol=1e-12)
    np.testing.assert_allclose([summary(c) for c in retinal], original[f'a_{key}_L_O_stats'], rtol=1e-11)
    np.testing.assert_allclose(summary(luminance), original[f'a_{key}_L_adapt_stats'], rtol=1e-11)
    close(response, original[f'a_{key}_P'])


def test_band_sizes():
    assert len(pyramid.band_sizes(1000, 1500)) == 8 and pyramid.band_sizes(1000, 1500)[-1] == (16, 24)
    assert pyramid.band_sizes(17, 100) == [(17, 100), (17, 100), (9, 50)]
    assert pyramid.band_sizes(67, 67) == [(67, 67), (67, 67), (34, 34), (17, 17)]  # 67 // 4 is too small


def test_fast_lengths_are_even_and_smooth():
    assert [pyramid.fast_length(n) for n in (2, 17, 1015, 1030, 1524)] == [2, 18, 1024, 1080, 1536]


def direct_bands(image):
    """The pyramid by direct correlation; 'mirror' reflects without repeating the edge."""
    filters = {name: stored.load_table(name) for name in stored.SOURCES if name.startswith('sp3')}

    def correlate(x, name):
        return ndimage.correlate(x, filters[name], mode='mirror')

    bands, low = [correlate(image, 'sp3_hi0filt_15x15.csv')[None]], correlate(image, 'sp3_lo0filt_9x9.csv')
    for _ in range(len(pyramid.band_sizes(*image.shape)) - 2):
        bands.append(np.stack([correlate(low, f'sp3_bfilt{o}_9x9.csv') for o in (1, 2, 3, 4)]))
        low = correlate(low, 'sp3_lofilt_17x17.csv')[::2, ::2]
    return [*bands, low[None]]


def direct_image(bands):
    def convolve(x, name):
        return ndimage.convolve(x, stored.load_table(name), mode='mirror')

    image = bands[-1][0]
    for band in bands[-2:0:-1]:
        upsampled = np.zeros(band.shape[1:])
        upsampled[::2, ::2] = image
        image = convolve(upsampled, 'sp3_lofilt_17x17.csv')
        image = image + sum(convolve(band[o], f'sp3_bfilt{o + 1}_9x9.csv') for o in range(4))
    return convolve(image, 'sp3_lo0filt_9x9.csv') + convolve(bands[0][0], 'sp3_hi0filt_15x15.csv')


@pytest.mark.parametrize('shape', SHAPES)
def test_pyramid_is_what_direct_filters_give(shape):
    image, filters = random(*shape), pyramid.pyramid_filters()
    bands, expected = decompose(jnp.asarray(image), filters), direct_bands(image)
    assert [band.shape[1:] for band in bands] == pyramid.band_sizes(*shape)
    for found, band in zip(bands, expected, strict=True):
        close(found, band, 1e-13)
    close(reconstruct(bands, filters), direct_image(expected), 1e-13)


def test_pyramid_of_the_original(original):
    filters = pyramid.pyramid_filters()
    bands = decompose(jnp.asarray(original['a_reference_P']), filters)
    close(bands[1][0], original['a_reference_band2'], 1e-12)
    close(bands[2][0], original['a_reference_band6'], 1e-12)
    close(bands[-1][0], original['a_reference_BB_in'], 1e-12)


def test_neural_csf(original):
    at = np.array([1.0, 4, 8, 16])
    expected = [0.7528656645, 1.634488015, 1.123803648, 0.4853172271]
    np.testing.assert_allclose(csf.neural_csf(at, 2.0), expected, rtol=1e-9)
    expected = [1.189412306, 0.576469044, 0.1991290122, 0.05346398158]
    np.testing.assert_allclose(csf.neural_csf(at, -1.0), expected, rtol=1e-9)
    assert csf.neural_csf(np.zeros(1), 2.0) == 0
    frequency = pyramid.band_frequencies(5, original['a_ppd'])
    close(frequency, original['a_band_freq'], 1e-15)
    close(csf.sensitivity_tables(frequency).T, original['a_CSF'], 1e-14)


@pytest.mark.parametrize('key', ['test', 'reference'])
def test_base_band(original, key):
    surround, luminance = original['a_bb_padvalue'], original[f'a_{key}_L_mean']
    base = jnp.asarray(original[f'a_{key}_BB_in'])
    found = csf.filter_base_band(base, luminance, jnp.asarray(original['a_band_freq'][-1]), surround)
    close(found, original[f'a_{key}_BB_out'], 1e-12)


def direct_resize(line, target):
    """One line by the definition: every integer within reach, mirrored, weights divided by their sum."""
    length = len(line)
    scale = target / length
    narrowing, result = min(scale, 1.0), []
    for k in range(1, target + 1):
        u = k / scale + (1 - 1 / scale) / 2
        taps = range(math.ceil(u - 2 / narrowing), math.floor(u + 2 / narrowing) + 1)
        weights = [bicubic(narrowing * (u - i)) for i in taps]
        mirrored = [(i - 1) % (2 * length) for i in taps]
        values = [line[i if i < length else 2 * length - 1 - i] for i in mirrored]
        result.append(np.dot(weights, values) / np.sum(weights))
    return np.array(result)


@pytest.mark.parametrize('length, target', [(40, 20), (41, 21), (20, 40), (21, 41), (100, 7), (9, 17)])
def test_resize_is_imresize(length, target):
    image = random(length, 6)
    found = resize(jnp.asarray(image), resize_weights(image.shape, (target, 6)))
    expected = np.stack([direct_resize(column, target) for column in image.T], 1)
    close(found, expected, 1e-13)
    stack = jnp.asarray(np.stack([image.T, 2 * image.T]))
    across = resize(stack, resize_weights(image.T.shape, (6, target)))
    close(across, np.stack([expected.T, 2 * expected.T]), 1e-13)


def test_resize_to_the_same_size_is_the_same_image():
    image = random(9, 12)
    assert np.array_equal(resize(image, resize_weights((9, 12), (9, 12))), image)


def test_bicubic_kernel_sums_to_one():
    assert bicubic(np.array([0.0, 1, 2, 3])).tolist() == [1, 0, 0, 0]
    shifted = np.arange(-3, 4) + 0.3
    assert bicubic(shifted).sum() == pytest.approx(1)


def test_mutual_mask_counts_zeros_beyond_the_border():
    test, reference = random(4, 9, 11), random(4, 9, 11)[::-1]
    smaller = np.minimum(abs(test), abs(reference))
    expected = np.stack([ndimage.uniform_filter(s, 3, mode='constant') for s in smaller])
    close(masking.mutual_mask(jnp.asarray(test), jnp.asarray(reference)), expected, 1e-13)


def test_bands_that_hide_nothing_are_powers_of_the_difference():
    difference, sensitivity = jnp.asarray(random(1, 20, 20)), jnp.full((20, 20), 0.5)
    masks = [jnp.zeros((o, 20, 20)) for o in (1, 4, 1)]
    sizes = masking.Sizes([()] * 2, [()] * 2)
    found = masking.threshold_units([difference] * 3, masks, [sensitivity] * 2, sizes)
    for nu, s, band in zip((1, 2, 4), (0.5, 0.5, 1), found):
        x = np.asarray(difference) * s / nu
        expected = nu * np.sign(x) * abs(x) ** masking.P
        np.testing.assert_allclose(band, np.broadcast_to(expected, band.shape), rtol=1e-12)


def test_quality_of_the_original(original):
    rows, columns = original['a_rows'], original['rows_columns'].tolist()
    msre, band = rows[:, columns.index('msre')], rows[:, 0]
    errors = [msre[band == b] for b in np.unique(band)]
    found = pooling.quality(errors, original['a_band_freq'])
    assert found == pytest.approx(float(original['a_Q']), abs=1e-10)


def test_the_map_of_the_original(original):
    p_map, c_max = pooling.detection_map(jnp.asarray(original['a_S_map0']))
    np.testing.assert_allclose(summary(p_map), original['a_P_map_stats'], rtol=1e-12, atol=1e-15)
    assert float(c_max) == pytest.approx(float(original['a_C_max']), rel=1e-12)
    p_map, c_max = pooling.detection_map(jnp.zeros((5, 6)))
    assert not np.asarray(p_map).any() and c_max == 0
