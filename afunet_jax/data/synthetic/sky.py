"""Skies: gradient, sun with its aureole, clouds, moon and stars."""

import dataclasses

import cv2
import numpy as np

from afunet_jax.data.synthetic.canvas import Canvas
from afunet_jax.data.synthetic.textures import fbm, smoothstep

CLOUD_TEXELS = 900  # of the cloud layer's noise
AUREOLE = ((0.6, 0.05), (0.4, 0.24))  # share of the light around the sun, and its reach in focal lengths
HAZE = 0.10  # added to the elevation: keeps the cloud layer finite at the horizon


@dataclasses.dataclass(frozen=True)
class Mood:
    """Colours of a sky, radiance in linear RGB.

    Attributes:
        zenith, horizon: ends of the gradient.
        cloud, shade: lit side and underside of the clouds.
        sun: radiance of the sun's disc; zero for none.
        aureole: radiance next to the sun.
        key: sunlight on a white surface facing it.
        ambient: skylight on a white surface.
        radius: of the disc, in canvas heights.
    """

    zenith: tuple
    horizon: tuple
    cloud: tuple
    shade: tuple
    sun: tuple
    aureole: tuple
    key: tuple
    ambient: tuple
    radius: float = 0.016


CLEAR = Mood(
    (0.14, 0.30, 0.70),
    (0.88, 1.10, 1.32),
    (2.10, 2.05, 1.98),
    (0.58, 0.65, 0.76),
    (3000.0, 2800.0, 2400.0),
    (3.4, 3.1, 2.7),
    (0.95, 0.87, 0.74),
    (0.085, 0.105, 0.14),
)
GOLDEN = Mood(
    (0.13, 0.22, 0.46),
    (1.25, 0.90, 0.52),
    (2.00, 1.45, 0.95),
    (0.40, 0.34, 0.38),
    (1500.0, 1050.0, 560.0),
    (4.2, 2.7, 1.3),
    (0.85, 0.58, 0.30),
    (0.06, 0.065, 0.085),
)
DUSK = Mood(
    (0.035, 0.055, 0.15),
    (0.62, 0.30, 0.14),
    (0.60, 0.26, 0.16),
    (0.07, 0.065, 0.10),
    (350.0, 170.0, 60.0),
    (3.0, 1.3, 0.4),
    (0.28, 0.14, 0.06),
    (0.030, 0.032, 0.050),
)
NIGHT = Mood(
    (0.0006, 0.0010, 0.0025),
    (0.012, 0.009, 0.008),
    (0.010, 0.009, 0.010),
    (0.003, 0.003, 0.004),
    (60.0, 62.0, 66.0),
    (0.02, 0.022, 0.026),
    (0.0, 0.0, 0.0),
    (0.0035, 0.0042, 0.0070),
    0.011,
)
DAYS = (CLEAR, GOLDEN, DUSK)


def sun_position(rng, canvas: Canvas, low: float, high: float) -> np.ndarray:
    """A place for the sun, canvas pixels (x, y), between two shares of the sky's height above the horizon."""
    return np.array([rng.uniform(0.12, 0.88) * canvas.shape[1], canvas.view.y * (1 - rng.uniform(low, high))])


def _elevation(canvas: Canvas, rows: np.ndarray) -> np.ndarray:
    return np.maximum((canvas.view.y - rows) / canvas.view.focal, 0.0).astype(np.float32)


def _gradient(canvas: Canvas, mood: Mood, rows: np.ndarray) -> np.ndarray:
    share = np.clip(_elevation(canvas, rows) / 0.55, 0, 1)[:, None] ** np.float32(0.6)
    return np.array(mood.horizon, np.float32) * (1 - share) + np.array(mood.zenith, np.float32) * share


def _cloud_layer(rng, canvas: Canvas, rows: np.ndarray, cover: float) -> tuple[np.ndarray, np.ndarray]:
    """Opacity and brightness (0..1) of the clouds in each pixel of the sky."""
    noise = fbm(rng, (CLOUD_TEXELS, CLOUD_TEXELS), CLOUD_TEXELS / 5, 7, 0.52)
    relief = noise - np.roll(noise, (14, 4), (0, 1))
    elevation = _elevation(canvas, rows)[:, None] + np.float32(HAZE)
    across = (np.arange(canvas.shape[1], dtype=np.float32) - np.float32(canvas.view.x)) / np.float32(
        canvas.view.focal
    )
    scale = np.float32(CLOUD_TEXELS * 0.13)
    x = across[None, :] / elevation * scale + CLOUD_TEXELS / 2
    y = np.broadcast_to(scale * 1.6 / elevation, x.shape).astype(np.float32)
    sample = lambda t: cv2.remap(t, x.astype(np.float32), y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    noise, relief = sample(noise), sample(relief)
    low = 1.1 - 2.2 * cover
    opacity = smoothstep(low, low + 0.55, noise) * smoothstep(0.0, 0.16, elevation - np.float32(HAZE))
    bright = np.clip(0.72 + 0.55 * relief - 0.45 * smoothstep(low + 0.3, low + 1.5, noise), 0, 1)
    return opacity, bright


def paint_sky(rng, canvas: Canvas, mood: Mood, cover: float, sun: np.ndarray | None) -> None:
    """Paints every row above the horizon, in place.

    Args:
        rng: for the clouds.
        canvas: its view gives the horizon.
        mood: colours.
        cover: share of cloud, 0..1.
        sun: its place in canvas pixels, or None when it is behind the eye.
    """
    stop = min(canvas.horizon_row() + 1, canvas.shape[0])
    rows = np.arange(stop, dtype=np.float32)
    sky = np.repeat(_gradient(canvas, mood, rows)[:, None], canvas.shape[1], 1)
    halo = np.zeros(sky.shape[:2], np.float32)
    if sun is not None:
        dx = (np.arange(canvas.shape[1], dtype=np.float32) - np.float32(sun[0]))[None] / np.float32(
            canvas.view.focal
        )
        distance = np.sqrt(
            dx**2 + ((rows - np.float32(sun[1])) / np.float32(canvas.view.focal))[:, None] ** 2
        )
        halo = sum(np.float32(share) * np.exp(-distance / np.float32(reach)) for share, reach in AUREOLE)
        sky += halo[..., None] * np.array(mood.aureole, np.float32)
    opacity, bright = _cloud_layer(rng, canvas, rows, cover)
    white = np.array(mood.cloud, np.float32) * (1 + 1.2 * halo[..., None])
    cloud = bright[..., None] * white + (1 - bright[..., None]) * np.array(mood.shade, np.float32)
    sky += opacity[..., None] * (cloud - sky)
    canvas.pixels[:stop] = sky
    if sun is not None:
        disc(canvas, sun, mood.radius * canvas.shape[0], mood.sun)


def disc(canvas: Canvas, centre, radius: float, radiance) -> None:
    """A bright disc, `radius` in pixels."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    canvas.polygon(np.asarray(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], -1), radiance)


def stars(rng, canvas: Canvas, count: int) -> None:
    """Points of light in the upper sky."""
    for x, y, size in rng.uniform(size=(count, 3)):
        radiance = 0.02 * np.exp(3 * size) * np.ones(3)
        centre = (x * canvas.shape[1], y * 0.8 * canvas.view.y)
        disc(canvas, centre, (0.0006 + 0.0008 * size) * canvas.shape[0], radiance)
