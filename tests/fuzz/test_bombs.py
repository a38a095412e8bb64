"""Headers that promise 2 ** 31 pixels, files that unpack to far more than they are, and files that never end."""

import os
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from fuzz import mutations

from afunet_jax import image_io, torch_files, torch_weights
from afunet_jax.data import scenes
from afunet_jax.errors import DataError, WeightsError

HUGE = 2**31
RGBE = b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n'


def png(width, height, data=b''):
    header = struct.pack('>IIBBBBB', width, height, 16, 2, 0, 0, 0)
    return mutations.png_of([(b'IHDR', header), (b'IDAT', zlib.compress(data)), (b'IEND', b'')])


def tiff(width, height, compression=1, data=bytes(64)):
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, compression), (262, 3, 2), (273, 4, 8), (277, 3, 3),
            (278, 4, height), (279, 4, len(data))]  # fmt: skip
    directory = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', tag, kind, 1, value) for tag, kind, value in tags)
    return b'II*\0' + struct.pack('<I', 8 + len(data)) + data + directory + bytes(4)


def jpeg(width, height):
    frame = struct.pack('>BHHB', 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    return b'\xff\xd8\xff\xc0' + struct.pack('>H', 2 + len(frame)) + frame + b'\xff\xda\0\2' + bytes(20) + b'\xff\xd9'


def radiance(width, height, pixels=b''):
    return RGBE + b'-Y %d +X %d\n' % (height, width) + pixels


BOMBS = {  # name: content, the reader
    'png of 2^31 pixels': (png(65536, 32768), image_io.read_ldr),
    'png of 2^62 pixels': (png(HUGE - 1, HUGE - 1), image_io.read_ldr),
    'tiff of 2^31 pixels': (tiff(HUGE // 2, 2), image_io.read_ldr),
    'tiff of 2^64 pixels': (tiff(2 * HUGE - 1, 2 * HUGE - 1), image_io.read_ldr),
    'deflated tiff': (tiff(65536, 32768, 8, zlib.compress(bytes(10**6))), image_io.read_ldr),
    'float tiff': (tiff(65536, 32768), image_io.read_hdr),
    'jpeg of 4 gigapixels': (jpeg(65535, 65535), image_io.read_ldr),
    'hdr of 2^31 pixels': (radiance(65536, 32768), image_io.read_hdr),
    'hdr of many digits': (RGBE + b'-Y ' + b'9' * 5000 + b' +X 1\n', image_io.read_hdr),
    'hdr with old runs': (radiance(65536, 32768, b'\1\2\3\4' + b'\1\1\1\xff' * 4), image_io.read_hdr),
}


@pytest.mark.parametrize('name', BOMBS)
def test_refused_from_the_header(tmp_path, name, monkeypatch):
    monkeypatch.setattr(image_io.opencv, 'decode', None)  # never called
    content, read = BOMBS[name]
    (tmp_path / 'bomb').write_bytes(content)
    start = time.process_time()
    with pytest.raises(DataError, match='bomb: .*(max_pixels=160000000 allows|the size must read)'):
        read(tmp_path / 'bomb')
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize('content, read', [
    (png(10000, 10000, bytes(1000)), image_io.read_ldr), (tiff(10000, 10000), image_io.read_ldr),
    (jpeg(10000, 10000), image_io.read_ldr), (radiance(10000, 10000, bytes(1000)), image_io.read_hdr),
])  # fmt: skip
def test_sizes_within_the_limit_that_the_file_cannot_hold(tmp_path, content, read, monkeypatch):
    monkeypatch.setattr(image_io.opencv, 'decode', None)
    (tmp_path / 'bomb').write_bytes(content)
    with pytest.raises(DataError, match='bytes cannot hold them'):
        read(tmp_path / 'bomb')


@pytest.mark.parametrize('name', ['a.tif', 'a.png', 'b.hdr', 'c.exr'])
def test_the_limit_is_an_argument_and_exact(tmp_path, name):
    OpenEXR = pytest.importorskip('OpenEXR')
    path, image = tmp_path / name, np.full((20, 30, 3), 0.5, np.float32)
    if name == 'b.hdr':
        image_io.write_hdr(path, image)
    elif name == 'c.exr':
        OpenEXR.File({'type': OpenEXR.scanlineimage}, {'RGB': image}).write(str(path))
    else:
        image_io.write_ldr(path, (image * 65535).astype(np.uint16))
    read = {'.hdr': image_io.read_hdr, '.exr': image_io.read_exr}.get(path.suffix, image_io.read_ldr)
    assert read(path, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(DataError, match=r'30x20 pixels .* max_pixels=599 allows.*raise the limit'):
        read(path, max_pixels=599)


@pytest.mark.parametrize('length', [2**30, 2**31 - 1, 2**32 - 1])
def test_a_png_chunk_that_is_longer_than_the_file(tmp_path, length, monkeypatch):
    monkeypatch.setattr(image_io.opencv, 'decode', None)  # OpenCV 5.0 takes so much memory before it looks
    whole = png(30, 20, bytes(1000))
    at = whole.index(b'IDAT') - 4
    (tmp_path / 'a.png').write_bytes(whole[:at] + struct.pack('>I', length) + whole[at + 4 :])
    with pytest.raises(DataError, match='a.png: truncated'):
        image_io.read_ldr(tmp_path / 'a.png')


def test_exr_channels_of_other_sizes(tmp_path, monkeypatch):
    OpenEXR = pytest.importorskip('OpenEXR')
    OpenEXR.File({'type': OpenEXR.scanlineimage}, {'RGB': np.ones((20, 30, 3), np.float32)}).write(str(tmp_path / 'a.exr'))
    rows = [np.ones((20, 30), np.float32), np.ones((10, 15), np.float32), np.ones((20, 30), np.float32)]
    monkeypatch.setattr(image_io.exr, '_exr_colours', lambda path, channels: (rows, None))
    with pytest.raises(DataError, match='a.exr: its channels have not all 30x20 pixels'):
        image_io.read_exr(tmp_path / 'a.exr')


def test_black_images_compress_far_and_are_read(tmp_path):
    image_io.write_ldr(tmp_path / 'a.png', np.zeros((2000, 3000, 3), np.uint16))
    image_io.write_ldr(tmp_path / 'a.tif', np.zeros((2000, 3000, 3), np.uint16))
    image_io.write_hdr(tmp_path / 'a.hdr', np.zeros((2000, 3000, 3), np.float32))
    for name in ('a.png', 'a.tif'):
        assert (tmp_path / name).stat().st_size < 500_000 and not image_io.read_ldr(tmp_path / name).any()
    assert not image_io.read_hdr(tmp_path / 'a.hdr').any()


def test_tags_that_share_one_long_place(tmp_path):
    entries = 5000  # each as long as the file: 5000 * 60 kB of numbers, 8 bytes each in a tuple
    tags = b''.join(struct.pack('<HHII', 300 + i, 1, 60_000, 0) for i in range(entries))
    (tmp_path / 'a.tif').write_bytes(b'II*\0' + struct.pack('<IH', 8, entries) + tags + bytes(10))
    with pytest.raises(DataError, match='TIFF directory cannot be read'):
        image_io.read_ldr(tmp_path / 'a.tif')


@pytest.mark.parametrize('read', [image_io.read_ldr, image_io.read_hdr, image_io.read_exr, scenes.read_exposures])
def test_pipes_and_devices_are_no_files(tmp_path, read):
    os.mkfifo(tmp_path / 'pipe')  # opening it would wait for ever
    (tmp_path / 'zero').symlink_to('/dev/zero')
    for name in ('pipe', 'zero'):
        with pytest.raises(DataError, match=f'{name}: .*not a file'):
            read(tmp_path / name)


def test_files_that_are_too_long(tmp_path):
    with open(tmp_path / 'a.tif', 'wb') as file:
        file.truncate(image_io.MAX_FILE_BYTES + 1)
    (tmp_path / 'exposure.txt').write_text('1 ' * scenes.MAX_EXPOSURE_BYTES)
    with pytest.raises(DataError, match='a.tif: .* bytes are more than'):
        image_io.read_ldr(tmp_path / 'a.tif')
    with pytest.raises(DataError, match='exposure.txt: .* longer than'):
        scenes.read_exposures(tmp_path / 'exposure.txt')


@pytest.mark.parametrize('text', ['0 2 61', '-61 0 2', '0 2 1e38', '0 2 1e999', '0 2 nan'])
def test_exposures_that_no_camera_has(tmp_path, text):
    (tmp_path / 'exposure.txt').write_text(text)
    with pytest.raises(DataError, match='exposure.txt: exposures (are stops from -60 to 60|must be finite)'):
        scenes.read_exposures(tmp_path / 'exposure.txt')


def test_a_pth_that_unpacks_to_more_than_it_is(tmp_path):
    import zipfile

    torch.save({'a': torch.zeros(10**6)}, tmp_path / 'plain.pth')
    assert torch_weights.read_pth(tmp_path / 'plain.pth')['a'].shape == (10**6,)
    with zipfile.ZipFile(tmp_path / 'plain.pth') as plain, zipfile.ZipFile(tmp_path / 'packed.pth', 'w', zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / 'packed.pth').stat().st_size < 20_000
    with pytest.raises(WeightsError, match='packed.pth: damaged, or a bomb: .* bytes that unpack to 4'):
        torch_weights.read_pth(tmp_path / 'packed.pth')


def test_tensors_that_repeat_one_number(tmp_path):
    torch.save({'a': torch.zeros(1, dtype=torch.float16).expand(2**20, 2**14)}, tmp_path / 'a.pth')
    with pytest.raises(WeightsError, match=f'a.pth: its tensors have {2**35} bytes and the file'):
        torch_weights.read_pth(tmp_path / 'a.pth')


@pytest.mark.parametrize('version, safe', [('2.5.1', False), ('2.9.1+cu128', False), ('2.10.0', True), ('3.0', True)])
def test_a_pytorch_with_known_holes_reads_nothing(version, safe):
    if safe:
        torch_files.check_version('a.pth', version)
        return
    with pytest.raises(WeightsError, match=f'a.pth: PyTorch {version.replace("+", ".")}.*torch>=2.10'):
        torch_files.check_version('a.pth', version)
