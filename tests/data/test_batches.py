"""batches: crops against a slow twin, epochs, shards, resuming, augmentation, memory."""

import itertools
import json
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from afunet_jax import hdr, image_io
from afunet_jax.data import batches
from afunet_jax.data.scenes import Scene, SceneFiles, read_scene
from afunet_jax.errors import ConfigError, DataError

SIZE = 16
RECIPE = {'crop_size': SIZE, 'crops_per_scene': 5, 'augmentation': 'flips_and_rotations', 'seed': 443}


def make_scene(name, height, width, evs=(0.0, 2.0, 4.0), seed=0, exact=True):
    rng = np.random.default_rng((seed, height, width))
    label = rng.random((height, width, 3), dtype=np.float32)
    if exact:
        label = image_io.from_rgbe(image_io.to_rgbe(label))
    ldrs = rng.integers(0, 2**16, (3, height, width, 3), dtype=np.uint16)
    return Scene(name, ldrs, np.array(evs, np.float32), label)


SCENES = [
    make_scene('a', 31, 40),
    make_scene('b', 16, 52, evs=(0.0, 3.0, 6.0)),
    make_scene('c', 27, 16, evs=(-1.7, 0.33, 2.9), exact=False),
]


@pytest.fixture(scope='module')
def store():
    return batches.SceneStore(SCENES)


def slow_crop(scene, draw, size):
    """The twin: decodes the whole scene, then crops, flips and turns with NumPy's own functions."""
    whole = {'input': hdr.network_input(hdr.decode_ldr(scene.ldrs), scene.evs), 'label': scene.label}
    crop = {}
    for key, image in whole.items():
        image = image[draw['top'] :, draw['left'] :][:size, :size]
        image = {0: lambda x: x, 1: np.flipud, 2: np.fliplr}[draw['flip']](image)
        crop[key] = np.rot90(image, draw['turns'])
    return crop


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for key in batch:
        np.testing.assert_array_equal(batch[key], other[key], strict=True)


def take(count, iterator):
    return list(itertools.islice(iterator, count))


# ---- crops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('augmentation', batches.AUGMENTATIONS)
def test_batches_equal_the_slow_twin(store, augmentation):
    recipe = RECIPE | {'augmentation': augmentation}
    draws = batches.CropDraws(store, **recipe)
    index = itertools.count()
    iterator = batches.train_batches(store, batch_size=6, **recipe)
    for batch in take(5, iterator):
        assert batch['input'].shape == (6, SIZE, SIZE, 18) and batch['input'].dtype == np.float32
        assert batch['label'].shape == (6, SIZE, SIZE, 3) and batch['label'].dtype == np.float32
        for row in range(6):
            draw = draws[next(index)]
            expected = slow_crop(SCENES[draw['scene']], draw, SIZE)
            np.testing.assert_array_equal(batch['input'][row], expected['input'])
            np.testing.assert_array_equal(batch['label'][row], expected['label'])


@pytest.mark.parametrize('ev', [0.0, 2.0, 6.0, -3.0, 0.37, 11.9])
def test_the_table_is_the_formula_for_every_stored_value(ev):
    stored = np.arange(2**16, dtype=np.uint16)
    time_ = hdr.exposure_time(np.float32(ev))
    shuffled = np.random.default_rng(0).permutation(stored).reshape(64, 1024)
    expected = hdr.to_radiance(hdr.decode_ldr(shuffled), time_)
    np.testing.assert_array_equal(batches._radiance_table(float(time_))[shuffled], expected, strict=True)


def test_a_crop_of_a_scene_on_disk_is_the_releases(golden):
    folder = golden / 'scene' / '001'
    ldrs = tuple(sorted(folder.glob('*.tif')))
    files = SceneFiles('001', ldrs, folder / 'exposure.txt', folder / 'HDRImg.hdr')
    store = batches.SceneStore([read_scene(files)])
    release = np.load(golden / 'scene.npz')
    channels, label = (release[key].transpose(1, 2, 0) for key in ('inputs', 'label'))
    size = min(store.size(0))
    draw = {key: np.array([0]) for key in ('scene', 'top', 'left', 'flip', 'turns')}
    batch = store.cut(draw, size)
    np.testing.assert_array_equal(batch['label'][0], label[:size, :size])
    # NumPy's power differs between processors, by one unit in the last place.
    np.testing.assert_array_max_ulp(batch['input'][0], channels[:size, :size], maxulp=1)


