"""tfds_builders: what is prepared is what is read, once, whole, and never stale."""

import io
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import small
import tensorflow_datasets as tfds

from afunet_jax import image_io
from afunet_jax.data import batches, progress, tfds_builders
from afunet_jax.data.layouts import LAYOUTS, get_layout
from afunet_jax.data.scenes import find_scenes, read_scene
from afunet_jax.errors import ConfigError, DataError

ROOT = pathlib.Path(tfds_builders.__file__).parents[2]

# Per layout: a scene's three images, exposures and label; {0} is its name.
FILES = {
    'kalantari': (('{0}/0.tif', '{0}/1.tif', '{0}/2.tif'), '{0}/exposure.txt', '{0}/HDRImg.hdr'),
    'tel': (tuple(f'scene_{{0}}/input_{i}.tif' for i in (1, 2, 3)), 'scene_{0}/exposure.txt',
            'scene_{0}/HDRImg.hdr'),
    'hu': (tuple(f'{{0}}/input_{i}_aligned.tif' for i in (1, 2, 3)), '{0}/input_exp.txt',
           '{0}/ref_hdr_aligned_linear.hdr'),
    'tursun': (('{0}/0.tif', '{0}/1.tif', '{0}/2.tif'), '{0}/exposure.txt', None),
    'challenge123': (tuple(f'{{0}}_{i}/ldr_img_{i}.tif' for i in (1, 2, 3)), '{0}_2/exposure.txt',
                     '{0}_2/hdr_img.hdr'),
}
FILES['synthetic'] = FILES['kalantari']


def write_scene(place, name, height=20, width=30, layout='kalantari', evs='0\n2\n4\n', seed=0):
    rng = np.random.default_rng((seed, height, width))
    ldrs, exposures, label = FILES[layout]
    paths = [place / pattern.format(name) for pattern in (*ldrs, exposures, *([label] if label else []))]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    for path in paths[:3]:
        image_io.write_ldr(path, rng.integers(0, 2**16, (height, width, 3), dtype=np.uint16))
    paths[3].write_text(evs)
    if label:
        image_io.write_hdr(paths[4], rng.random((height, width, 3), dtype=np.float32))


@pytest.fixture
def folder(tmp_path):
    """A Kalantari folder: three training scenes of different sizes, one test scene."""
    for i, size in enumerate([(20, 30), (31, 17), (24, 24)]):
        write_scene(tmp_path / 'set' / 'Training', f'{i + 9}', *size, seed=i)  # 9, 10, 11
    write_scene(tmp_path / 'set' / 'Test' / 'Test-set', '001', 16, 40, evs='-1\n0.5\n3\n')
    return tmp_path / 'set'


def prepare(folder, layout='kalantari', **kwargs):
    return tfds_builders.prepare(folder, layout, folder.parent / 'prepared', **{'progress': None} | kwargs)


def assert_same(scene, other):
    assert scene.name == other.name
    for key in ('ldrs', 'evs', 'label'):
        np.testing.assert_array_equal(getattr(scene, key), getattr(other, key), strict=True)


def run(code, **environment):
    """Starts Python on `code`; returns the process."""
    return subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(code)], cwd=ROOT, text=True, env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)


# ---- round trip -------------------------------------------------------------------------------------


def test_prepared_scenes_are_the_files(folder):
    builder = prepare(folder)
    assert tfds_builders.scene_names(builder, 'train') == ['9', '10', '11']
    assert tfds_builders.scene_names(builder, 'test') == ['001']
    for split in ('train', 'test'):
        expected = [read_scene(files) for files in find_scenes(folder, get_layout('kalantari'), split)]
        scenes = tfds_builders.load_scenes(builder, split)
        assert len(scenes) == len(expected)
        for scene, other in zip(scenes, expected):
            assert_same(scene, other)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_with_the_splits_that_are_there(tmp_path, layout):
    splits = [split for split in ('train', 'test') if get_layout(layout).folders(split)]
    for only in splits:
        folder = tmp_path / only / 'set'
        place = folder / get_layout(layout).folders(only)[0][0]
        write_scene(place, '0001', layout=layout)
        write_scene(place, '0002', layout=layout, seed=1)
        builder = prepare(folder, layout)
        assert list(builder.info.splits) == [only]
        for scene, files in zip(tfds_builders.load_scenes(builder, only),
                                find_scenes(folder, get_layout(layout), only), strict=True):
            expected = read_scene(files)
            assert (scene.label is None) == (expected.label is None) == (layout == 'tursun')
            assert_same(scene, expected)


