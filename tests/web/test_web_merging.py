"""Real files through the server: results equal the package's own, and wrong files end in messages."""

import io
import multiprocessing
import zlib

import numpy as np
import OpenEXR
import pytest
from photos import photo_files
from PIL import Image

from afunet_jax import image_io, merging, photos
from afunet_jax.outputs import png
from afunet_jax.web.worker import COMPILING, MERGING, READING, WRITING

EVS = -4, -2, 0
HEIGHT, WIDTH = 256, 384  # as in the browser's test: compiled once


def contents(paths):
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
    return photo_files.write_bracket(tmp_path_factory.mktemp('bracket'), EVS, radiance=photo_files.scene(HEIGHT, WIDTH))


@pytest.fixture(scope='module')
def files(paths):
    return contents(paths)


@pytest.fixture(scope='module')
def done(server, files):
    job = server.start(files)
    told = server.wait(job)
    assert told['state'] == 'finished', told
    return job, told['result']


def test_the_files_are_what_the_package_merges(server, paths, weights, done, tmp_path):
    job, told = done
    expected = merging.Merger(weights)(photos.load_bracket(paths))
    found = tmp_path / 'result.exr'
    found.write_bytes(server.get(job, 'exr'))
    np.testing.assert_allclose(image_io.read_exr(found), expected.image, rtol=2e-3, atol=1e-6)  # half floats
    assert OpenEXR.File(str(found)).header()['exposure'] == pytest.approx(1 / expected.radiance_scale)
    radiance = tmp_path / 'result.hdr'
    radiance.write_bytes(server.get(job, 'hdr'))
    largest = expected.image.max(-1, keepdims=True)
    assert (np.abs(image_io.read_hdr(radiance) - expected.image) <= largest / 128).all()  # 8 bits of a mantissa
    assert (told['height'], told['width']) == expected.image.shape[:2] == (HEIGHT, WIDTH)
    for line in expected.report.splitlines():
        assert line in told['report'].splitlines()


def test_pictures_are_for_ordinary_and_for_hdr_screens(server, done):
    for kind, chunk in (('png', b'sRGB'), ('hdr_png', b'cICP')):
        data = server.get(done[0], kind)
        assert chunk in dict(png.chunks_of(data))
        assert Image.open(io.BytesIO(data)).size == (WIDTH, HEIGHT)


def test_stages_come_in_order_and_time_left_once_it_is_known(server, files, done):
    again = server.start(files)
    server.wait(again)
    merged = [said for said in server.stages.values() if WRITING in dict(said)]
    names = [[name for name, _ in said] for said in merged]
    assert names[0] == [READING, COMPILING, MERGING, WRITING]  # all images here have one size
    assert all(later == [READING, MERGING, WRITING] for later in names[1:]) and len(names) > 1
    assert merged[0][2][1] is None and 0 < dict(server.stages[again])[MERGING] < 10


def test_given_exposures_and_a_smaller_size_are_used(server, files):
    told = server.wait(server.start(files, exposures=['1/400', '1/100', '1/25'], max_side=381))['result']
    assert (told['height'], told['width']) == (254, 381)
    assert 'IMG_2.png: +2.00 EV (given), srgb' in told['report']
    assert f'reduced from {WIDTH}x{HEIGHT} to 381x254 pixels' in told['report']


def test_warnings_reach_the_page(server, files):
    told = server.wait(server.start(files, exposures=['0', '1', '2']))['result']
    assert len(told['warnings']) == 1 and 'contradicts the pixels' in told['warnings'][0]


def test_warnings_of_every_reader_reach_the_page_with_what_can_be_done_there(server, paths, tmp_path):
    aces = 0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767
    for i, ev in enumerate(EVS):
        values = np.minimum(4 * 2.0**ev * photo_files.scene(HEIGHT, WIDTH), 4).astype(np.float32)
        OpenEXR.File({'chromaticities': aces}, {'RGB': values}).write(str(tmp_path / f'{i}.exr'))
    told = server.wait(server.start(contents(sorted(tmp_path.glob('*.exr'))), exposures=['0', '2', '4']))['result']
    assert sum('its primaries are not those of Rec. 709' in line for line in told['warnings']) == 3
    (clipped,) = (line for line in told['warnings'] if 'full_scale=1 ' in line)
    assert clipped.startswith('2.exr: ') and 'Export the frames so that they are clipped at 1' in clipped
    assert 'predict.py and --full_scale=' in clipped and 'afunet_jax.load' not in clipped


def test_a_warning_is_told_once(server, tmp_path):
    for path in photo_files.write_bracket(tmp_path, [0, 2, 4, 6]):
        Image.open(path).convert('L').save(path, exif=Image.open(path).getexif())
    told = server.wait(server.start(contents(sorted(tmp_path.glob('*.png')))))['result']
    assert sum('grey, used as three' in line for line in told['warnings']) == 4


PDF = b'%PDF-1.7\n' + b'x' * 1000


@pytest.mark.parametrize(
    ('changes', 'words', 'controls'),
    [
        ({'scan.tif': PDF}, ['scan.tif: not a photo', 'a PDF document'], []),
        ({'cut.png': None}, ['cut.png: '], []),
        ({'again.png': 'IMG_1.png'}, ['again.png: the same pixels as IMG_1.png'], []),
        ({'small.png': (90, 90)}, ['the photos: the frames have different sizes', 'small.png 90x90'], []),
        ({'plain.png': (WIDTH, HEIGHT)}, ['the exposures are not known', 'plain.png (no exposure time)'],
         ['exposures', 'estimate']),
    ],
)  # fmt: skip
def test_wrong_files_end_in_messages_with_the_users_names(server, files, changes, words, controls):
    (name, content), = changes.items()
    if content is None:
        content = files['IMG_3.png'][:-2000]
    elif isinstance(content, str):
        content = files[content]
    elif isinstance(content, tuple):
        encoded = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*content[::-1], 3), np.uint8)).save(encoded, 'PNG')
        content = encoded.getvalue()
    wrong = {'IMG_1.png': files['IMG_1.png'], 'IMG_2.png': files['IMG_2.png'], name: content}
    job = server.start(wrong)
    told = server.wait(job)
    assert told['state'] == 'failed'
    assert all(word in told['error'] for word in words), told['error']
    assert 'photo-' not in told['error'] and str(server.root) not in told['error']
    assert [cure['control'] for cure in told['cures']] == controls
    assert not (server.root / job).exists()


def test_two_photos_and_one_too_large_are_refused(server, files):
    two = dict(list(files.items())[:2])
    assert 'two frames (IMG_1.png, IMG_2.png)' in server.wait(server.start(two))['error']
    header = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + (50_000).to_bytes(4) + (50_000).to_bytes(4) + b'\x08\x02\0\0\0'
    bomb = header + zlib.crc32(header[12:]).to_bytes(4) + b'\0\0\0\x0aIDAT' + b'x' * 14 + b'\0\0\0\0IEND\xaeB`\x82'
    assert 'bomb.png: ' in server.wait(server.start({**two, 'bomb.png': bomb}))['error']


def test_a_process_that_died_is_started_again(server, files):
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    assert server.wait(server.start(files))['state'] == 'finished'
