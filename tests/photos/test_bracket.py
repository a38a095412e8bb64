"""Brackets: any order, any number, one scale; what cannot be merged is refused with its cure."""

import dataclasses
import itertools
import shutil
import warnings

import numpy as np
import pytest
import tifffile
from photo_files import eight, exif, expose, scene, sixteen, write_bracket, write_dng
from PIL import Image

from afunet_jax import hdr, image_io
from afunet_jax.data import layouts, scenes
from afunet_jax.errors import DataError
from afunet_jax.photos import align, find_brackets, load_bracket, read_frame, response
from afunet_jax.photos.bracket import TRAINED_STEPS, choose_three
from afunet_jax.photos.exif import PhotoWarning


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def names(bracket):
    return [path.name for path in bracket.paths]


# ---- right results ----------------------------------------------------------------------------------


@pytest.mark.parametrize('order', itertools.permutations(range(3)))
def test_frames_in_any_order(tmp_path, order):
    paths = write_bracket(tmp_path, [0, 2, 4])
    bracket = load_bracket([paths[i] for i in order])
    assert names(bracket) == ['IMG_1.png', 'IMG_2.png', 'IMG_3.png'] and bracket.source == 'EXIF'
    np.testing.assert_allclose(np.diff(bracket.evs), 2, atol=1e-6)
    np.testing.assert_allclose(bracket.measured, 2, atol=0.03)


def test_given_exposures_belong_to_the_files_as_they_are_given(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4], seconds=False)
    for exposures in (['4', '0', '2'], ['1/15', '1/240', '1/60']):
        bracket = load_bracket([paths[2], paths[0], paths[1]], exposures=exposures)
        assert names(bracket) == ['IMG_1.png', 'IMG_2.png', 'IMG_3.png'] and bracket.source == 'given'


def test_the_scene_holds_the_light_of_the_scene(tmp_path):
    radiance = scene()
    paths = write_bracket(tmp_path, [0, 2, 4], radiance=radiance)
    found = load_bracket(paths).scene()
    assert found.ldrs.dtype == np.uint16 and found.evs.dtype == np.float32 and found.label is None
    np.testing.assert_allclose(found.evs, [0, 2, 4], atol=1e-5)
    for ldr, ev in zip(hdr.decode_ldr(found.ldrs), found.evs):
        light = hdr.to_radiance(ldr, hdr.exposure_time(ev))
        exposed = (expose(radiance, ev) < 0.99) & (expose(radiance, ev) > 0.05)
        np.testing.assert_allclose(light[exposed], radiance[exposed], rtol=0.03)
    assert (found.ldrs[2][radiance > 2.0**-4] == 65535).all()


def test_a_benchmark_scene_is_read_bit_for_bit(golden):
    folder = golden / 'scene' / '001'
    bracket = load_bracket(folder)
    files = scenes.SceneFiles('001', tuple(sorted(folder.glob('*.tif'))), folder / 'exposure.txt', None)
    expected = scenes.read_scene(files)
    np.testing.assert_array_equal(bracket.scene().ldrs, expected.ldrs)
    np.testing.assert_allclose(bracket.evs, expected.evs, atol=1e-6)
    assert bracket.source == 'exposure.txt' and bracket.curves == ('gamma2.2',) * 3 and bracket.name == '001'
    assert any('HDRImg.hdr' in note for note in bracket.notes)
    assert layouts.get_layout('kalantari').label.endswith('HDRImg.hdr')


