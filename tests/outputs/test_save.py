import struct
import warnings
import zlib

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image, ImageCms

from afunet_jax import image_io
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.outputs import colour, png, save


def image(height=37, width=53, scale=1.0):
    """Values over nine orders of magnitude, another mean for each colour."""
    rng = np.random.default_rng(0)
    return (scale * np.exp(rng.normal((-2.0, -4.0, 1.0), 3, (height, width, 3)))).astype(np.float32)


def radiance_pixels(data):
    """A Radiance file read by the letter of its description: header, run-length code, exponents."""
    header, _, rest = data.partition(b'\n\n')
    size, _, rest = rest.partition(b'\n')
    _, height, _, width = size.split()
    height, width, at = int(height), int(width), 0
    rgbe = np.zeros((height, width, 4), np.uint8)
    for row in rgbe:
        assert rest[at : at + 4] == bytes([2, 2, width >> 8, width & 255])
        at += 4
        for channel in range(4):
            x = 0
            while x < width:
                n, at = rest[at], at + 1
                if n > 128:
                    row[x : x + n - 128, channel], x, at = rest[at], x + n - 128, at + 1
                else:
                    row[x : x + n, channel], x, at = list(rest[at : at + n]), x + n, at + n
    assert at == len(rest)
    scale = np.ldexp(1.0, rgbe[..., 3:].astype(int) - 136) * (rgbe[..., 3:] > 0)
    return header.split(b'\n'), rgbe[..., :3] * scale


def test_radiance_header_scale_and_colour_order_for_a_reader_by_the_letter(tmp_path):
    expected = image()
    save.save_hdr(tmp_path / 'a.hdr', expected, exposure=0.25)
    header, pixels = radiance_pixels((tmp_path / 'a.hdr').read_bytes())
    assert header[0] == b'#?RADIANCE' and header[-1] == b'FORMAT=32-bit_rle_rgbe'
    assert header.count(b'EXPOSURE=0.25') == 1
    assert (np.abs(pixels - expected) <= expected.max(-1, keepdims=True) / 256).all()


def test_radiance_in_opencv_and_in_our_reader_is_the_same_with_and_without_exposure(tmp_path):
    for name, exposure in (('a', None), ('b', 7.5)):
        save.save_hdr(tmp_path / f'{name}.hdr', image(), exposure=exposure)
    assert b'EXPOSURE' not in (tmp_path / 'a.hdr').read_bytes()
    by_opencv = [cv2.imread(str(tmp_path / f'{name}.hdr'), cv2.IMREAD_UNCHANGED)[..., ::-1] for name in 'ab']
    np.testing.assert_array_equal(*by_opencv)
    np.testing.assert_array_equal(by_opencv[0], image_io.read_hdr(tmp_path / 'b.hdr'))
    np.testing.assert_array_equal(by_opencv[0], image_io.from_rgbe(image_io.to_rgbe(image())))


def test_radiance_in_bruce_walters_reader(tmp_path):
    imagecodecs = pytest.importorskip('imagecodecs')
    save.save_hdr(tmp_path / 'a.hdr', image(), exposure=2)
    found = imagecodecs.rgbe_decode((tmp_path / 'a.hdr').read_bytes())
    np.testing.assert_array_equal(found, image_io.read_hdr(tmp_path / 'a.hdr'))


@pytest.mark.parametrize('precision, bits', [('half', 11), ('float', 24)])
def test_openexr_values_and_attributes(tmp_path, precision, bits):
    expected = np.clip(image(), 1e-4, 6e4)
    expected[0, 0] = (-1.5, 0, 65504)
    save.save_hdr(tmp_path / 'a.EXR', expected, 0.5, precision, exposure_time=1 / 60, white_luminance=203)
    with OpenEXR.File(str(tmp_path / 'a.EXR')) as file:
        header, pixels = dict(file.header()), file.channels()['RGB'].pixels
    assert pixels.dtype == save.PRECISIONS[precision]
    assert (np.abs(pixels - expected) <= np.abs(expected) * 2.0**-bits).all()
    assert header['chromaticities'] == pytest.approx(colour.BT709_CHROMATICITIES)
    found = [header[name] for name in ('exposure', 'expTime', 'whiteLuminance')]
    assert found == pytest.approx([0.5, 1 / 60, 203])


