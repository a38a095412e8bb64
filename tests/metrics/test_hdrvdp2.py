"""HDR-VDP-2 against the original code's numbers, its properties, and its errors."""

import csv
import dataclasses
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics import Viewing, hdrvdp2, hdrvdp2_batch
from afunet_jax.metrics.hdrvdp2 import PRESETS

FOLDER = pathlib.Path(__file__).parents[1] / 'golden' / 'hdrvdp'
QUICK = '01', '02', '12'  # every size compiles anew
PRESET = {
    'a': 'sctnet',
    'b': 'safnet',
    'c': 'bt709-1000',
    'd': Viewing(encoding='luminance', pixels_per_degree=30.0, scale=1000.0),
}


def load_pair(name):
    images = np.load(FOLDER / f'{name}.npz')
    return images['pred' if 'pred' in images else 'gt'], images['gt']


def rows(quick):
    with open(FOLDER / 'reference.csv') as file:
        for row in csv.DictReader(file):
            marks = [] if row['pair'][:2] in quick else [pytest.mark.slow]
            numbers = {key: float(value) for key, value in row.items() if key not in ('pair', 'preset')}
            name = f'{row["pair"][:2]}-{row["preset"]}'
            yield pytest.param(row['pair'], PRESET[row['preset']], numbers, marks=marks, id=name)


@pytest.fixture(scope='module')
def pair():
    return load_pair('02_intermediate_nancy_96x128')


def same(one, other):
    return one.q == other.q and one.c_max == other.c_max and np.array_equal(one.p_map, other.p_map)


@pytest.mark.parametrize('name, preset, expected', rows(QUICK))
def test_agrees_with_the_original(name, preset, expected):
    found = hdrvdp2(*load_pair(name), preset, precision='float64')
    assert found.pixels_per_degree == pytest.approx(expected['ppd'], rel=1e-13)
    assert found.q == pytest.approx(expected['Q'], abs=1e-8)
    assert found.c_max == pytest.approx(expected['C_max'], rel=1e-8)
    assert found.p_det == pytest.approx(expected['P_det'], abs=1e-8)
    assert found.p_map.max() == found.p_det
    assert found.p_map.mean() == pytest.approx(expected['P_map_mean'], abs=1e-9)


@pytest.mark.parametrize('name, preset, expected', rows(['02']))
def test_float32_agrees_within_its_bar(name, preset, expected):
    found = hdrvdp2(*load_pair(name), preset, precision='float32')
    assert found.p_map.dtype == np.float32
    assert found.q == pytest.approx(expected['Q'], abs=2e-3)
    assert found.c_max == pytest.approx(expected['C_max'], rel=1e-3)
    assert found.p_map.mean(dtype=np.float64) == pytest.approx(expected['P_map_mean'], abs=1e-4)


def test_says_what_it_measured(pair):
    found = hdrvdp2(*pair)
    assert found.preset == 'sctnet' and found.viewing == PRESETS['sctnet'] and found.precision == 'float64'
    assert found.p_map.shape == (96, 128) and found.p_map.dtype == np.float64
    assert 0 <= found.p_map.min() and found.p_det == found.p_map.max() <= 1
    assert all(isinstance(value, float) for value in (found.q, found.p_det, found.c_max))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.q = 0.0


def test_free_settings_equal_to_a_preset_carry_its_name(pair):
    free = Viewing(diagonal_inch=30.0, resolution=(1500, 1000), distance_m=0.55)
    found = hdrvdp2(*pair, free)
    assert found.preset == 'sctnet' and same(found, hdrvdp2(*pair, 'sctnet'))
    assert hdrvdp2(*pair, dataclasses.replace(free, distance_m=0.5)).preset == 'custom'


@pytest.mark.parametrize('precision', ['float64', 'float32'])
@pytest.mark.parametrize('preset', PRESETS)
def test_equal_images_are_perfect_to_the_bit(pair, preset, precision):
    found = hdrvdp2(pair[0], pair[0], preset, precision)
    assert found.q == 100 and found.p_det == 0 and found.c_max == 0 and not found.p_map.any()


