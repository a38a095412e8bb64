"""Alignment: the shake of a hand is found and removed, and nothing else is touched."""

import cv2
import numpy as np
import pytest
from photo_files import scene, sixteen

from afunet_jax.data.scenes import Scene
from afunet_jax.errors import DataError
from afunet_jax.photos import align

EVS = [0.0, 2.0, 4.0]


def detailed(height=240, width=320):
    """A scene with corners and edges everywhere."""
    radiance = scene(height, width, stops=7)
    random = np.random.RandomState(5)
    for _ in range(150):
        x, y = random.randint(0, width), random.randint(0, height)
        shape = random.randint(3, 25, 2)
        radiance[y:y + shape[1], x:x + shape[0]] *= np.exp2(random.uniform(-2, 1))
    return cv2.GaussianBlur(radiance, (0, 0), 0.8)


def seen_through(radiance, warp):
    return cv2.warpPerspective(radiance, warp, radiance.shape[1::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                               borderMode=cv2.BORDER_REFLECT)


def shaken(warps, evs=EVS):
    """Frames whose pixel (x, y) shows what the scene has at warp (x, y, 1)."""
    radiance = detailed()
    return np.stack([sixteen(seen_through(radiance, warp), ev - 3) for warp, ev in zip(warps, evs)])


def moved_by(x, y):
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def turned(degrees, x, y, width=320, height=240):
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.002)
    return np.vstack([turn + [[0, 0, x], [0, 0, y]], [1e-6, -2e-6, 1]])


@pytest.mark.parametrize('short, long', [((2, -3), (-5, 1)), ((0, 0), (7, 6)), ((-11, 4), (0, 0))])
def test_whole_pixels_are_found_exactly(short, long):
    frames, found = align.align(shaken([moved_by(*short), np.eye(3), moved_by(*long)]), EVS, 'translation')
    still = shaken([np.eye(3)] * 3)
    np.testing.assert_allclose(found.warps[0][:2, 2], np.negative(short))
    np.testing.assert_allclose(found.warps[2][:2, 2], np.negative(long))
    assert found.shifts == pytest.approx((np.hypot(*short), 0, np.hypot(*long)))
    inside = (slice(None), slice(16, -16), slice(16, -16))
    np.testing.assert_array_equal(frames[inside], still[inside])


@pytest.mark.parametrize('evs', [EVS, [-3.0, 0.0, 3.0]])
def test_a_homography_is_found_to_a_tenth_of_a_pixel(evs):
    warps = [turned(0.4, 2.3, -1.6), np.eye(3), turned(-0.3, -3.4, 2.2)]
    frames, found = align.align(shaken(warps, evs), evs, 'homography')
    for warp, ours in zip(warps, found.warps):
        assert align.corner_shift(ours @ warp, (240, 320)) < 0.25
    assert found.shifts[0] == pytest.approx(align.corner_shift(np.linalg.inv(warps[0]), (240, 320)), abs=0.25)
    still, inside = shaken([np.eye(3)] * 3, evs), (slice(None), slice(12, -12), slice(12, -12))
    before = np.abs(shaken(warps, evs)[inside].astype(float) - still[inside]).mean()
    assert np.abs(frames[inside].astype(float) - still[inside]).mean() < 0.15 * before
    assert 'corners moved by' in str(found) and 'homography' in str(found)


def test_a_walker_does_not_disturb_it():
    ldrs = shaken([moved_by(3, 2), np.eye(3), moved_by(-2, 4)])
    for i, ldr in enumerate(ldrs):
        ldr[80:200, 40 + 60 * i:80 + 60 * i] = ldr[80:200, 280:320]
    found = align.align(ldrs, EVS)[1]
    assert align.corner_shift(found.warps[0] @ moved_by(3, 2), (240, 320)) < 0.6
    assert align.corner_shift(found.warps[2] @ moved_by(-2, 4), (240, 320)) < 0.6


