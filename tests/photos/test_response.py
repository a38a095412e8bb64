"""Tone curves: full scale stays, gamma 2.2 stays bit for bit, a camera's curve is found again."""

import cv2
import numpy as np
import pytest
from photo_files import expose, scene, srgb

from afunet_jax import hdr, image_io
from afunet_jax.errors import DataError
from afunet_jax.photos import response


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('name', response.NAMED)
def test_curves_rise_from_0_to_1_and_full_scale_is_65535(name, bits):
    curve = response.tone_curve(name, bits)
    assert curve.table.shape == (2**bits, 1)
    assert curve.table[0] == 0 and curve.table[-1] == pytest.approx(1, abs=1e-12)
    assert (np.diff(curve.table[:, 0]) > 0).all()
    ends = np.array([[[0, 2**bits - 1, 0]]], f'uint{bits}')
    np.testing.assert_array_equal(curve.encode(ends), [[[0, 65535, 0]]])


def test_gamma_of_16_bits_is_not_touched():
    values = np.arange(65536, dtype=np.uint16).reshape(-1, 1).repeat(3, 1)[None]
    np.testing.assert_array_equal(response.tone_curve('gamma2.2', 16).encode(values), values)


def test_gamma_of_8_bits_is_what_read_ldr_makes_of_it():
    values = np.arange(256, dtype=np.uint8).reshape(-1, 1).repeat(3, 1)[None]
    np.testing.assert_array_equal(response.tone_curve('gamma2.2', 8).encode(values),
                                  values.astype(np.uint16) * image_io.EIGHT_TO_SIXTEEN_BITS)


def test_srgb_is_the_inverse_of_its_standard():
    linear = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(response.srgb_to_linear(srgb(linear)), linear, atol=1e-7)


@pytest.mark.parametrize('name', response.NAMED)
def test_the_scene_decodes_to_the_light_that_fell_in(name):
    values = np.random.RandomState(0).randint(0, 65536, (20, 30, 3)).astype(np.uint16)
    curve = response.tone_curve(name, 16)
    light = hdr.to_radiance(hdr.decode_ldr(curve.encode(values)), np.float32(1))
    full_scale = (65535 / 65536) ** 2.2
    # half a step of the 16-bit code is 1.1 / 65535 of the encoded value, times 2.2
    np.testing.assert_allclose(light, curve.decode(values) * full_scale, rtol=2e-3, atol=3e-9)
    np.testing.assert_allclose(response.decode_16(curve.encode(values)), curve.decode(values), rtol=2e-3, atol=3e-9)


def test_floats_are_clipped_at_their_full_scale():
    image = np.array([[[0, 1, 2], [4, 8, 1e9]]], np.float32)
    found = response.encode_image(image, 4.0)
    expected = np.rint(65535 * (np.array([[[0, 1, 2], [4, 4, 4]]]) / 4) ** (1 / 2.2))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('kind, bits, name', [
    ('raw', 16, 'linear'), ('exr', 32, 'linear'), ('radiance', 32, 'linear'), ('tiff', 32, 'linear'),
    ('jpeg', 8, 'srgb'), ('png', 8, 'srgb'), ('heif', 8, 'srgb'), ('heif', 16, 'srgb'), ('tiff', 8, 'srgb'),
    ('tiff', 16, 'gamma2.2'), ('png', 16, 'gamma2.2')])
def test_defaults(kind, bits, name):
    assert response.default_curve(kind, bits) == name


def test_refuses_another_name():
    with pytest.raises(DataError, match='linear, gamma2.2, srgb.*log'):
        response.tone_curve('log', 8)


# ---- estimated --------------------------------------------------------------------------------------


def camera(linear):
    """A picture style: contrast over sRGB."""
    encoded = srgb(linear)
    return encoded**1.3 * (1.6 - 0.6 * encoded**1.3)


def photos_of(radiance, evs, seed=0):
    noise = np.random.RandomState(seed)
    return [np.rint(255 * np.clip(camera(expose(radiance, ev)) + 0.004 * noise.randn(*radiance.shape), 0, 1))
            .astype(np.uint8) for ev in evs]


@pytest.mark.parametrize('evs', [[0, 2, 4], [4, 0, 2], [0, 1, 2, 3, 4], [-3.0, 0, 3]])
def test_finds_a_cameras_curve(evs):
    radiance = scene(240, 320, stops=9) * 2.0 ** -min(evs)
    curve = response.estimate_response(photos_of(radiance, evs), evs)
    assert curve.name == 'estimated' and curve.table[0] == 0 and curve.table[-1] == 1
    assert (np.diff(curve.table[:, 0]) >= 0).all()
    linear = np.linspace(0, 1, 100001)
    values = np.arange(40, 240)
    truth = np.interp(values / 255, camera(linear), linear)
    stops = np.log2(curve.table[values, 0] / truth)
    assert np.abs(stops - np.median(stops)).max() < 0.15
    assumed = np.log2(response.tone_curve('srgb', 8).table[values, 0] / truth)
    assert np.abs(stops - np.median(stops)).max() < 0.3 * np.abs(assumed - np.median(assumed)).max()


def test_motion_does_not_disturb_the_estimate():
    radiance = scene(240, 320, stops=9)
    images = photos_of(radiance, [0, 2, 4])
    still = response.estimate_response(images, [0, 2, 4])
    images[1][100:160, 100:180] = images[1][20:80, 20:100]  # someone walked by
    moved = response.estimate_response(images, [0, 2, 4])
    values = np.arange(40, 240)
    assert np.abs(np.log2(moved.table[values] / still.table[values])).max() < 0.15


CAMERAS = {
    'gamma': lambda linear: linear ** (1 / 2.2), 'srgb': srgb,
    'contrast': lambda linear: 0.5 * srgb(linear) + 0.5 * srgb(linear) ** 2 * (3 - 2 * srgb(linear)), 'style': camera,
}  # fmt: skip


@pytest.mark.parametrize('name', CAMERAS)
def test_finds_a_cameras_curve_in_jpegs_of_a_crowd(name):
    # Noise, compression, and half of the picture elsewhere in each frame.
    radiance, noise = scene(240, 320, stops=9), np.random.RandomState(1)
    images = []
    for ev in (0, 2, 4):
        moved = radiance.copy()
        moved[:, 80:240] = np.roll(radiance[:, 80:240], 23 * ev, axis=0)
        encoded = CAMERAS[name](expose(moved, ev)) + 0.01 * noise.randn(*moved.shape)
        whole = np.rint(255 * np.clip(encoded, 0, 1)).astype(np.uint8)
        images.append(cv2.imdecode(cv2.imencode('.jpg', whole, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_COLOR))
    curve = response.estimate_response(images, [0, 2, 4])
    assert (np.diff(curve.table[:, 0]) > 0).all()
    linear, values = np.linspace(0, 1, 100001), np.arange(30, 240)
    stops = np.log2(curve.table[values, 0] / np.interp(values / 255, CAMERAS[name](linear), linear))
    assert np.abs(stops).max() < 0.1


def test_refuses_what_cannot_be_estimated():
    with pytest.raises(DataError, match='8-bit'):
        response.estimate_response([np.zeros((50, 50, 3), np.uint16)] * 3, [0, 2, 4])
    with pytest.raises(DataError, match='only 0 values of flat places'):
        response.estimate_response([np.full((50, 50, 3), value, np.uint8) for value in (0, 1, 255)], [0, 2, 4])
    with pytest.raises(DataError, match='only 0 places'):
        response.estimate_response([np.zeros((50, 50, 3), np.uint8)] * 3, [0, 2, 4])
