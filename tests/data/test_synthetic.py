"""Synthetic scenes: reproducible, of real dynamic range, saturation and motion, in Kalantari's layout."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from afunet_jax import hdr
from afunet_jax.data import synthetic
from afunet_jax.data.layouts import get_layout
from afunet_jax.data.scenes import find_scenes, read_scene
from afunet_jax.data.synthetic import folders, sensor
from afunet_jax.data.synthetic.__main__ import main
from afunet_jax.data.synthetic.textures import GREY_WEIGHTS
from afunet_jax.errors import DataError

SIZE = (96, 144)
KIND_COUNT = len(synthetic.KINDS)
MANY = range(2 * KIND_COUNT)


@pytest.fixture(scope='module')
def many():
    """Two scenes of every kind, with noise."""
    return [synthetic.make_scene(5, index, *SIZE, evs=None) for index in MANY]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three scenes on disk."""
    path = tmp_path_factory.mktemp('sets') / 'set'
    synthetic.write_scenes(path, 2, 1, 64, 96, seed=3, progress=None)
    return path


def saturated(ldr):
    return (ldr > hdr.SATURATED).any(-1)


@pytest.mark.parametrize('index', range(KIND_COUNT))
def test_same_arguments_give_the_same_bits(index):
    first = synthetic.make_scene(1, index, 64, 96)
    second = synthetic.make_scene(1, index, 64, 96)
    np.testing.assert_array_equal(first.ldrs, second.ldrs)
    np.testing.assert_array_equal(first.label, second.label)


def test_another_process_gives_the_same_bits():
    code = (
        'import zlib; from afunet_jax.data import synthetic;'
        's = synthetic.make_scene(1, 4, 64, 96); print(zlib.crc32(s.ldrs.tobytes() + s.label.tobytes()))'
    )
    run = lambda seed: (
        subprocess.run(
            [sys.executable, '-c', code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, 'PYTHONHASHSEED': seed},
        ).stdout
    )
    assert run('1') == run('2')


@pytest.mark.parametrize('other', [(1, 7), (2, 0)])
def test_seed_and_index_give_other_scenes_of_the_same_kind(other):
    assert 7 % KIND_COUNT == 0
    one, two = synthetic.make_scene(1, 0, 64, 96), synthetic.make_scene(*other, 64, 96)
    assert np.mean(np.abs(one.label - two.label)) > 0.02


def test_scenes_are_in_their_storage_types_and_ranges(many):
    for scene in many:
        assert scene.ldrs.shape == (3, *SIZE, 3) and scene.ldrs.dtype == np.uint16
        assert scene.label.shape == (*SIZE, 3) and scene.label.dtype == np.float32
        assert scene.evs.dtype == np.float32 and tuple(scene.evs.tolist()) in synthetic.EV_CHOICES
        assert np.isfinite(scene.label).all() and scene.label.min() >= 0 and scene.label.max() <= 1


def test_both_exposure_choices_occur(many):
    assert {tuple(scene.evs.tolist()) for scene in many} == set(synthetic.EV_CHOICES)


def test_a_tenth_to_three_tenths_of_the_middle_exposure_is_saturated(many):
    for scene in many:
        assert 0.10 <= saturated(scene.ldrs[1]).mean() <= 0.30, scene.name


def test_longer_exposures_saturate_more_and_the_short_one_hardly(many):
    for scene in many:
        short, middle, long = (saturated(ldr).mean() for ldr in scene.ldrs)
        assert short < middle < long, scene.name
        assert short < 0.09, scene.name


def test_the_long_exposure_lifts_the_darks(many):
    for scene in many:
        short, _, long = scene.ldrs
        dark = scene.label.max(-1) < np.quantile(scene.label.max(-1), 0.2)
        assert np.median(long[dark]) > 2 * np.median(short[dark]), scene.name


@pytest.mark.parametrize('index', range(KIND_COUNT))
def test_dynamic_range_is_14_stops(index):
    luminance = synthetic.render(5, index, 192, 288)[1] @ GREY_WEIGHTS
    dark, bright = np.percentile(luminance, [0.01, 99.99])
    assert np.log2(bright / dark) >= 14