def test_a_crowd_does_not_disturb_it():
    """Four large things that all move alike, over a third of the picture: most of them fit another warp."""
    warps = [turned(0.3, 2.2, -1.4), np.eye(3), turned(-0.2, -3.1, 2.4)]
    ldrs, things = shaken(warps), shaken([np.eye(3)] * 3)
    for i, ldr in enumerate(ldrs):
        for x, y in ((25, 30), (110, 150), (190, 25), (235, 150)):
            x, y = x + 14 * (i - 1), y - 5 * (i - 1)
            ldr[y:y + 75, x:x + 65] = things[i, 82:157, 120:185]
    found = align.align(ldrs, EVS)[1]
    for i in (0, 2):
        assert align.corner_shift(found.warps[i] @ warps[i], (240, 320)) < 0.6


@pytest.mark.parametrize('method', align.METHODS[1:])
@pytest.mark.parametrize('value', [0, 65535], ids=['black', 'clipped'])
def test_a_frame_that_shows_nearly_nothing_is_left_and_told_of(method, value):
    ldrs = shaken([moved_by(3, 2), np.eye(3), np.eye(3)])
    ldrs[2] = value
    ldrs[2, 100:120, 100:130] = shaken([np.eye(3)] * 3)[2, 60:80, 60:90]  # something that went elsewhere
    frames, found = align.align(ldrs, EVS, method)
    np.testing.assert_array_equal(frames[2], ldrs[2])
    assert found.left == (3,) and found.shifts[2] == 0 and found.shifts[0] > 1
    assert 'frame 3 of 3 was left as it is' in str(found)


@pytest.mark.parametrize('method', align.METHODS[1:])
def test_a_tripod_stays_bit_for_bit(method):
    ldrs = shaken([np.eye(3)] * 3)
    frames, found = align.align(ldrs, EVS, method)
    np.testing.assert_array_equal(frames, ldrs)
    assert found.shifts == (0, 0, 0) and found.filled == (0, 0, 0)


@pytest.mark.parametrize('method', align.METHODS[1:])
def test_bare_borders_are_the_reference_at_the_frames_exposure(method):
    ldrs = shaken([moved_by(8, 0), np.eye(3), moved_by(0, -6)])
    frames, found = align.align(ldrs, EVS, method)
    still = shaken([np.eye(3)] * 3)
    assert found.filled[0] == pytest.approx(8 / 320, abs=0.01) and found.filled[2] == pytest.approx(6 / 240, abs=0.01)
    for i, where in ((0, np.s_[:, :6]), (2, np.s_[-4:])):
        light, truth = (x[i][where].astype(float) / 65535 for x in (frames, still))
        unclipped = still[1][where] < 60000
        assert np.abs(light - truth)[unclipped].max() < 0.01
    assert found.filled[1] == 0


@pytest.mark.parametrize('method', align.METHODS[1:])
def test_bare_borders_where_the_reference_is_clipped_go_on_from_the_frames_edge(method):
    """The reference does not tell how bright the sky is; at its level there it would be grey in the short frame."""
    radiance = detailed()
    radiance[60:180, :40] = np.linspace(3, 5, 120)[:, None, None]
    still, moved = (np.stack([sixteen(seen_through(radiance, warp), ev - 3) for warp, ev in zip(warps, EVS)])
                    for warps in ((np.eye(3),) * 3, (moved_by(8, 0), np.eye(3), moved_by(8, 0))))  # fmt: skip
    assert (still[1, 70:170, :30] == 65535).all() and (still[0, 70:170, :30] < 60000).all()
    frames = align.align(moved, EVS, method)[0]
    sky = np.s_[70:170, :6]
    np.testing.assert_allclose(frames[0][sky].astype(float), still[0][sky], rtol=0.02)
    assert (frames[2][sky] == 65535).all()


def test_what_is_clipped_stays_clipped():
    ldrs = shaken([turned(0.4, 2.3, -1.6), np.eye(3), turned(-0.3, -3.4, 2.2)])
    ldrs[2, 100:160, 100:180] = 65535
    frames = align.align(ldrs, EVS, 'homography')[0]
    assert (frames[2, 108:152, 108:172] == 65535).all()


def test_what_is_clipped_is_clipped_where_flow_takes_it():
    moving, still, _ = walked(9)
    for frames, distance in ((moving, 9), (still, 0)):
        for i in range(3):
            x = 90 + distance * (i - 1)  # inside of the thing
            frames[i, 160:184, x:x + 20] = 65535
    frames = align.align(moving, EVS, 'flow')[0]
    for i in (0, 2):
        assert (frames[i, 164:180, 94:106] == 65535).all()
        ring = frames[i, 152:192, 82:118], still[i, 152:192, 82:118]
        assert ((ring[0] == 65535) == (ring[1] == 65535)).mean() > 0.95


