"""Linear light to a picture for an ordinary screen.

Four operators, each a function of a linear image `[H, W, 3]` of any scale that returns code values in [0, 1]:

    mu_law     the compression that the field compares with, Eq. (17), on values scaled by their percentile
    reinhard   the photographic operator, global: Reinhard et al. 2002, Eq. (4)
    filmic     Hable's curve of 2010 per channel: toe, straight part, shoulder
    fusion     exposures made of the image and fused by Mertens et al. 2007: a local operator

The default was chosen by looking at ten scenes side by side: five photographs and five panoramas, of an interior, a
cellar, a candle-lit table, two nights, a sunset, a field at noon, and three landscapes.

    mu_law     shows everything and looks like nothing: a grey veil over noon, sunset and night, and a cellar or a
               table with one bright light left in the dark, because the brightest pixels alone set its scale
    reinhard   natural in all ten: clean blacks, blue skies, warm lamps. Gives up most around the sun, which becomes a
               larger white disc than in fusion
    filmic     close to it, paler: skies and meadows lose colour, lights turn white first
    fusion     the finest skies, sunset and backlit tree; but trees and rocks in front go black, and the cellar and
               the night square become brighter than they were

So `reinhard` is the default, and `fusion` the one to try where a bright sky or a window matters most.
"""

from collections.abc import Callable

import cv2
import numpy as np

from afunet_jax import hdr
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.outputs import colour

MIDDLE_GREY = 0.18  # reflectance of the grey card: where an exposure puts the mean of the logarithms
KEY_RANGE = 4.0  # Reinhard 2002: the middle grey of a low-key scene is lower, of a high-key one higher, up to so much
LOWEST, HIGHEST = 1.0, 99.0  # percentiles between which the key of a scene is measured
WHITE_PERCENTILE = 99.8  # of what may reach white: fewer pixels than that are lamps and the sun
LEAST_WHITE = 1.0  # a scene without lights is not stretched beyond its own exposure
DARKEST = 2.0**-9  # of the percentile that counts as the highest: a dark background does not ask to be lifted further
CHANNEL_SHARE = 0.5  # of a channel's own value in the light that compresses it; the rest is luminance
HABLE = (0.15, 0.50, 0.10, 0.20, 0.02, 0.30)  # A to F: shoulder, linear strength and angle, toe, its two numbers
FUSION_STOPS = (-6.0, -4.0, -2.0, 0.0, 1.5)  # exposures that are fused, around the automatic one
FUSION_WEIGHTS = (0.5, 1.0, 1.0)  # of contrast, saturation and good exposure


def automatic_exposure(image: np.ndarray) -> float:
    """Factor that brings a linear image to a scale where 1 is diffuse white.

    The mean of log luminance comes to middle grey, which is moved by the scene's key (Reinhard et al. 2002: a night
    stays dark, snow stays bright). Percentiles bound it, so neither a few huge highlights nor black pixels count.

    Args:
        image: `[H, W, 3]`, linear, not negative, any scale.

    Returns:
        A positive number; 1.0 for a black image.
    """
    light = colour.luminance(image)
    light = light[light > 0]
    if not light.size:
        return 1.0
    low, high = np.percentile(light, (LOWEST, HIGHEST))
    low = max(low, high * DARKEST)
    mean = np.log2(np.clip(light, low, high)).mean(dtype=np.float64)
    low, high = np.log2(low), np.log2(high)
    key = (2 * mean - low - high) / (high - low) if high > low else 0.0
    return float(MIDDLE_GREY * KEY_RANGE**key / 2**mean)


def mu_law(image: np.ndarray) -> np.ndarray:
    """The mu-law of every channel, mu = 5000; a percentile of the channels' maxima becomes 1."""
    largest = image.max(-1)
    white = np.percentile(largest, WHITE_PERCENTILE) or largest.max() or 1.0
    return hdr.mu_law(np.clip(image / np.float32(white), 0.0, 1.0))


