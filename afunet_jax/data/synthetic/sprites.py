"""Flat figures made of polygons: the people, cars, trees and furniture that stand in a scene.

A figure lives in metres: x to the right, y up, the origin where it touches the ground.
"""

import dataclasses
import functools
import math

import cv2
import numpy as np

from afunet_jax.data.synthetic.canvas import Canvas, fill

PATTERN_TEXELS = 160  # of a cloth pattern, which covers PATTERN_METRES
PATTERN_METRES = 2.5
ROUNDNESS = 0.10  # metres: how far from its edge a figure turns towards the eye


@dataclasses.dataclass
class Shape:
    """A polygon `[N, 2]` in metres, its albedo, and the radiance it emits; `woven`: of patterned cloth."""

    points: np.ndarray
    albedo: np.ndarray
    glow: np.ndarray | None = None
    woven: bool = False


@dataclasses.dataclass
class Light:
    """Light on a figure, RGB: `key` from `side` (-1 left, 1 right), `ambient` from everywhere."""

    key: np.ndarray
    ambient: np.ndarray
    side: float


@functools.lru_cache
def _circle(count: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, count: int = 28) -> np.ndarray:
    """An ellipse as a polygon `[count, 2]`, turned by `turn` radians."""
    c, s = math.cos(turn), math.sin(turn)
    return _circle(count) @ np.array([[rx * c, rx * s], [-ry * s, ry * c]]) + (x, y)


def capsule(a, b, ra: float, rb: float) -> np.ndarray:
    """The hull of two circles: a limb from `a` to `b` with radii `ra` and `rb`."""
    both = np.concatenate([ellipse(*a, ra, ra, count=14), ellipse(*b, rb, rb, count=14)])
    return cv2.convexHull(both.astype(np.float32))[:, 0].astype(np.float64)


def rounded(x0: float, y0: float, x1: float, y1: float, r: float) -> np.ndarray:
    """A rectangle with round corners."""
    corners = [ellipse(x, y, r, r, count=12) for x in (x0 + r, x1 - r) for y in (y0 + r, y1 - r)]
    return cv2.convexHull(np.concatenate(corners).astype(np.float32))[:, 0].astype(np.float64)


def cloth(rng) -> np.ndarray:
    """Brightness of a cloth `[PATTERN_TEXELS, PATTERN_TEXELS]`: stripes, checks, knots or folds."""
    y, x = np.mgrid[:PATTERN_TEXELS, :PATTERN_TEXELS].astype(np.float32) * np.float32(
        PATTERN_METRES / PATTERN_TEXELS
    )
    pitch, kind = rng.uniform(0.07, 0.16), rng.integers(4)
    stripes = {
        0: np.sign(np.sin(2 * np.pi * y / pitch)),
        1: np.sin(2 * np.pi * x / pitch),
        2: np.sin(2 * np.pi * x / pitch) * np.sin(2 * np.pi * y / pitch),
        3: 0 * x,
    }[int(kind)]
    folds = cv2.resize(rng.standard_normal((24, 24), np.float32), x.shape, interpolation=cv2.INTER_CUBIC)
    return np.clip(1 + 0.30 * stripes + 0.22 * folds, 0.2, 2).astype(np.float32)


def wide_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur; wide ones are done on a smaller copy."""
    shrink = max(1, int(sigma / 3))
    rows, cols = image.shape[:2]
    if shrink == 1:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    size = (-(-cols // shrink), -(-rows // shrink))
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / shrink)
    return cv2.resize(small, (cols, rows), interpolation=cv2.INTER_LINEAR)


def _shading(alpha: np.ndarray, metre: float, light: Light) -> np.ndarray:
    """Irradiance on a figure that is round where its outline curves, `[h, w, 3]`."""
    sigma = max(0.7, ROUNDNESS * metre)
    soft = wide_blur(alpha, sigma)
    slope = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3) / 8 * np.float32(sigma * 2.5)
    facing = np.clip(0.55 - light.side * slope * 1.3, 0.0, 1.2)[..., None]
    return facing * np.asarray(light.key, np.float32) + (0.55 + 0.45 * soft[..., None]) * np.asarray(
        light.ambient, np.float32
    )


def _pattern_in(box, foot, metre: float, pattern: np.ndarray) -> np.ndarray:
    """The cloth pattern over the pixels of `box`, fixed to the figure."""
    scale = metre * PATTERN_METRES / PATTERN_TEXELS
    matrix = np.array(
        [
            [scale, 0, foot[0] - box[2] - scale * PATTERN_TEXELS / 2],
            [0, scale, foot[1] - box[0] - scale * PATTERN_TEXELS],
        ],
        np.float64,
    )
    size = (box[3] - box[2], box[1] - box[0])
    return cv2.warpAffine(pattern, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _woven(shapes: list[Shape], place, box) -> np.ndarray:
    """Share of each pixel of `box` where the shape in front is woven."""
    mask = np.zeros((box[1] - box[0], box[3] - box[2]), np.uint8)
    for shape in shapes:
        fill(mask, place(shape.points) - (box[2], box[0]), 255 if shape.woven else 0)
    return mask.astype(np.float32) / np.float32(255)


def draw(
    canvas: Canvas, shapes: list[Shape], foot, metre: float, light: Light, pattern=None, detail: int = 1
) -> None:
    """Draws a figure onto the canvas, in place.

    Args:
        canvas: radiance to draw over.
        shapes: back to front.
        foot: where the origin is, canvas pixels (x, y).
        metre: canvas pixels of one metre.
        light: on the figure.
        pattern: brightness from `cloth`, or None for plain.
        detail: the figure is drawn this many times larger and averaged.
    """
    scale = np.array([metre, -metre])
    place = lambda points: points * scale + foot
    box = canvas.box(np.concatenate([place(s.points) for s in shapes]))
    if box is None:
        return
    rows, cols = box[1] - box[0], box[3] - box[2]
    sheet = np.zeros((rows * detail, cols * detail, 4), np.uint8)
    for shape in shapes:
        colour = tuple(min(max(255.0 * c, 1.0), 255.0) for c in shape.albedo.tolist()) + (255.0,)
        fill(sheet, (place(shape.points) - (box[2], box[0])) * detail, colour)
    sheet = cv2.resize(sheet.astype(np.float32) / 255, (cols, rows), interpolation=cv2.INTER_AREA)
    alpha = np.ascontiguousarray(sheet[..., 3])
    lit = sheet[..., :3] * _shading(alpha, metre, light)
    if pattern is not None:
        woven = _woven(shapes, place, box)
        lit *= 1 + woven[..., None] * (_pattern_in(box, foot, metre, pattern)[..., None] - 1)
    part = canvas.pixels[box[0] : box[1], box[2] : box[3]]
    part *= 1 - alpha[..., None]
    part += lit
    for shape in shapes:
        if shape.glow is not None:
            canvas.polygon(place(shape.points), shape.glow)


def soft_shadow(canvas: Canvas, foot, rx: float, ry: float, strength: float) -> None:
    """The dark patch where a figure stands: an ellipse in pixels, in place."""
    outline = np.asarray(foot) + ellipse(0, 0, rx, ry)
    blur = max(0.7, 0.25 * ry)
    box = canvas.box(outline, 2 + 3 * blur)
    if box is None:
        return
    alpha = cv2.GaussianBlur(canvas.coverage([outline], box), (0, 0), blur)
    canvas.pixels[box[0] : box[1], box[2] : box[3]] *= 1 - np.float32(strength) * alpha[..., None]
