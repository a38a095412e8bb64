"""Names from files lead nowhere else: scenes called `../../x`, manifests that name other folders, symbolic links."""

import json
import os
import pathlib

import numpy as np
import pytest
import small

from afunet_jax import html_report, reports
from afunet_jax.data import brackets, scenes, synthetic, tfds_builders
from afunet_jax.data.brackets import sources
from afunet_jax.data.layouts import get_layout
from afunet_jax.errors import AFUNetError, DataError

HOSTILE = ('../../x', '/etc/x', '..', '.', '', 'a/../../x', 'a/b', 'a\0b', '\\..\\x', 'con', '-rf', '~', '$HOME', 'x' * 5000, '\udcff', '\n',
           '<script>alert(1)</script>', '"><img src=x>', "';--")  # fmt: skip
KALANTARI = get_layout('kalantari')


def everything(folder):
    """Every path below, with its content's length: what a write changes."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('name', HOSTILE, ids=ascii)
def test_a_report_stays_in_its_folder(tmp_path, name):
    out = tmp_path / 'deep' / 'down' / 'out'
    image = np.full((20, 30, 3), 0.25, np.float32)
    written = html_report.write_scene(out, html_report.ScenePictures(name, {'AFUNet': image}, image))
    rows = [{'scene': name, 'method': 'AFUNet', 'height': 20, 'width': 30, 'psnr_mu': 30.0}]
    page = html_report.write_report(out, rows, [written], {'weights': name})
    assert {path.split('/')[0] for path in everything(tmp_path)} == {'deep'}
    assert all(path.startswith('deep/down/out/') for path in everything(tmp_path))
    text = page.read_text(encoding='utf-8')
    assert not name or not set('<>"') & set(name) or name not in text  # escaped wherever it stands


@pytest.mark.parametrize('name', HOSTILE, ids=ascii)
def test_pictures_stay_in_their_folder_or_are_refused(tmp_path, name):
    out = tmp_path / 'deep' / 'down' / 'pictures'
    image = np.full((20, 30, 3), 0.25, np.float32)
    try:
        reports.write_pictures(out, name, {'AFUNet': image}, image)
    except DataError as error:
        assert 'name' in str(error)
    written = everything(tmp_path)
    assert all(path.startswith('deep/down/pictures/') and path.count('/') == 4 for path in written), written


@pytest.mark.parametrize('name', [name for name in HOSTILE if name not in ('con', '-rf', '~', '$HOME')], ids=ascii)
def test_a_manifest_of_scenes_decides_no_place(tmp_path, name):
    """What is written follows from what was asked for; a manifest that differs is refused, whatever it says."""
    folder = tmp_path / 'deep' / 'set'
    folder.mkdir(parents=True)
    for content in ({'generator': name, 'train': name, 'scenes': [{'folder': name}]}, [name], name, {name: {name: name}}):
        (folder / 'synthetic.json').write_text(json.dumps(content))
        before = everything(tmp_path)
        with pytest.raises(DataError, match='synthetic scenes'):
            synthetic.ensure_scenes(folder, train=1, test=0, height=32, width=48, progress=None)
        assert everything(tmp_path) == before


def test_a_manifest_that_is_nested_too_deep(tmp_path):
    (tmp_path / 'synthetic.json').write_text('[' * 200_000)
    with pytest.raises(DataError, match='synthetic.json'):
        synthetic.ensure_scenes(tmp_path, train=1, test=0, height=32, width=48, progress=None)


@pytest.mark.parametrize('name', ['../x.hdr', '/etc/x.hdr', 'a/b.hdr', '', '..', '.'])
def test_a_table_of_sources_names_files_of_its_folder_alone(tmp_path, name):
    (tmp_path / 'x.hdr').write_bytes(b'outside')
    (tmp_path / 'in').mkdir()
    table = tmp_path / 'sources.csv'
    table.write_text(f'file,split,projection\n{name},train,photo\n')
    with pytest.raises(DataError):
        sources.read_sources(tmp_path / 'in', table, ('train',))
    assert brackets  # the package that reads it


# ---- symbolic links ---------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """A data set with two training scenes, and one scene outside."""
    small.write_data_set(tmp_path / 'data', train=2, test=1)
    small.write_scene(tmp_path / 'outside' / 'secret', seed=9)
    return tmp_path / 'data'


def names(found):
    return [scene.name for scene in found]


LINKS = {
    'a scene': lambda data, outside: (data / 'Training' / '900', outside / 'secret'),
    'an image': lambda data, outside: replaced(data / 'Training' / '001' / '2.tif', outside / 'secret' / '2.tif'),
    'the exposures': lambda data, outside: replaced(data / 'Training' / '001' / 'exposure.txt', outside / 'secret' / 'exposure.txt'),
    'the label': lambda data, outside: replaced(data / 'Training' / '001' / 'HDRImg.hdr', pathlib.Path('/etc/passwd')),
    'a chain': lambda data, outside: (data / 'Training' / '900', chain(data, outside)),
    'by ..': lambda data, outside: (data / 'Training' / '900', pathlib.Path('..') / '..' / 'outside' / 'secret'),
}


def replaced(path, target):
    path.unlink()
    return path, target


def chain(data, outside):
    (data / 'hop').symlink_to(outside / 'secret')
    return data / 'hop'


@pytest.mark.parametrize('kind', LINKS)
def test_a_link_out_of_the_folder_is_named_and_not_followed(data, tmp_path, kind):
    link, target = LINKS[kind](data, tmp_path / 'outside')
    link.symlink_to(target)
    for find in (lambda: scenes.find_scenes(data, KALANTARI, 'train'), lambda: tfds_builders.find_source(data, KALANTARI)):
        with pytest.raises(DataError, match=f'{link}: a symbolic link out of the data folder, to /.*data.follow_links=True'):
            find()
    assert len(scenes.find_scenes(data, KALANTARI, 'train', follow_links=True)) in (2, 3)


def test_a_split_that_is_a_link(data, tmp_path):
    (data / 'Training').rename(tmp_path / 'elsewhere')
    (data / 'Training').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(DataError, match=f'{data}/Training: a symbolic link out of the data folder'):
        scenes.find_scenes(data, KALANTARI, 'train')
    assert names(scenes.find_scenes(data, KALANTARI, 'train', follow_links=True)) == ['001', '002']


def test_links_that_stay_inside_are_followed(data):
    (data / 'Training' / '003').symlink_to(data / 'Training' / '001')
    (data / 'Training' / '004').symlink_to('002')
    assert names(scenes.find_scenes(data, KALANTARI, 'train')) == ['001', '002', '003', '004']


def test_the_data_folder_itself_may_be_a_link(data, tmp_path, monkeypatch):
    (tmp_path / 'link').symlink_to(data)
    assert names(scenes.find_scenes(tmp_path / 'link', KALANTARI, 'train')) == ['001', '002']
    monkeypatch.chdir(tmp_path)
    assert names(scenes.find_scenes('link', KALANTARI, 'train')) == ['001', '002']
    (data / 'Training' / '900').symlink_to(tmp_path / 'outside' / 'secret')
    with pytest.raises(DataError, match='link/Training/900: a symbolic link out'):
        scenes.find_scenes('link', KALANTARI, 'train')


def test_links_in_a_ring_and_into_nothing(data):
    (data / 'Training' / '900').symlink_to('900')
    (data / 'Training' / '901').symlink_to('nothing')
    assert names(scenes.find_scenes(data, KALANTARI, 'train')) == ['001', '002']
    label = data / 'Training' / '001' / 'HDRImg.hdr'
    label.unlink()
    label.symlink_to('HDRImg.hdr')
    with pytest.raises(AFUNetError, match='HDRImg.hdr'):
        scenes.read_scene(scenes.find_scenes(data, KALANTARI, 'train')[0])


def test_prepared_data_follow_links_if_asked(data, tmp_path):
    (data / 'Training' / '900').symlink_to(tmp_path / 'outside' / 'secret')
    with pytest.raises(DataError, match='900: a symbolic link'):
        tfds_builders.prepare(data, 'kalantari', tmp_path / 'prepared', progress=None)
    assert not os.path.exists(tmp_path / 'prepared')
    builder = tfds_builders.prepare(data, 'kalantari', tmp_path / 'prepared', progress=None, follow_links=True)
    assert tfds_builders.scene_names(builder, 'train') == ['001', '002', '900']


def test_prepared_data_have_the_limit_of_pixels(data, tmp_path):
    with pytest.raises(DataError, match='max_pixels=2239 allows'):
        tfds_builders.prepare(data, 'kalantari', tmp_path / 'prepared', progress=None, max_pixels=40 * 56 - 1)
    builder = tfds_builders.prepare(data, 'kalantari', tmp_path / 'prepared', progress=None, max_pixels=40 * 56)
    assert len(tfds_builders.scene_names(builder, 'train')) == 2
