"""Files: what is read equals what other readers read; what is damaged is refused, with its name."""

import os
import struct
import warnings

import cv2
import numpy as np
import pytest
import tifffile

from afunet_jax import image_io
from afunet_jax.errors import DataError

HEIGHT, WIDTH = 60, 83


@pytest.fixture
def ldr() -> np.ndarray:
    """A ramp with noise: it compresses, but not to nothing."""
    random = np.random.RandomState(0)
    ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[..., None] * np.array([400, 430, 450])
    return (ramp + random.randint(0, 99, ramp.shape)).astype(np.uint16)


@pytest.fixture
def radiance() -> np.ndarray:
    return np.exp(3 * np.random.RandomState(1).standard_normal((HEIGHT, WIDTH, 3))).astype(np.float32)


def write_tiff(path, image, compression: int) -> None:
    assert cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])


def directory_first(data: bytes) -> bytes:
    """A little-endian TIFF with its directory before the pixels, as cameras and tifffile write it."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}
    (place,) = struct.unpack_from('<I', data, 4)
    (number,) = struct.unpack_from('<H', data, place)
    entries = [struct.unpack_from('<HHI4s', data, place + 2 + 12 * i) for i in range(number)]
    far = [sizes[kind] * count for _, kind, count, _ in entries if sizes[kind] * count > 4]
    start, out, extra = 8 + 2 + 12 * number + 4, b'', b''
    shift, strips = start + sum(far), {}
    for tag, kind, count, value in entries:
        size = sizes[kind] * count
        raw = value[:size] if size <= 4 else data[struct.unpack('<I', value)[0]:][:size]
        strips[tag] = struct.unpack(f'<{count}{"H" if kind == 3 else "I"}', raw) if tag in (273, 279) else ()
        if tag == 273:
            raw = struct.pack(f'<{count}I', *(offset + shift for offset in struct.unpack(f'<{count}I', raw)))
        if size > 4:
            value, extra = struct.pack('<I', start + len(extra)), extra + raw
        else:
            value = raw.ljust(4, b'\0')
        out += struct.pack('<HHI4s', tag, kind, count, value)
    pixels_end = max(map(sum, zip(strips[273], strips[279], strict=True)))
    return b'II*\0' + struct.pack('<IH', 8, number) + out + bytes(4) + extra + data[:pixels_end]


# ---- LDR --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('compression', [1, 5, 32946], ids=['none', 'lzw', 'deflate'])
def test_reads_16_bit_tiff_of_every_compression(tmp_path, ldr, compression):
    write_tiff(tmp_path / 'a.tif', ldr, compression)
    read = image_io.read_ldr(tmp_path / 'a.tif')
    assert read.dtype == np.uint16 and read.flags.c_contiguous
    np.testing.assert_array_equal(read, ldr)


@pytest.mark.parametrize('options', [
    {'byteorder': '>'}, {'bigtiff': True}, {'tile': (32, 32)}, {'rowsperstrip': 7},
    {'compression': 'zlib', 'rowsperstrip': 7}, {'compression': 'zlib', 'predictor': True}], ids=str)
def test_reads_tiff_of_another_writer(tmp_path, ldr, options):
    tifffile.imwrite(tmp_path / 'a.tif', ldr, photometric='rgb', **options)
    np.testing.assert_array_equal(image_io.read_ldr(tmp_path / 'a.tif'), ldr)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('options', [
    {}, {'tile': (32, 32)}, {'tile': (32, 32), 'byteorder': '>'}, {'tile': (64, 32), 'bigtiff': True}], ids=str)
@pytest.mark.filterwarnings('ignore::afunet_jax.image_io.EightBitWarning')
def test_tiffs_are_turned_upright(tmp_path, ldr, options, dtype, orientation):
    stored = (ldr // 257).astype(dtype) if dtype == 'uint8' else ldr.astype(dtype)
    tags = [(274, 'H', 1, orientation, True)]
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='rgb', extratags=tags, **options)
    turned = [stored, np.fliplr(stored), np.rot90(stored, 2), np.flipud(stored), stored.swapaxes(0, 1),
              np.rot90(stored, -1), np.rot90(stored, 2).swapaxes(0, 1), np.rot90(stored)][orientation - 1]  # fmt: skip
    read = image_io.read_hdr if dtype == 'float32' else image_io.read_ldr
    np.testing.assert_array_equal(read(tmp_path / 'a.tif'), turned.astype(np.uint16) * 257 if dtype == 'uint8' else turned)


@pytest.mark.parametrize(('kind', 'bigtiff'), [('b', False), ('h', False), ('I', False), ('Q', False), ('Q', True)])
@pytest.mark.filterwarnings('ignore::afunet_jax.image_io.EightBitWarning')
def test_an_orientation_of_another_type_counts_too(tmp_path, ldr, kind, bigtiff):
    stored, tags = (ldr // 257).astype(np.uint8), [(274, kind, 1, 6, True)]
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='rgb', bigtiff=bigtiff, extratags=tags)
    np.testing.assert_array_equal(image_io.read_ldr(tmp_path / 'a.tif') // 257, np.rot90(stored, -1))


@pytest.mark.parametrize('name', ['a.tif', 'a.tiff', 'a.png'])
def test_ldr_round_trip_16_bits(tmp_path, ldr, name):
    image_io.write_ldr(tmp_path / name, ldr)
    np.testing.assert_array_equal(image_io.read_ldr(tmp_path / name), ldr)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('name', ['a.tif', 'a.png'])
def test_8_bits_are_spread_with_a_warning(tmp_path, ldr, name):
    eight = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    image_io.write_ldr(tmp_path / name, eight)
    with pytest.warns(image_io.EightBitWarning, match=name):
        read = image_io.read_ldr(tmp_path / name)
    assert read.dtype == np.uint16 and read.min() == 0 and read.max() == 65535
    np.testing.assert_array_equal(read, eight.astype(np.uint16) * 257)


def test_16_bits_give_no_warning(tmp_path, ldr):
    image_io.write_ldr(tmp_path / 'a.tif', ldr)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        image_io.read_ldr(tmp_path / 'a.tif')


def test_reads_jpeg_and_colours_are_rgb(tmp_path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 2] = 250  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / 'a.jpg'), red)
    with pytest.warns(image_io.EightBitWarning):
        read = image_io.read_ldr(tmp_path / 'a.jpg')
    assert read[..., 0].min() > 60000 and read[..., 1:].max() < 2000


@pytest.mark.parametrize('make', [
    lambda ldr: (ldr[..., 0], {'photometric': 'minisblack'}),
    lambda ldr: (np.dstack([ldr, ldr[..., 0]]), {'photometric': 'rgb', 'extrasamples': ['unassalpha']}),
    lambda ldr: ((ldr / 65536).astype(np.float32), {'photometric': 'rgb'}),
    lambda ldr: (ldr.astype(np.uint32), {'photometric': 'rgb'}),
    lambda ldr: (ldr.astype(np.int16), {'photometric': 'rgb'}),
    lambda ldr: (ldr[..., 0].astype(np.uint8),
                 {'photometric': 'palette', 'colormap': np.zeros((3, 256), np.uint16)}),
    lambda ldr: (ldr.transpose(2, 0, 1), {'photometric': 'rgb', 'planarconfig': 'separate'}),
], ids=['grey', 'alpha', 'float', '32 bits', 'signed', 'palette', 'planes'])
def test_refuses_what_is_not_an_rgb_image(tmp_path, ldr, make):
    image, options = make(ldr)
    tifffile.imwrite(tmp_path / 'a.tif', image, **options)
    with pytest.raises(DataError, match='a.tif.*(Export|Copy)'):
        image_io.read_ldr(tmp_path / 'a.tif')


@pytest.mark.parametrize('share', [0.001, 0.05, 0.3, 0.6, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize('place', [bytes, directory_first], ids=['directory last', 'directory first'])
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('compression', [1, 5, 32946], ids=['none', 'lzw', 'deflate'])
def test_refuses_a_truncated_tiff(tmp_path, capfd, ldr, compression, bits, place, share):
    image = ldr if bits == 16 else (ldr >> 8).astype(np.uint8)
    write_tiff(tmp_path / 'a.tif', image, compression)
    capfd.readouterr()
    data = place((tmp_path / 'a.tif').read_bytes())
    (tmp_path / 'whole.tif').write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        image_io.read_ldr(tmp_path / 'whole.tif')
    # The last bytes of OpenCV's own files belong to the directory's values or to nothing.
    end = len(data) if place is directory_first else len(data) - 4
    (tmp_path / 'cut.tif').write_bytes(data[:max(int(share * end), 1)])
    with pytest.raises(DataError, match='cut.tif'):
        image_io.read_ldr(tmp_path / 'cut.tif')
    assert capfd.readouterr() == ('', '')  # OpenCV's log is silent


def test_refuses_a_tiff_whose_compressed_pixels_are_damaged(tmp_path, ldr):
    write_tiff(tmp_path / 'a.tif', ldr, 5)
    data = bytearray((tmp_path / 'a.tif').read_bytes())
    data[len(data) // 3:len(data) // 3 + 50] = bytes(50)
    (tmp_path / 'a.tif').write_bytes(data)
    with pytest.raises(DataError, match='a.tif.*damaged'):
        image_io.read_ldr(tmp_path / 'a.tif')


JPEGS = {
    'plain': [], 'progressive': [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], 'restarts': [cv2.IMWRITE_JPEG_RST_INTERVAL, 1],
    'both': [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
}  # fmt: skip
TRAILERS = {
    'nothing': b'', 'scans': b'\xff\xda' * 5, 'random': np.random.RandomState(2).bytes(400_000),
    'a cut picture': b'\xff\xd8\xff\xe0\0\4ab\xff\xda\0\4',
}  # fmt: skip


def jpeg_with_preview(image, options):
    """As of a camera: a whole JPEG stands in a segment before the pixels; a fill byte before a marker."""
    main, preview = (cv2.imencode('.jpg', x, options)[1].tobytes() for x in (image, image[::4, ::4]))
    segment = b'Exif\0\0' + preview
    return main[:2] + b'\xff\xff\xe1' + struct.pack('>H', 2 + len(segment)) + segment + main[2:]


@pytest.mark.parametrize('trailer', TRAILERS)
@pytest.mark.parametrize('kind', JPEGS)
def test_the_end_of_a_jpeg_is_found_whatever_follows_it(tmp_path, ldr, kind, trailer):
    data = jpeg_with_preview((ldr >> 8).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100, *JPEGS[kind]])
    assert data.count(b'\xff\0') and (kind == 'plain' or data.count(b'\xff\xda') > 2 or b'\xff\xd1' in data)
    (tmp_path / 'a.jpg').write_bytes(data + TRAILERS[trailer])
    with pytest.warns(image_io.EightBitWarning):
        read = image_io.read_ldr(tmp_path / 'a.jpg')
    np.testing.assert_array_equal(read[..., ::-1] // 257, cv2.imdecode(np.frombuffer(data, np.uint8), 1))
    scans = data.rindex(b'\xff\xda')
    for cut in (len(data) - 1, len(data) - 2, (scans + len(data)) // 2, scans + 1, scans - 1, len(data) // 4, 100, 21):
        (tmp_path / 'a.jpg').write_bytes(data[:cut])
        with pytest.raises(DataError, match='a.jpg: truncated, the JPEG has no end'):
            image_io.read_ldr(tmp_path / 'a.jpg')


def test_a_cut_jpeg_before_a_whole_one_is_truncated(tmp_path, ldr):
    data = cv2.imencode('.jpg', (ldr >> 8).astype(np.uint8))[1].tobytes()
    (tmp_path / 'a.jpg').write_bytes(data[:-200] + data)
    with pytest.raises(DataError, match='a.jpg: truncated'):
        image_io.read_ldr(tmp_path / 'a.jpg')


@pytest.mark.parametrize('segments', [b'', b'\xff\xda\0\2', b'\xff\xc0\0\2'])
def test_a_jpeg_without_a_frame_is_damaged(tmp_path, segments):
    (tmp_path / 'a.jpg').write_bytes(b'\xff\xd8' + segments + b'\xff\xd9')
    with pytest.raises(DataError, match='a.jpg: damaged, the JPEG has no frame header'):
        image_io.read_ldr(tmp_path / 'a.jpg')


@pytest.mark.parametrize('name, share', [(n, s) for n in ('a.png', 'a.jpg') for s in (0.1, 0.5, 0.99)])
def test_refuses_a_truncated_png_or_jpeg(tmp_path, ldr, name, share):
    cv2.imwrite(str(tmp_path / name), (ldr >> 8).astype(np.uint8))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:int(share * len(data))])
    with pytest.raises(DataError, match=f'{name}: truncated'):
        image_io.read_ldr(tmp_path / name)


@pytest.mark.parametrize('read', [image_io.read_ldr, image_io.read_hdr])
@pytest.mark.parametrize('content, words', [
    (b'', 'empty'), (b'hello', 'not a'), (b'<!DOCTYPE html>' * 100, 'not a'), (b'II*\0', 'truncated'),
    (None, 'read')])
def test_refuses_what_is_no_image(tmp_path, read, content, words):
    path = tmp_path / 'a.tif'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f'a.tif: .*{words}'):
        read(path)


def test_refuses_a_folder(tmp_path):
    with pytest.raises(DataError, match='cannot be read'):
        image_io.read_ldr(tmp_path)


# ---- HDR --------------------------------------------------------------------------------------------


def test_hdr_round_trip_is_the_nearest_rgbe(tmp_path, radiance):
    image_io.write_hdr(tmp_path / 'a.hdr', radiance)
    read = image_io.read_hdr(tmp_path / 'a.hdr')
    assert read.dtype == np.float32
    largest = radiance.max(axis=-1, keepdims=True)
    step = np.exp2(np.frexp(largest)[1] - 8.0)
    assert (np.abs(read - radiance) <= step).all() and np.abs(read - radiance).mean() < 0.27 * step.mean()
    image_io.write_hdr(tmp_path / 'b.hdr', read)
    assert (tmp_path / 'a.hdr').read_bytes() == (tmp_path / 'b.hdr').read_bytes()


def test_hdr_bytes_decode_without_the_added_half(tmp_path):
    pixels = np.random.RandomState(2).randint(0, 256, (5, 7, 4)).astype(np.uint8)  # width 7: stored flat
    pixels[0, :, 3] = [0, 1, 2, 128, 136, 254, 255]
    (tmp_path / 'a.hdr').write_bytes(b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 5 +X 7\n' + pixels.tobytes())
    read = image_io.read_hdr(tmp_path / 'a.hdr')
    exponent = pixels[..., 3:].astype(int)
    expected = np.where(exponent > 0, pixels[..., :3] * 2.0 ** (exponent - 136), 0)
    np.testing.assert_array_equal(read, expected.astype(np.float32))
    np.testing.assert_array_equal(read, image_io.from_rgbe(pixels))


@pytest.mark.parametrize('header', [
    b'#?RGBE\nFORMAT=32-bit_rle_rgbe\n\n',
    b'#?RADIANCE\n# Made by a program\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=1.0\nGAMMA=1\n\n',
    b'#?RADIANCE\nEXPOSURE=1.0\nSOFTWARE=x\nFORMAT=32-bit_rle_rgbe\n\n',
    b'#?RADIANCE\r\nFORMAT=32-bit_rle_rgbe\r\n\r\n'])
@pytest.mark.parametrize('width', [7, WIDTH])
def test_reads_the_headers_of_other_writers(tmp_path, radiance, header, width):
    radiance = np.ascontiguousarray(radiance[:, :width])
    image_io.write_hdr(tmp_path / 'a.hdr', radiance)
    data = (tmp_path / 'a.hdr').read_bytes()
    (tmp_path / 'b.hdr').write_bytes(header + data[data.index(b'-Y'):])
    one, other = (image_io.read_hdr(tmp_path / name) for name in ('a.hdr', 'b.hdr'))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('old, new, words', [
    (b'rgbe\n\n', b'xyze\n\n', 'FORMAT'), (b'FORMAT=32-bit_rle_rgbe', b'X=1', 'FORMAT'),
    (b'-Y', b'+X', 'size'), (b'-Y', b'Y', 'size'), (b'-Y 60', b'-Y 0', 'size'), (b'\n\n-Y', b'\n-Y', 'size'),
    (b'#?RADIANCE', b'Written by x', 'not an HDR image')])
def test_refuses_odd_headers(tmp_path, radiance, old, new, words):
    image_io.write_hdr(tmp_path / 'a.hdr', radiance)
    data = (tmp_path / 'a.hdr').read_bytes()
    assert old in data
    (tmp_path / 'a.hdr').write_bytes(data.replace(old, new, 1))
    with pytest.raises(DataError, match=f'a.hdr: .*{words}'):
        image_io.read_hdr(tmp_path / 'a.hdr')


@pytest.mark.parametrize('before', [b'Made by a camera\n', b'\n', b'two\r\nlines\n', b'#? no\n' * 50])
@pytest.mark.parametrize('header', [
    b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n# after\nEXPOSURE=2\n\n', b'#?RGBE\nFORMAT=32-bit_rle_rgbe\n\n'])
def test_reads_radiance_after_lines_of_text(tmp_path, radiance, before, header):
    image_io.write_hdr(tmp_path / 'a.hdr', radiance)
    data = (tmp_path / 'a.hdr').read_bytes()
    (tmp_path / 'b.hdr').write_bytes(before + header + data[data.index(b'-Y'):])
    one, other = (image_io.read_hdr(tmp_path / name) for name in ('a.hdr', 'b.hdr'))
    np.testing.assert_array_equal(one, other)
    assert image_io.radiance_start((tmp_path / 'b.hdr').read_bytes()) == len(before)


# The image as it is meant to be seen, to the scan lines of a file: Radiance's file formats, "-Y N +X M" and so on.
ORIENTATIONS = {
    '-Y +X': lambda x: x, '+Y +X': lambda x: x[::-1], '-Y -X': lambda x: x[:, ::-1], '+Y -X': lambda x: x[::-1, ::-1],
    '+X -Y': lambda x: x.transpose(1, 0, 2), '-X -Y': lambda x: x[:, ::-1].transpose(1, 0, 2),
    '+X +Y': lambda x: x[::-1].transpose(1, 0, 2), '-X +Y': lambda x: x[::-1, ::-1].transpose(1, 0, 2),
}  # fmt: skip


@pytest.mark.parametrize('width', [7, WIDTH], ids=['flat', 'rle'])
@pytest.mark.parametrize('name', ORIENTATIONS)
def test_reads_radiance_in_every_orientation(tmp_path, radiance, name, width):
    radiance = np.ascontiguousarray(radiance[:, :width])
    image_io.write_hdr(tmp_path / 'upright.hdr', radiance)
    lines = np.ascontiguousarray(ORIENTATIONS[name](radiance))
    image_io.write_hdr(tmp_path / 'a.hdr', lines)
    data = (tmp_path / 'a.hdr').read_bytes()
    first, second = name.encode().split()
    old = b'-Y %d +X %d' % lines.shape[:2]
    assert old in data
    data = data.replace(old, b'%s %d %s %d' % (first, len(lines), second, lines.shape[1]))
    (tmp_path / 'a.hdr').write_bytes(data)
    expected = image_io.read_hdr(tmp_path / 'upright.hdr')
    np.testing.assert_array_equal(image_io.read_hdr(tmp_path / 'a.hdr'), expected)
    assert image_io.radiance_size('a.hdr', data) == expected.shape[:2]


def old_code(rgbe):
    """The run-length code of before 1991: 1, 1, 1, n repeats; digits of larger counts follow, the lowest first."""
    out, pixels, i = b'', rgbe.reshape(-1, 4).tolist(), 0
    while i < len(pixels):
        run = 1
        while i + run < len(pixels) and pixels[i + run] == pixels[i]:
            run += 1
        out += bytes(pixels[i])
        more = run - 1
        while more:
            out += bytes([1, 1, 1, more & 255])
            more >>= 8
        i += run
    return out


@pytest.mark.parametrize('height, width', [(12, 40), (40, 700), (5, 7)])
def test_reads_the_run_length_code_of_before_1991(tmp_path, height, width):
    random = np.random.RandomState(4)
    rgbe = np.repeat(random.randint(2, 256, (height * width // 6 + 1, 4)), 6, axis=0)[:height * width].astype(np.uint8)
    rgbe[height * width // 3:height * width // 3 + min(1000, height * width // 2)] = [7, 8, 9, 130]
    coded = old_code(rgbe)
    assert len(coded) < 4 * height * width
    header = b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n' % (height, width)
    (tmp_path / 'a.hdr').write_bytes(header + coded)
    expected = image_io.from_rgbe(rgbe).reshape(height, width, 3)
    np.testing.assert_array_equal(image_io.read_hdr(tmp_path / 'a.hdr'), expected)
    for end in (4, len(coded) // 2, len(coded) - 3):
        (tmp_path / 'cut.hdr').write_bytes(header + coded[:end])
        with pytest.raises(DataError, match='cut.hdr: truncated'):
            image_io.read_hdr(tmp_path / 'cut.hdr')


@pytest.mark.parametrize('share', [0.001, 0.003, 0.01, 0.3, 0.6, 0.9, 0.9999])
@pytest.mark.parametrize('width', [7, WIDTH], ids=['flat', 'rle'])
def test_refuses_a_truncated_hdr(tmp_path, capfd, radiance, width, share):
    image_io.write_hdr(tmp_path / 'a.hdr', np.ascontiguousarray(radiance[:, :width]))
    data = (tmp_path / 'a.hdr').read_bytes()
    (tmp_path / 'a.hdr').write_bytes(data[:max(12, int(share * len(data)))])
    with pytest.raises(DataError, match='a.hdr: .*truncated'):
        image_io.read_hdr(tmp_path / 'a.hdr')
    assert capfd.readouterr() == ('', '')


def test_every_truncation_of_an_hdr_is_refused(tmp_path, radiance):
    path = tmp_path / 'a.hdr'
    image_io.write_hdr(path, np.ascontiguousarray(radiance[:3, :9]))
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(DataError, match='a.hdr'):
            image_io.read_hdr(path)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_reads_tiff_of_floats(tmp_path, radiance, dtype):
    tifffile.imwrite(tmp_path / 'a.tif', radiance.astype(dtype), photometric='rgb')
    np.testing.assert_array_equal(image_io.read_hdr(tmp_path / 'a.tif'), radiance)


def test_refuses_a_label_of_integers_or_exr(tmp_path, ldr):
    image_io.write_ldr(tmp_path / 'a.tif', ldr)
    with pytest.raises(DataError, match='a.tif.*floats'):
        image_io.read_hdr(tmp_path / 'a.tif')
    (tmp_path / 'a.exr').write_bytes(b'\x76\x2f\x31\x01' + bytes(100))
    with pytest.raises(DataError, match='a.exr.*Radiance .hdr and TIFF of floats'):
        image_io.read_hdr(tmp_path / 'a.exr')


# ---- OpenEXR ----------------------------------------------------------------------------------------


def write_exr(path, channels, **header):
    OpenEXR = pytest.importorskip('OpenEXR')
    header = {'compression': OpenEXR.ZIP_COMPRESSION, 'type': OpenEXR.scanlineimage, **header}
    OpenEXR.File(header, channels).write(str(path))


@pytest.mark.parametrize('dtype', [np.float16, np.float32])
@pytest.mark.parametrize('compression', ['NO', 'RLE', 'ZIPS', 'ZIP', 'PIZ'])
def test_reads_openexr(tmp_path, radiance, dtype, compression):
    OpenEXR = pytest.importorskip('OpenEXR')
    stored = (np.minimum(radiance, 1000) - 0.1).astype(dtype)  # some are negative
    write_exr(tmp_path / 'a.exr', {'RGB': stored}, compression=getattr(OpenEXR, f'{compression}_COMPRESSION'))
    read = image_io.read_exr(tmp_path / 'a.exr')
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, stored.astype(np.float32))
    assert image_io.exr_size(tmp_path / 'a.exr') == (HEIGHT, WIDTH)


def test_reads_the_only_layer_and_grey(tmp_path, radiance):
    planes = {c: np.ascontiguousarray(radiance[..., i]) for i, c in enumerate('RGB')}
    opaque = np.ones((HEIGHT, WIDTH), np.float32)
    layer = {f'beauty.{c}': plane for c, plane in planes.items()}
    write_exr(tmp_path / 'a.exr', {**layer, 'beauty.A': opaque, 'Z': opaque})
    np.testing.assert_array_equal(image_io.read_exr(tmp_path / 'a.exr'), radiance)
    write_exr(tmp_path / 'b.exr', {'Y': planes['G']})
    with pytest.warns(image_io.ExrWarning, match='b.exr: grey'):
        np.testing.assert_array_equal(image_io.read_exr(tmp_path / 'b.exr'), radiance[..., 1:2].repeat(3, -1))


def test_other_primaries_are_warned_of(tmp_path, radiance):
    aces = 0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767
    write_exr(tmp_path / 'a.exr', {'RGB': radiance}, chromaticities=aces)
    with pytest.warns(image_io.ExrWarning, match='a.exr: its primaries'):
        image_io.read_exr(tmp_path / 'a.exr')


@pytest.mark.parametrize('channels, words', [
    ({'U': 0, 'V': 0}, 'channels R, G, B are wanted once, it has U, V'),
    ({f'{layer}.{c}': 0 for layer in 'ab' for c in 'RGB'}, 'wanted once'),
    ({'R': 0, 'G': 0, 'B': 0, 'A': -0.5}, 'alpha channel is not opaque .smallest 0.5'),
    ({'R': 0, 'G': 0, 'B': np.nan}, '100 values of 300 are NaN')])
def test_refuses_other_openexr_files(tmp_path, channels, words):
    write_exr(tmp_path / 'a.exr', {name: np.full((10, 10), 1 + value, np.float32) for name, value in channels.items()})
    with pytest.raises(DataError, match=f'a.exr: .*{words}'):
        image_io.read_exr(tmp_path / 'a.exr')


@pytest.mark.parametrize('share', [0.001, 0.01, 0.1, 0.5, 0.9])
def test_refuses_a_truncated_openexr(tmp_path, radiance, share):
    write_exr(tmp_path / 'a.exr', {'RGB': radiance})
    data = (tmp_path / 'a.exr').read_bytes()
    (tmp_path / 'a.exr').write_bytes(data[:max(2, int(share * len(data)))])
    with pytest.raises(DataError, match='a.exr'):
        image_io.read_exr(tmp_path / 'a.exr')


# ---- RGBE -------------------------------------------------------------------------------------------


def test_rgbe_round_trip_is_exact_for_all_bytes():
    random = np.random.RandomState(3)
    for exponents in (np.arange(256), random.randint(0, 256, 4096), np.repeat([0, 1, 2, 9, 255], 500)):
        rgbe = random.randint(0, 256, (len(exponents), 4)).astype(np.uint8)
        rgbe[:, :3] >>= random.randint(0, 9, (len(rgbe), 1)).astype(np.uint8)  # not normalised
        rgbe[:, 3] = exponents
        values = image_io.from_rgbe(rgbe)
        again = image_io.to_rgbe(values)
        np.testing.assert_array_equal(image_io.from_rgbe(again), values)
        np.testing.assert_array_equal(image_io.to_rgbe(image_io.from_rgbe(again)), again)


@pytest.mark.parametrize('value, expected', [
    (0.0, [0, 0, 0, 0]), (1.0, [128, 128, 128, 129]), (0.5, [128, 128, 128, 128]),
    (255.4 / 256, [255, 255, 255, 128]), (255.6 / 256, [128, 128, 128, 129]), (2.0 ** -149, [0, 0, 0, 0])])
def test_rgbe_of_known_values(value, expected):
    rgbe = image_io.to_rgbe(np.full((1, 1, 3), value, np.float32))
    assert rgbe.dtype == np.uint8 and rgbe.shape == (1, 1, 4)
    assert rgbe[0, 0].tolist() == expected


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, -1e-6, 3e38])
def test_refuses_to_write_what_rgbe_cannot_hold(tmp_path, radiance, bad):
    radiance[3, 4, 1] = bad
    with pytest.raises(DataError, match='a.hdr.*Clip'):
        image_io.write_hdr(tmp_path / 'a.hdr', radiance)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('write, name, image', [
    (image_io.write_hdr, 'a.exr', np.zeros((8, 8, 3), np.float32)),
    (image_io.write_hdr, 'a.hdr', np.zeros((8, 8), np.float32)),
    (image_io.write_hdr, 'a.hdr', np.zeros((8, 8, 3), np.float64)),
    (image_io.write_ldr, 'a.jpg', np.zeros((8, 8, 3), np.uint8)),
    (image_io.write_ldr, 'a.png', np.zeros((8, 8, 4), np.uint8)),
    (image_io.write_ldr, 'a.png', np.zeros((8, 8, 3), np.float32)),
    (image_io.write_ldr, 'missing/a.png', np.zeros((8, 8, 3), np.uint8))])
def test_refuses_to_write(tmp_path, write, name, image):
    with pytest.raises(DataError, match=name):
        write(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    image_io.write_atomically(path, b'old')

    def fail(*_):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(DataError, match='a.txt.*No space'):
        image_io.write_atomically(path, b'new')
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]
