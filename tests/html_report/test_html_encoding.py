"""HDR images for the browser: what is lost, and that nothing is clipped."""

import dataclasses

import cv2
import numpy as np
import pytest
from trial import image

from afunet_jax import hdr
from afunet_jax.html_report import encoding


def through_jpeg(encoded, quality):
    data = np.frombuffer(encoding.jpeg(encoded.base, quality), np.uint8)
    return dataclasses.replace(encoded, base=cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def psnr(a, b):
    return -10 * np.log10(((a - b) ** 2).mean())


@pytest.mark.parametrize('size', [(60, 90), (1, 1), (7, 9), (8, 8), (65, 33)])
def test_without_jpeg_the_error_is_that_of_8_bits_of_the_surroundings(size):
    picture = np.resize(image(0), (*size, 3)) * 3
    encoded = encoding.encode_hdr(picture)
    back = encoding.decode_hdr(encoded)
    # Half a code of a cube root, times the largest gain that can apply: the brightest value within 3 cells.
    reach = 6 * encoding.CELL + 1
    brightest = cv2.dilate(picture.max(-1), np.ones((reach, reach)))[..., None]
    step = np.float32((encoded.high - encoded.low) / 255)
    gain = brightest * np.exp2(step)
    bound = (
        3 * (picture / gain) ** (2 / 3) * (0.5 / 255)
        + 3 * (picture / gain) ** (1 / 3) * (0.5 / 255) ** 2
        + (0.5 / 255) ** 3
    )
    assert (np.abs(back - picture) <= bound * gain * 1.001).all()


def test_nothing_is_clipped_whatever_the_range():
    rng = np.random.default_rng(0)
    picture = np.exp2(rng.uniform(-20, 7, (64, 64, 3))).astype(np.float32)
    back = encoding.decode_hdr(encoding.encode_hdr(picture))
    brightest = picture.max(-1) == cv2.dilate(picture.max(-1), np.ones((33, 33)))
    np.testing.assert_allclose(back[brightest].max(-1), picture[brightest].max(-1), rtol=0.02)


def test_black_and_negative_values_are_black():
    assert (encoding.decode_hdr(encoding.encode_hdr(np.zeros((20, 20, 3), np.float32))) == 0).all()
    assert (encoding.decode_hdr(encoding.encode_hdr(np.full((20, 20, 3), -1, np.float32))) == 0).all()


@pytest.mark.parametrize('ev, least', [(-6, 50), (0, 42), (3, 36), (6, 32)])
def test_as_shown_the_jpeg_is_close_at_every_exposure(ev, least):
    picture = cv2.GaussianBlur(np.resize(image(1), (300, 450, 3)), (0, 0), 1)
    back = encoding.decode_hdr(through_jpeg(encoding.encode_hdr(picture), 95))
    shown = [hdr.from_radiance(x, hdr.exposure_time(np.float32(ev))) for x in (picture, back)]
    assert psnr(*shown) > least


def test_a_dark_wall_beside_a_lamp_keeps_its_shades():
    picture = np.full((128, 128, 3), 2.0**-12, np.float32)
    picture[:, 64:] *= 1.02
    picture[:16, :16] = 1
    back = encoding.decode_hdr(through_jpeg(encoding.encode_hdr(picture), 95))
    assert back[100, 96, 1] / back[100, 40, 1] == pytest.approx(1.02, abs=0.008)


def test_error_maps_have_a_fixed_scale():
    label = np.full((4, 4, 3), 0.5, np.float32)
    for error, code in ((0, 0), (encoding.ERROR_LIMIT / 4, 128), (encoding.ERROR_LIMIT, 255), (0.4, 255)):
        prediction = label.copy()
        prediction[..., 2] -= np.float32(error)
        assert np.abs(encoding.encode_error(prediction, label).astype(int) - code).max() <= 1
