import numpy as np
import pytest

from afunet_jax import hdr
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.outputs import colour, tonemapping

NAMES = list(tonemapping.OPERATORS)


def scene(height=96, width=128, stops=10, seed=0):
    """A smooth scene of so many stops, with colours, and a small lamp far above all else."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-stops / 2, stops / 2, width)[None, :, None] + np.linspace(-1, 1, height)[:, None, None]
    image = np.exp2(ramp + rng.normal(0, 0.2, (height, width, 3)) + np.array([0.2, 0, -0.2]))
    image[10:12, 10:12] = 2.0**stops
    return image.astype(np.float32)


@pytest.mark.parametrize('name', NAMES)
def test_the_picture_does_not_depend_on_the_scale(name):
    image = scene()
    expected = tonemapping.tone_map(image, name).astype(int)
    for scale in (2.0**-30, 3e-4, 700.0, 2.0**30):
        found = tonemapping.tone_map(image * np.float32(scale), name)
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('stops', [2, 6, 14])
def test_pictures_use_the_range_and_brighter_is_not_darker(name, stops):
    found = tonemapping.tone_map(scene(stops=stops), name)
    assert found.dtype == np.uint8 and found.shape == (96, 128, 3)
    brightest, contrast = (220, 30) if name == 'mu_law' else (190, 60)  # two stops are little to the mu-law
    assert 40 < found.mean() < brightest
    columns = found[20:].mean((0, 2))
    assert columns[-8:].mean() - columns[:8].mean() > contrast
    if name != 'fusion':  # a local operator may
        assert (np.diff(columns.reshape(16, 8).mean(1)) > -2).all()


@pytest.mark.parametrize('name', NAMES)
def test_a_few_huge_highlights_change_nothing(name):
    image = scene(240, 320)
    image[10:12, 10:12] = 1
    expected = tonemapping.tone_map(image, name).astype(int)
    image[100, 100:110] = 1e6
    found = tonemapping.tone_map(image, name)
    assert np.abs(found - expected)[120:].mean() < 3
    assert found[100, 104].min() > 230


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('value', [0.0, 1e-30, 0.5, 1e30, np.finfo(np.float32).max])
def test_images_of_one_value(name, value):
    with np.errstate(all='raise', under='ignore'):
        found = tonemapping.tone_map(np.full((16, 24, 3), value, np.float32), name)
    assert (found == found[0, 0]).all()
    assert (found == 0).all() if value == 0 else found.mean() > 60


@pytest.mark.parametrize('name', NAMES)
def test_mostly_black_images_show_what_is_there(name):
    image = np.zeros((128, 128, 3), np.float32)
    image[40:60, 40:60] = scene(20, 20, stops=4)
    found = tonemapping.tone_map(image, name)
    assert found[40:60, 40:60].mean() > 60 and found[:20].max() < 40


@pytest.mark.parametrize('name', NAMES)
def test_grey_stays_grey_and_colours_keep_their_order(name):
    grey = np.repeat(scene()[..., :1], 3, -1)
    assert np.ptp(tonemapping.tone_map(grey, name).astype(int), -1).max() <= 1
    found = tonemapping.tone_map(grey * np.float32([1.0, 0.5, 0.25]), name).astype(int)
    assert (found[..., 0] >= found[..., 1]).all() and (found[..., 1] >= found[..., 2]).all()


def test_negative_values_count_as_black():
    image = scene()
    cut = image.copy()
    image[3, 5], cut[3, 5] = -2, 0
    np.testing.assert_array_equal(tonemapping.tone_map(image), tonemapping.tone_map(cut))


def test_exposure_brings_a_middling_scene_to_middle_grey():
    light = np.exp2(np.linspace(-3, 3, 10001))[None, :, None] * np.ones(3)
    exposure = tonemapping.automatic_exposure(light.astype(np.float32))
    assert exposure == pytest.approx(tonemapping.MIDDLE_GREY, rel=1e-3)
    assert tonemapping.automatic_exposure((100 * light).astype(np.float32)) == pytest.approx(exposure / 100, rel=1e-3)


def test_a_low_key_stays_darker_than_a_high_key():
    key = {}
    for name, share in (('low', 0.9), ('high', 0.1)):
        image = np.where(np.arange(1000)[None, :, None] < 1000 * share, 0.01, 1.0) * np.ones(3)
        mean = np.exp(np.log(image).mean())
        key[name] = tonemapping.automatic_exposure(image.astype(np.float32)) * mean
    assert key['low'] < tonemapping.MIDDLE_GREY / 2 and key['high'] > 2 * tonemapping.MIDDLE_GREY


def test_reinhard_on_grey_is_the_formula():
    image = np.repeat(scene()[..., :1], 3, -1)
    light = image.astype(np.float64) * tonemapping.automatic_exposure(image)
    white = np.percentile(light[..., 0], tonemapping.WHITE_PERCENTILE)
    expected = np.minimum(light * (1 + light / white**2) / (1 + light), 1)
    expected = np.where(expected <= 0.0031308, 12.92 * expected, 1.055 * expected ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(tonemapping.reinhard(image), expected, atol=2e-5)


def test_mu_law_of_an_image_in_the_benchmarks_range_is_the_benchmarks():
    image = np.random.default_rng(0).random((50, 50, 3)).astype(np.float32)
    image[:10] = 1
    np.testing.assert_allclose(tonemapping.mu_law(image), hdr.mu_law(image), atol=1e-6)


def test_srgb_is_the_standards():
    codes = np.arange(256) / 255
    linear = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    np.testing.assert_array_equal(np.round(255 * colour.encode_srgb(linear)), np.arange(256))


@pytest.mark.parametrize('image, error, message', [
    (np.ones((4, 4), np.float32), DataError, r'not float32 \[4, 4\]'),
    (np.ones((4, 4, 3), np.uint8), DataError, 'not uint8'),
    (np.zeros((0, 4, 3), np.float32), DataError, r'\[0, 4, 3\]'),
    (np.full((4, 4, 3), np.nan, np.float32), DataError, '48 values are infinite, NaN'),
])  # fmt: skip
def test_wrong_images(image, error, message):
    with pytest.raises(error, match=message):
        tonemapping.tone_map(image)


def test_unknown_operators_are_told_the_known_ones():
    with pytest.raises(ConfigError, match='mu_law, reinhard, filmic, fusion, not .drago'):
        tonemapping.tone_map(scene(), 'drago')
