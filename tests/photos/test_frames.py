"""Photos from disk: the pixels of every format, its EXIF, and clear refusals."""

import builtins
import dataclasses
import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from photo_files import ADOBE_RGB, eight, exif, icc_profile, scene, sixteen, srgb, write_dng
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from afunet_jax import image_io
from afunet_jax.errors import DataError
from afunet_jax.photos.exif import Exif, PhotoWarning
from afunet_jax.photos.frames import DARK, read_frame

OpenEXR = pytest.importorskip('OpenEXR')
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


@pytest.fixture
def radiance():
    return scene()


def write_exr(path, channels, header=None):
    OpenEXR.File({'compression': OpenEXR.ZIP_COMPRESSION, 'type': OpenEXR.scanlineimage, **(header or {})},
                 channels).write(str(path))


def about(name, tags):
    """Pillow writes the inner directory of a TIFF's EXIF only if it is given as a dict."""
    if not name.endswith('.tif'):
        return {'exif': tags}
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info.update(dict(tags))
    info[ExifTags.IFD.Exif] = dict(tags.get_ifd(ExifTags.IFD.Exif))
    return {'tiffinfo': info}


# ---- what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.jpg'])
def test_8_bits(tmp_path, radiance, name):
    stored = eight(radiance, 0)
    Image.fromarray(stored).save(tmp_path / name, quality=100, subsampling=0, **about(name, exif(1 / 250, 2.8, 200)))
    frame = read_frame(tmp_path / name)
    assert frame.bits == 8 and frame.curve.name == 'srgb' and frame.size == stored.shape[:2]
    assert np.abs(frame.values.astype(int) - stored).max() <= (5 if name == 'a.jpg' else 0)
    assert frame.exif == Exif(1 / 250, 2.8, 200, 'Maker Model 1', 1)
    assert frame.exif.ev == pytest.approx(np.log2(2 / 250 / 2.8**2))
    assert str(frame.exif) == '1/250 s f/2.8 ISO 200'
    if name != 'a.jpg':
        np.testing.assert_allclose(frame.linear(), radiance, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_16_bits_are_what_the_benchmarks_are(tmp_path, radiance, name):
    stored = sixteen(radiance, 1)
    if name == 'a.tif':
        tifffile.imwrite(tmp_path / name, stored, photometric='rgb', extratags=[(33434, 5, 1, (1, 60), True)])
    else:
        cv2.imwrite(str(tmp_path / name), stored[..., ::-1])
    frame = read_frame(tmp_path / name)
    assert (frame.bits, frame.curve.name) == (16, 'gamma2.2')
    np.testing.assert_array_equal(frame.values, stored)
    np.testing.assert_array_equal(frame.encoded(), image_io.read_ldr(tmp_path / name))
    assert frame.exif.seconds == (pytest.approx(1 / 60) if name == 'a.tif' else None)


def test_the_curve_can_be_chosen(tmp_path, radiance):
    Image.fromarray(eight(radiance, 0)).save(tmp_path / 'a.png')
    assert read_frame(tmp_path / 'a.png', curve='linear').curve.name == 'linear'
    for name in ('estimate', 'log'):
        with pytest.raises(DataError, match='auto, linear, gamma2.2, srgb'):
            read_frame(tmp_path / 'a.png', curve=name)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('name', ['a.jpg', 'a.tif', 'a.png'])
def test_the_orientation_is_applied_as_pillow_applies_it(tmp_path, radiance, name, orientation):
    from PIL import ImageOps
    Image.fromarray(eight(radiance, 0)).save(tmp_path / name, quality=100, subsampling=0,
                                            exif=exif(orientation=orientation))
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    frame = read_frame(tmp_path / name)
    assert frame.size == expected.shape[:2] and frame.values.flags.c_contiguous
    assert np.abs(frame.values - expected).max() <= (2 if name == 'a.jpg' else 0)


@pytest.mark.parametrize('full_scale', [1.0, 4.0])
def test_the_profile_of_a_tiff_of_floats_is_that_of_16_bits(tmp_path, radiance, full_scale):
    profile, linear = icc_profile(ADOBE_RGB, gamma=1.0), np.minimum(radiance, 1).astype(np.float32)
    tifffile.imwrite(tmp_path / 'float.tif', full_scale * linear, photometric='rgb', iccprofile=profile)
    tifffile.imwrite(tmp_path / 'uint16.tif', np.rint(65535 * linear).astype(np.uint16), photometric='rgb',
                     iccprofile=profile)
    floats = read_frame(tmp_path / 'float.tif', full_scale=full_scale)
    assert floats.notes == ('colours converted from its ICC profile',) and floats.values.dtype == np.float32
    expected = np.minimum(read_frame(tmp_path / 'uint16.tif').linear(), 1)
    np.testing.assert_allclose(np.minimum(floats.linear(), 1), expected, atol=2e-4)
    assert (floats.values[(linear == 1).all(-1)] >= full_scale).all()


def test_a_profile_of_floats_that_cannot_be_used_is_told(tmp_path, radiance):
    profile = icc_profile(ADOBE_RGB, gamma=1.0, space=b'CMYK')
    tifffile.imwrite(tmp_path / 'a.tif', radiance.astype(np.float32), photometric='rgb', iccprofile=profile)
    with pytest.warns(PhotoWarning, match='a.tif: its ICC profile is passed over'):
        frame = read_frame(tmp_path / 'a.tif', full_scale=1e9)
    np.testing.assert_array_equal(frame.values, radiance.astype(np.float32))


def test_radiance_and_openexr_are_linear(tmp_path, radiance):
    image_io.write_hdr(tmp_path / 'a.hdr', radiance)
    write_exr(tmp_path / 'a.exr', {'RGB': radiance})
    tifffile.imwrite(tmp_path / 'a.tif', radiance, photometric='rgb')
    for name in ('a.hdr', 'a.exr', 'a.tif'):
        frame = read_frame(tmp_path / name)
        assert frame.curve is None and frame.bits == 32 and frame.values.dtype == np.float32
        np.testing.assert_allclose(frame.linear(), radiance, rtol=0 if name != 'a.hdr' else 0.1, atol=4e-3)
        np.testing.assert_allclose(frame.encoded(), 65535 * np.clip(frame.linear(), 0, 1) ** (1 / 2.2), atol=0.51)


def test_full_scale_of_floats(tmp_path, radiance):
    write_exr(tmp_path / 'a.exr', {'RGB': 4 * radiance})
    with pytest.warns(PhotoWarning, match='a.exr: .* above full_scale=1 .*the largest is 4.*--full_scale='):
        clipped = read_frame(tmp_path / 'a.exr')
    frame = read_frame(tmp_path / 'a.exr', full_scale=4.0)
    np.testing.assert_allclose(frame.linear(), radiance, rtol=1e-6)
    assert frame.saturated.mean() < 0.01 < clipped.saturated.mean()
    assert (clipped.encoded()[(4 * radiance) >= 1] == 65535).all()


def test_negative_values_become_0_and_are_counted(tmp_path, radiance):
    radiance[5, 7] = -0.5
    write_exr(tmp_path / 'a.exr', {'RGB': radiance.astype(np.float16)})
    with pytest.warns(PhotoWarning, match=f'a.exr: 3 of {radiance.size} values are negative; they become 0'):
        frame = read_frame(tmp_path / 'a.exr')
    assert frame.values.min() == 0 and (frame.values[5, 7] == 0).all()


def test_camera_raw(tmp_path):
    pytest.importorskip('rawpy')
    linear = np.zeros((64, 96, 3)) + [0.2, 0.3, 0.25]
    linear[:, 48:] = [0.5, 0.5, 0.5]
    linear[:16] = 9.0
    write_dng(tmp_path / 'a.dng', linear)
    frame = read_frame(tmp_path / 'a.dng')
    assert (frame.kind, frame.bits, frame.curve.name) == ('raw', 16, 'linear')
    np.testing.assert_allclose(frame.linear()[40, 20], [0.2, 0.3, 0.25], atol=2e-3)
    np.testing.assert_allclose(frame.linear()[40, 80], 0.5, atol=2e-3)
    assert frame.saturated[:12].all() and not frame.saturated[20:].any()
    assert frame.white_balance[:3] == pytest.approx((2.0, 1.0, 1.5), abs=1e-3)
    assert frame.exif == Exif(pytest.approx(0.004), pytest.approx(2.8), 200, 'Maker Model 1', 1)


def test_raw_frames_of_a_bracket_are_not_brightened_each_by_itself(tmp_path):
    pytest.importorskip('rawpy')
    linear = np.full((64, 64, 3), 0.2)
    linear[:32] = 0.4
    ratios = []
    for i, ev in enumerate((-3, -1, 0)):
        write_dng(tmp_path / f'{i}.dng', linear * 2.0**ev)
        ratios.append(read_frame(tmp_path / f'{i}.dng').linear()[48, 32] / (0.2 * 2.0**ev))
    np.testing.assert_allclose(ratios, 1, atol=0.01)


def test_raw_takes_the_white_balance_of_another_frame_and_its_orientation(tmp_path):
    pytest.importorskip('rawpy')
    write_dng(tmp_path / 'a.dng', np.full((64, 96, 3), 0.2), orientation=6)
    frame = read_frame(tmp_path / 'a.dng', white_balance=(2.0, 1.0, 3.0, 0.0))
    assert frame.size == (96, 64)
    np.testing.assert_allclose(frame.linear()[40, 20], [0.2, 0.2, 0.4], atol=2e-3)


@pytest.mark.parametrize('orientation', [1, 6])
def test_heic(tmp_path, radiance, orientation):
    heif = pytest.importorskip('pillow_heif')
    stored = eight(radiance, 0)
    image = heif.from_pillow(Image.fromarray(stored))
    image.save(tmp_path / 'a.heic', quality=95, chroma=444, exif=exif(1 / 30, 1.8, 50, orientation).tobytes())
    frame = read_frame(tmp_path / 'a.heic')
    upright = stored if orientation == 1 else np.rot90(stored, -1)
    assert (frame.kind, frame.bits, frame.curve.name) == ('heif', 8, 'srgb')
    assert frame.size == upright.shape[:2] and np.abs(frame.values.astype(int) - upright).mean() < 2
    assert (frame.exif.seconds, frame.exif.iso) == (pytest.approx(1 / 30), 50)


def test_heic_of_10_bits_reaches_full_scale(tmp_path):
    heif = pytest.importorskip('pillow_heif')
    stored = np.full((64, 64, 3), 65535, np.uint16)
    stored[:32] = 20000
    heif.from_bytes('RGB;16', (64, 64), stored.tobytes()).save(tmp_path / 'a.heic', quality=-1, chroma=444)
    frame = read_frame(tmp_path / 'a.heic')
    assert frame.bits == 10 and frame.curve.name == 'srgb'
    assert frame.values[48, 32].tolist() == [65535] * 3 and abs(int(frame.values[16, 32, 1]) - 20000) < 200


# ---- colours and channels ---------------------------------------------------------------------------


@pytest.mark.parametrize('bits', [8, 16])
def test_adobe_rgb_becomes_srgb(tmp_path, bits):
    wanted = np.array([0.2, 0.5, 0.3], np.float32)  # inside both gamuts
    srgb_to_xyz = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169],
                            [0.0139322, 0.0971045, 0.7141733]])
    adobe = np.linalg.solve(ADOBE_RGB, srgb_to_xyz @ wanted) ** (1 / 2.2)
    profile = icc_profile(ADOBE_RGB, gamma=2.2)
    if bits == 8:
        stored = np.zeros((32, 32, 3), np.uint8) + np.rint(255 * adobe).astype(np.uint8)
        Image.fromarray(stored).save(tmp_path / 'a.tif', icc_profile=profile)
    else:
        stored = np.zeros((32, 32, 3), np.uint16) + np.rint(65535 * adobe).astype(np.uint16)
        tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='rgb', iccprofile=profile)
    frame = read_frame(tmp_path / 'a.tif')
    np.testing.assert_allclose(frame.linear()[5, 5], wanted, rtol=0.02 if bits == 8 else 2e-3)
    assert len(frame.notes) == 1 and 'converted' in frame.notes[0]