def openexr_by_the_letter(data):
    """Attributes (name to bytes) and pixels `[H, W, 3]` of a ZIP-compressed OpenEXR of three equal channels."""
    assert data[:8] == b'v/1\x01\x02\x00\x00\x00'
    at, attributes = 8, {}
    while data[at]:
        name, kind, rest = data[at:].split(b'\0', 2)
        size, at = struct.unpack('<i', rest[:4])[0], at + len(name) + len(kind) + 6
        attributes[name.decode()], at = data[at : at + size], at + size
    left, top, right, bottom = struct.unpack('<4i', attributes['dataWindow'])
    height, width = bottom - top + 1, right - left + 1
    kind = {1: '<f2', 2: '<f4'}[attributes['channels'][2]]
    blocks = -(-height // 16)
    rows = []
    for start in struct.unpack(f'<{blocks}Q', data[at + 1 : at + 1 + 8 * blocks]):
        line, size = struct.unpack('<2i', data[start : start + 8])
        stored = data[start + 8 : start + 8 + size]
        expected = min(16, height - line) * 3 * width * np.dtype(kind).itemsize
        if size < expected:
            steps = np.frombuffer(zlib.decompress(stored), np.uint8).astype(int)
            steps[1:] -= 128
            values = np.cumsum(steps).astype(np.uint8)
            mixed = np.empty_like(values)
            mixed[::2], mixed[1::2] = np.split(values, [-(-len(values) // 2)])
            stored = mixed.tobytes()
        rows.append(np.frombuffer(stored, kind).reshape(-1, 3, width))
    return attributes, np.concatenate(rows).transpose(0, 2, 1)[..., ::-1]  # stored B, G, R


@pytest.mark.parametrize('precision', save.PRECISIONS)
def test_openexr_for_a_reader_by_the_letter(tmp_path, precision):
    expected = np.clip(image(), 0, 6e4)
    expected[20:] = expected[0, 0]  # noise would not be compressed
    save.save_hdr(tmp_path / 'a.exr', expected, 0.5, precision, white_luminance=203)
    attributes, pixels = openexr_by_the_letter((tmp_path / 'a.exr').read_bytes())
    np.testing.assert_array_equal(pixels, expected.astype(save.PRECISIONS[precision]))
    assert attributes['compression'] == b'\x03'  # ZIP, 16 lines
    assert struct.unpack('<f', attributes['exposure']) == (0.5,)
    assert struct.unpack('<f', attributes['whiteLuminance']) == (203,)


def test_openexr_says_nothing_that_was_not_given(tmp_path):
    save.save_hdr(tmp_path / 'a.exr', image(4, 4))
    with OpenEXR.File(str(tmp_path / 'a.exr')) as file:
        assert not {'exposure', 'expTime', 'whiteLuminance'} & set(file.header())


def test_a_real_size_keeps_its_shape(tmp_path):
    big = image(1000, 1500)
    for ending in save.HDR_ENDINGS:
        save.save_hdr(tmp_path / f'big{ending}', big, precision='float')
    assert image_io.read_hdr(tmp_path / 'big.hdr').shape == big.shape
    with OpenEXR.File(str(tmp_path / 'big.exr')) as file:
        np.testing.assert_array_equal(file.channels()['RGB'].pixels, big)


def changed(**values):
    pixels = np.ones((8, 8, 3), np.float32)
    pixels[1, 2, 0] = values['to']
    return pixels


@pytest.mark.parametrize('name, pixels, options, error, message', [
    ('a.png', changed(to=1), {}, ConfigError, 'HDR images are written as .hdr, .exr, not as .png'),
    ('a', changed(to=1), {}, ConfigError, 'not as this'),
    ('a.exr', changed(to=70000), {}, DataError, 'half floats end at 65504, .* 70000. Write it with precision float'),
    ('a.exr', changed(to=-65510), {}, DataError, 'half floats end at 65504'),
    ('a.exr', changed(to=1), {'precision': 'double'}, ConfigError, "half, float, not 'double'"),
    ('a.exr', changed(to=np.nan), {}, DataError, '1 values are NaN or infinite'),
    ('a.hdr', changed(to=np.inf), {}, DataError, '1 values are NaN or infinite'),
    ('a.hdr', changed(to=-0.5), {}, DataError, 'the image has -0.5 to 1. Write an .exr'),
    ('a.hdr', changed(to=1), {'exposure': 0}, ConfigError, 'exposure is a positive number, not 0'),
    ('a.exr', changed(to=1), {'exposure_time': -1}, ConfigError, 'exposure_time is a positive number'),
    ('a.hdr', changed(to=1), {'white_luminance': 100}, ConfigError, 'no place .* Write an .exr'),
    ('a.hdr', np.ones((8, 8), np.float32), {}, DataError, r'not float32 \[8, 8\]'),
    ('a.exr', np.ones((8, 8, 3), np.uint8), {}, DataError, 'not uint8'),
    ('a.exr', np.ones((0, 8, 3), np.float32), {}, DataError, r'not float32 \[0, 8, 3\]'),
    ('absent/a.exr', changed(to=1), {}, DataError, 'a.exr: cannot be written .No such file'),
    ('absent/a.hdr', changed(to=1), {}, DataError, 'a.hdr: cannot be written .No such file'),
])  # fmt: skip
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, name, pixels, options, error, message):
    with pytest.raises(error, match=message):
        save.save_hdr(tmp_path / name, pixels, **options)
    assert not list(tmp_path.rglob('*'))


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    save.save_hdr(tmp_path / 'a.exr', image(4, 4))
    before = (tmp_path / 'a.exr').read_bytes()

    class Full:
        def __init__(self, header, channels):
            pass

        def write(self, name):
            raise RuntimeError('disk full')

    monkeypatch.setattr(OpenEXR, 'File', Full)
    with pytest.raises(DataError, match='a.exr: cannot be written .disk full'):
        save.save_hdr(tmp_path / 'a.exr', image(8, 8))
    assert (tmp_path / 'a.exr').read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def picture():
    return cv2.resize(np.random.default_rng(1).integers(0, 256, (9, 13, 3), np.uint8), (52, 36))


def test_png_is_exact_and_says_srgb(tmp_path):
    save.save_picture(tmp_path / 'a.png', picture())
    with Image.open(tmp_path / 'a.png') as found, warnings.catch_warnings():
        warnings.simplefilter('error')
        np.testing.assert_array_equal(found, picture())
        assert found.info['srgb'] == 0
    names = [name for name, _ in png.chunks_of((tmp_path / 'a.png').read_bytes())]
    assert names[:2] == [b'IHDR', b'sRGB'] and names[-1] == b'IEND'


@pytest.mark.parametrize('ending', ['.jpg', '.JPEG'])
def test_jpeg_is_near_and_carries_the_srgb_profile(tmp_path, ending):
    save.save_picture(tmp_path / f'a{ending}', picture())
    with Image.open(tmp_path / f'a{ending}') as found:
        assert np.abs(np.asarray(found, int) - picture()).mean() < 2
        profile = ImageCms.ImageCmsProfile(ImageCms.core.profile_frombytes(found.info['icc_profile']))
    assert 'sRGB' in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize('name, pixels, error, message', [
    ('a.gif', picture(), ConfigError, 'pictures are written as .png, .jpg, .jpeg, not as .gif'),
    ('a.png', picture().astype(np.float32), DataError, 'Tone-map the image first'),
    ('a.jpg', np.zeros((2, 70000, 3), np.uint8), DataError, 'Write a .png'),
    ('absent/a.png', picture(), DataError, 'cannot be written'),
])  # fmt: skip
def test_pictures_that_cannot_be_written(tmp_path, name, pixels, error, message):
    with pytest.raises(error, match=message):
        save.save_picture(tmp_path / name, pixels)
    assert not list(tmp_path.rglob('*'))