@pytest.mark.parametrize('index', range(KIND_COUNT))
@pytest.mark.parametrize('evs', synthetic.EV_CHOICES)
def test_label_is_the_noiseless_middle_exposure_where_that_is_not_saturated(index, evs):
    scene = synthetic.make_scene(2, index, *SIZE, evs=evs, noise=synthetic.NOISELESS)
    expected = np.round((np.float64(scene.label) * 2.0 ** evs[1]).clip(0, 1) ** (1 / 2.2) * 65535)
    assert np.abs(expected - scene.ldrs[1]).max() <= 1  # half a step, and float32's rounding
    good = scene.ldrs[1] < 65535
    radiance = (scene.ldrs[1] / 65535.0) ** 2.2 / 2.0 ** evs[1]
    # Half a step of the 16 bits, carried through the power: d(x ** 2.2) = 2.2 x ** 1.2 dx.
    step = 2.2 * ((scene.ldrs[1] + 1) / 65535.0) ** 1.2 / 65535 / 2.0 ** evs[1]
    assert (np.abs(radiance - scene.label)[good] <= step[good]).all()
    assert (scene.label[~good] >= 0.999 * 2.0 ** -evs[1]).all()


def test_short_and_long_differ_from_the_middle_only_by_motion():
    still = synthetic.render(2, 0, *SIZE, motion=0.0)
    np.testing.assert_array_equal(still[0], still[1])
    np.testing.assert_array_equal(still[2], still[1])
    moving = synthetic.render(2, 0, *SIZE)
    tau = lambda x: hdr.mu_law(np.minimum(x, 1))
    for other in (0, 2):
        assert (np.abs(tau(moving[other]) - tau(moving[1])).max(-1) > 0.05).mean() > 0.02


def test_more_motion_makes_an_unaligned_merge_worse():
    errors = []
    for motion in (0.25, 1.0):
        frames = [synthetic.render(3, index, 64, 96, motion=motion) for index in range(KIND_COUNT)]
        frames = [hdr.mu_law(np.minimum(f, 1)) for f in frames]
        errors.append(np.mean([np.mean((f[0] - f[1]) ** 2 + (f[2] - f[1]) ** 2) for f in frames]))
    assert errors[0] < 0.7 * errors[1]


def test_noise_has_the_variance_of_photons_and_read_out():
    noise = synthetic.Noise(full_well=1000.0, read=5.0)
    stored = sensor.expose(np.random.default_rng(0), np.full((400, 400, 3), 0.25, np.float32), 2.0, noise)
    electrons = (stored / 65535.0) ** 2.2 * 1000
    assert abs(electrons.mean() - 500) < 0.3
    assert abs(electrons.var() / (500 + 25) - 1) < 0.02


@pytest.mark.parametrize('size', [(32, 32), (40, 200), (200, 40), (101, 67)])
def test_any_size_works(size):
    for index in range(KIND_COUNT):
        scene = synthetic.make_scene(0, index, *size)
        assert scene.label.shape == (*size, 3)
        assert 0.08 <= saturated(scene.ldrs[1]).mean() <= 0.32


def test_a_written_set_is_read_back(folder):
    layout = get_layout('kalantari')
    train, test = find_scenes(folder, layout, 'train'), find_scenes(folder, layout, 'test')
    assert [len(train), len(test)] == [2, 1]
    assert [path.name for path in train[0].ldrs] == list(folders.NAMES)
    for files, index in zip(train + test, (0, 1, folders.TEST_OFFSET)):
        read, made = read_scene(files), synthetic.make_scene(3, index, 64, 96)
        np.testing.assert_array_equal(read.ldrs, made.ldrs)
        np.testing.assert_array_equal(read.evs, made.evs)
        # Half a step of RGBE, whose largest mantissa is 127.5 or more before rounding.
        assert (np.abs(read.label - made.label) <= made.label.max(-1, keepdims=True) / 255).all()


def test_more_scenes_leave_the_first_ones_as_they_are(folder, tmp_path):
    synthetic.write_scenes(tmp_path / 'more', 3, 1, 64, 96, seed=3, progress=None)
    for split in ('Training/001', 'Training/002', 'Test/Test-set/001'):
        for path in sorted((folder / split).iterdir()):
            assert path.read_bytes() == (tmp_path / 'more' / split / path.name).read_bytes()