def test_16_bits_take_the_curve_of_their_profile(tmp_path, radiance):
    stored = np.rint(65535 * srgb(radiance)).astype(np.uint16)
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='rgb', iccprofile=SRGB_PROFILE)
    frame = read_frame(tmp_path / 'a.tif')
    assert frame.curve.name == 'ICC profile'
    np.testing.assert_allclose(frame.linear(), radiance, rtol=5e-3, atol=1e-4)
    assert read_frame(tmp_path / 'a.tif', curve='gamma2.2').curve.name == 'gamma2.2'


@pytest.mark.parametrize('bits', [8, 16])
def test_a_profile_that_is_none_is_passed_over(tmp_path, radiance, bits):
    stored = eight(radiance, 0) if bits == 8 else sixteen(radiance, 0)
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='rgb', iccprofile=b'no profile' * 20)
    with pytest.warns(PhotoWarning, match='a.tif: its ICC profile is passed over'):
        frame = read_frame(tmp_path / 'a.tif')
    np.testing.assert_array_equal(frame.values, stored)


@pytest.mark.parametrize('name, mode', [('a.png', 'L'), ('a.jpg', 'L'), ('a.tif', 'L'), ('a.png', 'I;16')])
def test_grey_becomes_three_channels_with_a_warning(tmp_path, radiance, name, mode):
    stored = (eight if mode == 'L' else sixteen)(radiance, 0)[..., 1]
    Image.fromarray(stored).save(tmp_path / name, quality=100)
    with pytest.warns(PhotoWarning, match=f'{name}: grey, used as three equal channels'):
        frame = read_frame(tmp_path / name)
    assert frame.values.shape == (*stored.shape, 3)
    assert np.abs(frame.values - stored[..., None].astype(int)).max() <= (2 if name == 'a.jpg' else 0)


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_alpha_is_dropped_only_if_it_is_opaque(tmp_path, radiance, name):
    stored = np.dstack([eight(radiance, 0), np.full(radiance.shape[:2], 255, np.uint8)])
    Image.fromarray(stored).save(tmp_path / name)
    np.testing.assert_array_equal(read_frame(tmp_path / name).values, stored[..., :3])
    stored[3, 4, 3] = 254
    Image.fromarray(stored).save(tmp_path / name)
    with pytest.raises(DataError, match=f'{name}: the alpha channel is not opaque .smallest value 254 of 255'):
        read_frame(tmp_path / name)


