"""What moves in front of a backdrop: cut-outs of HDR images and painted figures, at their depths."""

import dataclasses
import math

import cv2
import numpy as np

from afunet_jax.data.brackets.outlines import OUTLINES
from afunet_jax.data.brackets.sources import Source
from afunet_jax.data.brackets.views import SUPERSAMPLING, Camera, random_view, to_canvas
from afunet_jax.data.synthetic.actors import Ball, Bird, CarFront, CarSide, Person
from afunet_jax.data.synthetic.canvas import Canvas, View
from afunet_jax.data.synthetic.sprites import Light, draw
from afunet_jax.data.synthetic.textures import GREY_WEIGHTS

CUTOUT_SIZE = (0.12, 0.55)  # of the side of a cut-out's square, in picture heights; nearer is larger
CUTOUT_STRETCH = 0.35  # largest logarithm of width over height, before the outline
CUTOUT_LEVEL = (0.15, 0.97)  # quantile of the backdrop's luminance that a cut-out's mean takes
CUTOUT_TRIES = 3  # patches looked at: the one with the most structure is taken
CUTOUT_PITCH = math.radians(35)  # largest up or down of a cut-out's view in a panorama
SOFTNESS = (0.35, 1.2)  # blur of a layer in picture pixels: it is seldom exactly in focus
FIGURES = ((Person, 0.5, (0.25, 0.85)), (CarSide, 0.2, (0.12, 0.35)), (CarFront, 0.1, (0.12, 0.4)),
           (Ball, 0.1, (0.05, 0.2)), (Bird, 0.1, (0.05, 0.25)))  # class, share, height in picture heights
FOOT = (0.15, 0.6)  # where a far and a near figure stand, picture heights below the centre
FOOT_SPREAD = 0.06  # standard deviation of that
FLIGHT = (-0.45, 0.1)  # where birds are, picture heights below the centre
ACROSS = 0.45  # how far left and right of the centre a layer is in the middle exposure, picture widths
FIGURE_LEVEL = (-1.5, 2.0)  # stops of the light on a figure against the backdrop's median luminance
FIGURE_AMBIENT = (0.15, 0.8)  # of the light that comes from everywhere
TINT = 0.15  # standard deviation of the logarithm of a light's red and blue
LARGEST_STEP = 0.12  # of a layer between neighbouring exposures, in picture heights
NEARNESS = (0.05, 1.0)  # a layer's speed against the nearest possible one
TURN = (0.15, 0.03)  # standard deviation of a cut-out's and of a figure's turn between exposures, radians
ZOOM = 0.05  # standard deviation of the logarithm of its growth between exposures
HEADING = (0.4, 0.1)  # standard deviation of a cut-out's and of a figure's direction from level, radians
BEND = 0.5  # standard deviation of the path's change of direction, radians
REVERSE = 0.15  # share of layers that come back


@dataclasses.dataclass
class Layer:
    """Something that moves.

    Attributes:
        textures: premultiplied radiance and coverage `[h, w, 4]`, of `SUPERSAMPLING` texels a picture pixel;
            one for each exposure, or one for all.
        place: of the texture's centre in the short, middle and long exposure, picture pixels, `[3, 2]`.
        turn: radians, `[3]`.
        zoom: logarithm of its size, `[3]`.
        nearness: larger is in front.
        source: the file that it was cut from, or the figure's name.
    """

    textures: tuple[np.ndarray, ...]
    place: np.ndarray
    turn: np.ndarray
    zoom: np.ndarray
    nearness: float
    source: str

    @property
    def reach(self) -> float:
        """Pixels of its longest step between neighbouring exposures, at its rim."""
        rows, cols = self.textures[0].shape[:2]
        rim = 0.5 * math.hypot(rows, cols) / SUPERSAMPLING
        steps = np.hypot(*np.diff(self.place, axis=0).T)
        return float((steps + rim * (np.abs(np.diff(self.turn)) + np.abs(np.diff(self.zoom)))).max())


