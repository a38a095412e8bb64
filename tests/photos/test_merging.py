"""Photos in, one HDR image out: by the three functions, by the command, and what is refused."""

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import photo_files
import pytest
import small
from PIL import Image

import afunet_jax
from afunet_jax import evaluation, hdr, image_io, merging, safetensors_weights
from afunet_jax.data.synthetic import compose
from afunet_jax.errors import ConfigError, DataError, WeightsError
from afunet_jax.models import afunet

HEIGHT, WIDTH = 96, 136
EVS = [-2, 0, 2]


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'w.safetensors'
    safetensors_weights.write(path, afunet.init_params(afunet.build(small.MODEL), 0), {'model': small.MODEL})
    return path


@pytest.fixture(scope='module')
def scene():
    return compose.make_scene(4, 2, HEIGHT, WIDTH, evs=(0, 2, 4))


def write_photos(folder, scene, names=('b.tif', 'c.tif', 'a.tif')):
    """The scene as 16-bit files, not in the order of their exposures, with `exposure.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names]
    for path, ldr in zip(paths, scene.ldrs):
        image_io.write_ldr(path, ldr)
    evs = [ev for _, ev in sorted(zip(names, EVS))]
    (folder / 'exposure.txt').write_text('\n'.join(map(str, evs)))
    return paths


@pytest.fixture
def photos(tmp_path, scene):
    return write_photos(tmp_path / 'bracket', scene)


def predict(*arguments, status=0):
    """Runs predict.py in this process: what it printed."""
    import predict as program

    try:
        found = program.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        found = stop.code
    assert found == status


def test_the_three_functions_give_what_the_evaluation_gives(photos, weights, scene, tmp_path):
    merged = afunet_jax.merge(afunet_jax.load(photos), weights)
    settings, params = (lambda about, params: (about['model'], params))(*safetensors_weights.read(weights))
    expected = evaluation.Network(afunet.build(settings), params, 8)(scene)
    np.testing.assert_array_equal(merged.image, expected.image)
    afunet_jax.save(tmp_path / 'r.exr', merged, precision='float')
    np.testing.assert_array_equal(image_io.read_exr(tmp_path / 'r.exr'), merged.image)
    with pytest.raises(AttributeError, match='no attribute'):
        afunet_jax.other


def test_the_header_brings_brackets_of_a_shoot_to_one_scale(photos, weights, tmp_path):
    merged = afunet_jax.merge(afunet_jax.load(photos), weights)
    assert merged.radiance_scale == 4  # the short frame was taken at EV -2
    afunet_jax.save(tmp_path / 'r.hdr', merged)
    header = (tmp_path / 'r.hdr').read_bytes().split(b'\n\n')[0]
    (exposure,) = (float(line.split(b'=')[1]) for line in header.split(b'\n') if line.startswith(b'EXPOSURE='))
    assert exposure == 1 / 4
    other = merged.scaled_to(3.0)
    np.testing.assert_allclose(other.image * other.radiance_scale, merged.image * merged.radiance_scale, rtol=1e-6)


@pytest.mark.parametrize('ending', ['hdr', 'exr', 'png', 'jpg'])
def test_every_format_opens_in_opencv_at_its_size(photos, weights, tmp_path, ending):
    path = tmp_path / f'r.{ending}'
    predict(*photos, f'--weights={weights}', f'--out={path}')
    if ending == 'exr':
        found = image_io.read_exr(path)
    else:
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found.shape == (HEIGHT, WIDTH, 3) and found.std() > 0


def test_an_unknown_ending_is_refused_with_the_known_ones(photos, weights, tmp_path, capsys):
    predict(*photos, f'--weights={weights}', f'--out={tmp_path}/r.psd', status=2)
    assert '.hdr, .exr, .png' in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(photos, weights, tmp_path, capsys):
    path = tmp_path / 'r.png'
    path.write_bytes(b'mine')
    predict(*photos, f'--weights={weights}', f'--out={path}', status=2)
    assert '--overwrite' in capsys.readouterr().err and path.read_bytes() == b'mine'
    predict(*photos, f'--weights={weights}', f'--out={path}', '--overwrite')
    assert path.read_bytes()[1:4] == b'PNG'


def test_a_folder_of_folders_is_merged_and_a_bad_one_is_told(scene, weights, tmp_path, capsys):
    for name in ('one', 'two'):
        write_photos(tmp_path / 'shoot' / name, scene)
    (tmp_path / 'shoot' / 'two' / 'b.tif').write_bytes(b'%PDF-1.4 no photo')
    predict(tmp_path / 'shoot', f'--weights={weights}', f'--out={tmp_path}/out', status=2)
    told = capsys.readouterr()
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {'one.hdr', 'one.png'}
    assert 'error: two' in told.err and 'b.tif' in told.err and '1 of 2 brackets failed' in told.err
    write_photos(tmp_path / 'shoot' / 'two', scene)
    predict(tmp_path / 'shoot', f'--weights={weights}', f'--out={tmp_path}/out')
    assert '1 of 2 brackets are merged already' in capsys.readouterr().err
    assert len(list((tmp_path / 'out').iterdir())) == 4


def test_photos_and_folders_are_not_mixed(photos, weights, tmp_path, capsys):
    predict(photos[0], photos[0].parent, f'--weights={weights}', f'--out={tmp_path}/r.png', status=2)
    assert 'not both' in capsys.readouterr().err
    predict(tmp_path / 'none.tif', f'--weights={weights}', f'--out={tmp_path}/r.png', status=2)
    assert 'no such file' in capsys.readouterr().err


def test_one_reference_gives_one_scale(photos, weights, tmp_path):
    predict(*photos, f'--weights={weights}', f'--out={tmp_path}/short.hdr')
    predict(*photos, f'--weights={weights}', f'--out={tmp_path}/zero.hdr', '--reference_ev=0')
    short, zero = (image_io.read_hdr(tmp_path / f'{name}.hdr') for name in ('short', 'zero'))
    np.testing.assert_allclose(zero, 4 * short, rtol=0.01, atol=1e-4)


def test_jpegs_with_exif_and_a_smaller_size(scene, weights, tmp_path, capsys):
    paths = []
    for i, (ldr, seconds) in enumerate(zip(scene.ldrs, (1 / 400, 1 / 100, 1 / 25))):
        linear = (ldr / 65535.0) ** hdr.GAMMA
        encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        paths.append(tmp_path / f'IMG_{i}.jpg')
        exif = photo_files.exif(seconds=seconds, aperture=8.0, iso=100)
        Image.fromarray(np.round(255 * encoded).astype(np.uint8)).save(paths[-1], quality=97, exif=exif)
    predict(*reversed(paths), f'--weights={weights}', f'--out={tmp_path}/r.png', '--max_side=68')
    told = capsys.readouterr().out
    assert '+2.00 EV (EXIF), srgb' in told and f'reduced from {WIDTH}x{HEIGHT} to 68x48' in told
    assert Image.open(tmp_path / 'r.png').size == (68, 48)


def test_the_time_of_a_large_image_is_foretold(photos, weights, monkeypatch, capsys):
    monkeypatch.setattr(merging, 'LARGE', 0)
    monkeypatch.setattr(merging, 'SAMPLE', 16)
    monkeypatch.setattr(merging, 'SAY_SECONDS', 0.0)
    merger = merging.Merger(weights)
    network, merger._network = merger._network, None
    monkeypatch.setattr(merger, '_network', Slow(network))
    merger(merging.load(photos))
    told = capsys.readouterr().err
    assert 'a large image, about 0:0' in told and 'merging for 0:00' in told


class Slow:
    """A network that leaves time for a line of progress."""

    def __init__(self, network):
        self._network, self.merge = network, network.merge

    def __call__(self, scene):
        import time

        time.sleep(0.2)
        return self._network(scene)


def test_what_cannot_be_is_refused(photos, weights, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match='max_side'):
        merging.Merger(weights, max_side=-1)
    with pytest.raises(WeightsError, match='no such file'):
        merging.Merger(tmp_path / 'none.safetensors')
    monkeypatch.setattr(safetensors_weights, 'PACKAGED', tmp_path / 'none.safetensors')
    with pytest.raises(WeightsError, match='come with this copy'):
        merging.Merger()
    bracket = merging.load(photos)
    with pytest.raises(DataError, match='cannot be padded'):
        merging.Merger(weights)(dataclasses.replace(bracket, ldrs=bracket.ldrs[:, :3, :3]))


def test_importing_the_package_loads_nothing():
    code = 'import sys, afunet_jax; assert "jax" not in sys.modules and "numpy" not in sys.modules'
    assert subprocess.run([sys.executable, '-c', code], cwd=small.ROOT).returncode == 0
