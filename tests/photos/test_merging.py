"""Photos in, one HDR image out: by the three functions, by the command, and what is refused."""

import dataclasses
import re
import subprocess
import sys
import warnings

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
from afunet_jax.photos import PhotoWarning

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
    expected = evaluation.Network(afunet.build(settings), params, 8, align='flow')(scene)
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
    assert '1 of 2 brackets have their files;' in capsys.readouterr().err
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


# ---- files that are there, and files that are not ---------------------------------------------------


@pytest.fixture
def shoot(tmp_path, scene):
    for name in ('one', 'two'):
        write_photos(tmp_path / 'shoot' / name, scene)
    return tmp_path / 'shoot'


@pytest.fixture
def no_network(monkeypatch):
    """Fails where a network is loaded."""

    def load(*_):
        raise AssertionError('the network was loaded')

    monkeypatch.setattr(merging, 'Merger', load)


def png_photos(folder, seconds=(1 / 400, 1 / 100, 1 / 25)):
    return photo_files.write_bracket(folder, [np.log2(100 * time) for time in seconds])


@pytest.mark.parametrize('way', ['folder', 'file', 'link', 'hard link'])
def test_no_photo_is_ever_overwritten(tmp_path, weights, no_network, capsys, way):
    paths = png_photos(tmp_path / 'shoot')
    before = paths[0].read_bytes()
    out = {'folder': paths[0].parent, 'file': paths[0]}.get(way, tmp_path / 'r.png')
    if way == 'link':
        out.symlink_to(paths[0])
    elif way == 'hard link':
        out.hardlink_to(paths[0])
    for more in ((), ('--overwrite',)):
        predict(*paths, f'--out={out}', *more, status=2)
        told = capsys.readouterr().err
        assert 'one of the photos' in told and ('r.png' if 'link' in way else 'IMG_1.png') in told
    assert paths[0].read_bytes() == before


@pytest.fixture
def raws(tmp_path):
    """A bracket of a camera that writes two files for each frame."""
    paths = [path.rename(path.with_suffix('.tif')) for path in png_photos(tmp_path / 'shoot')]
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'shoot' / 'IMG_1.jpg')
    return paths


@pytest.mark.parametrize('more', [(), ('--overwrite',)])
@pytest.mark.parametrize('way', ['folder', 'file', 'other path', 'links to photos', 'link to folder'])
def test_no_photo_beside_them_is_overwritten_or_taken_for_a_result(tmp_path, raws, no_network, capsys, way, more):
    beside, out = raws[0].with_suffix('.jpg'), raws[0].parent
    before = beside.read_bytes()
    if way == 'links to photos':
        (tmp_path / 'links').mkdir()
        for path in raws:
            (tmp_path / 'links' / path.name).symlink_to(path)
        raws = [tmp_path / 'links' / path.name for path in raws]
    elif way == 'link to folder':
        (tmp_path / 'link').symlink_to(out)
        out = tmp_path / 'link'
    out = {'file': beside, 'other path': out / '..' / 'shoot' / beside.name}.get(way, out)
    predict(*raws, f'--out={out}', '--formats=jpg', *more, status=2)
    assert 'IMG_1.jpg: a photo, and no result of this program' in capsys.readouterr().err
    assert beside.read_bytes() == before


def test_no_photo_elsewhere_is_overwritten(tmp_path, raws, no_network, capsys):
    out = tmp_path / 'out'
    out.mkdir()
    retouched = raws[0].with_suffix('.jpg').rename(out / 'IMG_1.jpg')
    before = retouched.read_bytes()
    predict(*raws, f'--out={out}', '--formats=jpg', '--overwrite', status=2)
    assert 'IMG_1.jpg: a photo, and no result of this program' in capsys.readouterr().err
    predict(*raws, f'--out={out}', '--formats=jpg')  # what is there stays
    assert '1 of 1 brackets have their files;' in capsys.readouterr().err
    assert retouched.read_bytes() == before


def test_results_among_the_photos_are_written_anew(photos, weights, capsys):
    folder = photos[0].parent
    for more in ((), ('--overwrite',)):
        predict(*photos, f'--weights={weights}', f'--out={folder}', '--formats=hdr,exr,png,jpg', *more)
    predict(*photos, f'--weights={weights}', f'--out={folder}', '--formats=hdr,exr,png,jpg')
    assert '1 of 1 brackets have their files;' in capsys.readouterr().err


def test_the_file_that_is_there_is_named(photos, tmp_path, no_network, capsys):
    (tmp_path / 'b.png').touch()
    predict(*photos, f'--out={tmp_path}/a.hdr,{tmp_path}/b.png', status=2)
    told = capsys.readouterr().err
    assert 'b.png: is there already' in told and 'a.hdr' not in told


