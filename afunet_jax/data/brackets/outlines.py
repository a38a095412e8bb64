"""Outlines of cut-outs: coverage masks of ellipses, blobs, polygons, elongated figures, silhouettes, segments."""

import math

import cv2
import numpy as np

from afunet_jax.data.synthetic.actors import CarSide, Person
from afunet_jax.data.synthetic.canvas import fill
from afunet_jax.data.synthetic.sprites import capsule, ellipse
from afunet_jax.data.synthetic.textures import GREY_WEIGHTS

SEGMENT_AREA = (0.12, 0.75)  # of the patch: smaller is a speck, larger is all of it
SEGMENT_DETAIL = 2.0  # blur before the threshold, texels: leaves and bricks do not tear the segment
SEGMENT_OPENING = 5  # texels: thinner bridges are cut
SEGMENT_SOFTNESS = 1.2  # blur of its outline, texels: a threshold's edge has steps
DARKEST = 1e-4  # of the patch's mean: what is added before the logarithm


def _mask(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Coverage of polygons, given in -1..1 in both directions."""
    mask, half = np.zeros(shape, np.uint8), np.array(shape[::-1]) / 2
    for points in polygons:
        fill(mask, (np.asarray(points) + 1) * half - 0.5, 255)
    return mask.astype(np.float32) / np.float32(255)


def oval(rng, patch: np.ndarray) -> np.ndarray:
    """An ellipse, turned."""
    return _mask([ellipse(0, 0, 0.9, rng.uniform(0.45, 0.9), rng.uniform(0, math.pi), 60)], patch.shape[:2])


def blob(rng, patch: np.ndarray) -> np.ndarray:
    """A smooth outline of a few waves."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    waves = np.arange(2, 7)
    radius = 1 + ((rng.normal(0, 0.28, 5) / waves)[:, None] * np.sin(
        waves[:, None] * angle + rng.uniform(0, 6, (5, 1)))).sum(0) * 2
    radius = np.clip(radius, 0.25, None)
    points = np.stack([np.cos(angle), np.sin(angle)], -1) * (0.93 * radius / radius.max())[:, None]
    return _mask([points], patch.shape[:2])


def polygon(rng, patch: np.ndarray) -> np.ndarray:
    """Three to nine straight sides, star-shaped."""
    count = int(rng.integers(3, 10))
    angle = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count + rng.uniform(0, 6)
    radius = rng.uniform(0.5, 0.95, count)
    return _mask([np.stack([np.cos(angle), np.sin(angle)], -1) * radius[:, None]], patch.shape[:2])


def limb(rng, patch: np.ndarray) -> np.ndarray:
    """An elongated figure: two or three thick strokes, end to end."""
    here, angle, strokes = np.array([-0.75, rng.uniform(-0.4, 0.4)]), rng.uniform(-0.6, 0.6), []
    for _ in range(int(rng.integers(2, 4))):
        there = np.clip(here + 0.7 * np.array([math.cos(angle), math.sin(angle)]), -0.78, 0.78)
        strokes.append(capsule(here, there, *rng.uniform(0.07, 0.2, 2)))
        here, angle = there, angle + rng.uniform(-1, 1)
    points = _mask(strokes, patch.shape[:2])
    return points if rng.random() < 0.5 else cv2.resize(points.T, points.shape[::-1])


def silhouette(rng, patch: np.ndarray) -> np.ndarray:
    """The outline of a person or of a car."""
    figure = (Person, CarSide)[int(rng.random() < 0.3)](rng)
    shapes = [shape.points for shape in figure.shapes(0.0)]
    points = np.concatenate(shapes)
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, (high - low).max() / 2 / 0.95
    return _mask([(p - middle) / half * (1, -1) for p in shapes], patch.shape[:2])


def segment(rng, patch: np.ndarray) -> np.ndarray:
    """What is brighter, or darker, than the rest around the patch's middle (Otsu's threshold); else a blob."""
    grey = patch @ GREY_WEIGHTS
    grey = np.log(grey + np.float32(DARKEST) * grey.mean() + np.float32(1e-12))
    blurred = cv2.GaussianBlur(grey, (0, 0), SEGMENT_DETAIL)
    level = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    _, bright = cv2.threshold(level, 0, 255, cv2.THRESH_OTSU)
    middle = bright[level.shape[0] // 2, level.shape[1] // 2]
    inside = ((bright == middle) & (oval(rng, patch) > 0.5)).astype(np.uint8)
    inside = cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((SEGMENT_OPENING, SEGMENT_OPENING), np.uint8))
    _, labels = cv2.connectedComponents(inside)
    label = labels[level.shape[0] // 2, level.shape[1] // 2]
    part = ((labels == label) & (label > 0)).astype(np.uint8)
    contours, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(part, contours, -1, 1, cv2.FILLED)
    if not SEGMENT_AREA[0] < part.mean() < SEGMENT_AREA[1]:
        return blob(rng, patch)
    return np.minimum(cv2.GaussianBlur(part.astype(np.float32), (0, 0), SEGMENT_SOFTNESS), np.float32(1))


OUTLINES = (oval, blob, polygon, limb, silhouette, segment)