@pytest.mark.parametrize('name, mode', [('a.png', 'P'), ('a.png', '1'), ('a.jpg', 'CMYK'), ('a.tif', 'CMYK'),
                                        ('a.tif', 'P'), ('a.tif', 'LAB')])
def test_refuses_other_colours(tmp_path, radiance, name, mode):
    image = Image.fromarray(eight(radiance, 0))
    (Image.new('LAB', image.size) if mode == 'LAB' else image.convert(mode)).save(tmp_path / name)
    with pytest.raises(DataError, match=f'{name}: .*Export it as RGB'):
        read_frame(tmp_path / name)


# ---- what is measured on a frame --------------------------------------------------------------------


@pytest.mark.parametrize('height, width', [(120, 160), (700, 1101), (3, 5), (1, 1)])
def test_the_preview_is_a_small_picture(tmp_path, height, width):
    radiance = cv2.resize(scene(), (width, height), interpolation=cv2.INTER_AREA)
    radiance[:1 + height // 4] = 1
    Image.fromarray(eight(radiance, 0)).save(tmp_path / 'a.png')
    frame = read_frame(tmp_path / 'a.png')
    preview = frame.preview
    assert preview.luminance.shape == preview.unclipped.shape and max(preview.luminance.shape) < 2 * 256
    assert height < 100 or preview.luminance.mean() == pytest.approx(frame.linear().mean(), rel=0.05)
    assert not preview.unclipped[0].any()
    if height > 100:
        assert preview.exposed().any() and not (preview.exposed() & (preview.luminance <= DARK)).any()


def test_the_digest_tells_frames_apart(tmp_path, radiance):
    for i, ev in enumerate((0, 0, 1)):
        Image.fromarray(eight(radiance, ev)).save(tmp_path / f'{i}.png', compress_level=1 + i)
    digests = [read_frame(tmp_path / f'{i}.png').digest for i in range(3)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize('tags, expected', [
    ({37377: 8.0}, (1 / 256, None)), ({33434: 0.0}, (None, None)), ({33434: float('nan')}, (None, None)),
    ({37378: 4.0, 33434: 2.0}, (2.0, 4.0)), ({33437: 0.0, 33434: 2.0}, (2.0, None)),
    ({37378: TiffImagePlugin.IFDRational(4294967295, 1), 33434: 2.0}, (2.0, None)),
    *(({37377: TiffImagePlugin.IFDRational(speed, 1)}, (None, None)) for speed in (2000, -2000, -2147483648))])
def test_odd_exif(tmp_path, radiance, tags, expected):
    about = exif()
    about.get_ifd(0x8769).update(tags)
    Image.fromarray(eight(radiance, 0)).save(tmp_path / 'a.jpg', exif=about)
    found = read_frame(tmp_path / 'a.jpg').exif
    assert (found.seconds, found.aperture) == expected
    assert found.ev is None or abs(found.ev) <= 64


@pytest.mark.parametrize('number', [1e-300, 1e-160, 1e300, 5e-324])
def test_exif_numbers_out_of_all_bounds_count_as_missing(tmp_path, radiance, number):
    data = exif(number, number).tobytes()
    assert data.count(struct.pack('>d', number)) == 2  # Pillow writes them as doubles
    Image.fromarray(eight(radiance, 0)).save(tmp_path / 'a.jpg', exif=data)
    found = read_frame(tmp_path / 'a.jpg').exif
    assert (found.seconds, found.aperture, found.ev) == (None, None, None)


@pytest.mark.parametrize('bigtiff, byteorder', [(False, '<'), (False, '>'), (True, '<')])
def test_bigtiff_is_read_as_tiff(tmp_path, radiance, bigtiff, byteorder):
    stored = np.rint(65535 * srgb(radiance)).astype(np.uint16)
    tags = [(271, 2, 0, 'Maker', True), (33434, 5, 1, (1, 60), True)]
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='rgb', iccprofile=SRGB_PROFILE, bigtiff=bigtiff,
                     byteorder=byteorder, extratags=tags)  # fmt: skip
    frame = read_frame(tmp_path / 'a.tif')
    assert frame.curve.name == 'ICC profile' and frame.exif == Exif(seconds=1 / 60, camera='Maker')
    np.testing.assert_array_equal(frame.values, stored)


def test_a_big_endian_bigtiff_is_read_without_its_tags_and_says_so(tmp_path, radiance):
    tifffile.imwrite(tmp_path / 'a.tif', sixteen(radiance, 0), photometric='rgb', bigtiff=True, byteorder='>')
    with pytest.warns(PhotoWarning, match='a.tif: its EXIF .* big-endian BigTIFF, whose ICC profile is not read'):
        frame = read_frame(tmp_path / 'a.tif')
    np.testing.assert_array_equal(frame.values, sixteen(radiance, 0))


def chunk(name, data):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


@pytest.mark.parametrize('where', ['first', 'late', 'text', 'late, and a film behind'])
def test_exif_of_a_png_wherever_it_is(tmp_path, radiance, where):
    encoded, tags = io.BytesIO(), exif(1 / 60, 8.0, 200, orientation=6).tobytes()
    Image.fromarray(eight(radiance, 0)).save(encoded, 'PNG')
    pixels, end = encoded.getvalue()[33:-12], encoded.getvalue()[-12:]
    content = chunk(b'eXIf', tags.removeprefix(b'Exif\0\0'))
    if where == 'text':
        hexadecimal = '\n'.join(tags.hex()[i:i + 72] for i in range(0, 2 * len(tags), 72))
        text = f'\nexif\n{len(tags):8d}\n{hexadecimal}\n'.encode()
        content = chunk(b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(text))
    parts = pixels + content if where.startswith('late') else content + pixels
    behind = b'film' * 5 if 'film' in where else b''
    (tmp_path / 'a.png').write_bytes(encoded.getvalue()[:33] + parts + end + behind)
    frame = read_frame(tmp_path / 'a.png')
    assert frame.exif == Exif(1 / 60, 8.0, 200, 'Maker Model 1', 6)
    np.testing.assert_array_equal(frame.values, np.rot90(eight(radiance, 0), -1))


def test_damaged_text_exif_of_a_png_counts_as_missing(tmp_path, radiance):
    text = PngImagePlugin.PngInfo()
    text.add_text('Raw profile type exif', '\nexif\n   4\nno hexadecimals')
    Image.fromarray(eight(radiance, 0)).save(tmp_path / 'a.png', pnginfo=text)
    with pytest.warns(PhotoWarning, match='a.png: its EXIF cannot be read'):
        assert read_frame(tmp_path / 'a.png').exif == Exif()


def test_a_jpeg_with_a_film_behind_it(tmp_path, radiance):
    Image.fromarray(eight(radiance, 0)).save(tmp_path / 'a.jpg', exif=exif(1 / 60))
    values = read_frame(tmp_path / 'a.jpg').values
    with open(tmp_path / 'a.jpg', 'ab') as file:
        file.write(b'\0\0\0\x18ftypmp42' + b'\xff\xda' * 99 + np.random.RandomState(0).bytes(300_000))
    np.testing.assert_array_equal(read_frame(tmp_path / 'a.jpg').values, values)


@pytest.mark.parametrize('cut', [10, 20, 40, 60])
def test_damaged_exif_counts_as_missing(tmp_path, radiance, cut):
    data = exif(1 / 250, 2.8, 200).tobytes()
    Image.fromarray(eight(radiance, 0)).save(tmp_path / 'a.jpg', exif=data[:cut] + b'\xff' * 40)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        frame = read_frame(tmp_path / 'a.jpg')
    assert frame.size == radiance.shape[:2] and frame.exif.seconds in (None, pytest.approx(1 / 250))


# ---- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize('name, content, words', [
    ('a.tif', b'%PDF-1.7\n' + bytes(3000), 'a PDF document'), ('a.jpg', b'<html>', 'not a photo'),
    ('a.png', b'', 'empty'),
    ('a.tif', b'II*\0', 'truncated'), ('a.heic', b'\0\0\0\x18ftypavif' + bytes(99), 'not a photo'),
    ('a.exr', b'v/1\1' + bytes(99), 'truncated or damaged'), ('a.hdr', b'#?RADIANCE\n', 'truncated'),
    ('a.nef', b'hello' * 99, 'LibRaw'), ('a.heic', b'\0\0\0\x18ftypheic' + bytes(99), 'truncated or damaged'),
    ('a.txt', b'1 2 3', 'not a photo'), ('gone.jpg', None, 'cannot be read')])