def test_ensure_returns_at_once_where_the_set_is_there(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    synthetic.ensure_scenes(folder, 2, 1, 64, 96, seed=3, progress=lambda *_: pytest.fail('wrote a scene'))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before


def test_ensure_writes_an_absent_and_an_empty_folder(tmp_path):
    calls = []
    (tmp_path / 'empty').mkdir()
    for name in ('absent', 'empty'):
        synthetic.ensure_scenes(tmp_path / name, 1, 0, 32, 48, progress=lambda *call: calls.append(call))
        assert (tmp_path / name / 'Training/001/HDRImg.hdr').is_file()
    assert [call[:2] for call in calls] == [(1, 1), (1, 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['absent', 'empty']


@pytest.mark.parametrize(
    'change', [dict(train=3), dict(seed=4), dict(width=98), dict(evs=(0, 3, 6)), dict(evs=None)]
)
def test_ensure_refuses_another_set(folder, change):
    wanted = dict(train=2, test=1, height=64, width=96, seed=3) | change
    before = sorted(folder.rglob('*'))
    with pytest.raises(DataError, match=next(iter(change))):
        synthetic.ensure_scenes(folder, **wanted, progress=None)
    assert sorted(folder.rglob('*')) == before


def test_ensure_refuses_another_version(folder, monkeypatch):
    monkeypatch.setattr(folders, 'VERSION', folders.VERSION + 1)
    with pytest.raises(DataError, match='version'):
        synthetic.ensure_scenes(folder, 2, 1, 64, 96, seed=3)


@pytest.mark.parametrize('content', [None, 'no json', '[]'])
def test_foreign_folders_are_left_alone(tmp_path, content):
    (tmp_path / 'letter.txt').write_text('dear reader')
    if content is not None:
        (tmp_path / folders.MANIFEST).write_text(content)
    before = sorted(tmp_path.rglob('*'))
    for call in (synthetic.ensure_scenes, synthetic.write_scenes):
        with pytest.raises(DataError, match=str(tmp_path)):
            call(tmp_path, 1, 0, 32, 48, progress=None)
    assert sorted(tmp_path.rglob('*')) == before


def test_a_link_to_a_folder_is_followed(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    synthetic.write_scenes(tmp_path / 'link', 1, 0, 32, 48, progress=None)
    assert (tmp_path / 'disk' / 'Training' / '001' / 'HDRImg.hdr').is_file() and (tmp_path / 'link').is_symlink()


def test_the_working_directory_is_refused_before_anything_is_painted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic.folders, 'make_scene', None)
    with pytest.raises(DataError, match='the working directory.*Name one inside it'):
        synthetic.write_scenes('.', 1, 0, 32, 48, progress=None)
    assert tmp_path.exists() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(('flags', 'told'), [
    (['--seed=-1'], 'the seed must be 0 or more'), (['--height=0'], 'at least 32'), (['--evs', '4', '2', '0'], 'rising'),
    (['--sheet_width=10'], 'pixels wide, not 10. Give a larger --sheet_width')])
def test_a_sheet_alone_has_the_same_rules(tmp_path, capsys, flags, told):
    assert main([f'--sheet={tmp_path}/s.png', '--height=32', '--width=48', *flags]) == 1
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def stop(done, total, name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write_scenes(tmp_path / 'set', 2, 0, 32, 48, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'change',
    [
        dict(train=0, test=0),
        dict(train=-1),
        dict(height=8),
        dict(seed=-1),
        dict(evs=(0, 4, 2)),
        dict(evs=(1, 2, 4)),
        dict(evs=(0, 2)),
    ],
)
def test_impossible_requests_are_errors(tmp_path, change):
    with pytest.raises(DataError):
        synthetic.ensure_scenes(
            tmp_path / 'set', **(dict(train=1, test=1, height=64, width=96) | change), progress=None
        )
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path, capsys):
    options = ['--train=1', '--test=1', '--height=32', '--width=48', '--seed=2', '--mixed_evs']
    assert main([f'--out={tmp_path}/set', f'--sheet={tmp_path}/sheet.png', *options]) == 0
    assert json.loads((tmp_path / 'set' / folders.MANIFEST).read_text())['evs'] is None
    assert (tmp_path / 'sheet.png').stat().st_size > 1000
    assert main([f'--out={tmp_path}/set', *options]) == 1
    assert 'already holds something' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([])