def test_a_batch_writes_what_is_missing_and_nothing_else(shoot, weights, tmp_path, capsys):
    arguments = shoot, f'--weights={weights}', f'--out={tmp_path}/out', '--formats=hdr, .png'
    predict(*arguments)
    (tmp_path / 'out' / 'two.png').unlink()
    (tmp_path / 'out' / 'two.hdr').write_bytes(b'mine')
    predict(*arguments)
    assert '1 of 2 brackets have their files;' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'two.hdr').read_bytes() == b'mine'
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['one.hdr', 'one.png', 'two.hdr', 'two.png']


def test_a_folder_with_one_bracket_is_skipped_too(photos, weights, tmp_path, capsys, monkeypatch):
    predict(photos[0].parent, f'--weights={weights}', f'--out={tmp_path}/out')
    monkeypatch.setattr(merging, 'Merger', None)
    predict(photos[0].parent, f'--weights={weights}', f'--out={tmp_path}/out')
    assert '1 of 1 brackets have their files;' in capsys.readouterr().err


@pytest.mark.parametrize('out, formats', [('merged', 'hdr,png'), ('.', 'hdr,exr,png,jpg')])
def test_results_in_the_searched_folder_are_no_photos(shoot, weights, capsys, monkeypatch, out, formats):
    monkeypatch.chdir(shoot)
    arguments = f'--weights={weights}', f'--out={out}', f'--formats={formats}'
    for _ in range(2):
        predict('.', *arguments)
    assert '2 of 2 brackets have their files;' in capsys.readouterr().err
    predict(*sorted(shoot.iterdir()) if out == 'merged' else ['.'], *arguments)
    assert '2 of 2 brackets have their files;' in capsys.readouterr().err


def test_a_folder_of_results_is_not_searched_whoever_wrote_them(shoot, tmp_path):
    png_photos(shoot / 'merged')
    (tmp_path / 'link').symlink_to(shoot / 'merged')
    assert [files.name for files in merging.find([shoot], tmp_path / 'link')] == ['one', 'two']
    assert [files.name for files in merging.find([shoot], shoot)] == ['merged', 'one', 'two']
    assert [files.name for files in merging.find([shoot / 'merged'], shoot / 'merged')] == ['merged']


@pytest.mark.parametrize('name', ['result.png', 'result.jpg', 'result.exr'])
def test_a_result_beside_its_photos_is_not_merged_with_them(tmp_path, weights, name, capsys):
    folder = png_photos(tmp_path / 'shoot')[0].parent
    predict(folder, f'--weights={weights}', f'--out={folder / name}')
    predict(folder, f'--weights={weights}', f'--out={tmp_path}/r.hdr')
    told = capsys.readouterr().out
    assert f'passed over, results of this program: {name}' in told and 'of 4 frames' not in told


@pytest.mark.parametrize('flags, message', [
    (('--out={}/x.tiff',), '.hdr, .exr, .png, .jpg, .jpeg, .avif, not as .tiff'),
    (('--out={}/x.hdr,{}/y',), 'not as this'),
    (('--out={}/none/x.hdr',), 'there is no folder .*none; make it'),
    (('--out={}/out', '--formats=hdr,tif'), '--formats=hdr,tif: .* not as .tif; choose'),
    (('--out={}/out', '--formats=hdr,'), 'not as .; choose'),
    (('--out={}/out', '--formats=..hdr'), 'not as ..hdr; choose'),
    (('--out={}/file',), 'file: the folder cannot be made .File exists.; name another'),
    (('--out={}/file/x',), 'the folder cannot be made .Not a directory'),
    (('--out={}/file/x.hdr',), 'there is no folder'),
    (('--out={}/x.png', '--max_pixels=inf'), 'expected a number from 1 to 1e.12'),
    (('--out={}/x.png', '--max_pixels=nan'), 'expected a number from 1 to'),
    (('--out={}/x.png', '--reference_ev=2000'), 'expected a number from -64 to 64'),
    (('--out={}/x.png', '--reference_ev=-2000'), 'expected a number from -64 to 64'),
    (('--out={}/x.png', '--memory_limit=nan'), 'expected a number from 0'),
    (('--out={}/x.png', '--full_scale=0'), 'expected a number from 1e-30'),
])  # fmt: skip
def test_what_cannot_be_written_is_refused_before_the_network(photos, tmp_path, no_network, capsys, flags, message):
    (tmp_path / 'file').touch()
    predict(*photos, *(flag.replace('{}', str(tmp_path)) for flag in flags), status=2)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / 'out').exists()