def test_refuses_what_is_no_photo(tmp_path, name, content, words):
    if name.endswith(('.nef', '.heic')):
        pytest.importorskip('rawpy' if name.endswith('.nef') else 'pillow_heif')
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f'{name}: .*{words}'):
        read_frame(tmp_path / name)


def test_refuses_a_folder(tmp_path):
    with pytest.raises(DataError, match='cannot be read'):
        read_frame(tmp_path)


def write_of_kind(path, radiance):
    """A file of the kind that its name says."""
    if path.suffix == '.hdr':
        image_io.write_hdr(path, radiance)
    elif path.suffix == '.exr':
        write_exr(path, {'RGB': radiance})
    elif path.suffix == '.dng':
        pytest.importorskip('rawpy')
        write_dng(path, radiance)
    elif path.suffix == '.heic':
        pytest.importorskip('pillow_heif').from_pillow(Image.fromarray(eight(radiance, 0))).save(path)
    else:
        Image.fromarray(eight(radiance, 0)).save(path)
    return path


@pytest.mark.parametrize('share', [0.05, 0.4, 0.9])
@pytest.mark.parametrize('name', ['a.tif', 'a.png', 'a.jpg', 'a.hdr', 'a.exr', 'a.dng', 'a.heic'])
def test_refuses_truncated_files(tmp_path, radiance, name, share):
    path = write_of_kind(tmp_path / name, radiance)
    data = path.read_bytes()
    path.write_bytes(data[:int(share * len(data))])
    with pytest.raises(DataError, match=name):
        read_frame(path)


