"""Pictures for HDR screens: what browsers, phones and televisions show brighter than white.

    .png           16 bits, PQ, BT.2020, said by the chunk cICP, light levels by cLLI: PNG (Third Edition), W3C 2025.
                   Needs no further package; programs that do not know cICP show it grey and flat
    .avif          10 bits, PQ, BT.2020, nclx 9/16/9; a twentieth of the PNG's size. Needs imagecodecs
    .jpg, .jpeg    an ordinary JPEG with a gain map (ISO 21496-1, and the older Ultra HDR): looks right everywhere,
                   brighter on HDR screens. Needs imagecodecs

Light: diffuse white is 203 cd/m2 (ITU-R BT.2408), a scene's white found as for tone mapping. What exceeds the
screen's peak is rolled off as in ITU-R BT.2390; below the knee, about 300 cd/m2 for a peak of 1000, nothing is changed.
"""

import os
import pathlib
from typing import Any

import cv2
import numpy as np

from afunet_jax import image_io
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.outputs import colour, marks, png, tonemapping

PathLike = str | os.PathLike

ENDINGS = ('.png', '.avif', '.jpg', '.jpeg')
DIFFUSE_WHITE = 203.0  # cd/m2, ITU-R BT.2408
PEAK = 1000.0  # cd/m2, the screens that HDR is mostly mastered for
BT2020, PQ, BT2020_YCBCR = 9, 16, 9  # primaries, transfer, matrix: code points of ITU-T H.273
PNG_LARGEST, AVIF_BITS = 65535, 10
AVIF_QUALITY, JPEG_QUALITY = 94, 95  # of 100
LEAST_PEAK = 1.01 * DIFFUSE_WHITE  # cd/m2, of a gain map: readers refuse one that brightens nothing
CHANNEL_SHARE = 0.5  # of the roll-off that goes by every channel
AVIF_SPEED = 6  # 0 is slowest, 10 fastest
SIDES = {'.avif': (1, 65536), '.jpg': (8, 8192), '.jpeg': (8, 8192)}  # pixels, of AV1 and of libultrahdr


def save_display_hdr(
    path: PathLike, image: np.ndarray, diffuse_white: float | None = None, peak: float = PEAK
) -> None:
    """Writes a picture for HDR screens, its format by the name's ending (see the module).

    Args:
        path: ends in `.png`, `.avif`, `.jpg` or `.jpeg`; its folder must exist.
        image: `[H, W, 3]` float, linear RGB with BT.709 primaries; negative values count as 0.
        diffuse_white: value of the image that is shown at 203 cd/m2; None: found from the image.
        peak: the brightest light, cd/m2, 203 to 10000; more is rolled off.

    Raises:
        DataError: the image's shape, size or values, or the file cannot be written.
        ConfigError: the ending, diffuse_white or peak, or a package that is missing.
    """
    path = pathlib.Path(path)
    ending, codecs = path.suffix.lower(), codecs_for(path)
    light = light_of(tonemapping.linear_image(image, str(path)), diffuse_white, peak)
    check_size(path, *light.shape[:2])
    if ending == '.png':
        data = encode_png(light)
    else:
        try:
            data = (encode_avif if ending == '.avif' else encode_gain_map)(light, codecs)
        except (RuntimeError, ValueError) as error:  # imagecodecs' are RuntimeErrors
            raise DataError(f'{path}: cannot be encoded ({error}). Write a .png.') from error
    image_io.write_atomically(path, data)


def check_size(path: PathLike, height: int, width: int) -> None:
    """Refuses an image that the format of a name's ending cannot hold.

    Raises:
        DataError: a side is too long or too short.
    """
    lowest, highest = SIDES.get(pathlib.Path(path).suffix.lower(), (1, max(height, width)))
    if min(height, width) < lowest or max(height, width) > highest:
        raise DataError(f'{path}: such a file for HDR screens has {lowest} to {highest} pixels a side, the image is '
                        f'{width}x{height}. Write a .png, or reduce a large one by max_side.')


def codecs_for(path: PathLike) -> Any:
    """The module that encodes a file of this name; None for `.png`, which needs none.

    Raises:
        ConfigError: another ending, or the module is not installed.
    """
    ending = pathlib.Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f'{path}: pictures for HDR screens are written as {", ".join(ENDINGS)}. '
                          'Choose one of these endings.')
    if ending == '.png':
        return None
    try:
        import imagecodecs
    except ImportError as error:
        raise ConfigError(f'{path}: AVIF and JPEG for HDR screens are written by a package that is not installed. '
                          'Run pip install imagecodecs, or write a .png.') from error
    return imagecodecs