def along(knots: np.ndarray, time: float) -> np.ndarray:
    """The parabola through `knots` `[3, ...]` at the times -1, 0 and 1."""
    return (0.5 * time * (time - 1) * knots[0] + (1 - time * time) * knots[1] + 0.5 * time * (time + 1) * knots[2])


def draw_layer(canvas: np.ndarray, layer: Layer, exposure: int, time: float, camera: Camera) -> None:
    """Lays a layer over the canvas `[2 H, 2 W, 3]` as it is at `time`, in place."""
    texture = layer.textures[exposure % len(layer.textures)]
    height, width = (n // SUPERSAMPLING for n in canvas.shape[:2])
    angle, scale = float(along(layer.turn, time)), math.exp(float(along(layer.zoom, time))) / SUPERSAMPLING
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    x, y = along(layer.place, time)
    rows, cols = texture.shape[:2]
    middle = np.array([[1, 0, -(cols - 1) / 2], [0, 1, -(rows - 1) / 2], [0, 0, 1]])
    matrix = to_canvas(height, width) @ camera.matrix @ np.array([[c, -s, x], [s, c, y], [0, 0, 1]]) @ middle
    corners = matrix[:2] @ np.array([[-1, cols, cols, -1], [-1, -1, rows, rows], [1, 1, 1, 1]])
    left, top = np.maximum(np.floor(corners.min(1)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(1)).astype(int) + 1, canvas.shape[1::-1])
    if left >= right or top >= bottom:
        return
    matrix[:2, 2] -= (left, top)
    seen = cv2.warpAffine(texture, matrix[:2], (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
    part = canvas[top:bottom, left:right]
    part *= 1 - seen[..., 3:]
    part += seen[..., :3]


def _path(rng, nearness: float, down: float, height: int, width: int, painted: bool):
    """Random knots: places `[3, 2]` in picture pixels, `down` below the centre, turns `[3]`, zooms `[3]`."""
    middle = np.array([rng.uniform(-ACROSS, ACROSS) * width, down])
    step = LARGEST_STEP * nearness * height * rng.uniform(0.5, 1.0, 2)
    heading = rng.choice((0, np.pi)) + rng.normal(0, HEADING[painted])  # most things move across
    turned = heading + rng.normal(0, BEND) + (np.pi if rng.random() < REVERSE else 0)
    before, after = (np.array([math.cos(a), math.sin(a)]) * s for a, s in zip((heading, turned), step))
    turns, zooms = rng.normal(0, TURN[painted] * nearness, 2), rng.normal(0, ZOOM * nearness, 2)
    knots = lambda pair: np.array([-pair[0], 0.0, pair[1]])
    return np.stack([middle - before, middle, middle + after]), knots(turns), knots(zooms)


def _soften(rng, texture: np.ndarray) -> np.ndarray:
    """A little defocus, with room for it around."""
    sigma = SUPERSAMPLING * math.exp(rng.uniform(*np.log(SOFTNESS)))
    pad = math.ceil(3 * sigma) + 1
    soft = cv2.GaussianBlur(cv2.copyMakeBorder(texture, *[pad] * 4, cv2.BORDER_CONSTANT), (0, 0), sigma)
    soft[..., 3] = np.minimum(soft[..., 3], 1)  # rounding
    return soft


def _structure(patch: np.ndarray) -> float:
    grey = patch @ GREY_WEIGHTS
    return float(np.log(grey + np.float32(1e-3) * grey.mean() + np.float32(1e-12)).std())


def cutout(rng: np.random.Generator, source: Source, luminance: np.ndarray, height: int, width: int) -> Layer:
    """A region cut from another place of `source`, at a random depth and brightness.

    Args:
        rng: draws everything.
        source: of the scene's own split.
        luminance: of the backdrop, any shape: what the region's brightness is drawn from.
        height, width: of the picture, pixels.
    """
    nearness = rng.uniform(*NEARNESS)
    small, large = CUTOUT_SIZE
    side = height * (small + (large - small) * nearness * rng.uniform(0.4, 1.0))
    stretch = math.exp(rng.uniform(-CUTOUT_STRETCH, CUTOUT_STRETCH) / 2)
    size = max(4, round(side / stretch)), max(4, round(side * stretch))
    patches = [random_view(rng, source, *size, CUTOUT_PITCH).frame() for _ in range(CUTOUT_TRIES)]
    patch = max(patches, key=_structure)
    mask = OUTLINES[rng.integers(len(OUTLINES))](rng, patch)[..., None]
    mean = float((patch @ GREY_WEIGHTS * mask[..., 0]).sum() / max(mask.sum(), 1e-6))
    patch = patch * np.float32(np.quantile(luminance, rng.uniform(*CUTOUT_LEVEL)) / max(mean, 1e-9))
    texture = _soften(rng, np.concatenate([patch * mask, mask], -1))
    down = rng.uniform(-ACROSS, ACROSS) * height
    return Layer((texture,), *_path(rng, nearness, down, height, width, False), nearness, source.file)


def _light(rng, luminance: np.ndarray) -> Light:
    level = float(np.median(luminance)) * 2 ** rng.uniform(*FIGURE_LEVEL) * 2  # an albedo of a half
    tint = np.exp(rng.normal(0, TINT, 3) * (1, 0, 1)).astype(np.float32)
    share = rng.uniform(*FIGURE_AMBIENT)
    return Light(level * (1 - share) * 2 * tint, level * share * tint[::-1], rng.choice((-1.0, 1.0)))


def _painted(figure, time: float, box, metre: float, light: Light) -> np.ndarray:
    """A figure as premultiplied radiance and coverage: what it leaves of a white canvas is not covered."""
    (left, low), (right, high) = box
    shape = math.ceil((high - low) * metre) + 4, math.ceil((right - left) * metre) + 4
    foot = np.array([-left * metre + 2, high * metre + 2])
    black, white = (Canvas(*shape, View(1.0, 0.0, 0.0, 0.0)) for _ in range(2))
    white.pixels += 1
    for canvas in (black, white):
        draw(canvas, figure.shapes(time), foot, metre, light, figure.pattern)
    alpha = np.clip(1 - (white.pixels - black.pixels).mean(-1, keepdims=True), 0, 1)
    return np.concatenate([black.pixels, alpha], -1)


def figure(rng: np.random.Generator, luminance: np.ndarray, height: int, width: int) -> Layer:
    """A painted person, car, ball or bird, with another pose in each exposure; arguments as of `cutout`."""
    kinds, shares, heights = zip(*FIGURES)
    kind = rng.choice(len(kinds), p=shares)
    actor, nearness = kinds[kind](rng), rng.uniform(*NEARNESS)
    points = np.concatenate([s.points for time in (-1.0, 0.0, 1.0) for s in actor.shapes(time)])
    box = points.min(0), points.max(0)
    low, high = heights[kind]
    tall = height * (low + (high - low) * nearness)
    metre = SUPERSAMPLING * tall / (box[1][1] - box[0][1])
    light, seed = _light(rng, luminance), rng.integers(2**32)
    textures = tuple(
        _soften(np.random.default_rng(seed), _painted(actor, time, box, metre, light)) for time in (-1.0, 0.0, 1.0)
    )
    flying = kinds[kind] is Bird
    share = rng.uniform(*FLIGHT) if flying else FOOT[0] + (FOOT[1] - FOOT[0]) * nearness + rng.normal(0, FOOT_SPREAD)
    path = _path(rng, nearness, share * height - (0 if flying else tall / 2), height, width, True)
    return Layer(textures, *path, nearness, kinds[kind].__name__)