def test_selfhdr_swaps_the_arguments(pair):
    prediction, ground_truth = pair
    plain = Viewing(diagonal_inch=24.0, distance_m=0.5)
    found = hdrvdp2(prediction, ground_truth, 'selfhdr')
    assert same(found, hdrvdp2(ground_truth, prediction, plain))
    assert not same(found, hdrvdp2(prediction, ground_truth, plain))
    assert found.q == pytest.approx(hdrvdp2(prediction, ground_truth, plain).q, abs=1e-2)


def test_peak_is_a_scale_of_both_images(pair):
    prediction, ground_truth = pair
    free = dataclasses.replace(PRESETS['bt709-1000'], peak=None, scale=1000 / float(ground_truth.max()))
    assert hdrvdp2(*pair, 'bt709-1000').q == pytest.approx(hdrvdp2(*pair, free).q, abs=1e-9)
    halved = hdrvdp2(prediction / 2, ground_truth / 2, 'bt709-1000')
    assert halved.q == pytest.approx(hdrvdp2(*pair, 'bt709-1000').q, abs=1e-9)


def test_more_noise_is_worse(pair):
    ground_truth = pair[1]
    noise = np.random.default_rng(0).standard_normal(ground_truth.shape).astype(np.float32)
    found = [hdrvdp2(ground_truth * (1 + level * noise), ground_truth) for level in (0.003, 0.01, 0.03, 0.1)]
    qualities, contrasts = [f.q for f in found], [f.c_max for f in found]
    assert qualities == sorted(qualities, reverse=True) and qualities[0] - qualities[-1] > 5
    assert contrasts == sorted(contrasts)


def test_the_map_points_at_the_error(pair):
    ground_truth = pair[1]
    prediction = ground_truth.copy()
    prediction[40:56, 60:76] *= 1.5
    p_map = hdrvdp2(prediction, ground_truth).p_map
    y, x = np.unravel_index(p_map.argmax(), p_map.shape)
    assert 38 <= y < 58 and 58 <= x < 78 and p_map[y, x] > 0.3
    far = np.concatenate([p_map[:20], p_map[-20:]])
    assert far.mean() < p_map[40:56, 60:76].mean() / 100


def test_float64_input_keeps_its_digits(pair):
    prediction, ground_truth = (image.astype(np.float64) for image in pair)
    assert same(hdrvdp2(prediction, ground_truth), hdrvdp2(*pair))
    tiny = hdrvdp2(ground_truth * (1 + 1e-9), ground_truth)  # below float32
    assert 0 < tiny.c_max < 1e-6 and tiny.q == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize('workers', [1, 2, 3])
def test_a_batch_equals_its_pairs_to_the_bit(pair, workers):
    prediction, ground_truth = pair
    predictions = np.stack([prediction, ground_truth, prediction[::-1], prediction[:, ::-1], prediction])
    truth = ground_truth
    ground_truths = np.stack([truth, truth, truth[::-1], truth[:, ::-1], truth])
    found = hdrvdp2_batch(predictions, ground_truths, workers=workers)
    assert len(found) == 5
    for one, p, g in zip(found, predictions, ground_truths):
        assert same(one, hdrvdp2(p, g))


def test_a_batch_may_be_read_lazily(pair):
    found = hdrvdp2_batch((image for image in [pair[0]] * 2), iter([pair[1]] * 2), 'safnet', 'float32')
    assert [f.preset for f in found] == ['safnet'] * 2 and same(*found)
    assert hdrvdp2_batch([], []) == []


def test_repeats_to_the_bit():
    pair = load_pair('01_ghost_nancy')
    first = hdrvdp2(*pair)
    assert all(same(first, hdrvdp2(*(image.copy() for image in pair))) for _ in range(8))


def test_leaves_the_precision_of_the_program_alone(pair):
    hdrvdp2(*pair)
    assert not jax.config.jax_enable_x64 and jnp.zeros(1, float).dtype == jnp.float32
    with jax.enable_x64(True):
        found = hdrvdp2(*pair, precision='float32')
        assert jnp.zeros(1, float).dtype == jnp.float64
    assert same(found, hdrvdp2(*pair, precision='float32'))


def test_takes_jax_arrays(pair):
    assert same(hdrvdp2(*map(jnp.asarray, pair)), hdrvdp2(*pair))


def image(value=0.5, shape=(20, 24, 3)):
    return np.full(shape, value, np.float32)


def spoilt(value):
    bad = image()
    bad[3, 4, 1] = value
    return bad