def png_of(width, height):
    pixels = zlib.compress(bytes(1000))
    return (image_io.PNG_MAGIC + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
            + chunk(b'IDAT', pixels) + chunk(b'IEND', b''))


def jpeg_of(width, height):
    buffer = io.BytesIO()
    Image.new('RGB', (16, 16)).save(buffer, 'JPEG')
    data = buffer.getvalue()
    place = data.index(b'\xff\xc0') + 5
    return data[:place] + struct.pack('>HH', height, width) + data[place + 4:]


def tiff_of(width, height):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((16, 18, 3), np.uint8), photometric='rgb')
    data = buffer.getvalue()
    for old, new, tag in ((18, width, 256), (16, height, 257)):
        place = next(p for p in range(len(data)) if data[p:p + 2] == struct.pack('<H', tag)
                     and data[p + 8:p + 10] == struct.pack('<H', old))
        data = data[:place] + struct.pack('<HHII', tag, 4, 1, new) + data[place + 12:]
    return data


@pytest.mark.parametrize('name, make', [('a.png', png_of), ('a.jpg', jpeg_of), ('a.tif', tiff_of), (
    'a.hdr', lambda w, h: b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n' % (h, w) + bytes(99))])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch, name, make):
    (tmp_path / name).write_bytes(make(60000, 50000))
    monkeypatch.setattr(cv2, 'imdecode', None)  # nothing may be decoded
    with pytest.raises(DataError, match=f'{name}: 60000x50000 pixels .3000.0 megapixels. .*max_pixels=160000000'):
        read_frame(tmp_path / name)


def test_a_bomb_in_openexr_is_refused_by_its_header(tmp_path, radiance):
    write_exr(tmp_path / 'a.exr', {'RGB': radiance})
    data = (tmp_path / 'a.exr').read_bytes()
    old = struct.pack('<4i', 0, 0, radiance.shape[1] - 1, radiance.shape[0] - 1)
    assert data.count(old) == 2
    (tmp_path / 'a.exr').write_bytes(data.replace(old, struct.pack('<4i', 0, 0, 59999, 49999)))
    with pytest.raises(DataError, match='a.exr: 60000x50000 pixels|a.exr: truncated or damaged'):
        read_frame(tmp_path / 'a.exr')


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.jpg', 'a.hdr', 'a.exr', 'a.dng', 'a.heic'])
def test_the_limit_of_pixels_is_the_callers(tmp_path, radiance, name):
    path = write_of_kind(tmp_path / name, radiance)
    assert read_frame(path, max_pixels=radiance[..., 0].size).size == radiance.shape[:2]
    with pytest.raises(DataError, match=f'{name}: 160x120 pixels .*max_pixels=19199'):
        read_frame(path, max_pixels=radiance[..., 0].size - 1)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_refuses_floats_that_are_no_numbers(tmp_path, radiance, bad):
    radiance[3, 4, 1] = bad
    tifffile.imwrite(tmp_path / 'a.tif', radiance, photometric='rgb')
    write_exr(tmp_path / 'a.exr', {'RGB': radiance})
    for name in ('a.tif', 'a.exr'):
        with pytest.raises(DataError, match=f'{name}: 1 values of {radiance.size} are NaN or infinite'):
            read_frame(tmp_path / name)


def test_refuses_a_full_scale_of_0(tmp_path, radiance):
    write_exr(tmp_path / 'a.exr', {'RGB': radiance})
    with pytest.raises(DataError, match='full_scale must be above 0'):
        read_frame(tmp_path / 'a.exr', full_scale=0)


@pytest.mark.parametrize('package, name', [('rawpy', 'a.dng'), ('pillow_heif', 'a.heic'), ('OpenEXR', 'a.exr')])
def test_a_missing_reader_says_what_to_install(tmp_path, monkeypatch, package, name):
    (tmp_path / name).write_bytes({'a.heic': b'\0\0\0\x18ftypheic'}.get(name, b'v/1\1') + bytes(100))
    real = builtins.__import__

    def fail(wanted, *args, **kwargs):
        if wanted == package:
            raise ImportError(wanted)
        return real(wanted, *args, **kwargs)
    monkeypatch.setattr(builtins, '__import__', fail)
    with pytest.raises(DataError, match=f'{name}: .*pip install {package.replace("_", "-")}'):
        read_frame(tmp_path / name)


def test_an_hdr_heic_is_no_exposure(tmp_path, radiance):
    heif = pytest.importorskip('pillow_heif')
    image = heif.from_bytes('RGB;16', (160, 120), sixteen(radiance, 0).tobytes())
    image.save(tmp_path / 'a.heic', color_primaries=9, transfer_characteristics=16, matrix_coefficients=9,
               full_range_flag=1, save_nclx_profile=True)
    with pytest.raises(DataError, match='a.heic: an HDR image already .PQ.'):
        read_frame(tmp_path / 'a.heic')


@pytest.mark.parametrize('transfer, name', [(16, 'PQ'), (18, 'HLG'), (13, None)])
def test_an_hdr_png_is_no_exposure(tmp_path, radiance, transfer, name):
    encoded = cv2.imencode('.png', sixteen(radiance, 0))[1].tobytes()
    (tmp_path / 'a.png').write_bytes(encoded[:33] + chunk(b'cICP', bytes([9, transfer, 0, 1])) + encoded[33:])
    if name is None:
        return np.testing.assert_array_equal(read_frame(tmp_path / 'a.png').values[..., ::-1], sixteen(radiance, 0))
    with pytest.raises(DataError, match=f'a.png: an HDR image already .{name}.'):
        read_frame(tmp_path / 'a.png')


def test_a_heic_whose_images_cannot_be_found_is_damaged(tmp_path, radiance):
    heif = pytest.importorskip('pillow_heif')
    heif.from_pillow(Image.fromarray(eight(radiance, 0))).save(tmp_path / 'a.heic')
    whole = (tmp_path / 'a.heic').read_bytes()
    at = whole.index(b'pitm') + 8  # the number of the image that is shown
    (tmp_path / 'a.heic').write_bytes(whole[:at] + b'\0\x77' + whole[at + 2 :])
    with pytest.raises(DataError, match='a.heic: truncated or damaged'):
        read_frame(tmp_path / 'a.heic')


def test_a_heic_without_images_is_damaged(tmp_path, radiance, monkeypatch):
    heif = pytest.importorskip('pillow_heif')
    heif.from_pillow(Image.fromarray(eight(radiance, 0))).save(tmp_path / 'a.heic')
    real = heif.open_heif

    def none(*args, **kwargs):  # as of some damaged files
        found = real(*args, **kwargs)
        found._images.clear()
        return found
    monkeypatch.setattr(heif, 'open_heif', none)
    with pytest.raises(DataError, match='a.heic: truncated or damaged'):
        read_frame(tmp_path / 'a.heic')


def test_frames_are_replaced_not_changed(tmp_path, radiance):
    Image.fromarray(eight(radiance, 0)).save(tmp_path / 'a.png')
    frame = read_frame(tmp_path / 'a.png')
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.curve = None


@pytest.mark.slow
def test_100_megapixels(tmp_path):
    block = eight(scene(500, 500), 0)
    Image.fromarray(np.tile(block, (20, 20, 1))).save(tmp_path / 'a.jpg', quality=90)
    frame = read_frame(tmp_path / 'a.jpg')
    assert frame.size == (10000, 10000) and frame.encoded().dtype == np.uint16
    assert frame.preview.luminance.mean() == pytest.approx(scene(500, 500).mean(), rel=0.02)