def test_scenes_come_in_the_order_of_the_names(folder):
    builder = prepare(folder)
    scenes = tfds_builders.load_scenes(builder, 'train', ['11', '9', '11'])
    assert [scene.name for scene in scenes] == ['11', '9', '11']
    assert scenes[0].ldrs.shape == (3, 24, 24, 3) and scenes[1].ldrs.shape == (3, 20, 30, 3)
    assert tfds_builders.load_scenes(builder, 'train', []) == []


def test_the_smallest_exposure_is_subtracted_on_request(folder):
    builder = prepare(folder)
    (files,) = find_scenes(folder, get_layout('kalantari'), 'test')
    (scene,) = tfds_builders.load_scenes(builder, 'test', subtract_min_ev=True)
    assert_same(scene, read_scene(files, subtract_min_ev=True))
    np.testing.assert_array_equal(scene.evs, np.array([0, 1.5, 4], np.float32))


def test_scenes_go_straight_into_a_store(folder):
    store = batches.SceneStore(tfds_builders.iter_scenes(prepare(folder), 'train'))
    assert store.names == ['9', '10', '11']
    assert store.nbytes == (20 * 30 + 31 * 17 + 24 * 24) * 22


def test_tfds_alone_prepares_and_reads_the_same(folder, tmp_path):
    builder = tfds.builder('hdr_scenes/kalantari', data_dir=tmp_path / 'plain')
    builder.download_and_prepare(
        file_format='array_record', download_config=tfds.download.DownloadConfig(manual_dir=folder))
    expected = tfds_builders.load_scenes(prepare(folder), 'train')
    for example, scene in zip(builder.as_data_source('train'), expected, strict=True):
        assert example['name'].decode() == scene.name
        np.testing.assert_array_equal(example['ldrs'], scene.ldrs)


def test_nothing_imports_tensorflow(folder, tmp_path):
    trap = tmp_path / 'trap' / 'tensorflow'
    trap.mkdir(parents=True)
    (trap / '__init__.py').write_text('import sys; sys.stdout.write("TOUCHED"); raise ImportError("trap")')
    process = run(f'''
        import sys
        from afunet_jax.data import batches, tfds_builders
        builder = tfds_builders.prepare({str(folder)!r}, 'kalantari', {str(tmp_path / 'p')!r})
        store = batches.SceneStore(tfds_builders.iter_scenes(builder, 'train'))
        next(batches.train_batches(store, batch_size=2, crop_size=8, crops_per_scene=3,
                                   augmentation='flips', seed=0))
        assert 'tensorflow' not in sys.modules
    ''', PYTHONPATH=os.pathsep.join([str(trap.parent), os.environ.get('PYTHONPATH', '')]))
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out == ''  # neither the trap nor TFDS's announcement of a download
    assert 'Preparing kalantari: 4 of 4 (001)' in err


def test_nothing_is_left_in_the_temporary_folder(folder, tmp_path, monkeypatch):
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(temporary))
    prepare(folder)
    prepare(folder)  # reads what is there
    assert list(temporary.iterdir()) == []


# ---- prepared once, never stale ---------------------------------------------------------------------


def test_what_is_prepared_is_not_read_again(folder, monkeypatch):
    first = prepare(folder)
    monkeypatch.setattr(tfds_builders, 'read_scene', None)
    assert prepare(folder).data_dir == first.data_dir


def test_names_are_known_without_reading_a_scene(folder, monkeypatch):
    builder = prepare(folder)
    monkeypatch.setattr(tfds_builders.HdrScenes, 'as_data_source', None)
    assert tfds_builders.scene_names(builder, 'train') == ['9', '10', '11']


@pytest.mark.parametrize('change', ['time', 'size', 'more', 'fewer'])
def test_changed_files_are_prepared_anew(folder, change):
    first = prepare(folder)
    if change == 'time':  # same length, other values, another time
        image = folder / 'Training' / '9' / 'exposure.txt'
        image.write_text('0\n3\n6\n')
        os.utime(image, ns=(10**18, 10**18))
    elif change == 'size':
        (folder / 'Training' / '9' / 'exposure.txt').write_text('0.5\n3\n6\n')
    elif change == 'more':
        write_scene(folder / 'Training', '7')
    else:
        shutil.rmtree(folder / 'Training' / '11')
    second = prepare(folder)
    assert second.data_dir != first.data_dir
    for scene, files in zip(tfds_builders.load_scenes(second, 'train'),
                            find_scenes(folder, get_layout('kalantari'), 'train'), strict=True):
        assert_same(scene, read_scene(files))