@pytest.mark.parametrize(
    'prediction, ground_truth, message',
    [
        (image(shape=(20, 24)), image(), r'prediction has the shape \[20, 24\]'),
        (image(), image(shape=(2, 20, 24, 3)), 'call hdrvdp2_batch'),
        (image(shape=(3, 20, 24)), image(), 'colours to the last axis'),
        (image(), image(shape=(24, 20, 3)), 'the same shape'),
        (image(shape=(16, 24, 3)), image(shape=(16, 24, 3)), 'at least 17x17 pixels.*16x24'),
        (image(shape=(24, 16, 3)), image(shape=(24, 16, 3)), 'at least 17x17'),
        (image().astype(np.uint8), image(), 'prediction holds uint8'),
        (spoilt(np.nan), image(), 'prediction holds 1 of 1440 values'),
        (image(), spoilt(np.inf), 'ground truth holds 1 of 1440'),
        (image(), spoilt(-0.25), 'cannot be negative.*-0.25'),
        (image(), image(0.0), 'zero everywhere'),
        (image(), image(200.0), r'ground truth reaches 200 .*8-bit values or cd/m2'),
        (image(255.0), image(), 'prediction reaches 255'),
    ],
)
def test_bad_images_are_refused(prediction, ground_truth, message):
    with pytest.raises(DataError, match=message):
        hdrvdp2(prediction, ground_truth)


def test_absolute_values_suit_the_absolute_preset():
    bright = image(200.0)
    assert hdrvdp2(bright, bright, 'bt709-1000').q == 100
    with pytest.raises(DataError, match='zero everywhere'):
        hdrvdp2(image(), image(0.0), 'bt709-1000')


def test_a_batch_names_the_bad_pair():
    with pytest.raises(DataError, match='Pair 2: .*zero everywhere'):
        hdrvdp2_batch([image()] * 3, [image(), image(), image(0.0)], workers=2)
    for predictions, ground_truths in (([image()], []), ([image()], [image()] * 2)):
        with pytest.raises(DataError, match='one of the two ends after'):
            hdrvdp2_batch(predictions, ground_truths)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'encoding': 'srgb', 'pixels_per_degree': 30.0}, "encoding is one of .*not 'srgb'"),
        ({}, 'either pixels_per_degree, or diagonal_inch and distance_m'),
        ({'diagonal_inch': 30.0}, 'either pixels_per_degree'),
        ({'pixels_per_degree': 30.0, 'distance_m': 0.5}, 'either pixels_per_degree'),
        ({'pixels_per_degree': 30.0, 'resolution': (15, 10)}, 'means nothing beside pixels_per_degree'),
        ({'pixels_per_degree': -1.0}, 'pixels_per_degree is a positive'),
        ({'diagonal_inch': float('nan'), 'distance_m': 0.5}, 'diagonal_inch is a positive'),
        ({'diagonal_inch': 30.0, 'distance_m': 0.5, 'resolution': (1500, 0)}, 'resolution is'),
        ({'pixels_per_degree': 30.0, 'scale': 0.0}, 'scale is a positive'),
        ({'pixels_per_degree': 30.0, 'scale': 2.0, 'peak': 5.0}, 'scale or peak, not both'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Viewing(**settings)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="called 'sctnett': choose one of sctnet, safnet"):
        hdrvdp2(image(), image(), 'sctnett')
    with pytest.raises(ConfigError, match="float64, float32, or None, not 'float16'"):
        hdrvdp2(image(), image(), precision='float16')
    with pytest.raises(ConfigError, match='at least 1, not 0'):
        hdrvdp2_batch([], [], workers=0)


@pytest.mark.slow
def test_full_size_is_fast_and_small():
    code = '''
import resource, time, numpy as np
from afunet_jax.metrics import hdrvdp2
rng = np.random.default_rng(0)
truth = rng.beta(0.5, 3, (1000, 1500, 3)).astype(np.float32)
prediction = truth + 0.01 * rng.standard_normal(truth.shape, np.float32)
hdrvdp2(prediction, truth, precision='float64')
start = time.process_time()
hdrvdp2(prediction, truth, precision='float64')
print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
'''
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=root, check=True)
    seconds, gigabytes = map(float, done.stdout.split())
    assert seconds < 8  # of all cores together; the original takes 12 on two
    assert gigabytes < 2.5