def test_brackets_of_one_shoot_share_a_scale(tmp_path):
    radiance = scene()
    for name, evs in (('a', [-1, 1, 3]), ('b', [0, 2, 4])):
        bracket = load_bracket(write_bracket(tmp_path / name, evs, radiance=radiance * 0.4))
        middle = bracket.scene()
        light = hdr.to_radiance(hdr.decode_ldr(middle.ldrs[1]), hdr.exposure_time(middle.evs[1]))
        # 1 is the full scale of 1 s at f/1 and ISO 100; EV 0 of the files is 1/100 s at f/8.
        exposed = expose(radiance * 0.4, evs[1])
        exposed = (exposed > 0.05) & (exposed < 0.95)
        expected = (radiance * 0.4 * 6400)[exposed]
        np.testing.assert_allclose((light * bracket.radiance_scale)[exposed], expected, rtol=0.05)
    assert bracket.scale_to(bracket.evs[0]) == 1
    assert bracket.scale_to(1.0) == 2 * bracket.radiance_scale
    given = load_bracket(tmp_path / 'b', exposures=[0, 2, 4])
    assert given.radiance_scale == 1


def test_raw_frames_share_one_white_balance(tmp_path):
    pytest.importorskip('rawpy')
    radiance = scene(96, 128) * [0.8, 1, 0.9]
    for i, (ev, balance) in enumerate(((0, (2, 1, 1.5)), (2, (2.2, 1, 1.3)), (4, (1.9, 1, 1.6)))):
        # The sensor sees the same light whatever the camera writes as white balance.
        seen = radiance / np.array([2, 1, 1.5]) * np.array(balance) * 2.0**ev
        write_dng(tmp_path / f'{i}.dng', np.minimum(seen, balance), balance, seconds=2.0**ev / 100)
    bracket = load_bracket(tmp_path)
    assert bracket.curves == ('linear',) * 3 and bracket.source == 'EXIF'
    lights = [hdr.to_radiance(hdr.decode_ldr(ldr), hdr.exposure_time(ev))
              for ldr, ev in zip(bracket.scene().ldrs, bracket.scene().evs)]
    exposed = (bracket.ldrs[1] < 60000).all(-1) & (bracket.ldrs[0] > 8000).all(-1)
    ratio = np.median(lights[1][exposed] / lights[0][exposed], axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.01)


def write_styled(folder):
    """0, 2 and 4 EV with a camera's contrast over sRGB."""
    radiance = scene(240, 320, stops=9)
    for i, ev in enumerate((0, 2, 4)):
        style = (eight(radiance, ev) / 255.0) ** 1.25
        Image.fromarray(np.rint(255 * style).astype(np.uint8)).save(folder / f'{i}.png')


def test_a_response_is_estimated(tmp_path):
    write_styled(tmp_path)
    plain = load_bracket(tmp_path, exposures=[0, 2, 4], curve='srgb')
    assert plain.curves == ('srgb',) * 3 and any('curve=estimate' in note for note in plain.notes)
    for curve, told in (('estimate', False), ('auto', True)):
        bracket = load_bracket(tmp_path, exposures=[0, 2, 4], curve=curve)
        assert bracket.curves == ('estimated',) * 3
        np.testing.assert_allclose(bracket.measured, 2, atol=0.1)
        assert any('measured from the frames; curve=srgb' in note for note in bracket.notes) == told
    assert np.abs(plain.measured - 2).min() > 0.3


def test_a_curve_is_not_estimated_where_srgb_fits_or_the_exposures_are_wrong(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4], radiance=scene(240, 320, stops=9))
    assert load_bracket(paths).curves == ('srgb',) * 3
    with pytest.warns(PhotoWarning, match='contradicts the pixels'):
        assert load_bracket(paths, exposures=[0, 1, 2]).curves == ('srgb',) * 3


def test_a_curve_that_cannot_be_estimated_is_told(tmp_path, monkeypatch):
    write_styled(tmp_path)
    monkeypatch.setattr(response, 'FEWEST_SAMPLES', 10**6)
    bracket = load_bracket(tmp_path, exposures=[0, 2, 4])
    assert bracket.curves == ('srgb',) * 3
    assert any('sRGB is taken' in note and '1000000 are needed' in note for note in bracket.notes)


