"""Brackets from HDR images: reproducible, true to the label, honest about motion, split by source."""

import csv
import dataclasses
import json
import math
import os

import cv2
import numpy as np
import pytest

from afunet_jax import hdr, image_io
from afunet_jax.data import brackets, synthetic
from afunet_jax.data.brackets import compose, folders, layers, outlines, sources, views
from afunet_jax.data.brackets.__main__ import main
from afunet_jax.data.brackets.views import Camera, Panorama, Photo
from afunet_jax.data.layouts import get_layout
from afunet_jax.data.scenes import find_scenes, read_scene
from afunet_jax.errors import DataError
from afunet_jax.photos import align

SIZE = (48, 72)
NAMES = {'train': ('a.hdr', 'b.hdr'), 'validation': ('c.hdr',), 'test': ('d.hdr', 'e.hdr')}
PHOTOS = ('b.hdr', 'e.hdr')
REAL, PAINTED = brackets.Shares(procedural=0, static=0), brackets.Shares(procedural=1)
REQUEST = brackets.Request(3, 2, 3, 32, 48, seed=4, shares=brackets.Shares(procedural=0.3, static=0.3))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Five painted HDR images and their CSV."""
    folder = tmp_path_factory.mktemp('hdr')
    rows = ['file,split,projection']
    for index, (split, name) in enumerate((s, n) for s, names in NAMES.items() for n in names):
        size = (60, 90) if name in PHOTOS else (64, 128)
        image_io.write_hdr(folder / name, synthetic.render(9, index, *size)[1])
        rows.append(f'{name},{split},{"photo" if name in PHOTOS else "panorama"}')
    (folder / 'own.csv').write_text('\n'.join(rows) + '\n')
    return folder


@pytest.fixture(scope='module')
def owned(images):
    return brackets.read_sources(images, images / 'own.csv')


@pytest.fixture(scope='module')
def written(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('sets') / 'set'
    records = brackets.write_brackets(folder, images, REQUEST, images / 'own.csv', progress=None)
    return folder, records


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


# ---- reproducible ----------------------------------------------------------------------------------


def test_processes_do_not_change_a_bit(written, images, tmp_path):
    brackets.write_brackets(tmp_path / 'two', images, REQUEST, images / 'own.csv', workers=2, progress=None)
    assert contents(tmp_path / 'two') == contents(written[0])


def test_a_scene_does_not_depend_on_how_many_are_made(written, images, tmp_path):
    fewer = dataclasses.replace(REQUEST, train=1, validation=0, test=2)
    brackets.write_brackets(tmp_path / 'set', images, fewer, images / 'own.csv', progress=None)
    all_of_them = contents(written[0])
    for name, data in contents(tmp_path / 'set').items():
        assert name == folders.MANIFEST or all_of_them[name] == data, name


@pytest.mark.parametrize('other', [(5, 'train', 0), (4, 'train', 1)])
def test_seed_and_index_give_other_scenes(owned, other):
    one, _ = brackets.make_bracket(4, 'train', 0, *SIZE, owned['train'], REAL)
    two, _ = brackets.make_bracket(*other, *SIZE, owned['train'], REAL)
    assert np.mean(np.abs(one.label - two.label)) > 0.02


# ---- split by source -------------------------------------------------------------------------------


def test_the_table_gives_every_image_one_split_and_every_split_day_night_and_interior():
    table = sources.read_table()
    count = {split: sum(s.split == split for s in table) for split in brackets.SPLITS}
    assert count == {'train': 17, 'validation': 3, 'test': 5}
    assert len({s.file for s in table}) == len({s.sha256 for s in table}) == 25
    for split in brackets.SPLITS:
        assert {s.kind for s in table if s.split == split} == {'day', 'night', 'interior'}
    assert any(s.split == 'test' and s.file.startswith('ilm_') for s in table)
    for source in table:
        assert len(source.sha256) == 64 and source.licence in ('CC0-1.0', 'BSD-3-Clause') and source.credit
        assert source.repository.count('/') == 1 and source.path and source.commit


def test_backdrops_and_cutouts_come_from_the_scene_s_own_split(owned):
    figures = {kind.__name__ for kind, *_ in layers.FIGURES}
    for split, names in NAMES.items():
        used = set()
        for index in range(6):
            _, record = brackets.make_bracket(1, split, index, 32, 48, owned[split], REAL)
            used |= {record['source'], *record['layers']} - figures
        assert used == set(names)


def test_painted_scenes_of_two_splits_are_never_the_same():
    offsets = sorted(compose.SPLIT_OFFSETS.values())
    assert set(compose.SPLIT_OFFSETS) == set(brackets.SPLITS)
    assert np.diff(offsets).min() >= folders.LARGEST_COUNT


# ---- true to the label -----------------------------------------------------------------------------


def decoded(stored, curve):
    encoded = stored / 65535
    if curve == 'gamma':
        return encoded**2.2
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize('graded', [0.0, 1.0])
@pytest.mark.parametrize('bits', [0.0, 1.0])
@pytest.mark.parametrize('srgb', [0.0, 1.0])
@pytest.mark.parametrize('procedural', [0.0, 1.0])
def test_every_unsaturated_frame_of_a_still_scene_decodes_to_the_label(owned, bits, srgb, procedural, graded):
    shares = brackets.Shares(procedural, static=1, srgb=srgb, eight_bit=bits, graded=graded)
    scene, record = brackets.make_bracket(2, 'train', 3, *SIZE, owned['train'], shares, synthetic.NOISELESS)
    assert record['static'] and record['bits'] == (8 if bits else 16)
    assert record['curve'] == ('srgb' if srgb else 'gamma')
    half = 0.5001 * 65535 / (2 ** record['bits'] - 1)
    for stored, ev in zip(scene.ldrs.astype(np.float64), scene.evs):
        low, high = (decoded(np.clip(stored + e, 0, 65535), record['curve']) / 2.0**ev for e in (-half, half))
        good = stored < 65535
        assert good.mean() > 0.05 or ev == scene.evs[2]
        assert (scene.label >= low * (1 - 1e-5) - 1e-7)[good].all()
        assert (scene.label <= high * (1 + 1e-5) + 1e-7)[good].all()
        assert (scene.label[~good] >= low[~good] * (1 - 1e-5)).all()


def test_the_label_is_what_the_middle_exposure_of_a_moving_scene_saw(owned):
    for index in range(4):
        scene, record = brackets.make_bracket(3, 'test', index, *SIZE, owned['test'],
                                              dataclasses.replace(REAL, srgb=0, eight_bit=0), synthetic.NOISELESS)
        expected = np.round((np.float64(scene.label) * 2.0 ** scene.evs[1]).clip(0, 1) ** (1 / 2.2) * 65535)
        assert not record['static'] and np.abs(expected - scene.ldrs[1]).max() <= 1
        assert scene.label.min() >= 0 and scene.label.max() <= 1 and scene.label.dtype == np.float32


def test_the_middle_exposure_saturates_realistically(owned):
    for index in range(8):
        scene, _ = brackets.make_bracket(3, 'train', index, *SIZE, owned['train'], REAL)
        assert 0.08 <= (scene.ldrs[1] > hdr.SATURATED).any(-1).mean() <= 0.32


def test_eight_bits_are_spread_over_sixteen(owned):
    shares = dataclasses.replace(REAL, eight_bit=1)
    scene, _ = brackets.make_bracket(0, 'train', 0, *SIZE, owned['train'], shares)
    assert (scene.ldrs % 257 == 0).all() and len(np.unique(scene.ldrs)) > 100


def test_exposures_may_be_given(owned):
    drawn, record = brackets.make_bracket(3, 'train', 0, *SIZE, owned['train'], REAL)
    same, _ = brackets.make_bracket(3, 'train', 0, *SIZE, owned['train'], REAL, evs=tuple(record['evs']))
    np.testing.assert_array_equal(same.ldrs, drawn.ldrs)
    scene, record = brackets.make_bracket(3, 'train', 0, *SIZE, owned['train'], dataclasses.replace(REAL, static=1),
                                          synthetic.NOISELESS, evs=(0, 1.5, 4))
    assert record['evs'] == scene.evs.tolist() == [0, 1.5, 4]
    dark = (scene.ldrs < 60000).all(0) & (scene.ldrs > 6000).all(0)
    linear = decoded(scene.ldrs.astype(float), record['curve'])
    np.testing.assert_allclose(np.log2(linear[1] / linear[0])[dark], 1.5, atol=0.05)
    np.testing.assert_allclose(np.log2(linear[2] / linear[1])[dark], 2.5, atol=0.05)


def test_steps_may_be_drawn_equal_or_not_and_the_rest_of_the_scene_stays(owned):
    made = [brackets.make_bracket(3, 'train', k, *SIZE, (), PAINTED, steps=(0.5, 3.5)) for k in range(40)]
    steps = np.diff([scene.evs for scene, _ in made])
    assert 0.5 <= steps.min() < 0.8 and 3.2 < steps.max() <= 3.5
    equal = np.isclose(*steps.T, atol=1e-6)
    assert 0.4 < equal.mean() < 0.8 and len(np.unique(steps[equal, 0])) > 15
    given, _ = brackets.make_bracket(3, 'train', 0, *SIZE, owned['train'], REAL, evs=(0, 2, 4))
    drawn, record = brackets.make_bracket(3, 'train', 0, *SIZE, owned['train'], REAL, steps=(2, 2))
    assert record['evs'] == [0, 2, 4]
    np.testing.assert_array_equal(drawn.ldrs, given.ldrs)


def test_drawn_steps_are_read_back_as_they_were_made(tmp_path):
    request = brackets.Request(4, 0, 0, 32, 48, shares=PAINTED, steps=(0.5, 3.5))
    records = brackets.write_brackets(tmp_path / 'set', None, request, progress=None)
    found = find_scenes(tmp_path / 'set', get_layout('synthetic'), 'train')
    for files, record in zip(found, records, strict=True):
        np.testing.assert_array_equal(read_scene(files).evs, np.float32(record['evs']))
    assert json.loads((tmp_path / 'set' / folders.MANIFEST).read_text())['steps'] == [0.5, 3.5]


def test_compression_leaves_the_scene_and_what_was_drawn_before_it(owned):
    plain, _ = brackets.make_bracket(3, 'train', 0, *SIZE, owned['train'], dataclasses.replace(REAL, eight_bit=1))
    scene, record = brackets.make_bracket(3, 'train', 0, *SIZE, owned['train'], dataclasses.replace(REAL, jpeg=1))
    again, _ = brackets.make_bracket(3, 'train', 0, *SIZE, owned['train'], dataclasses.replace(REAL, jpeg=1))
    assert record['jpeg'] and record['bits'] == 8 and (scene.ldrs % 257 == 0).all()
    np.testing.assert_array_equal(scene.ldrs, again.ldrs)
    np.testing.assert_array_equal(scene.label, plain.label)
    off = np.abs(scene.ldrs.astype(float) - plain.ldrs) / 257
    assert 0.3 < off.mean() < 6


def test_aligned_scenes_are_what_the_alignment_makes_of_them(owned):
    size = 96, 144  # flow finds nothing in images as small as the others here
    made = [brackets.make_bracket(3, 'train', k, *size, owned['train'], dataclasses.replace(REAL, aligned=share))
            for k in range(4) for share in (0, 1)]
    moved = []
    for (plain, told), (scene, record) in zip(made[::2], made[1::2]):
        expected, matched = align.align_scene(plain)
        assert (told['aligned'], record['aligned']) == (False, matched)
        np.testing.assert_array_equal(scene.ldrs, expected.ldrs)
        np.testing.assert_array_equal(scene.label, plain.label)
        assert {**told, 'aligned': matched} == record
        moved.append((scene.ldrs != plain.ldrs).any())
    assert any(moved)


def chroma(label):
    """Distance from grey as a share of luminance, the median over the picture."""
    grey = label.mean(-1)
    return float(np.median((label.max(-1) - label.min(-1))[grey > 0] / grey[grey > 0]))


def test_grading_changes_colours_and_leaves_the_rest_of_the_scene(owned):
    graded, changes = dataclasses.replace(REAL, graded=1), []
    for index in range(8):
        (plain, record), (other, told) = (
            brackets.make_bracket(3, 'train', index, *SIZE, owned['train'], shares) for shares in (REAL, graded))
        assert (record.pop('graded'), told.pop('graded')) == (False, True) and record == told
        assert other.label.dtype == np.float32 and other.label.min() >= 0 and other.label.max() <= 1
        changes.append(math.log(chroma(other.label) / chroma(plain.label)))
    assert min(changes) < -0.1 and max(changes) > 0.1  # some paler, some more colourful


def test_grading_is_the_same_in_all_frames_and_brightness_does_not_matter():
    frames = np.random.default_rng(0).random((1, 8, 9, 3), np.float32).repeat(3, 0)
    graded = compose.grade(np.random.default_rng(1), frames)
    np.testing.assert_array_equal(graded[0], graded[2])
    brighter = compose.grade(np.random.default_rng(1), 100 * frames)
    np.testing.assert_allclose(brighter, 100 * graded, rtol=2e-5)
    assert np.isfinite(compose.grade(np.random.default_rng(1), 0 * frames)).all()


# ---- motion ----------------------------------------------------------------------------------------


def world_of(owned, motion=1.0, seed=0):
    return compose.make_world(np.random.default_rng(seed), owned['train'][0], owned['train'], *SIZE, motion, REAL)


def solid(colour, nearness, place=((0, 0), (0, 0), (0, 0)), side=12):
    texture = np.ones((side, side, 4), np.float32) * np.array([*colour, 1], np.float32)
    return layers.Layer((texture,), np.array(place, float), np.zeros(3), np.zeros(3), nearness, 'solid')


def test_still_shots_are_the_same_and_moving_ones_are_not(owned):
    still, moving = world_of(owned, 0.0), world_of(owned, 1.0)
    shots = [compose.photograph(still, k, still.shutter) for k in range(3)]
    np.testing.assert_array_equal(shots[0], shots[1])
    np.testing.assert_array_equal(shots[2], shots[1])
    other = [compose.photograph(moving, k, 0.0) for k in range(3)]
    np.testing.assert_array_equal(other[1], shots[1])
    assert np.abs(hdr.mu_law(np.minimum(other[0], 1)) - hdr.mu_law(np.minimum(other[1], 1))).max() > 0.05


def test_what_is_nearer_hides_what_is_farther():
    canvas = np.zeros((2 * 32, 2 * 48, 3), np.float32)
    for layer in (solid((1, 0, 0), 0.1), solid((0, 1, 0), 0.9, side=6)):
        layers.draw_layer(canvas, layer, 1, 0.0, Camera())
    np.testing.assert_allclose(canvas[32, 48], (0, 1, 0), atol=1e-6)
    np.testing.assert_allclose(canvas[32, 48 + 5], (1, 0, 0), atol=1e-6)
    assert not canvas[32, 48 + 9].any()


def test_layers_are_drawn_far_to_near_and_nearer_ones_go_farther(owned):
    many = [world_of(owned, seed=s).layers for s in range(12)]
    for found in many:
        depths = [layer.nearness for layer in found]
        assert depths == sorted(depths) and 1 <= len(found) <= 5
        for layer in found:
            step = np.hypot(*np.diff(layer.place, axis=0).T).max()
            assert step <= layers.LARGEST_STEP * layer.nearness * SIZE[0] + 1e-9
    assert max(len(found) for found in many) >= 4


def test_a_layer_is_where_its_path_says():
    layer = solid((1, 1, 1), 1, ((-10, 4), (0, 0), (6, 2)))
    for time, (x, y) in ((-1, (-10, 4)), (0, (0, 0)), (1, (6, 2))):
        canvas = np.zeros((64, 96, 3), np.float32)
        layers.draw_layer(canvas, layer, 1, time, Camera())
        rows, cols = np.nonzero(canvas[..., 0] > 0.5)
        assert abs(cols.mean() + 0.5 - (48 + 2 * x)) < 0.3 and abs(rows.mean() + 0.5 - (32 + 2 * y)) < 0.3


class Black:
    """A view of nothing."""

    size = (32, 48)

    def frame(self, camera=Camera()):
        return np.zeros((64, 96, 3), np.float32)


def test_blur_is_as_long_as_the_exposure_and_keeps_the_light():
    layer = solid((1, 1, 1), 1, ((-10, 0), (0, 0), (10, 0)))
    world = compose.World(Black(), [layer], np.zeros((3, 3)), 0.6)
    sharp, blurred = (compose.photograph(world, 1, duration) for duration in (0.0, 0.6))
    assert abs(blurred.sum() / sharp.sum() - 1) < 1e-4
    width = lambda image: (image[16, :, 0] > 0.02).sum()
    assert 4 <= width(blurred) - width(sharp) <= 7  # 0.6 x 10 pixels
    assert blurred.max() <= 1 + 1e-6


@pytest.mark.parametrize('kind', ['panorama', 'photo'])
@pytest.mark.parametrize('camera', [Camera(2, 0), Camera(0, 2), Camera(0, 0, 0.1)], ids=['x', 'y', 'roll'])
def test_a_shaken_camera_moves_the_backdrop_as_it_moves_the_layers(owned, kind, camera):
    size = (24, 32)
    source = owned['train'][kind == 'photo']
    view = (Panorama(source, *size, 0.3, 0.0, 4.0) if kind == 'panorama'
            else Photo(source, *size, (0.5, 0.5), 1.0, False))
    still, moved = view.frame(), view.frame(camera)
    to_canvas = views.to_canvas(*size)
    inverse = to_canvas @ np.linalg.inv(camera.matrix) @ np.linalg.inv(to_canvas)
    error = {sign: [] for sign in (1, -1)}
    for sign in error:
        back = inverse if sign == 1 else np.linalg.inv(inverse)
        for row in range(16, 32, 2):
            for col in range(20, 44, 2):
                x, y = np.round((back @ (col, row, 1))[:2]).astype(int)
                error[sign].append(np.abs(np.log(moved[row, col] + 0.01) - np.log(still[y, x] + 0.01)).mean())
    assert np.mean(error[1]) < 0.35 * np.mean(error[-1])


def test_a_panorama_has_no_seam(owned, images, tmp_path):
    image = image_io.read_hdr(images / 'a.hdr')
    image_io.write_hdr(tmp_path / 'rolled.hdr', np.ascontiguousarray(np.roll(image, 64, 1)))
    rolled = sources.Source('rolled.hdr', 'train', 'panorama', folder=str(tmp_path))
    seam = Panorama(owned['train'][0], *SIZE, math.pi, 0.1, 1.0).frame()
    inside = Panorama(rolled, *SIZE, 0.0, 0.1, 1.0).frame()
    np.testing.assert_allclose(seam, inside, rtol=0.02, atol=1e-3)


def test_a_view_is_hardly_magnified_and_stays_away_from_the_poles(owned):
    per_radian = 128 / (2 * math.pi)  # of the test's panorama
    for height, width, magnification in [(256, 384, m) for m in views.MAGNIFICATION] + [(1000, 1500, 1.0)]:
        k = 1024 / 128  # the same view of a panorama 1024 wide is so much smaller here
        view = Panorama(owned['train'][0], round(height / k), round(width / k), 0, 0, magnification)
        edge = view.focal * (1 + (width / k / 2 / (2 * view.focal)) ** 2)  # radial, of a stereographic lens
        assert edge / per_radian < 1.65 or height > 256
        corner = 2 * math.atan(math.hypot(*view.size) / 2 / (2 * view.focal))
        assert corner <= views.WIDEST + 1e-9 and views.WIDEST + views.PITCH + 0.05 < math.pi / 2


def test_enlarging_stays_within_the_neighbourhood():
    image = np.full((9, 9, 3), 0.1, np.float32)
    image[4, 4] = 1e4
    large = sources.enlarge(image, (18, 18))
    assert large.min() >= 0.1 - 1e-7 and large.max() <= 1e4
    np.testing.assert_allclose(large[0], 0.1, rtol=1e-6)


@pytest.mark.parametrize('outline', outlines.OUTLINES, ids=lambda f: f.__name__)
def test_outlines_cover_a_part_with_a_soft_edge(outline):
    patch = synthetic.render(1, 2, 60, 80)[1]
    for seed in range(5):
        mask = outline(np.random.default_rng(seed), patch)
        assert mask.shape == (60, 80) and mask.min() >= 0 and mask.max() <= 1
        assert 0.02 < mask.mean() < 0.9 and ((mask > 0.02) & (mask < 0.98)).any()


def test_a_figure_is_opaque_and_changes_its_pose():
    names = set()
    for seed in range(12):
        layer = layers.figure(np.random.default_rng(seed), np.full((4, 4), 0.2, np.float32), 256, 384)
        names.add(layer.source)
        for texture in layer.textures:
            assert np.isfinite(texture).all() and texture[..., 3].max() > 0.95 and texture[..., 3].min() >= 0
            assert not texture[0, 0].any()
        if layer.source == 'Person':
            assert np.abs(layer.textures[0] - layer.textures[2]).max() > 0.01
    assert len(names) >= 3


# ---- on disk ---------------------------------------------------------------------------------------


def test_the_set_is_read_like_any_other_and_validation_comes_last(written):
    folder, records = written
    layout = get_layout('synthetic')
    found = find_scenes(folder, layout, 'train')
    assert [scene.name for scene in found] == ['001', '002', '003', '004', '005']
    assert [r['split'] for r in records] == ['train'] * 3 + ['validation'] * 2 + ['test'] * 3
    assert len(find_scenes(folder, layout, 'test')) == 3
    for files, record in zip(found, records):
        scene = read_scene(files)
        assert record['folder'] == f'Training/{files.name}'
        np.testing.assert_array_equal(scene.evs, record['evs'])
        assert scene.ldrs.shape == (3, 32, 48, 3) and scene.label.max() <= 1


def test_the_manifest_says_what_each_scene_is(written):
    folder, records = written
    manifest = json.loads((folder / folders.MANIFEST).read_text())
    assert manifest['scenes'] == records and manifest['seed'] == 4 and manifest['shares']['static'] == 0.3
    assert {s['file'] for s in manifest['sources']['test']} == set(NAMES['test'])
    for record in records:
        assert record['evs'] in [[0.0, s, 2.0 * s] for s in (1.0, 2.0, 3.0)]
        assert record['iso'] in compose.SENSORS and record['bits'] in (8, 16)
        assert record['curve'] in ('gamma', 'srgb') and record['kind'] in ('real', 'procedural')
        if record['kind'] == 'real':
            assert (record['largest_step'] == 0) == record['static'] == (record['shutter'] == 0)
    assert {r['kind'] for r in records} == {'real', 'procedural'} and {r['static'] for r in records} == {True, False}


def test_shares_hold_in_short_sets_and_independently():
    shares = brackets.Shares()
    for count in (20, 40, 400):
        still = [compose.is_static(k, shares) for k in range(count)]
        painted = [compose.is_procedural(k, shares) for k in range(count)]
        assert abs(np.mean(still) - 0.15) <= 1.1 / count and abs(np.mean(painted) - 0.4) < 0.06
        assert abs(np.mean(np.array(still) & painted) - 0.06) <= 0.1
    for share in (0.0, 1.0):
        assert {compose.is_static(k, brackets.Shares(static=share)) for k in range(50)} == {bool(share)}


# ---- errors ----------------------------------------------------------------------------------------


def table(tmp_path, *rows, header='file,split,projection,sha256,repository,path,commit'):
    path = tmp_path / 'own.csv'
    path.write_text('\n'.join((header, *rows)) + '\n')
    return path


def test_a_missing_file_is_named_with_where_to_get_it(images, tmp_path):
    own = table(tmp_path, 'gone.hdr,train,photo,,some/where,hdri/gone.hdr,abc123')
    with pytest.raises(DataError, match=r'gone\.hdr: missing.*hdri/gone\.hdr.*github\.com/some/where.*abc123'):
        brackets.read_sources(images, own, ('train',))


def test_another_file_of_the_same_name_is_refused(images, tmp_path):
    own = table(tmp_path, f'a.hdr,train,panorama,{"0" * 64},some/where,a.hdr,abc')
    with pytest.raises(DataError, match=r'a\.hdr: another file.*some/where'):
        brackets.read_sources(images, own, ('train',))


@pytest.mark.parametrize('rows, header, told', [
    (['a.hdr,trian,panorama'], 'file,split,projection', "line 2: split is one of train.*'trian'"),
    (['a.hdr,train,fisheye'], 'file,split,projection', "projection is one of panorama, photo, not 'fisheye'"),
    (['../a.hdr,train,photo'], 'file,split,projection', 'bare name'),
    (['a.hdr,train'], 'file,split', 'missing or unknown: projection'),
    (['a.hdr,train,photo,1'], 'file,split,projection,colour', 'unknown: colour'),
    (['a.hdr,train,panorama', 'a.hdr,test,panorama'], 'file,split,projection', 'more than once: a.hdr'),
    (['b.hdr,test,photo'], 'file,split,projection', 'no image for the split train'),
    (['a.hdr,train,panorama', 'copy.hdr,test,panorama'], 'file,split,projection', 'a.hdr and copy.hdr are the same'),
])
def test_a_wrong_table_is_refused(images, tmp_path, rows, header, told):
    for name in ('a.hdr', 'b.hdr'):
        (tmp_path / name).write_bytes((images / name).read_bytes())
    (tmp_path / 'copy.hdr').write_bytes((images / 'a.hdr').read_bytes())
    with pytest.raises(DataError, match=told):
        brackets.read_sources(tmp_path, table(tmp_path, *rows, header=header), ('train', 'test'))


def test_a_photograph_is_no_panorama(images):
    with pytest.raises(DataError, match=r'b\.hdr.*twice as wide as high.*90x60'):
        sources.read_image(sources.Source('b.hdr', 'train', 'panorama', folder=str(images)))


@pytest.mark.parametrize('change, told', [
    ({'train': -1}, 'numbers of scenes'), ({'train': 0, 'validation': 0, 'test': 0}, 'not all 0'),
    ({'height': 16}, '16x48'), ({'seed': -1}, 'seed'), ({'shares': brackets.Shares(static=1.5)}, 'static.*1.5'),
    ({'shares': brackets.Shares(srgb=math.nan)}, 'srgb'), ({'evs': (0, 2, 2)}, 'three rising.*0, 2, 2'),
    ({'evs': (1, 2, 3)}, 'rising exposures from 0'), ({'evs': (0, 2, math.inf)}, 'inf'), ({'evs': (0, 2, 61)}, '60 EV'),
    ({'steps': (3, 2)}, 'rising.*3, 2'), ({'steps': (0, 2)}, '0.1'), ({'steps': (1, 31)}, '30 EV'),
    ({'steps': (1, math.nan)}, 'nan'), ({'steps': (1, 2), 'evs': (0, 2, 4)}, 'not both'),
])
def test_a_wrong_request_is_refused(tmp_path, change, told):
    with pytest.raises(DataError, match=told):
        brackets.write_brackets(tmp_path / 'set', None, dataclasses.replace(REQUEST, **change))
    assert not (tmp_path / 'set').exists()


def test_nothing_is_overwritten_or_left_behind(written, images, tmp_path):
    with pytest.raises(DataError, match='already holds'):
        brackets.write_brackets(written[0], images, REQUEST, images / 'own.csv', progress=None)
    with pytest.raises(DataError, match='workers'):
        brackets.write_brackets(tmp_path / 'set', images, REQUEST, images / 'own.csv', workers=0, progress=None)
    bad = tmp_path / 'bad'
    bad.mkdir()
    (bad / 'b.hdr').write_bytes((images / 'b.hdr').read_bytes())
    own = table(bad, 'b.hdr,train,panorama', header='file,split,projection')
    request = brackets.Request(2, 0, 0, 32, 48, shares=REAL)
    with pytest.raises(DataError, match='twice as wide'):
        brackets.write_brackets(tmp_path / 'set', bad, request, own, progress=None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['bad']


def test_a_worker_that_is_ended_is_a_message_and_leaves_nothing(images, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, 'setNumThreads', os._exit)  # what each worker begins with
    with pytest.raises(DataError, match='one of the 2 processes was ended.*fewer workers'):
        brackets.write_brackets(tmp_path / 'set', images, REQUEST, images / 'own.csv', workers=2, progress=None)
    assert not (tmp_path / 'set').exists()



def test_the_command_writes_a_set_and_a_sheet(images, tmp_path, capsys):
    sizes = ['--train=1', '--validation=0', '--test=1', '--height=32', '--width=48']
    own = [f'--hdr={images}', f'--sources={images / "own.csv"}']
    sheet = tmp_path / 'sheet.png'
    assert main([*own, *sizes, f'--out={tmp_path / "set"}', f'--sheet={sheet}', '--sheet_width=400']) == 0
    assert (tmp_path / 'set' / folders.MANIFEST).is_file()
    with pytest.warns(image_io.EightBitWarning):
        assert image_io.read_ldr(sheet).std() > 1000
    assert main([f'--hdr={images}', *sizes, f'--out={tmp_path / "other"}']) == 1  # the package's images are not there
    assert 'missing' in capsys.readouterr().err and not (tmp_path / 'other').exists()
    assert main([*sizes, '--procedural=1', '--steps', '1.5', '1.5', f'--out={tmp_path / "painted"}']) == 0
    assert [s['evs'] for s in json.loads((tmp_path / 'painted' / folders.MANIFEST).read_text())['scenes']] == [
        [0, 1.5, 3]] * 2
    for wrong in ([], [f'--out={tmp_path / "x"}']):
        with pytest.raises(SystemExit, match='2'):
            main(wrong)


def test_the_package_s_table_is_a_plain_csv():
    with sources.BUILT_IN.open(newline='', encoding='utf-8') as stream:
        assert {len(row) for row in csv.reader(stream)} == {11}
