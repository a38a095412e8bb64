"""Stops: in the right order of sources, and held against the pixels."""

import math
import warnings

import numpy as np
import pytest
from photo_files import eight, scene, write_bracket
from PIL import Image

from afunet_jax.errors import DataError
from afunet_jax.photos import exposures, read_frame
from afunet_jax.photos.exif import PhotoWarning
from afunet_jax.photos.exposures import measured_steps, parse_exposures, resolve


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def frames_of(folder, evs, **options):
    return [read_frame(path) for path in write_bracket(folder, evs, **options)]


@pytest.mark.parametrize('words, expected', [
    ([0, 2, 4], [0, 2, 4]), (['-2', '+0.0', '2.5'], [-2, 0, 2.5]),
    (['1/256', '1/64 s', '0.0625s'], [-8, -6, -4]), (['2s', '.5 S', '1/2'], [1, -1, -1])])
def test_stops_and_seconds(words, expected):
    np.testing.assert_allclose(parse_exposures(words), expected)


@pytest.mark.parametrize('words, message', [
    ([0, 'x', 2], "'x' is no exposure"), (['1/250', '2', '4'], 'mixed'), (['nan', 0, 1], 'finite'),
    (['1/0', '1/2'], 'no exposure'), (['0s', '1s'], 'no exposure'),
    (['1/250/3'], 'no exposure'), ([math.inf], 'finite'),
    (['8000', '4000', '2000'], r"'8000' is 8000 EV, beyond -64 to 64. Is 1/8000 s meant\? Write it so"),
    ([-65, 0, 2], "'-65' is -65 EV, beyond"), (['1e-20s', '1s'], "'1e-20s' is"), ([f'1/{10**25}', '1/2'], 'is -83')])
def test_refuses_what_is_no_exposure(words, message):
    with pytest.raises(DataError, match=message):
        parse_exposures(words)


@pytest.mark.parametrize('evs', [[0, 1, 2], [0, 2, 4], [-3, 0, 3], [4, 2, 0], [0, 0.33, 0.66]])
def test_steps_are_measured(tmp_path, evs):
    found = measured_steps(frames_of(tmp_path, evs))
    np.testing.assert_allclose(found, np.diff(evs), atol=0.03)


def test_steps_are_measured_although_a_third_of_the_picture_moved(tmp_path):
    radiance = scene()
    for i, ev in enumerate((0, 2, 4)):
        moved = radiance.copy()
        moved[:40] = np.roll(radiance[:40], 50 * i, axis=1)
        Image.fromarray(eight(moved, ev)).save(tmp_path / f'{i}.png')
    found = measured_steps([read_frame(tmp_path / f'{i}.png') for i in range(3)])
    np.testing.assert_allclose(found, 2, atol=0.1)


def test_steps_that_share_no_exposed_pixels_are_nan(tmp_path):
    assert np.isnan(measured_steps(frames_of(tmp_path, [-6, 4]))).all()


# ---- sources ----------------------------------------------------------------------------------------


def test_sources_in_their_order(tmp_path):
    frames = frames_of(tmp_path, [0, 2, 4])
    for given, from_file, source, evs in (
            (np.array([1.0, 3, 5]), np.array([7.0, 9, 11]), 'given', [1, 3, 5]),
            (None, np.array([7.0, 9, 11]), 'exposure.txt', [7, 9, 11]),
            (None, None, 'EXIF', np.log2([0.01 / 64, 0.04 / 64, 0.16 / 64]))):
        found = resolve(frames, given, from_file, estimate=True)
        assert found.source == source
        np.testing.assert_allclose(found.evs, evs)


def test_pixels_only_if_asked_for(tmp_path):
    frames = frames_of(tmp_path, [2, 0, 4], seconds=False)
    with pytest.raises(DataError, match=r'(?s)not known.*IMG_1.png .no exposure time.*seem to be 2.0, 0.0, 4.0 EV'
                                        r'.*estimate=True'):
        resolve(frames)
    found = resolve(frames, estimate=True)
    assert found.source == 'pixels'
    np.testing.assert_allclose(found.evs, [2, 0, 4], atol=0.05)


def test_pixels_too_far_apart_cannot_be_measured(tmp_path):
    with pytest.raises(DataError, match='cannot be measured: .*IMG_1.png and .*IMG_2.png have too few'):
        resolve(frames_of(tmp_path, [-6, 4, 5], seconds=False), estimate=True)


@pytest.mark.parametrize('lacking', ['ExposureTime', 'FNumber'])
def test_exif_of_some_frames_is_no_source(tmp_path, lacking):
    frames = frames_of(tmp_path, [0, 2, 4])
    from dataclasses import replace
    name = {'ExposureTime': 'seconds', 'FNumber': 'aperture'}[lacking]
    frames[1] = replace(frames[1], exif=replace(frames[1].exif, **{name: None}))
    with pytest.raises(DataError, match='not known'):
        resolve(frames)
    everywhere = [replace(frame, exif=replace(frame.exif, aperture=None, iso=None)) for frame in frames]
    if lacking == 'FNumber':  # a manual lens: the same in all of them
        np.testing.assert_allclose(np.diff(resolve(everywhere).evs), 2)