def test_alignment_is_reported(tmp_path):
    radiance = scene(240, 320)
    radiance[::24, ::32] *= 4
    for i, (ev, shift) in enumerate(((0, 3), (2, 0), (4, -2))):
        Image.fromarray(eight(np.roll(radiance, shift, axis=1), ev)).save(tmp_path / f'{i}.png')
    bracket = load_bracket(tmp_path, exposures=[0, 2, 4], align='translation')
    assert bracket.alignment.shifts == (3, 0, 2) and 'corners moved by 3.0, 0.0, 2.0 pixels' in bracket.report()
    assert load_bracket(tmp_path, exposures=[0, 2, 4], align='off').alignment is None
    assert load_bracket(tmp_path, exposures=[0, 2, 4]).alignment.method == 'flow'
    for i, ev in enumerate((0, 2, 4)):
        Image.fromarray(eight(radiance, ev)).save(tmp_path / f'{i}.png')
    still = load_bracket(tmp_path, exposures=[0, 2, 4])
    assert still.report().endswith('the frames stood still, none was moved')
    np.testing.assert_array_equal(still.ldrs, load_bracket(tmp_path, exposures=[0, 2, 4], align='off').ldrs)


def test_linear_files(tmp_path):
    radiance = scene()
    for i, ev in enumerate((0, 2, 4)):
        image_io.write_hdr(tmp_path / f'{i}.hdr', expose(radiance, ev).astype(np.float32))
    bracket = load_bracket(tmp_path, exposures=[0, 2, 4])
    assert bracket.curves == ('linear',) * 3
    np.testing.assert_allclose(bracket.measured, 2, atol=0.02)


def test_the_report_says_what_was_done(tmp_path):
    text = load_bracket(write_bracket(tmp_path, [0, 2, 4])).report()
    assert 'IMG_2.png: +2.00 EV (EXIF), srgb' in text and 'steps measured from the pixels: +2.0' in text


# ---- more than three --------------------------------------------------------------------------------


@pytest.mark.parametrize('evs, trained, expected', [
    ([0, 1, 2, 3, 4], TRAINED_STEPS, [0, 2, 4]),
    ([0, 1, 2, 3, 4], (1, 1), None),
    ([0, 0.5, 2, 4.1, 6], (2, 2), None),
    ([0, 0.4, 3.6, 7], (1, 3), None),
    ([0, 1.9, 3, 5], (2, 3), [0, 3, 5]),
    ([0, 3, 4, 4.5], TRAINED_STEPS, [0, 3, 4.5]),  # unequal steps, and ones between those of the training
    ([4, 0, 3, 1, 2], TRAINED_STEPS, [0, 2, 4]),
    ([0, 1, 2, 3, 4, 5, 6], TRAINED_STEPS, [0, 3, 6])])
def test_the_steps_suit_the_weights(tmp_path, evs, trained, expected):
    paths = write_bracket(tmp_path, evs, radiance=scene(stops=13))
    bracket = load_bracket(paths, trained_steps=trained)
    steps = np.diff(bracket.evs)
    outside = lambda pair: max(abs(step - min(max(step, trained[0]), trained[1])) for step in pair)
    best = min(outside((b - a, c - b)) for a, b, c in itertools.combinations(sorted(evs), 3) if b - a > 0.25)
    assert outside(steps) <= best + 1 / 3 + 1e-6
    if expected:
        np.testing.assert_allclose(bracket.evs - np.log2(1 / 6400), expected, atol=1e-5)
    (note,) = [note for note in bracket.notes if 'were chosen' in note]
    assert f'of {len(evs)} frames' in note and all(name in note for name in names(bracket))


def test_of_equal_steps_those_that_expose_most_pixels_well(tmp_path):
    # All of the scene is in the last three frames' range: the first ones are black.
    evs = [-10, -8, -6, -4, -2]
    frames = [read_frame(path) for path in write_bracket(tmp_path, evs, radiance=scene(stops=6))]
    three, _ = choose_three(frames, np.array(evs, float), (2, 2))
    assert three == (2, 3, 4)