def test_a_moved_folder_is_recognised(folder):
    first = prepare(folder)
    moved = folder.rename(folder.parent / 'elsewhere')
    assert prepare(moved).data_dir == first.data_dir


def test_files_that_change_meanwhile_are_an_error(folder):
    def touch(done, total, name):
        os.utime(folder / 'Training' / '9' / 'exposure.txt', ns=(done, done))

    with pytest.raises(DataError, match='changed while'):
        prepare(folder, progress=touch)
    assert not list((folder.parent / 'prepared').rglob('*array_record*'))


# ---- killed, and several at once --------------------------------------------------------------------


def test_a_killed_preparation_leaves_nothing_that_counts(folder):
    process = run(f'''
        import os
        from afunet_jax.data import tfds_builders
        tfds_builders.prepare({str(folder)!r}, 'kalantari', {str(folder.parent / 'prepared')!r},
                              lambda done, total, name: os._exit(9) if done == 2 else None)
    ''')
    _, err = process.communicate()
    assert process.returncode == 9, err
    left = list((folder.parent / 'prepared').rglob('incomplete.*'))
    assert len(left) == 1
    calls = []
    builder = prepare(folder, progress=lambda *call: calls.append(call))
    assert [call[0] for call in calls] == [1, 2, 3, 4]
    assert len(tfds_builders.load_scenes(builder, 'train')) == 3
    assert not list((folder.parent / 'prepared').rglob('incomplete.*'))


def test_a_scene_whose_name_cannot_be_stored_is_named(tmp_path):
    small.write_scene(tmp_path / 'data' / 'Training' / '001')
    name = os.fsdecode(b'caf\xe9')
    (tmp_path / 'data' / 'Training' / '001').rename(tmp_path / 'data' / 'Training' / name)
    with pytest.raises(DataError, match='caf.udce9.*Rename its folder'):
        tfds_builders.prepare(tmp_path / 'data', 'kalantari', tmp_path / 'prepared')


def test_processes_at_once_prepare_one_time(folder):
    code = f'''
        import time
        from afunet_jax.data import tfds_builders
        done = []
        def slowly(*call):
            done.append(call)
            time.sleep(0.3)
        builder = tfds_builders.prepare(
            {str(folder)!r}, 'kalantari', {str(folder.parent / 'prepared')!r}, slowly)
        print(len(done), len(tfds_builders.load_scenes(builder, 'train')))
    '''
    processes = [run(code) for _ in range(3)]
    results = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert sorted(out.split() for out, _ in results) == [['0', '3'], ['0', '3'], ['4', '3']]


# ---- errors -----------------------------------------------------------------------------------------


def test_all_bad_scenes_are_listed_and_nothing_is_kept(folder):
    (folder / 'Training' / '9' / 'exposure.txt').unlink()
    tiff = folder / 'Training' / '11' / '1.tif'
    tiff.write_bytes(tiff.read_bytes()[:100])
    (folder / 'Test' / 'Test-set' / '001' / 'exposure.txt').write_text('0\nzwei\n4\n')
    with pytest.raises(DataError) as error:
        prepare(folder)
    message = str(error.value)
    assert 'cannot be used: 9, 11, 001' in message
    for path in ('9/exposure.txt', '11/1.tif', '001/exposure.txt'):
        assert path in message
    assert '10/' not in message
    assert not [path for path in (folder.parent / 'prepared').rglob('*') if 'record' in path.name]


