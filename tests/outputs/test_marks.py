"""Results are told from photos, and remain what they are."""

import io

import numpy as np
import pytest
from PIL import Image

from afunet_jax import image_io
from afunet_jax.outputs import display_hdr, marks, save

IMAGE = np.random.default_rng(0).uniform(0, 2, (40, 56, 3)).astype(np.float32)
PICTURE = (IMAGE * 100).astype(np.uint8)


@pytest.mark.parametrize('name', ['a.hdr', 'a.exr', 'a.png', 'a.jpg'])
def test_results_are_marked(tmp_path, name):
    path = tmp_path / name
    if path.suffix in save.HDR_ENDINGS:
        save.save_hdr(path, IMAGE)
    else:
        save.save_picture(path, PICTURE)
        with Image.open(path) as found:
            assert marks.SOFTWARE in (found.info.get('Software'), found.info.get('comment', b'').decode())
    assert marks.is_ours(path)


@pytest.mark.parametrize('name', ['a.png', 'a.jpg'])
def test_pictures_for_hdr_screens_are_marked(tmp_path, name):
    if name == 'a.jpg':
        pytest.importorskip('imagecodecs')
    display_hdr.save_display_hdr(tmp_path / name, IMAGE)
    assert marks.is_ours(tmp_path / name)


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.jpg'])
def test_photos_are_not(tmp_path, name):
    Image.fromarray(PICTURE).save(tmp_path / name)
    assert not marks.is_ours(tmp_path / name)


def test_what_cannot_be_read_is_not_ours(tmp_path):
    assert not marks.is_ours(tmp_path / 'absent.png') and not marks.is_ours(tmp_path)


def test_a_gain_map_is_where_its_index_says(tmp_path, monkeypatch):
    imagecodecs = pytest.importorskip('imagecodecs')
    light = display_hdr.light_of(IMAGE)
    marked = display_hdr.encode_gain_map(light, imagecodecs)
    monkeypatch.setattr(marks, 'mark_gain_map', lambda data: data)
    plain = display_hdr.encode_gain_map(light, imagecodecs)
    decoded = [imagecodecs.ultrahdr_decode(data, dtype='f2', transfer=imagecodecs.ULTRAHDR.CT.LINEAR)
               for data in (plain, marked)]  # fmt: skip
    np.testing.assert_array_equal(*decoded)
    for data in (plain, marked):
        with Image.open(io.BytesIO(data)) as found:
            (first, second) = found.mpinfo[0xB002]
            base = data.index(b'MPF\0') + 4
            assert first['Size'] == base + second['DataOffset']
            assert data[first['Size'] :].startswith(image_io.JPEG_MAGIC)
            assert first['Size'] + second['Size'] == len(data)
            assert found.n_frames == 2


def test_codec_errors_name_the_file_and_the_cure(tmp_path):
    pytest.importorskip('imagecodecs')
    for name, shape in (('a.jpg', (8, 8193, 3)), ('a.jpg', (7, 9, 3)), ('a.avif', (1, 65537, 3))):
        with pytest.raises(display_hdr.DataError, match=f'{name}: .* pixels a side, .* Write a .png'):
            display_hdr.save_display_hdr(tmp_path / name, np.ones(shape, np.float32))
    assert not list(tmp_path.iterdir())


def test_other_codec_errors_are_told_as_such(tmp_path, monkeypatch):
    imagecodecs = pytest.importorskip('imagecodecs')

    def fail(*_, **__):
        raise imagecodecs.AvifError('avifEncoderAddImage', -1)

    monkeypatch.setattr(imagecodecs, 'avif_encode', fail)
    with pytest.raises(display_hdr.DataError, match='a.avif: cannot be encoded .* Write a .png'):
        display_hdr.save_display_hdr(tmp_path / 'a.avif', IMAGE)