@pytest.mark.parametrize('steps, warned', [((0.4, 0.4), False), ((4, 4.1), False), ((1, 4.4), True), ((4.4, 2), True)])
def test_steps_far_above_those_of_the_training_are_a_warning(tmp_path, steps, warned):
    evs = np.cumsum([0, *steps])
    frames = [read_frame(path) for path in write_bracket(tmp_path, list(evs), radiance=scene(stops=13))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        choose_three(frames, evs)
    found = [str(w.message) for w in caught]
    assert len(found) == warned and all('1 to 3 EV' in text for text in found)


def test_an_extra_frame_of_the_same_exposure_does_no_harm(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4])
    Image.fromarray(np.roll(eight(scene(), 2), 3, axis=0)).save(tmp_path / 'IMG_4.png')
    bracket = load_bracket([*paths, tmp_path / 'IMG_4.png'], exposures=[0, 2, 4, 2])
    np.testing.assert_allclose(bracket.evs, [0, 2, 4])


# ---- finding ----------------------------------------------------------------------------------------


def test_a_folder_of_folders_in_natural_order(tmp_path):
    for name in ('shot10', 'shot9', 'shot1'):
        write_bracket(tmp_path / name, [0, 2, 4], name='IMG_{}.png', first=9)
    (tmp_path / 'empty').mkdir()
    (tmp_path / '.hidden').mkdir()
    (tmp_path / 'notes.txt').write_text('x')
    found = find_brackets(tmp_path)
    assert [files.name for files in found] == ['shot1', 'shot9', 'shot10']
    assert [path.name for path in found[0].paths] == ['IMG_9.png', 'IMG_10.png', 'IMG_11.png']
    assert load_bracket(found[1]).name == 'shot9'
    with pytest.raises(DataError, match='a folder of brackets .shot1, shot9, shot10., one is wanted'):
        load_bracket(tmp_path)


def test_raw_files_count_before_jpegs_of_the_same_name(tmp_path):
    for i in range(3):
        for ending in ('.DNG', '.JPG', '.xmp'):
            (tmp_path / f'a{i}{ending}').write_bytes(b'x')
    (tmp_path / 'merged.exr').write_bytes(b'x')
    (files,) = find_brackets(tmp_path)
    assert [path.name for path in files.paths] == ['a0.DNG', 'a1.DNG', 'a2.DNG']
    assert 'a0.JPG, a1.JPG, a2.JPG, merged.exr' in files.notes[0]


def test_exposure_txt_serves_a_choice_of_its_images(tmp_path):
    paths = write_bracket(tmp_path, [0, 1, 2, 3, 4], seconds=False)
    (tmp_path / 'exposure.txt').write_text('0\n1\n2\n3\n4\n')
    bracket = load_bracket([paths[4], paths[0], paths[2]])
    assert bracket.source == 'exposure.txt' and bracket.evs.tolist() == [0, 2, 4]
    assert names(load_bracket(tmp_path)) == ['IMG_1.png', 'IMG_3.png', 'IMG_5.png']


@pytest.mark.parametrize('make, words', [
    (lambda folder: folder / 'gone', 'cannot be read'), (lambda folder: folder, 'no photos in it')])
def test_refuses_folders_without_photos(tmp_path, make, words):
    with pytest.raises(DataError, match=words):
        find_brackets(make(tmp_path))


# ---- refused ----------------------------------------------------------------------------------------


def test_refuses_fewer_than_three(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4])
    with pytest.raises(DataError, match='No photos were given'):
        load_bracket([])
    for one in (paths[0], paths[:1]):
        with pytest.raises(DataError, match='IMG_1.png: one image alone cannot be merged.*three photos'):
            load_bracket(one)
    with pytest.raises(DataError, match='two frames .IMG_1.png, IMG_2.png.*third one.*A copy .* adds nothing'):
        load_bracket(paths[:2])


