"""Scenes on disk: every layout is found, the release's scene is read exactly, and bad input is refused."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from afunet_jax import hdr, image_io
from afunet_jax.data import scenes
from afunet_jax.data.layouts import LAYOUTS, get_layout
from afunet_jax.errors import DataError

SIZE = (16, 24)


def write_scene(files: scenes.SceneFiles, seed: int = 0) -> None:
    """A small good scene under these names."""
    random = np.random.RandomState(seed)
    for path in (*files.ldrs, files.exposures):
        path.parent.mkdir(parents=True, exist_ok=True)
    for path in files.ldrs:
        image_io.write_ldr(path, random.randint(0, 65536, (*SIZE, 3)).astype(np.uint16))
    files.exposures.write_text('-2.00\n0.00\n2.00\n')
    if files.label:
        image_io.write_hdr(files.label, random.random_sample((*SIZE, 3)).astype(np.float32))


def kalantari_files(folder: pathlib.Path) -> scenes.SceneFiles:
    ldrs = tuple(folder / f'262A089{i}.tif' for i in (7, 8, 9))
    return scenes.SceneFiles(folder.name, ldrs, folder / 'exposure.txt', folder / 'HDRImg.hdr')


@pytest.fixture
def files(tmp_path) -> scenes.SceneFiles:
    made = kalantari_files(tmp_path / 'Training' / '001')
    write_scene(made)
    return made


def found(files: scenes.SceneFiles) -> scenes.SceneFiles:
    """The scene as it is found, after the test has changed its folder."""
    (one,) = scenes.find_scenes(files.exposures.parents[2], get_layout('kalantari'), 'train')
    return one


# ---- the release's scene ----------------------------------------------------------------------------


@pytest.fixture(scope='session')
def golden_scene(golden, tmp_path_factory) -> scenes.SceneFiles:
    folder = tmp_path_factory.mktemp('golden')
    shutil.copytree(golden / 'scene', folder / 'Training')
    (one,) = scenes.find_scenes(folder, get_layout('kalantari'), 'train')
    return one


def test_the_release_scene(golden, golden_scene):
    expected = np.load(golden / 'scene.npz')
    scene = scenes.read_scene(golden_scene)
    np.testing.assert_array_equal(scene.label, expected['label'].transpose(1, 2, 0))
    np.testing.assert_array_equal(hdr.exposure_time(scene.evs), expected['exposure'])
    inputs = hdr.network_input(hdr.decode_ldr(scene.ldrs), scene.evs)
    # NumPy's float32 power differs by an ulp between processors; the next test has the release's kind.
    np.testing.assert_array_max_ulp(inputs, np.ascontiguousarray(expected['inputs'].transpose(1, 2, 0)), 1)
    stored = [3, 4, 5, 9, 10, 11, 15, 16, 17]
    np.testing.assert_array_equal(inputs[..., stored], expected['inputs'].transpose(1, 2, 0)[..., stored])


def test_the_release_scene_bit_for_bit(golden, golden_scene):
    """With NumPy's AVX-512 kernels off, whose power is an ulp off, all 18 channels are the release's bits."""
    code = f'''
import numpy as np
from afunet_jax import hdr
from afunet_jax.data import layouts, scenes
folder = {str(golden_scene.exposures.parents[2])!r}
files, = scenes.find_scenes(folder, layouts.get_layout('kalantari'), 'train')
scene = scenes.read_scene(files)
inputs = hdr.network_input(hdr.decode_ldr(scene.ldrs), scene.evs)
np.testing.assert_array_equal(inputs, np.load({str(golden / 'scene.npz')!r})['inputs'].transpose(1, 2, 0))
'''
    # The first is NumPy 2.4's name of these kernels, the second the older one.
    for name in ('X86_V4', 'AVX512_SKX'):
        environment = {**os.environ, 'NPY_DISABLE_CPU_FEATURES': name,
                       'PYTHONPATH': str(pathlib.Path(hdr.__file__).parents[1])}
        done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


# ---- finding ----------------------------------------------------------------------------------------


def make(folder: pathlib.Path, layout_name: str, place: str, names: list[str]) -> None:
    layout = get_layout(layout_name)
    for name in names:
        base = folder / place
        ldrs = [base / pattern.format(scene=name).replace('*', f'photo_{k}').replace('?', str(k))
                for k, pattern in zip('123', (layout.ldrs * 3)[:3])]
        label = base / layout.label.format(scene=name) if layout.label else None
        write_scene(scenes.SceneFiles(name, tuple(ldrs), base / layout.exposures.format(scene=name), label))


@pytest.mark.parametrize('layout, split, places', [
    ('kalantari', 'train', {'Training': ['001', '002']}),
    ('kalantari', 'test', {'Test/Test-set': ['001']}),
    ('kalantari', 'test', {'Test/EXTRA': ['001', '010'], 'Test/PAPER': ['BarbequeDay']}),
    ('kalantari', 'test', {'Test': ['001', 'BarbequeDay']}),
    ('tel', 'train', {'Training': ['scene_0001_1', 'scene_0001_2']}),
    ('tel', 'test', {'Test': ['scene_0007_1']}),
    ('hu', 'train', {'Training': ['001']}),
    ('hu', 'test', {'Test': ['086', '100']}),
    ('tursun', 'test', {'.': ['Cafe']}),
    ('challenge123', 'train', {'Training': ['001', '002']}),
    ('challenge123', 'test', {'Test': ['001']}),
])
def test_every_layout_is_found_and_read(tmp_path, layout, split, places):
    for place, names in places.items():
        make(tmp_path, layout, place, names)
        (tmp_path / place / '.hidden').mkdir()
        (tmp_path / place / 'notes.txt').write_text('not a scene')
    files = scenes.find_scenes(tmp_path, LAYOUTS[layout], split)
    assert [one.name for one in files] == [name for names in places.values() for name in names]
    for one in files:
        scene = scenes.read_scene(one)
        assert scene.ldrs.shape == (3, *SIZE, 3) and scene.ldrs.dtype == np.uint16
        assert scene.evs.dtype == np.float32 and scene.evs.tolist() == [-2, 0, 2]
        assert (scene.label is None) == (layout == 'tursun')
        for path, ldr in zip(one.ldrs, scene.ldrs):
            np.testing.assert_array_equal(image_io.read_ldr(path), ldr)


def test_scenes_sort_by_number(tmp_path):
    make(tmp_path, 'kalantari', 'Training', ['10', '9', '2', 'b', 'a', '02'])
    files = scenes.find_scenes(tmp_path, get_layout('kalantari'), 'train')
    assert [one.name for one in files] == ['02', '2', '9', '10', 'a', 'b']


def test_files_of_a_mac_and_capital_letters(files):
    for path in (*files.ldrs, files.exposures, files.label):
        path.with_name('._' + path.name).write_bytes(b'\0\5\x16\7')
    files.ldrs[0].rename(files.ldrs[0].with_suffix('.TIF'))
    files.label.rename(files.label.with_name('hdrimg.HDR'))
    assert not scenes.scene_problems(found(files))


def test_challenge123_takes_each_exposure_from_its_own_moment(tmp_path):
    make(tmp_path, 'challenge123', 'Training', ['001'])
    for moment in (1, 2, 3):  # the data set has all three exposures of each moment
        for k in (1, 2, 3):
            path = tmp_path / f'Training/001_{moment}/ldr_img_{k}.tif'
            if not path.exists():
                path.write_bytes(b'not to be opened')
    (one,) = scenes.find_scenes(tmp_path, get_layout('challenge123'), 'train')
    assert [path.parent.name for path in one.ldrs] == ['001_1', '001_2', '001_3']
    assert not scenes.scene_problems(one)
    shutil.rmtree(tmp_path / 'Training/001_2')
    (one,) = scenes.find_scenes(tmp_path, get_layout('challenge123'), 'train')
    assert '2 exposures' in scenes.scene_problems(one)[0]


def test_a_folder_that_is_no_data_set(tmp_path, files):
    kalantari = get_layout('kalantari')
    with pytest.raises(DataError, match='nowhere: no such folder.*Training'):
        scenes.find_scenes(tmp_path / 'nowhere', kalantari, 'train')
    with pytest.raises(DataError, match='not a data set of layout kalantari.*Training'):
        scenes.find_scenes(tmp_path / 'Training', kalantari, 'train')
    with pytest.raises(DataError, match='Test/Test-set or Test/EXTRA [+] Test/PAPER'):
        scenes.find_scenes(tmp_path, kalantari, 'test')
    with pytest.raises(DataError, match='no train scenes'):
        scenes.find_scenes(tmp_path, get_layout('tursun'), 'train')
    (tmp_path / 'Test/EXTRA').mkdir(parents=True)
    with pytest.raises(DataError, match='Test/PAPER: no such folder.*together'):
        scenes.find_scenes(tmp_path, kalantari, 'test')
    (tmp_path / 'Test/PAPER').mkdir()
    with pytest.raises(DataError, match=r'No scenes in .*EXTRA.*PAPER.*HDRImg.hdr'):
        scenes.find_scenes(tmp_path, kalantari, 'test')


def test_two_scenes_of_one_name(tmp_path):
    make(tmp_path, 'kalantari', 'Test/EXTRA', ['001'])
    make(tmp_path, 'kalantari', 'Test/PAPER', ['001'])
    with pytest.raises(DataError, match='Two scenes are called 001.*Rename'):
        scenes.find_scenes(tmp_path, get_layout('kalantari'), 'test')


# ---- bad input --------------------------------------------------------------------------------------


def remove(path):
    return lambda files: path(files).unlink()


def text(content):
    return lambda files: files.exposures.write_text(content)


def cut(path):
    return lambda files: path(files).write_bytes(path(files).read_bytes()[:-200])


def other_size(path, write, dtype):
    return lambda files: write(path(files), np.zeros((SIZE[0], SIZE[1] + 1, 3), dtype))


def label_with(value):
    def change(files):
        label = np.ones((*SIZE, 3), np.float32)
        label[3, 5, 1] = value
        files.label.unlink()
        tifffile.imwrite(files.label, label, photometric='rgb')  # RGBE cannot hold such
    return change


BAD = {
    'two images': (remove(lambda f: f.ldrs[1]), '001: 2 exposures were found'),
    'no image': (lambda f: [path.unlink() for path in f.ldrs], '001: 0 exposures were found'),
    'four images': (lambda f: shutil.copy(f.ldrs[0], f.ldrs[0].with_name('z.tif')),
                    '001: 4 exposures were found'),
    'unclear order': (lambda f: f.ldrs[0].rename(f.ldrs[0].with_name('262A11.tif')), 'by number'),
    'empty image': (lambda f: f.ldrs[2].write_bytes(b''), '262A0899.tif.*empty'),
    'truncated image': (cut(lambda f: f.ldrs[1]), '262A0898.tif.*truncated'),
    'image of another size': (other_size(lambda f: f.ldrs[2], image_io.write_ldr, np.uint16),
                              '262A0899.tif: 25x16 pixels, but 262A0897.tif has 24x16'),
    'label of another size': (other_size(lambda f: f.label, image_io.write_hdr, np.float32),
                              'HDRImg.hdr: 25x16 pixels, but 262A0897.tif has 24x16'),
    'no exposures': (remove(lambda f: f.exposures), 'exposure.txt.*missing'),
    'empty exposures': (text(' \n'), 'exposure.txt.*empty'),
    'words for exposures': (text('-2\nzero\n2\n'), "exposure.txt.*not a number.*zero"),
    'binary exposures': (lambda f: f.exposures.write_bytes(b'\xff\xfe\x00'), 'exposure.txt.*cannot be read'),
    'two exposures': (text('0\n2\n'), 'exposure.txt: 2 exposures'),
    'four exposures': (text('0\n2\n4\n6\n'), 'exposure.txt: 4 exposures'),
    'NaN exposure': (text('0\nnan\n4\n'), 'exposure.txt.*finite'),
    'infinite exposure': (text('0\n2\ninf\n'), 'exposure.txt.*finite'),
    'equal exposures': (text('0\n2\n2\n'), 'exposure.txt.*rise.*0, 2, 2'),
    'descending exposures': (text('4\n2\n0\n'), 'exposure.txt.*rise.*4, 2, 0'),
    'no label': (remove(lambda f: f.label), 'HDRImg.hdr.*cannot be read'),
    'truncated label': (cut(lambda f: f.label), 'HDRImg.hdr.*truncated'),
    'NaN in the label': (label_with(np.nan), 'HDRImg.hdr.*1 NaN values.*row 3, column 5'),
    'infinity in the label': (label_with(np.inf), 'HDRImg.hdr.*1 infinite values'),
    'negative label': (label_with(-0.1), 'HDRImg.hdr.*1 negative values'),
}


@pytest.mark.parametrize('change, message', BAD.values(), ids=BAD)
def test_bad_input_is_refused(files, change, message):
    assert not scenes.scene_problems(found(files))
    change(files)
    (problem,) = scenes.scene_problems(found(files))
    with pytest.raises(DataError, match=message) as raised:
        scenes.read_scene(found(files))
    assert str(raised.value) == problem
    assert str(files.exposures.parent) in problem and problem.count('. ') >= 1  # the file, and a cure


def test_all_that_is_wrong_is_reported_at_once(files):
    cut(lambda f: f.ldrs[0])(files)
    text('4\n2\n0\n')(files)
    label_with(np.nan)(files)
    assert len(scenes.scene_problems(found(files))) == 3
    with pytest.raises(DataError, match='(?s)262A0897.*exposure.txt.*HDRImg'):
        scenes.read_scene(found(files))


@pytest.mark.parametrize('content', ['0\n3\n6', '0 3 6\n', '\ufeff0\r\n3\r\n6\r\n\r\n', '0.00\n3e0\n+6.0\n'])
def test_ways_to_write_exposures(files, content):
    files.exposures.write_text(content, encoding='utf-8')
    assert scenes.read_scene(files).evs.tolist() == [0, 3, 6]


def test_the_least_exposure_is_subtracted_only_when_asked(files):
    assert scenes.read_scene(files).evs.tolist() == [-2, 0, 2]
    evs = scenes.read_scene(files, subtract_min_ev=True).evs
    assert evs.tolist() == [0, 2, 4] and evs.dtype == np.float32