def test_rights_and_packages_are_looked_at_before_the_network(photos, tmp_path, no_network, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagecodecs', None)
    for arguments in ((f'--out={tmp_path}/x.avif',), (f'--out={tmp_path}/x.jpg', '--hdr_screen')):
        predict(*photos, *arguments, status=2)
        assert 'pip install imagecodecs' in capsys.readouterr().err
    monkeypatch.setattr('os.access', lambda *_: False)
    predict(*photos, f'--out={tmp_path}/x.hdr', status=2)
    assert 'cannot be written; mend its rights' in capsys.readouterr().err


def test_a_folder_may_have_a_dot_in_its_name(shoot, weights, tmp_path, capsys):
    (tmp_path / '2024.06.12').mkdir()
    for name in ('2024.06.12', 'new.folder/'):
        predict(shoot, f'--weights={weights}', f'--out={tmp_path}/{name}', '--formats=hdr')
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ['one.hdr', 'two.hdr']
    predict(shoot, f'--weights={weights}', f'--out={tmp_path}/other.folder', status=2)
    assert 'there are 2 brackets; name a folder' in capsys.readouterr().err


def test_an_error_of_the_program_ends_one_bracket_and_not_the_batch(shoot, weights, tmp_path, capsys, monkeypatch):
    read = merging.load

    def load(source, **settings):
        if source.name == 'one':
            raise ZeroDivisionError('by nothing')
        return read(source, **settings)

    monkeypatch.setattr(merging, 'load', load)
    predict(shoot, f'--weights={weights}', f'--out={tmp_path}/out', '--formats=hdr', status=2)
    told = capsys.readouterr().err
    assert 'error: one: an error of this program, ' in told and 'ZeroDivisionError: by nothing' in told and 'Traceback' in told
    assert '1 of 2 brackets failed' in told
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['two.hdr']


def test_sizes_and_scales_that_a_format_cannot_hold_are_refused_before_merging(photos, weights, tmp_path, monkeypatch):
    pytest.importorskip('imagecodecs')
    monkeypatch.setattr(merging.Merger, '__call__', None)
    monkeypatch.setattr(merging.display_hdr, 'SIDES', {'.jpg': (8, 100), '.avif': (1, 130)})
    monkeypatch.setattr('afunet_jax.outputs.save.JPEG_LARGEST', 135)
    merger = merging.Merger(weights)

    def problem(name, reference_ev=None, **saving):
        (told,) = merging.merge_all([photos], merger, [[tmp_path / name]], {}, saving, reference_ev)
        return told

    assert '8 to 100 pixels a side, the image is 136x96' in problem('a.jpg', for_hdr_screens=True)
    assert '1 to 130 pixels' in problem('a.avif')
    assert 'at most 135 pixels a side' in problem('a.jpg')
    assert 'half floats end at 65504' in problem('a.exr', reference_ev=16)  # the short frame's is -2
    assert merging.Merger(weights, max_side=68).size_of(merging.load(photos)) == (48, 68)
    assert 'NoneType' in problem('a.exr', reference_ev=16, precision='float')  # merges
    bracket = merging.load(photos)
    darker = dataclasses.replace(bracket, ldrs=bracket.ldrs // 2)  # 2 ** -2.2 of the light
    monkeypatch.setattr(merging, 'load', lambda *_: darker)
    assert 'NoneType' in problem('a.exr', reference_ev=16)
    assert 'about 1141' in problem('a.exr', reference_ev=17)


def test_full_scale_of_floats(tmp_path, weights, scene):
    paths = []
    for i, ldr in enumerate(scene.ldrs):
        paths.append(tmp_path / f'{i}.hdr')
        image_io.write_hdr(paths[-1], 16 * np.float32(ldr / 65535.0) ** hdr.GAMMA)
    arguments = *paths, f'--weights={weights}', '--ev=0,2,4'
    with pytest.warns(PhotoWarning, match='above full_scale=1'):
        predict(*arguments, f'--out={tmp_path}/r.png')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        predict(*arguments, f'--out={tmp_path}/s.png', '--full_scale=16')


def test_messages_name_what_a_photographer_can_set(photos, weights):
    bracket = merging.load(photos)
    with pytest.raises(DataError, match='needs .* allowed.*max_side.*memory_limit') as memory:
        merging.Merger(weights, memory_limit=1e-6)(bracket)
    with pytest.raises(DataError, match='use larger images') as size:
        merging.Merger(weights)(dataclasses.replace(bracket, ldrs=bracket.ldrs[:, :3, :3]))
    for told in (str(memory.value), str(size.value)):
        assert 'eval.' not in told and 'model.' not in told