def test_refuses_a_panorama_alone(tmp_path):
    image_io.write_hdr(tmp_path / 'sunset_1k.hdr', scene(64, 128))
    for source in (tmp_path, tmp_path / 'sunset_1k.hdr'):
        with pytest.raises(DataError, match='sunset_1k.hdr: one image alone'):
            load_bracket(source)


def test_refuses_one_frame_twice(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4])
    with pytest.raises(DataError, match='IMG_2.png: given twice'):
        load_bracket([paths[0], paths[1], paths[1]])
    shutil.copy(paths[1], tmp_path / 'copy.png')
    with pytest.raises(DataError, match='copy.png: the same pixels as .*IMG_2.png'):
        load_bracket([paths[0], paths[1], tmp_path / 'copy.png'])


def test_refuses_different_sizes(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4])
    Image.fromarray(eight(scene()[:, :100], 2)).save(paths[1])
    with pytest.raises(DataError, match='different sizes .IMG_1.png 160x120, IMG_2.png 100x120, IMG_3.png 160x120'):
        load_bracket(paths, exposures=[0, 2, 4])


def test_refuses_three_frames_of_two_exposures(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4])
    Image.fromarray(np.roll(eight(scene(), 2), 3, axis=0)).save(paths[2])
    with pytest.raises(DataError, match=r'three exposures at least 0.25 EV apart.*IMG_1.png \+0.00, IMG_2.png \+2.00'):
        load_bracket(paths, exposures=[0, 2, 2])


def test_refuses_another_number_of_exposures(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4])
    with pytest.raises(DataError, match='2 exposures were given for 3 photos'):
        load_bracket(paths, exposures=[0, 2])
    (tmp_path / 'exposure.txt').write_text('0 2')
    with pytest.raises(DataError, match='exposure.txt: 2 exposures for the 3 images'):
        load_bracket(paths)


def test_refuses_a_wrong_choice_of_words(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4])
    with pytest.raises(DataError, match='A tone curve is one of auto, estimate'):
        load_bracket(paths, curve='log')
    with pytest.raises(DataError, match='The alignment is one of off, translation, homography, flow'):
        load_bracket(paths, align='affine')


def test_refuses_to_estimate_curve_and_exposures_both(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4], seconds=False)
    with pytest.raises(DataError, match='cannot both be estimated'):
        load_bracket(paths, curve='estimate', estimate=True)
    assert load_bracket(paths, estimate=True).source == 'pixels'


def test_refuses_to_estimate_the_curve_of_16_bits(tmp_path):
    for i, ev in enumerate((0, 2, 4)):
        tifffile.imwrite(tmp_path / f'{i}.tif', sixteen(scene(), ev), photometric='rgb')
    with pytest.raises(DataError, match='from 8-bit frames only'):
        load_bracket(tmp_path, exposures=[0, 2, 4], curve='estimate')


def test_trust_goes_on(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 4])
    for i, path in enumerate(paths):
        Image.fromarray(eight(scene(), 0.2 * i)).save(path, exif=exif(0.01 * 4**i, 8.0, 100))
    with pytest.raises(DataError, match='trust_exposures=True'):
        load_bracket(paths)
    with pytest.warns(PhotoWarning, match='EXIF" are used'):
        assert load_bracket(paths, trust_exposures=True).source == 'EXIF'


def test_steps_far_from_training_are_warned_of(tmp_path):
    paths = write_bracket(tmp_path, [0, 2, 9], radiance=scene(stops=13))
    with pytest.warns(PhotoWarning, match='2.00 and 7.00 EV, far from the 1 to 3 EV'):
        load_bracket(paths, trust_exposures=True)


def test_a_bracket_is_not_changed(tmp_path):
    bracket = load_bracket(write_bracket(tmp_path, [0, 2, 4]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        bracket.evs = None
    assert align.REFERENCE == 1