def reinhard(image: np.ndarray) -> np.ndarray:
    """Reinhard's global photographic operator, x (1 + L / white^2) / (1 + L), then sRGB.

    L is half luminance and half the channel's own value (Reinhard and Devlin 2005, Eq. (7)): with luminance alone
    bright grass and skin turn gaudy, with the channel alone a blue sky turns grey.
    """
    exposed = image * np.float32(automatic_exposure(image))
    luminance = colour.luminance(exposed)
    white = max(float(np.percentile(luminance, WHITE_PERCENTILE)), LEAST_WHITE)
    light = luminance[..., None] + np.float32(CHANNEL_SHARE) * (exposed - luminance[..., None])
    return colour.encode_srgb(_into_gamut(exposed * ((1 + light / np.float32(white**2)) / (1 + light))))


def _hable(x: np.ndarray | float) -> np.ndarray | float:
    a, b, c, d, e, f = HABLE
    return (x * (a * x + c * b) + d * e) / (x * (a * x + b) + d * f) - e / f


def filmic(image: np.ndarray) -> np.ndarray:
    """Hable's filmic curve of every channel, then sRGB; lights lose their colour as on film."""
    exposed = image * np.float32(automatic_exposure(image))
    white = max(float(np.percentile(exposed.max(-1), WHITE_PERCENTILE)), LEAST_WHITE)
    gain = MIDDLE_GREY / (_hable(MIDDLE_GREY) / _hable(white))  # middle grey stays where it is
    return colour.encode_srgb((_hable(np.float32(gain) * exposed) / _hable(gain * white)).astype(np.float32))


def fusion(image: np.ndarray) -> np.ndarray:
    """Exposures of the image, as a camera would take them, fused by contrast, saturation and good exposure.

    Local: every part of the scene is shown by the exposures that show it best. About 100 bytes a pixel.
    """
    exposed = image * np.float32(automatic_exposure(image))
    frames = [colour.encode_srgb(exposed * np.float32(2.0**stop)) for stop in FUSION_STOPS]
    contrast, saturation, exposure = FUSION_WEIGHTS
    merge = cv2.createMergeMertens(contrast, saturation, exposure)
    stored = [np.round(255 * frame).astype(np.uint8) for frame in frames]
    return np.clip(merge.process(stored), 0.0, 1.0).astype(np.float32)


def _into_gamut(image: np.ndarray) -> np.ndarray:
    """Colours above 1 are mixed with grey of their luminance until they fit; what is brighter still becomes white."""
    light = np.minimum(colour.luminance(image), 1.0)[..., None]
    excess = image.max(-1, keepdims=True) - light
    share = np.where(light + excess > 1.0, (1.0 - light) / np.maximum(excess, 1e-6), 1.0)
    return light + share * (image - light)


OPERATORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'mu_law': mu_law, 'reinhard': reinhard, 'filmic': filmic, 'fusion': fusion,
}  # fmt: skip
DEFAULT = 'reinhard'


def tone_map(image: np.ndarray, operator: str = DEFAULT) -> np.ndarray:
    """A picture that looks right without a setting.

    Args:
        image: `[H, W, 3]`, linear RGB with BT.709 primaries, any scale; negative values count as 0.
        operator: a name of `OPERATORS`.

    Returns:
        `[H, W, 3]` uint8, sRGB.

    Raises:
        DataError: another shape, or values that are not finite.
        ConfigError: an operator of another name.
    """
    if operator not in OPERATORS:
        raise ConfigError(f'tone mapping is one of {", ".join(OPERATORS)}, not {operator!r}')
    return np.round(255 * OPERATORS[operator](linear_image(image))).astype(np.uint8)


def linear_image(image: np.ndarray, name: str = 'image') -> np.ndarray:
    """The image as float32 `[H, W, 3]`, negative values set to 0.

    Raises:
        DataError: another shape, no pixels, or values that are not finite; starts with `name`.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size or not np.issubdtype(image.dtype, np.floating):
        raise DataError(f'{name}: a linear image is [H, W, 3] of floats, not {image.dtype} {list(image.shape)}')
    image = np.maximum(image.astype(np.float32), 0.0)
    if not np.isfinite(image).all():
        raise DataError(f'{name}: {int((~np.isfinite(image)).sum())} values are infinite, NaN, or above what float32 '
                        'holds; merge the photos anew, or set these values')
    return image
