"""A scene, and the files that a camera would make of it."""

import struct

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image

from afunet_jax import hdr

HEIGHT, WIDTH = 120, 160


def scene(height=HEIGHT, width=WIDTH, stops=8.0, seed=0):
    """Linear radiance, blobs of colour over `stops`, the brightest is 1."""
    random = np.random.RandomState(seed)
    coarse = random.rand(height // 16 + 2, width // 16 + 2, 3).astype(np.float32)
    fine = random.rand(height // 4 + 2, width // 4 + 2, 1).astype(np.float32)
    size = (width, height)
    level = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC) * 0.35 + 0.65 * cv2.resize(
        coarse.mean(-1), size, interpolation=cv2.INTER_CUBIC)[..., None]
    level = level + 0.1 * cv2.resize(fine, size, interpolation=cv2.INTER_LINEAR)[..., None]
    level = (level - level.min()) / np.ptp(level)
    return np.exp2(stops * (level - 1)).astype(np.float32)


def srgb(linear):
    """Written anew here, as a reference."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def expose(radiance, ev):
    return np.clip(radiance * 2.0**ev, 0, 1)


def eight(radiance, ev):
    return np.rint(255 * srgb(expose(radiance, ev))).astype(np.uint8)


def sixteen(radiance, ev):
    return np.rint(65535 * expose(radiance, ev) ** (1 / hdr.GAMMA)).astype(np.uint16)


def exif(seconds=None, aperture=None, iso=None, orientation=None, camera=('Maker', 'Model 1')):
    tags = Image.Exif()
    inner = tags.get_ifd(ExifTags.IFD.Exif)
    given = {ExifTags.Base.ExposureTime: seconds, ExifTags.Base.FNumber: aperture, ExifTags.Base.ISOSpeedRatings: iso}
    inner.update({tag: value for tag, value in given.items() if value is not None})
    if orientation is not None:
        tags[ExifTags.Base.Orientation] = orientation
    if camera:
        tags[ExifTags.Base.Make], tags[ExifTags.Base.Model] = camera
    return tags


def write_bracket(folder, evs, name='IMG_{}.png', seconds=True, radiance=None, first=1):
    """8-bit frames at these stops, with the times in EXIF (1/100 s is EV 0)."""
    folder.mkdir(exist_ok=True, parents=True)
    radiance = scene() if radiance is None else radiance
    paths = []
    for i, ev in enumerate(evs):
        path = folder / name.format(first + i)
        options = {'exif': exif(2.0**ev / 100, 8.0, 100)} if seconds else {}
        Image.fromarray(eight(radiance, ev)).save(path, **options)
        paths.append(path)
    return paths


def write_dng(path, linear, balance=(2.0, 1.0, 1.5), seconds=0.004, orientation=1):
    """A raw file as a camera writes it: a Bayer pattern (RGGB), 16 bits, the camera's primaries are sRGB's.

    `linear` `[H, W, 3]` is what the photo shows after white balance; 1 is the sensor's white.
    """
    sensor = np.clip(linear / np.array(balance), 0, 1)
    mosaic = np.empty(linear.shape[:2])
    for y, x, c in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[y::2, x::2] = sensor[y::2, x::2, c]
    def rational(values):
        return [part for value in values for part in (round(value * 10000), 10000)]
    xyz_to_srgb = (3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560,
                   0.0556434, -0.2040259, 1.0572252)  # fmt: skip
    tags = [
        (50706, 1, 4, b'\1\4\0\0', True), (50707, 1, 4, b'\1\1\0\0', True), (50708, 2, 0, 'Maker Model 1', True),
        (271, 2, 0, 'Maker', True), (272, 2, 0, 'Model 1', True), (274, 3, 1, orientation, True),
        (33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes([0, 1, 1, 2]), True),
        (50714, 3, 1, 0, True), (50717, 4, 1, 65535, True), (50778, 3, 1, 21, True),
        (50721, 10, 9, rational(xyz_to_srgb), True), (50728, 5, 3, rational([1 / b for b in balance]), True),
        (33434, 5, 1, (round(seconds * 1e6), 1000000), True), (33437, 5, 1, (28, 10), True), (34855, 3, 1, 200, True),
    ]  # fmt: skip
    data = np.rint(65535 * mosaic).astype(np.uint16)
    tifffile.imwrite(path, data, photometric=32803, extratags=tags, metadata=None, software=None)


def icc_profile(colorants, gamma=None, parametric=None, space=b'RGB '):
    """A profile of a matrix and one curve: columns of `colorants` are R, G, B in XYZ under D50."""
    def fixed(*values):
        return struct.pack(f'>{len(values)}i', *(round(v * 65536) for v in values))
    if parametric is None:
        curve = b'curv' + bytes(4) + struct.pack('>IH', 1, round(gamma * 256)) + bytes(2)
    else:
        kind, numbers = parametric
        curve = b'para' + bytes(4) + struct.pack('>HH', kind, 0) + fixed(*numbers)
    text = b'Test profile\0'
    tags = {
        b'desc': b'desc' + bytes(4) + struct.pack('>I', len(text)) + text + bytes(78 + 3),
        b'wtpt': b'XYZ ' + bytes(4) + fixed(0.9642, 1.0, 0.8249),
        **{c + b'XYZ': b'XYZ ' + bytes(4) + fixed(*colorants[:, i]) for i, c in enumerate((b'r', b'g', b'b'))},
        **{c + b'TRC': curve for c in (b'r', b'g', b'b')},
    }
    place, table, body = 128 + 4 + 12 * len(tags), b'', b''
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack('>4sII', name, place + len(body), len(data))
        body += data
    size = place + len(body)
    header = struct.pack('>I4sI4s4s4s', size, b'\0' * 4, 0x02400000, b'mntr', space, b'XYZ ') + bytes(12)
    header += b'acsp' + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b'\0') + struct.pack('>I', len(tags)) + table + body


# Adobe RGB (1998) under D50, columns R, G, B.
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