# ---- contradictions ---------------------------------------------------------------------------------


def test_exif_that_is_the_same_for_all_frames(tmp_path):
    frames = frames_of(tmp_path, [0, 2, 4])
    from dataclasses import replace
    same = [replace(frame, exif=frames[0].exif) for frame in frames]
    with pytest.raises(DataError, match=r'(?s)EXIF says that all frames have one exposure, but the pixels differ'
                                        r'.*IMG_2.png: EXIF \+0.00 EV over the frame before, pixels \+\d.\d\d EV '
                                        r'\(1/100 s f/8 ISO 100\).*trust_exposures=True'):
        resolve(same)
    with pytest.warns(PhotoWarning, match='The exposures of the source "EXIF" are used'):
        assert resolve(same, trust=True).source == 'EXIF'


def test_exif_that_contradicts_the_pixels(tmp_path):
    from dataclasses import replace
    frames = frames_of(tmp_path, [0, 2, 4])
    wrong = [frames[0], frames[1], replace(frames[2], exif=replace(frames[2].exif, seconds=0.04 * 2**0.5))]
    with pytest.raises(DataError, match=r'(?s)EXIF contradicts the pixels.*IMG_3.png: EXIF \+0.50 EV over the frame '
                                        r'before, pixels \+[12].\d\d EV .*trust_exposures'):
        resolve(wrong)


@pytest.mark.parametrize('off, warned', [(0.5, False), (0.9, True)])
def test_given_exposures_that_contradict_are_used_with_a_warning(tmp_path, off, warned):
    frames = frames_of(tmp_path, [0, 1, 2])
    given = np.array([0, 1, 2 + off])
    if not warned:
        return np.testing.assert_array_equal(resolve(frames, given).evs, given)
    words = r'(?s)given contradicts the pixels.*\+1.90 EV.*pixels \+1.0.*"given" are used'
    with pytest.warns(PhotoWarning, match=words):
        np.testing.assert_array_equal(resolve(frames, given).evs, given)


def test_given_exposures_in_another_order_are_told(tmp_path):
    frames = frames_of(tmp_path, [2, 0, 4])
    with pytest.warns(PhotoWarning, match='are the exposures in the order of the files'):
        resolve(frames, np.array([0.0, 2, 4]))


def test_a_cameras_contrast_is_no_contradiction_but_measured(tmp_path):
    evs = [0, 3, 6]
    for i, ev in enumerate(evs):
        style = eight(np.clip(scene(stops=12) * 2.0**ev, 0, 1) ** 1.25, 0)
        Image.fromarray(style).save(tmp_path / f'{i}.png')
    frames = [read_frame(tmp_path / f'{i}.png') for i in range(3)]
    assert resolve(frames, np.array([0.0, 3, 6])).source == 'given'
    np.testing.assert_allclose(exposures.style_ratio(frames, np.array(evs)), 1.25, atol=0.05)
    assert exposures.style_ratio(frames, np.array(evs) * 1.25) is None  # fits sRGB
    assert exposures.style_ratio(frames, np.array(evs) * 2.5) is None  # the exposures are wrong


@pytest.mark.parametrize('said, real, accepted', [
    ((0, 3, 6), (0, 3.9, 7.0), True),  # a steep curve makes every step larger
    ((0, 3, 6), (0, 2, 6), False), ((0, 3, 6), (0, 2.9, 6.8), False),
    ((0, 3, 6), (0, 2.1, 4.2), False), ((0, 4.5, 9), (0, 3, 6), False), ((0, 2, 4), (0, 2.9, 5.8), False),
    ((0, 2, 4), (0, 2.6, 4.0), True)])
def test_a_steep_curve_excuses_only_steps_that_are_all_measured_larger(tmp_path, said, real, accepted):
    from dataclasses import replace
    frames = frames_of(tmp_path, np.array(real) - 3, radiance=scene(stops=12))
    told = [replace(f, exif=replace(f.exif, seconds=2.0**ev / 1000)) for f, ev in zip(frames, said)]
    np.testing.assert_allclose(measured_steps(frames), np.diff(real), atol=0.06)
    if accepted:
        return np.testing.assert_allclose(np.diff(resolve(told).evs), np.diff(said))
    with pytest.raises(DataError, match='EXIF contradicts the pixels'):
        resolve(told)


# ---- exposure.txt -----------------------------------------------------------------------------------


def test_the_file_of_exposures_names_every_image(tmp_path):
    path, names = tmp_path / 'exposure.txt', ['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg']
    path.write_text('\ufeff0\n2\n4, 6\n')
    np.testing.assert_array_equal(exposures.read_exposure_file(path, ['d.jpg', 'b.jpg'], names), [6, 2])
    path.write_text('0\n2\n4\n')
    with pytest.raises(DataError, match='exposure.txt: 3 exposures for the 4 images'):
        exposures.read_exposure_file(path, names, names)
    path.write_text('0 2 4 long')
    with pytest.raises(DataError, match="exposure.txt: 'long' is no exposure"):
        exposures.read_exposure_file(path, names, names)
    path.write_bytes(b'\xff\xfe\xff')
    with pytest.raises(DataError, match='exposure.txt: the file of exposures cannot be read'):
        exposures.read_exposure_file(path, names, names)