def test_label_and_exposures_move_together():
    scene = make_scene('a', 40, 33)
    first = hdr.decode_ldr(scene.ldrs[0])
    scene = Scene('a', np.stack([scene.ldrs[0]] * 3), scene.evs, first)
    iterator = batches.train_batches(batches.SceneStore([scene]), batch_size=32, **RECIPE)
    batch = next(iterator)
    for exposure in range(3):
        ldr = batch['input'][..., 6 * exposure + 3 : 6 * exposure + 6]
        np.testing.assert_array_equal(ldr, batch['label'])


# ---- what is drawn ----------------------------------------------------------------------------------


def assert_frequencies(values, expected):
    """No value outside `expected`, and each within five standard deviations of its probability."""
    values = list(values)
    assert set(values) == set(expected)
    for value, probability in expected.items():
        deviation = (len(values) * probability * (1 - probability)) ** 0.5
        assert abs(values.count(value) - len(values) * probability) <= 5 * deviation


HALF = {0: 1 / 2, 1: 1 / 4, 2: 1 / 4}


@pytest.mark.parametrize('augmentation, flips, turns', [
    ('none', {0: 1}, {0: 1}),
    ('flips', HALF, {0: 1}),
    ('flips_and_rotations', HALF, dict.fromkeys(range(4), 1 / 4)),
])
def test_augmentations_have_their_frequencies(store, augmentation, flips, turns):
    draws = batches.CropDraws(store, **RECIPE | {'augmentation': augmentation})
    drawn = [draws[g] for g in range(4000)]
    joint = {(flip, turn): p * q for flip, p in flips.items() for turn, q in turns.items()}
    assert_frequencies([(draw['flip'], draw['turns']) for draw in drawn], joint)


@pytest.mark.parametrize('augmentation, expected', [
    ('none', {0: 1}),
    ('flips', {0: 1 / 2, 4: 1 / 4, 6: 1 / 4}),
    ('flips_and_rotations', dict.fromkeys(range(8), 1 / 8)),
])
def test_pixels_show_exactly_the_allowed_orientations(augmentation, expected):
    scene = make_scene('a', SIZE, SIZE)  # no choice of position: only the orientation differs
    group = [np.rot90(image, turns) for image in (scene.label, np.flipud(scene.label)) for turns in range(4)]
    store = batches.SceneStore([scene])
    iterator = batches.train_batches(store, batch_size=400, **RECIPE | {'augmentation': augmentation})
    labels = np.concatenate([batch['label'] for batch in take(4, iterator)])
    found = [[np.array_equal(label, image) for image in group].index(True) for label in labels]
    assert_frequencies(found, expected)


def test_positions_are_uniform_and_reach_every_edge(store):
    draws = batches.CropDraws(store, **RECIPE | {'crops_per_scene': 1000})
    drawn = [draw for g in range(12000) if (draw := draws[g])['scene'] == 0]
    assert_frequencies([draw['top'] for draw in drawn], dict.fromkeys(range(31 - SIZE + 1), 1 / 16))
    assert_frequencies([draw['left'] for draw in drawn], dict.fromkeys(range(40 - SIZE + 1), 1 / 25))


def test_every_scene_is_drawn_equally_often_in_every_epoch_and_epochs_differ(store):
    draws = batches.CropDraws(store, **RECIPE)
    epochs = [[draws[15 * epoch + i] for i in range(15)] for epoch in range(6)]
    orders = [tuple(draw['scene'] for draw in epoch) for epoch in epochs]
    for order in orders:
        assert sorted(order) == [0] * 5 + [1] * 5 + [2] * 5
    assert len(set(orders)) == 6
    crops = [tuple(sorted(draw.items())) for epoch in epochs for draw in epoch if draw['scene'] == 0]
    assert len(set(crops)) > 25  # of 30: positions are drawn anew


def test_an_incomplete_batch_is_carried_into_the_next_epoch(store):
    recipe = RECIPE | {'augmentation': 'none'}
    draws = batches.CropDraws(store, **recipe)
    carried = take(15, batches.train_batches(store, batch_size=4, **recipe))
    rows = [row for batch in carried for row in batch['label']]
    order = [draws[g]['scene'] for g in range(60)]
    for epoch in range(4):  # 15 crops each: batches 3, 7 and 11 span two epochs
        assert sorted(order[15 * epoch : 15 * epoch + 15]) == [0] * 5 + [1] * 5 + [2] * 5
    for g, row in enumerate(rows):
        np.testing.assert_array_equal(row, slow_crop(SCENES[order[g]], draws[g], SIZE)['label'])


def test_a_seed_repeats_itself_and_others_differ(store):
    def labels(seed):
        iterator = batches.train_batches(store, batch_size=15, **RECIPE | {'seed': seed})
        return [batch['label'] for batch in take(4, iterator)]

    first, again, other = labels(1), labels(1), labels(2)
    np.testing.assert_array_equal(first, again)
    assert not any(np.array_equal(a, b) for a in first for b in other)