def test_refuses_what_is_no_shake():
    ldrs = shaken([moved_by(0, 38), np.eye(3), np.eye(3)])
    for method in align.METHODS[1:]:
        with pytest.raises(DataError, match='Frame 1 of 3 would have to be moved by (38|39) pixels .* more than 10%'):
            align.align(ldrs, EVS, method)


def test_large_photos_are_searched_small_and_moved_by_whole_pixels():
    radiance = detailed(1400, 2000)
    warps = [moved_by(13, -9), np.eye(3), moved_by(-21, 6)]
    ldrs = np.stack([sixteen(seen_through(radiance, warp), ev - 3) for warp, ev in zip(warps, EVS)])
    frames, found = align.align(ldrs, EVS, 'translation')
    np.testing.assert_array_equal([warp[:2, 2] for warp in found.warps], [[-13, 9], [0, 0], [21, -6]])
    np.testing.assert_array_equal(frames[0, 50:-50, 50:-50], sixteen(radiance, -3)[50:-50, 50:-50])


@pytest.mark.parametrize('height, width', [(200, 800), (384, 1536), (200, 2000), (1100, 300), (30, 960)])
@pytest.mark.parametrize('method', align.METHODS[1:])
def test_wide_and_tall_frames(height, width, method):
    radiance, warps = detailed(height, width), [moved_by(5, 0), np.eye(3), moved_by(-3, 0)]
    ldrs = np.stack([sixteen(seen_through(radiance, warp), ev - 3) for warp, ev in zip(warps, EVS)])
    found = align.align(ldrs, EVS, method)[1]
    for ours, warp in zip(found.warps, warps):
        assert align.corner_shift(ours @ warp, (height, width)) < (0.01 if method == 'translation' else 0.6)


@pytest.mark.parametrize('height, width', [(1, 40), (40, 1), (1, 1), (4, 6000)])
@pytest.mark.parametrize('method', align.METHODS[1:])
def test_refuses_frames_that_are_too_narrow(height, width, method):
    with pytest.raises(DataError, match=f'{width}x{height} pixels are too narrow to be aligned; choose align=off'):
        align.align(np.random.RandomState(0).randint(0, 65536, (3, height, width, 3)).astype(np.uint16), EVS, method)


@pytest.mark.parametrize('side', [2, 3, 5])
@pytest.mark.parametrize('method', align.METHODS[1:])
def test_tiny_frames_end_in_no_error_of_opencv(side, method):
    ldrs = np.random.RandomState(0).randint(0, 65536, (1, side, 40, 3)).astype(np.uint16).repeat(3, axis=0)
    try:
        np.testing.assert_array_equal(align.align(ldrs, [0.0, 0.0, 0.0], method)[0], ldrs)
    except DataError as error:
        assert method != 'translation' and 'align=off' in str(error)


@pytest.mark.parametrize('method', align.METHODS[1:])
def test_refuses_frames_with_nothing_in_common(method):
    ldrs = shaken([np.eye(3)] * 3)
    ldrs[0] = np.random.RandomState(3).randint(0, 65535, ldrs[0].shape)
    with pytest.raises(DataError, match='too little in common.*align=off'):
        align.align(ldrs, EVS, method)


def test_refuses_another_method():
    with pytest.raises(DataError, match='off, translation, homography, flow'):
        align.align(shaken([np.eye(3)] * 3), EVS, 'affine')


