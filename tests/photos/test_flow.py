"""Optical flow: what moved is found, nothing is made of noise, and what a moving thing encloses goes with it."""

import cv2
import numpy as np
import pytest

from afunet_jax.photos import flow

SIZE = 200, 260


def textured(seed, size=SIZE, coarse=4):
    noise = np.random.RandomState(seed).rand(*size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), coarse)
    return cv2.normalize(smooth, None, 20, 230, cv2.NORM_MINMAX)


def pair(dx, dy, clipped=0, noise=0.0, seed=0):
    """A reference and a frame in which a square of 80 pixels has moved; its middle may be clipped in both."""
    thing, images = textured(seed + 1)[:80, :80].copy(), []
    if clipped:
        thing[40 - clipped:40 + clipped, 40 - clipped:40 + clipped] = 255
    for k, (x, y) in enumerate(((90, 60), (90 + dx, 60 + dy))):
        image = textured(seed)
        image[y:y + 80, x:x + 80] = thing
        image += noise * np.random.RandomState(100 + seed + k).standard_normal(SIZE)
        images.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return images


@pytest.mark.parametrize('dx, dy', [(4, 0), (-3, 6), (15, -9)])
def test_motion_is_found_where_it_is(dx, dy):
    motion, trusted = flow.find(*pair(dx, dy))
    assert motion.shape == (*SIZE, 2) and motion.dtype == np.float32 and trusted.dtype == bool
    inner = np.s_[70:130, 100:160]
    assert trusted[inner].mean() > 0.95
    error = np.linalg.norm(motion[inner] - [dx, dy], axis=-1)
    assert np.median(error) < 0.25 and (error < 1).mean() > 0.9
    assert not trusted[:30].any() and not trusted[180:].any() and not trusted[:, :50].any()


def test_what_stands_still_is_trusted_nowhere():
    motion, trusted = flow.find(*pair(0, 0))
    assert not trusted.any()


@pytest.mark.parametrize('noise', [2, 8, 20])
@pytest.mark.parametrize('seed', range(4))
def test_noise_moves_nothing(noise, seed):
    assert flow.find(*pair(0, 0, noise=noise, seed=seed))[1].mean() < 0.001


@pytest.mark.parametrize('noise', [2, 8])
def test_motion_is_found_in_noise(noise):
    motion, trusted = flow.find(*pair(7, -4, noise=noise))
    inner = np.s_[70:130, 100:160]
    assert trusted[inner].mean() > 0.9
    assert np.median(np.linalg.norm(motion[inner] - [7, -4], axis=-1)) < 0.5


def test_what_is_clipped_goes_with_what_is_around_it():
    """In the clipped middle no image says how it moves."""
    motion, trusted = flow.find(*pair(8, 3, clipped=10))
    core = np.s_[92:108, 122:138]
    assert trusted[core].all()
    assert np.linalg.norm(motion[core] - [8, 3], axis=-1).max() < 2


@pytest.mark.parametrize('height, width', [(31, 300), (300, 31), (1, 1), (12, 12)])
def test_images_too_small_to_be_searched_stay(height, width):
    image = np.random.RandomState(0).randint(0, 255, (height, width)).astype(np.uint8)
    motion, trusted = flow.find(image, image[::-1].copy())
    assert motion.shape == (height, width, 2) and not trusted.any()


@pytest.mark.parametrize('height, width', [(32, 32), (32, 900), (900, 32)])
def test_the_smallest_images_that_are_searched(height, width):
    image = textured(3, (height, width), 2).astype(np.uint8)
    motion, trusted = flow.find(image, np.roll(image, 3, axis=1))
    assert motion.shape == (height, width, 2) and np.isfinite(motion).all()


def test_places_outside_of_the_frame_are_not_trusted():
    image = textured(5).astype(np.uint8)
    motion, trusted = flow.find(image[:, :-9], image[:, 9:])  # what was on the left has left
    assert trusted[:, :9].mean() < 0.05 and trusted[:, 20:-20].mean() > 0.95
    assert flow.inside(flow.positions(trusted.shape) + motion, trusted.shape)[trusted].all()


def test_sampling_at_the_pixels_gives_the_image():
    image = textured(1).astype(np.uint16) * 200
    places = flow.positions(SIZE)
    np.testing.assert_array_equal(flow.sampled(image, places, cv2.INTER_CUBIC), image)
    np.testing.assert_array_equal(flow.sampled(image, places + np.float32([2, 1]), cv2.INTER_CUBIC)[:-1, :-2], image[1:, 2:])
    assert flow.inside(places, SIZE).all() and not flow.inside(places + 1, SIZE)[-1].any()