def test_neighbouring_seeds_share_no_order(store):
    recipe = RECIPE | {'crops_per_scene': 20}

    def orders(seed):
        draws = batches.CropDraws(store, **recipe | {'seed': seed})
        return {tuple(draws[60 * epoch + i]['scene'] for i in range(60)) for epoch in range(4)}

    assert not orders(7) & orders(8)


def test_one_crop_of_one_scene_per_epoch_works():
    store = batches.SceneStore(SCENES[:1])
    iterator = batches.train_batches(store, batch_size=3, **RECIPE | {'crops_per_scene': 1})
    assert next(iterator)['input'].shape == (3, SIZE, SIZE, 18)


# ---- processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize('count', [1, 2, 4])
def test_shards_concatenated_are_the_global_batches(store, count):
    whole = batches.train_batches(store, batch_size=8, **RECIPE)
    shards = [batches.train_batches(store, batch_size=8, process_index=p, process_count=count, **RECIPE)
              for p in range(count)]
    for _ in range(7):
        parts = [next(shard) for shard in shards]
        assert all(len(part['input']) == 8 // count for part in parts)
        assert_same(next(whole), {key: np.concatenate([part[key] for part in parts]) for key in parts[0]})


def test_threads_change_nothing(store):
    options = [(0, 0), (1, 1), (4, 9)]
    streams = [
        take(9, batches.train_batches(store, batch_size=4, num_threads=n, prefetch_batches=m, **RECIPE))
        for n, m in options]
    for one, two, three in zip(*streams):
        assert_same(one, two)
        assert_same(one, three)


# ---- resuming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('threads', [0, 3])
@pytest.mark.parametrize('process', [(0, 1), (1, 2)])
def test_a_saved_position_goes_on_where_it_was(store, threads, process):
    def begin(**kwargs):
        return batches.train_batches(store, batch_size=4, num_threads=threads, process_index=process[0],
                                     process_count=process[1], **RECIPE, **kwargs)

    reference = take(20, begin())
    iterator = begin()
    take(7, iterator)
    saved = json.dumps(iterator.get_state())
    fresh = begin()
    take(3, fresh)  # has batches in flight
    fresh.set_state(json.loads(saved))
    iterator.set_state(json.loads(saved))
    for step in range(7, 20):
        assert_same(next(fresh), reference[step])
        assert_same(next(iterator), reference[step])
    assert fresh.get_state()['step'] == 20
    for step in (0, 1, 9, 19):
        assert_same(next(begin(start_step=step)), reference[step])
    assert begin(start_step=9).get_state()['step'] == 9


def test_a_position_can_be_restored_by_another_number_of_processes(store):
    whole = batches.train_batches(store, batch_size=4, **RECIPE)
    take(5, whole)
    half = batches.train_batches(store, batch_size=4, process_index=1, process_count=2, **RECIPE)
    half.set_state(whole.get_state())
    np.testing.assert_array_equal(next(half)['input'], next(whole)['input'][2:])


def test_a_late_start_takes_no_longer(store):
    begun = time.monotonic()
    iterator = batches.train_batches(store, batch_size=4, start_step=10**9, **RECIPE)
    assert next(iterator)['input'].shape == (4, SIZE, SIZE, 18)
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize('change', [
    {'batch_size': 8}, {'crop_size': 8}, {'crops_per_scene': 6}, {'augmentation': 'none'}, {'seed': 1}])
def test_a_position_of_other_training_data_is_refused(store, change):
    state = batches.train_batches(store, **{'batch_size': 4} | RECIPE).get_state()
    other = batches.train_batches(store, **{'batch_size': 4} | RECIPE | change)
    (key,) = change
    with pytest.raises(ConfigError, match=key):
        other.set_state(state)


def test_a_position_of_other_scenes_is_refused(store):
    state = batches.train_batches(store, batch_size=4, **RECIPE).get_state()
    other = batches.train_batches(batches.SceneStore(SCENES[::-1]), batch_size=4, **RECIPE)
    with pytest.raises(ConfigError, match='scenes was'):
        other.set_state(state)


@pytest.mark.parametrize('change', [
    {'stream': None}, {'stream': 7}, {'stream': [1]}, {'step': None}, {'step': 'x'}, {'step': 1.5}], ids=str)
def test_a_position_that_is_none_is_refused(store, change):
    iterator = batches.train_batches(store, batch_size=4, **RECIPE)
    state = {key: value for key, value in (iterator.get_state() | change).items() if value is not None}
    with pytest.raises(ConfigError, match='none that this project writes'):
        iterator.set_state(state)


def test_close_ends_threads_and_stream_and_set_state_reopens_it(store):
    before = set(threading.enumerate())
    iterator = batches.train_batches(store, batch_size=4, **RECIPE)
    first = next(iterator)
    for _ in range(20):
        iterator.set_state(iterator.get_state())  # each opens threads anew
        next(iterator)
    assert set(threading.enumerate()) - before
    iterator.close()
    deadline = time.monotonic() + 10.0
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
    iterator.close()
    with pytest.raises(ValueError):
        next(iterator)
    iterator.set_state(iterator.get_state() | {'step': 0})
    assert_same(next(iterator), first)


# ---- the store --------------------------------------------------------------------------------------


def test_labels_are_bytes_only_where_that_is_exact():
    huge = make_scene('d', 20, 20)
    huge.label[0, 0, 0] = 3e38
    store = batches.SceneStore([*SCENES, huge])
    assert store.names == ['a', 'b', 'c', 'd']
    assert store.nbytes == (31 * 40 + 16 * 52) * (18 + 4) + (27 * 16 + 20 * 20) * (18 + 12)
    draw = dict(scene=3, top=0, left=0, flip=0, turns=0)
    batch = store.cut({key: np.array([value]) for key, value in draw.items()}, 20)
    np.testing.assert_array_equal(batch['label'][0], huge.label)


def test_scenes_are_taken_one_at_a_time():
    labels = []

    def scenes():
        for i in range(4):
            assert sum(reference() is not None for reference in labels) <= 1
            scene = make_scene(f's{i}', 20, 20, seed=i)
            labels.append(weakref.ref(scene.label))
            yield scene
            del scene

    assert len(batches.SceneStore(scenes())) == 4


# ---- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('change, message', [
    ({'augmentation': 'flip'}, 'flips_and_rotations'),
    ({'crop_size': 0}, 'crop_size'),
    ({'crops_per_scene': 0}, 'crops_per_scene'),
    ({'seed': -1}, 'seed'),
    ({'batch_size': 0}, 'batch_size'),
    ({'start_step': -1}, 'step'),
    ({'process_index': 2, 'process_count': 2}, 'process_index'),
    ({'num_threads': 4, 'prefetch_batches': 2}, 'prefetch_batches'),
    ({'num_threads': -1}, 'num_threads'),
])
def test_arguments_out_of_range_are_errors(store, change, message):
    with pytest.raises(ConfigError, match=message):
        batches.train_batches(store, **{'batch_size': 4} | RECIPE | change)