def light_of(image: np.ndarray, diffuse_white: float | None = None, peak: float = PEAK) -> np.ndarray:
    """What a screen shows of a linear image: `[H, W, 3]` in cd/m2, BT.709 primaries, at most `peak`.

    Arguments and errors as for `save_display_hdr`.
    """
    if not DIFFUSE_WHITE <= peak <= colour.PQ_PEAK:
        raise ConfigError(f'the peak of an HDR screen is {DIFFUSE_WHITE:.0f} to {colour.PQ_PEAK:.0f} cd/m2, not {peak}')
    if diffuse_white is not None and not 0 < diffuse_white < np.inf:
        raise ConfigError(f'diffuse_white is a positive number, not {diffuse_white}')
    scale = tonemapping.automatic_exposure(image) if diffuse_white is None else 1 / diffuse_white
    light = np.minimum(image * np.float64(scale * DIFFUSE_WHITE), np.finfo(np.float32).max).astype(np.float32)
    return roll_off(light, peak)


def roll_off(light: np.ndarray, peak: float) -> np.ndarray:
    """Compresses highlights so that 10000 cd/m2 and more become `peak`: the curve of BT.2390.

    Half of it goes by the largest channel, which keeps colours, half by every channel, which makes the brightest
    lights white: a sun whose colour is kept becomes an orange disc in a white halo.

    Args:
        light: `[..., 3]`, cd/m2, any number from 0.
        peak: cd/m2.
    """
    largest = light.max(-1, keepdims=True)
    kept = light * (_bent(largest, peak) / np.maximum(largest, np.finfo(np.float32).tiny))
    return (kept + np.float32(CHANNEL_SHARE) * (_bent(light, peak) - kept)).astype(np.float32)


def _bent(light: np.ndarray, peak: float) -> np.ndarray:
    """BT.2390's curve, on PQ codes: a straight line to the knee, then a Hermite spline that is flat at the end."""
    light = np.minimum(light, np.float32(colour.PQ_PEAK))
    if peak >= colour.PQ_PEAK:
        return light
    code, top = colour.encode_pq(light), float(colour.encode_pq(np.float32(peak)))
    knee = 1.5 * top - 0.5
    t = np.clip((code - knee) / (1 - knee), 0.0, 1.0)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return np.where(code > knee, np.minimum(colour.decode_pq(spline), np.float32(peak)), light)


def pq_codes(light: np.ndarray, largest: int) -> np.ndarray:
    """Code values 0 to `largest` of light in cd/m2, `[..., 3]`: BT.709 to BT.2020 primaries, then PQ. uint16."""
    return np.round(largest * colour.encode_pq(light @ colour.BT709_TO_BT2020.T)).astype(np.uint16)


def encode_png(light: np.ndarray) -> bytes:
    """A PNG of 16 bits with PQ and BT.2020. `light`: `[H, W, 3]`, cd/m2, BT.709."""
    done, data = cv2.imencode('.png', np.ascontiguousarray(pq_codes(light, PNG_LARGEST)[..., ::-1]))
    if not done:
        raise DataError(f'an image of shape {list(light.shape)} cannot be encoded as PNG')
    brightest = light.max(-1)
    levels = png.light_level(float(brightest.max()), float(brightest.mean(dtype=np.float64)))
    return png.insert(data.tobytes(), png.coding(BT2020, PQ) | levels | marks.png_text())


def encode_avif(light: np.ndarray, codecs: Any) -> bytes:
    """An AVIF of 10 bits with PQ and BT.2020, chroma not subsampled. `codecs`: the module imagecodecs."""
    codes = pq_codes(light, 2**AVIF_BITS - 1)
    return codecs.avif_encode(
        codes, AVIF_QUALITY, speed=AVIF_SPEED, bitspersample=AVIF_BITS, pixelformat='yuv444',
        primaries=BT2020, transfer=PQ, matrix=BT2020_YCBCR,
    )  # fmt: skip


def encode_gain_map(light: np.ndarray, codecs: Any) -> bytes:
    """A JPEG with a gain map; its ordinary picture is tone-mapped by libultrahdr. `codecs`: the module imagecodecs."""
    pixels = np.ones((*light.shape[:2], 4), np.float16)
    pixels[..., :3] = light / DIFFUSE_WHITE
    kinds = codecs.ULTRAHDR
    data = codecs.ultrahdr_encode(
        pixels, JPEG_QUALITY, gamut=kinds.CG.BT_709, transfer=kinds.CT.LINEAR, crange=kinds.CR.FULL_RANGE,
        nits=max(float(light.max()), LEAST_PEAK),
    )  # fmt: skip
    return marks.mark_gain_map(data)
