import math
import struct
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from afunet_jax.errors import ConfigError, DataError
from afunet_jax.outputs import colour, display_hdr, png

XYZ_OF_709 = np.array(
    [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]])
XYZ_OF_2020 = np.array(
    [[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017], [0.0, 0.0280727, 1.0609851]])


def pq_by_the_book(y):
    """ST 2084, Eq. 5.2 and its constants as decimal numbers, on one float."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = math.pow(y / 10000, m1)
    return math.pow((c1 + c2 * power) / (1 + c3 * power), m2)


def image():
    """Steps of a stop from 2 ** -12 to 2 ** 3 times white, each in grey, red, green, blue and a skin tone."""
    colours = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.8, 0.5, 0.4]], np.float32)
    steps = np.exp2(np.arange(-12, 4, dtype=np.float32))
    patches = steps[None, :, None] * colours[:, None]
    return np.repeat(np.repeat(patches, 16, 0), 16, 1)


@pytest.mark.parametrize('light, code', [(0, 0.0), (100, 0.508078), (203, 0.580689), (1000, 0.751827), (10000, 1.0)])
def test_pq_at_the_reports_points(light, code):
    """ITU-R BT.2408: 203 cd/m2 is 58 %, 1000 cd/m2 is 75 %."""
    assert float(colour.encode_pq(np.float32(light))) == pytest.approx(code, abs=2e-6)


def test_pq_is_the_standards_formula_and_its_inverse():
    light = np.geomspace(1e-4, 1e4, 500).astype(np.float32)
    np.testing.assert_allclose(colour.encode_pq(light), [pq_by_the_book(float(y)) for y in light], atol=1e-6)
    np.testing.assert_allclose(colour.decode_pq(colour.encode_pq(light)), light, rtol=1e-3)


def test_primaries():
    found = np.linalg.solve(XYZ_OF_2020, XYZ_OF_709)
    np.testing.assert_allclose(colour.BT709_TO_BT2020, found, atol=1e-4)
    np.testing.assert_allclose(colour.BT709_TO_BT2020.sum(1), 1, atol=1e-6)


def test_png_code_values_and_chunks(tmp_path):
    display_hdr.save_display_hdr(tmp_path / 'a.png', image(), diffuse_white=1.0, peak=10000)
    found = cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED)[8::16, 8::16, ::-1]
    assert found.dtype == np.uint16
    wide = image()[8::16, 8::16].astype(float) * 203 @ np.linalg.solve(XYZ_OF_2020, XYZ_OF_709).T
    expected = [[[65535 * pq_by_the_book(max(y, 0)) for y in pixel] for pixel in row] for row in wide]
    # The conversion of BT.2087 has four digits; PQ is steep at black, where they show.
    np.testing.assert_allclose(found, expected, atol=180)
    np.testing.assert_allclose(found[0], np.array(expected)[0], atol=1.1)  # grey needs no digits
    chunks = dict(png.chunks_of((tmp_path / 'a.png').read_bytes()))
    assert list(chunks)[:3] == [b'IHDR', b'cICP', b'cLLI']
    assert chunks[b'cICP'] == bytes([9, 16, 0, 1])
    brightest, mean = (level / 10000 for level in struct.unpack('>II', chunks[b'cLLI']))
    assert brightest == pytest.approx(8 * 203) and mean == pytest.approx(203 * image().max(-1).mean(), rel=1e-5)


def test_png_opens_in_other_programs(tmp_path):
    display_hdr.save_display_hdr(tmp_path / 'a.png', image())
    with Image.open(tmp_path / 'a.png') as found:
        found.load()  # checksums of all chunks
        assert found.size == (256, 80)


def test_roll_off_leaves_what_is_below_the_knee_and_ends_at_the_peak():
    light = np.repeat(np.geomspace(0.01, 1e6, 400, dtype=np.float32)[:, None], 3, 1)
    found = display_hdr.roll_off(light, 1000.0)
    below = light < 290
    np.testing.assert_allclose(found[below], light[below], rtol=1e-5)
    assert (np.diff(found[:, 0]) >= 0).all() and found.max() == pytest.approx(1000, rel=1e-5)
    np.testing.assert_array_equal(display_hdr.roll_off(light, 10000.0), np.minimum(light, 10000))


def test_roll_off_turns_the_brightest_lights_towards_white():
    light = np.float32([[100, 50, 25], [20000, 10000, 5000]])
    found = display_hdr.roll_off(light, 1000.0)
    np.testing.assert_allclose(found[0], light[0], rtol=1e-5)
    assert found[1, 0] == pytest.approx(1000, rel=1e-5) and 250 < found[1, 2] < found[1, 1] < 1000


def test_diffuse_white_is_203_by_hand_and_by_itself():
    assert display_hdr.light_of(image()[:16, 200:201], diffuse_white=2.0)[0, 0, 0] == pytest.approx(
        203 * image()[0, 200, 0] / 2)
    for scale in (1e-3, 1.0, 1e4):
        light = display_hdr.light_of(image() * np.float32(scale))
        np.testing.assert_allclose(light, display_hdr.light_of(image()), rtol=1e-3)
        assert light.max() <= 1000.001


@pytest.mark.parametrize('value', [0.0, 1e-30, np.finfo(np.float32).max])
def test_extreme_images(tmp_path, value):
    display_hdr.save_display_hdr(tmp_path / 'a.png', np.full((8, 8, 3), value, np.float32))
    found = cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert (found == 0).all() if value == 0 else 0.3 < found.mean() / 65535 < 0.76


def test_avif(tmp_path):
    imagecodecs = pytest.importorskip('imagecodecs')
    display_hdr.save_display_hdr(tmp_path / 'a.avif', image(), diffuse_white=1.0, peak=10000)
    data = (tmp_path / 'a.avif').read_bytes()
    nclx = data.index(b'nclx') + 4
    assert struct.unpack('>HHHB', data[nclx : nclx + 7]) == (9, 16, 9, 128)
    assert data[data.index(b'pixi') + 9 :][:3] == bytes([10, 10, 10])
    found = imagecodecs.avif_decode(data)[8::16, 8::16]
    expected = display_hdr.pq_codes(203 * image(), 1023)[8::16, 8::16]
    assert np.abs(found[0].astype(int) - expected[0]).max() <= 2
    assert np.abs(found.astype(int) - expected).mean() < 4


def test_gain_map(tmp_path):
    imagecodecs = pytest.importorskip('imagecodecs')
    smooth = np.exp2(np.linspace(-8, 2, 256, dtype=np.float32))[None, :, None] * np.ones((64, 1, 3), np.float32)
    display_hdr.save_display_hdr(tmp_path / 'a.jpg', smooth, diffuse_white=1.0)
    data = (tmp_path / 'a.jpg').read_bytes()
    assert b'urn:iso:std:iso:ts:21496:-1' in data
    with Image.open(tmp_path / 'a.jpg') as ordinary:  # a program that knows no gain maps
        columns = np.asarray(ordinary.convert('L'), int).mean(0)
    assert columns[-1] > 200 and columns[0] < 30 and (np.diff(columns.reshape(-1, 8).mean(1)) > -1).all()
    linear = imagecodecs.ULTRAHDR.CT.LINEAR
    found = imagecodecs.ultrahdr_decode(data, dtype='f2', transfer=linear)[..., :3].astype(np.float32)
    shown = display_hdr.light_of(smooth, 1.0) / 203
    np.testing.assert_allclose(found[:, 100:], shown[:, 100:], rtol=0.15)


@pytest.mark.parametrize('brightest', [0.0, 50.0, 203.0])
def test_a_gain_map_of_an_image_without_lights_can_be_read(brightest):
    imagecodecs = pytest.importorskip('imagecodecs')
    data = display_hdr.encode_gain_map(np.full((16, 16, 3), brightest, np.float32), imagecodecs)
    linear = imagecodecs.ULTRAHDR.CT.LINEAR
    found = 203 * imagecodecs.ultrahdr_decode(data, dtype='f2', transfer=linear)[..., :3].astype(np.float32)
    np.testing.assert_allclose(found, brightest, rtol=0.02)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagecodecs', None)
    with pytest.raises(ConfigError, match='pip install imagecodecs, or write a .png'):
        display_hdr.save_display_hdr(tmp_path / 'a.avif', image())
    display_hdr.save_display_hdr(tmp_path / 'a.png', image())


@pytest.mark.parametrize('name, pixels, options, error, message', [
    ('a.heic', image(), {}, ConfigError, 'written as .png, .avif, .jpg, .jpeg'),
    ('a.png', image(), {'peak': 100}, ConfigError, '203 to 10000 cd/m2, not 100'),
    ('a.png', image(), {'diffuse_white': 0}, ConfigError, 'diffuse_white is a positive number'),
    ('a.png', image()[..., 0], {}, DataError, 'a.png: a linear image is'),
    ('a.png', image() + np.float32(np.inf), {}, DataError, 'a.png: .* values are infinite'),
    ('absent/a.png', image(), {}, DataError, 'cannot be written'),
])  # fmt: skip
def test_what_is_refused(tmp_path, name, pixels, options, error, message):
    with pytest.raises(error, match=message):
        display_hdr.save_display_hdr(tmp_path / name, pixels, **options)
    assert not list(tmp_path.rglob('*'))
