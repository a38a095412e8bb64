"""Merging without training: exact where it can be, finite everywhere."""

import numpy as np
import pytest

from afunet_jax import baselines, hdr
from afunet_jax.data.scenes import Scene
from afunet_jax.data.synthetic import compose
from afunet_jax.data.synthetic.sensor import NOISELESS
from afunet_jax.metrics import psnr


def scene_of(height, width, shift=0):
    """Of one radiance, which moves by so many columns from one exposure to the next."""
    radiance = compose.make_scene(3, 0, height, width, motion=0, noise=NOISELESS).label
    evs = np.float32([0, 2, 4])
    moved = [np.roll(radiance, (i - 1) * shift, 1) for i in range(3)]
    ldrs = np.stack([hdr.from_radiance(frame, t) for frame, t in zip(moved, hdr.exposure_time(evs))])
    return Scene('moved', np.round(np.clip(ldrs, 0, 1) * 65535).astype(np.uint16), evs, radiance)


def test_the_weighted_merge_is_exact_where_nothing_moves():
    scene = scene_of(64, 96)
    error = np.abs(baselines.weighted_merge(scene) - scene.label)
    assert error.max() < 2e-3  # the short exposure sees everything


def test_the_middle_exposure_is_exact_where_it_does_not_clip():
    scene = scene_of(64, 96)
    clipped = scene.label > hdr.exposure_time(np.float32(-2))
    error = np.abs(baselines.middle_exposure(scene) - scene.label)
    assert error[~clipped].max() < 1e-3 and error[clipped].mean() > 0.05


@pytest.mark.parametrize('size', [(48, 64), (62, 64), (33, 65), (31, 40), (7, 100), (128, 9)])
def test_small_and_narrow_images_are_aligned_too(size):
    scene = scene_of(*size)
    merged = baselines.aligned_debevec(scene)
    assert merged.shape == (*size, 3) and np.isfinite(merged).all()
    assert np.abs(merged - scene.label).mean() < 0.5 * scene.label.mean()


def test_debevecs_merge_is_exact_to_8_bits_where_nothing_moves():
    scene = scene_of(128, 192)
    inside = scene.label.max(-1) < 0.9  # what the short exposure clips is unknown
    merged = baselines.aligned_debevec(scene)
    near = np.isclose(merged[inside], scene.label[inside], rtol=0.05, atol=2e-3)
    assert near.mean() > 0.97  # bitmaps may match a pixel aside


def test_what_clips_in_all_frames_is_full_scale():
    scene = scene_of(128, 192)
    ldrs = scene.ldrs.copy()
    ldrs[:, 40:80, 50:90] = 65535
    merged = baselines.aligned_debevec(Scene('clipped', ldrs, scene.evs, None))
    np.testing.assert_array_equal(merged[45:75, 55:85], 1)


def test_alignment_finds_a_shift_that_a_plain_merge_does_not():
    scene = scene_of(128, 192, shift=3)
    inner = slice(8, -8)
    aligned, debevec, plain = (
        psnr(merge(scene)[inner, inner], scene.label[inner, inner])
        for merge in (baselines.aligned_merge, baselines.aligned_debevec, baselines.weighted_merge)
    )
    assert aligned > debevec > plain + 3


def test_where_nothing_moves_the_aligned_merge_is_the_plain_one():
    scene = scene_of(64, 96)
    np.testing.assert_array_equal(baselines.aligned_merge(scene), baselines.weighted_merge(scene))


@pytest.mark.parametrize('merge', baselines.BASELINES.values(), ids=baselines.BASELINES)
@pytest.mark.parametrize('value', [0, 65535])
def test_black_and_saturated_scenes_have_finite_merges(merge, value):
    scene = Scene('flat', np.full((3, 32, 32, 3), value, np.uint16), np.float32([0, 2, 4]), None)
    image = merge(scene)
    assert np.isfinite(image).all() and image.dtype == np.float32 and image.shape == (32, 32, 3)