@pytest.mark.parametrize('method', align.METHODS[1:])
def test_a_data_set_keeps_frames_that_match_nowhere_and_moves_the_others(method):
    ldrs = shaken([np.eye(3), np.eye(3), moved_by(6, -4)])
    ldrs[0] = np.random.RandomState(3).randint(0, 65535, ldrs[0].shape)
    frames, found = align.align(ldrs, EVS, method, keep_unmatched=True)
    assert found.left == (1,) and found.shifts[0] == 0
    np.testing.assert_array_equal(frames[:2], ldrs[:2])
    assert found.shifts[2] == pytest.approx(np.hypot(6, 4), abs=0.3)
    noisy = Scene('noise', ldrs, np.float32(EVS), None)
    kept, matched = align.align_scene(noisy, method)
    assert not matched
    np.testing.assert_array_equal(kept.ldrs, frames)
    assert align.align_scene(noisy, 'off') == (noisy, True)
    far = shaken([np.eye(3)] * 3)
    far[0] = np.roll(far[0], 38, axis=1)
    assert align.align(far, EVS, method, keep_unmatched=True)[1].left == (1,)


def test_the_type_of_the_exposures_changes_no_bit():
    ldrs = shaken([turned(0.4, 2.3, -1.6), np.eye(3), moved_by(-2, 4)], evs := [-2.3, 0.1, 1.7])
    as_float32 = np.array(evs, np.float32)
    np.testing.assert_array_equal(align.align(ldrs, as_float32)[0], align.align(ldrs, [float(ev) for ev in as_float32])[0])


def walked(distance, warps=(np.eye(3),) * 3, at=(70, 130), size=(90, 60)):
    """Frames in which a thing of another scene goes to the right, and what they would be if it had not moved."""
    still, things = shaken(warps), shaken([np.eye(3)] * 3)[:, ::-1]
    moving = still.copy()
    (x, y), (height, width) = at, size
    thing = things[:, 20:20 + height, 200:200 + width]
    for i in range(3):
        for frames, dx in ((moving, distance * (i - 1)), (still, 0)):
            frames[i, y:y + height, x + dx:x + dx + width] = thing[i]
    return moving, still, np.s_[y + 8:y + height - 8, x + 8:x + width - 8]


@pytest.mark.parametrize('distance', [3, 9, -14])
def test_flow_brings_back_what_walks_and_leaves_the_rest_to_the_bit(distance):
    moving, still, thing = walked(distance)
    frames, found = align.align(moving, EVS, 'flow')
    assert found.method == 'flow' and found.shifts == (0, 0, 0) and found.followed[1] == 0
    for i in (0, 2):
        after, before = (np.abs(x[i][thing].astype(float) - still[i][thing]).mean() for x in (frames, moving))
        assert after < 0.25 * before
        far = np.s_[i, :100]  # 30 pixels above it
        np.testing.assert_array_equal(frames[far], moving[far])
        assert 0.04 < found.followed[i] < 0.25  # the thing is 7 % of the frame
    np.testing.assert_array_equal(frames[1], moving[1])
    np.testing.assert_array_equal(align.align(moving, EVS, 'homography')[0], moving)
    assert 'moved with the scene: ' in str(found) and '0.00, ' in str(found)


def test_flow_takes_out_the_shake_too():
    warps = [turned(0.4, 2.3, -1.6), np.eye(3), turned(-0.3, -3.4, 2.2)]
    moving, still, thing = walked(9, warps)
    true = shaken([np.eye(3)] * 3)
    frames, found = align.align(moving, EVS, 'flow')
    for i in (0, 2):
        assert align.corner_shift(found.warps[i] @ warps[i], (240, 320)) < 0.6
        assert np.abs(frames[i, 12:100, 12:-12].astype(float) - true[i, 12:100, 12:-12]).mean() < 400
        after, before = (np.abs(x[i][thing].astype(float) - still[i][thing]).mean() for x in (frames, moving))
        assert after < 0.4 * before


def test_flow_of_large_frames_is_searched_small(monkeypatch):
    moving, still, thing = walked(9)
    monkeypatch.setattr(align, 'SEARCH_SIDE', 200)
    frames, found = align.align(moving, EVS, 'flow')
    for i in (0, 2):
        after, before = (np.abs(x[i][thing].astype(float) - still[i][thing]).mean() for x in (frames, moving))
        assert after < 0.4 * before and found.followed[i] > 0.04


def test_a_frame_that_is_left_is_not_moved_by_flow_either():
    moving = walked(9)[0]
    moving[2] = 65535
    frames, found = align.align(moving, EVS, 'flow')
    assert found.left == (3,) and found.followed[0] > 0.04 and found.followed[2] == 0
    np.testing.assert_array_equal(frames[2], moving[2])