@pytest.mark.parametrize('damage', ['truncated', 'altered', 'missing', 'exchanged', 'metadata'])
def test_damaged_prepared_data_are_an_error_and_can_be_made_anew(folder, damage):
    builder = prepare(folder)
    one, two, _ = sorted(pathlib.Path(builder.data_dir).glob('*train*'))
    data = bytearray(two.read_bytes())
    if damage == 'truncated':
        two.write_bytes(data[: len(data) // 2])
    elif damage == 'altered':
        data[1000] ^= 1
        two.write_bytes(data)
    elif damage == 'missing':
        two.unlink()
    elif damage == 'exchanged':
        shutil.copy(one, two)
    else:
        (pathlib.Path(builder.data_dir) / 'metadata.json').write_text('{}')
    with pytest.raises(DataError, match='Delete this folder') as error:
        tfds_builders.load_scenes(prepare(folder), 'train')
    assert str(builder.data_dir) in str(error.value)
    shutil.rmtree(builder.data_dir)
    assert len(tfds_builders.load_scenes(prepare(folder), 'train')) == 3


def test_unknown_names_are_errors(folder):
    builder = prepare(folder)
    with pytest.raises(ConfigError, match='none called 12. There are: 9, 10, 11'):
        tfds_builders.iter_scenes(builder, 'train', ['9', '12'])
    with pytest.raises(ConfigError, match='no validation scenes, only train and test'):
        tfds_builders.scene_names(builder, 'validation')
    with pytest.raises(ConfigError, match='kalantari'):
        prepare(folder, 'kalantary')


def test_a_folder_that_is_no_data_set_is_an_error(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='not a data set'):
        prepare(tmp_path / 'empty')
    with pytest.raises(DataError, match='no such folder'):
        prepare(tmp_path / 'nowhere')
    assert not (tmp_path / 'prepared').exists()


def test_a_data_dir_that_cannot_be_made_is_an_error(folder):
    (folder.parent / 'prepared').write_text('a file')
    with pytest.raises(DataError, match='cannot store the prepared data'):
        prepare(folder)


# ---- progress ---------------------------------------------------------------------------------------


def test_progress_counts_every_scene(folder):
    calls = []
    prepare(folder, progress=lambda *call: calls.append(call))
    assert calls == [(1, 4, '9'), (2, 4, '10'), (3, 4, '11'), (4, 4, '001')]


def test_the_line_says_count_rate_and_time_left(monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: seconds[0])
    stream = io.StringIO()
    line = progress.ProgressLine('Preparing', stream)
    for done in range(1, 5):
        seconds[0] += 6.0
        line(done, 4, f's{done}')
    assert stream.getvalue().splitlines() == [  # a file: not more often than every ten seconds
        'Preparing: 2 of 4 (s2), 6.00 s each, 0:12 left', 'Preparing: 4 of 4 (s4), 6.00 s each, 0:00 left']


def test_on_a_terminal_the_line_is_rewritten():
    stream = io.StringIO()
    stream.isatty = lambda: True
    line = progress.ProgressLine('Preparing', stream)
    line(1, 2, 'a long name')
    line(2, 2, 'b')
    assert stream.getvalue().count('\r') == 2 and stream.getvalue().count('\n') == 1
    first, second = stream.getvalue().strip('\r\n').split('\r')
    assert len(second) >= len(first)  # nothing of the longer line stays


def test_durations():
    assert [progress.format_duration(s) for s in (0, 59.6, 61, 3723)] == ['0:00', '1:00', '1:01', '1:02:03']


# ---- size -------------------------------------------------------------------------------------------

_FROM_FILES_TO_BATCHES = '''
import resource, sys, time
from afunet_jax.data import batches, tfds_builders
builder = tfds_builders.prepare(sys.argv[1], 'kalantari', sys.argv[2])
begun = time.time()
store = batches.SceneStore(tfds_builders.iter_scenes(builder, 'train'))
print('read in', time.time() - begun, 's', file=sys.stderr)
next(batches.train_batches(store, batch_size=6, crop_size=128, crops_per_scene=100,
                           augmentation='flips', seed=0))
assert 'tensorflow' not in sys.modules
print(len(store), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20)
'''


@pytest.mark.slow
def test_74_scenes_of_1000x1500_go_through_in_4_gb_without_tensorflow(tmp_path):
    """3.3 GB of scenes, 2 GB on disk: beyond the size at which TFDS's usual writer calls TensorFlow."""
    write_scene(tmp_path / 'one', '1', 1000, 1500)
    for i in range(74):
        place = tmp_path / 'set' / 'Training' / f'{i + 1:03}'
        shutil.copytree(tmp_path / 'one' / '1', place, copy_function=os.link)
    command = [sys.executable, '-c', _FROM_FILES_TO_BATCHES, tmp_path / 'set', tmp_path / 'prepared']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sys.stderr.write(done.stderr)
    count, gigabytes = done.stdout.split()
    sys.stderr.write(f'peak {gigabytes} GB\n')
    assert int(count) == 74 and float(gigabytes) < 3.8
    shutil.rmtree(tmp_path / 'prepared')