def test_a_batch_that_does_not_divide_says_what_would(store):
    with pytest.raises(ConfigError, match='batch of 4 or 8.*processes: 1, 2, 3, 6'):
        batches.train_batches(store, batch_size=6, process_count=4, **RECIPE)
    with pytest.raises(ConfigError, match='batch of 4, or'):
        batches.train_batches(store, batch_size=2, process_count=4, **RECIPE)


def test_scenes_smaller_than_the_crop_are_all_named(store):
    with pytest.raises(DataError, match=r'b \(16x52\), c \(27x16\)'):
        batches.train_batches(store, batch_size=4, **RECIPE | {'crop_size': 17})


def test_training_needs_labels_and_scenes():
    with pytest.raises(DataError, match='Scene x has no ground truth'):
        batches.SceneStore([Scene('x', SCENES[0].ldrs, SCENES[0].evs, None)])
    with pytest.raises(DataError, match='at least one scene'):
        batches.SceneStore([])


# ---- size -------------------------------------------------------------------------------------------

_LARGE = '''
import resource
import numpy as np
from afunet_jax import image_io
from afunet_jax.data import batches
from afunet_jax.data.scenes import Scene

def scenes():
    rng = np.random.default_rng(0)
    for i in range(74):
        label = image_io.from_rgbe(image_io.to_rgbe(rng.random((1000, 1500, 3), dtype=np.float32)))
        ldrs = rng.integers(0, 2 ** 16, (3, 1000, 1500, 3), dtype=np.uint16)
        yield Scene(str(i), ldrs, np.array([0, 2, 4], np.float32), label)

store = batches.SceneStore(scenes())
iterator = batches.train_batches(store, batch_size=6, crop_size=128, crops_per_scene=100,
                                 augmentation='flips', seed=443)
for _ in range(50):
    next(iterator)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20)
'''


@pytest.mark.slow
def test_74_scenes_of_1000x1500_fit_in_4_gb():
    done = subprocess.run([sys.executable, '-c', _LARGE], capture_output=True, text=True, check=True)
    gigabytes = float(done.stdout)
    sys.stderr.write(f'peak {gigabytes} GB\n')
    assert 2.2 < gigabytes < 3.8  # peak, while loading and training
