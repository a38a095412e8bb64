"""A radiance canvas under a pinhole view: the world in metres, the picture in canvas pixels.

The world has x to the right, y up from the ground, z away from the eye. Radiance is linear RGB in
units where a white surface in full sun is about 1.
"""

import dataclasses

import cv2
import numpy as np

SUBPIXEL_BITS = 4  # OpenCV draws polygons at 1/16 pixel
NEAREST = 0.25  # metres: nothing is drawn closer to the eye
MAX_TEXELS = 0.6  # of a face in one direction, in canvas widths
REFERENCE_ROWS = 1650  # of the canvas of a picture of 1000 rows
GLOW_SHRINK = 4  # the glow is computed at a quarter of the resolution


@dataclasses.dataclass(frozen=True)
class View:
    """A pinhole at height `eye` (metres) looking along +z; `focal`, `x`, `y` in canvas pixels."""

    focal: float
    x: float
    y: float
    eye: float

    def project(self, points) -> np.ndarray:
        """World points `[N, 3]` in metres to canvas positions `[N, 2]` (x, y) in pixels."""
        points = np.asarray(points, np.float64)
        scale = self.focal / np.maximum(points[:, 2], NEAREST)
        return np.stack([self.x + scale * points[:, 0], self.y - scale * (points[:, 1] - self.eye)], -1)

    def depth_of_row(self, rows: np.ndarray) -> np.ndarray:
        """Distance of the ground seen in canvas rows below the horizon, metres."""
        return self.focal * self.eye / np.maximum(rows - self.y, 1e-3)


@dataclasses.dataclass(frozen=True)
class Lamps:
    """Point lights, or samples of windows: E = intensity cos(out) cos(in) / d^2 for each.

    Attributes:
        positions: metres, `[N, 3]`.
        intensities: RGB, `[N, 3]`.
        directions: unit vector a lamp faces, `[N, 3]`; zero for a lamp that shines everywhere.
    """

    positions: np.ndarray
    intensities: np.ndarray
    directions: np.ndarray

    def irradiance(self, points: np.ndarray, normal) -> np.ndarray:
        """Light on `points` `[..., 3]` of a surface with `normal` `[3]`; zero: from all sides."""
        total = np.zeros(points.shape, np.float32)
        for position, intensity, direction in zip(self.positions, self.intensities, self.directions):
            ray = position - points
            square = np.maximum(np.sum(ray * ray, -1), 0.25)
            ray = ray / np.sqrt(square)[..., None]
            weight = np.maximum(ray @ np.asarray(normal, np.float64), 0.0) if np.any(normal) else 0.5
            if np.any(direction):
                weight = weight * np.maximum(-(ray @ direction), 0.0)
            total += ((weight / square)[..., None] * intensity).astype(np.float32)
        return total


NO_LAMPS = Lamps(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3)))


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Positions in pixels as OpenCV's integers of `SUBPIXEL_BITS`."""
    limited = np.clip(points, -1e5, 1e5)
    return np.round(limited * (1 << SUBPIXEL_BITS)).astype(np.int32)


def fill(image: np.ndarray, points: np.ndarray, colour) -> None:
    """Draws an anti-aliased filled polygon `[N, 2]` into a uint8 image, in place."""
    cv2.fillPoly(image, [fixed_point(points)], colour, cv2.LINE_AA, SUBPIXEL_BITS)


class Canvas:
    """Radiance `pixels` float32 `[H, W, 3]` and the `view` they are seen through."""

    def __init__(self, height: int, width: int, view: View):
        self.pixels = np.zeros((height, width, 3), np.float32)
        self.view = view

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[:2]

    def box(self, points: np.ndarray, pad: float = 2) -> tuple[int, int, int, int] | None:
        """(top, bottom, left, right) of the part of the canvas that holds `points`, None if none does."""
        rows, cols = self.shape
        left, top = np.floor(points.min(0) - pad).astype(int)
        right, bottom = np.ceil(points.max(0) + pad).astype(int)
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, cols), min(bottom, rows)
        return (top, bottom, left, right) if top < bottom and left < right else None

    def coverage(self, polygons, box) -> np.ndarray:
        """Share of each pixel of `box` that the polygons cover, float32 0..1."""
        mask = np.zeros((box[1] - box[0], box[3] - box[2]), np.uint8)
        for points in polygons:
            fill(mask, np.asarray(points) - (box[2], box[0]), 255)
        return mask.astype(np.float32) / np.float32(255)

    def blend(self, box, alpha: np.ndarray, radiance) -> None:
        """`pixels = (1 - alpha) pixels + alpha radiance` inside `box`."""
        part = self.pixels[box[0] : box[1], box[2] : box[3]]
        part += alpha[..., None] * (np.asarray(radiance, np.float32) - part)

    def polygon(self, points, radiance, opacity: float = 1.0, blur: float = 0.0) -> None:
        """Fills a polygon `[N, 2]` in pixels with one radiance `[3]`; `blur` (pixels) softens its edge."""
        points = np.asarray(points, np.float64)
        box = self.box(points, 2 + 3 * blur)
        if box is None:
            return
        alpha = self.coverage([points], box)
        if blur > 0:
            alpha = cv2.GaussianBlur(alpha, (0, 0), blur)
        self.blend(box, alpha * np.float32(opacity), radiance)

    def texels(self, corners) -> tuple[int, int]:
        """Rows and columns that a texture of the face `corners` `[4, 3]` needs."""
        a, b, c, d = self.view.project(corners)
        length = lambda p, q: float(np.hypot(*(p - q)))
        rows, cols = np.sqrt(length(a, d) * length(b, c)), np.sqrt(length(a, b) * length(d, c))
        return tuple(int(np.clip(n, 4, MAX_TEXELS * max(self.shape))) for n in (rows, cols))

    def face(self, corners, radiance: np.ndarray) -> None:
        """Maps a texture onto a flat four-sided face.

        Args:
            corners: world points `[4, 3]`: top left, top right, bottom right, bottom left of the texture.
            radiance: `[rows, cols, 3]` float32.
        """
        target = self.view.project(corners)
        box = self.box(target)
        if box is None:
            return
        rows, cols = radiance.shape[:2]
        source = np.array([[0, 0], [cols, 0], [cols, rows], [0, rows]], np.float32) - np.float32(0.5)
        local = (target - (box[2], box[0])).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source, local - np.float32(0.5))
        size = (box[3] - box[2], box[1] - box[0])
        mapped = cv2.warpPerspective(
            radiance, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        self.blend(box, self.coverage([target], box), mapped)

    def ground(self, texture: np.ndarray, metre: float) -> np.ndarray:
        """The ground plane's albedo below the horizon: `texture` repeated in mirror image.

        Args:
            texture: `[rows, cols, 3]`, columns along x, rows along z.
            metre: texels of one metre.

        Returns:
            float32 `[H - top, W, 3]`, `top` from `horizon_row`. Far rows take smaller copies of the
            texture, so that they do not alias.
        """
        view, top = self.view, self.horizon_row()
        rows = np.arange(top, self.shape[0], dtype=np.float32)
        depth = view.depth_of_row(rows + 0.5)
        footprint = np.maximum(depth / view.focal, depth**2 / (view.focal * view.eye) / 3) * metre
        level = np.clip(np.floor(2 * np.log2(np.maximum(footprint, 1e-6))), 0, 14).astype(int)
        across = (np.arange(self.shape[1], dtype=np.float32) + np.float32(0.5 - view.x)) / np.float32(
            view.focal
        )
        out = np.empty((len(rows), self.shape[1], 3), np.float32)
        for step in np.unique(level):
            band = level == step
            size = [max(1, round(n * 2 ** (-step / 2))) for n in texture.shape[1::-1]]
            small = cv2.resize(texture, size, interpolation=cv2.INTER_AREA)
            scale = np.float32(metre * 2 ** (-step / 2))
            z = np.broadcast_to(depth[band, None] * scale, (band.sum(), self.shape[1])).astype(np.float32)
            x = (depth[band, None] * across[None, :] * scale).astype(np.float32)
            out[band] = cv2.remap(
                small, x, np.ascontiguousarray(z), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
        return out

    def texture_metre(self, nominal: float) -> float:
        """Texels of a metre for a ground texture: `nominal` on a canvas of `REFERENCE_ROWS`."""
        return max(8.0, nominal * self.shape[0] / REFERENCE_ROWS)

    def horizon_row(self) -> int:
        """The first row that sees the ground."""
        return int(np.clip(np.ceil(self.view.y + 1), 0, self.shape[0] - 1))

    def ground_points(self, shrink: int = 8) -> np.ndarray:
        """World points of the ground below the horizon on a grid `shrink` times coarser, `[h, w, 3]`."""
        rows = np.arange(self.horizon_row(), self.shape[0] + shrink, shrink) + 0.5
        cols = np.arange(0, self.shape[1] + shrink, shrink) + 0.5
        depth = self.view.depth_of_row(rows)[:, None] + 0 * cols
        return np.stack([(cols - self.view.x) * depth / self.view.focal, 0 * depth, depth], -1)

    def glow(self, strength: float, threshold: float, reach: float) -> None:
        """Adds the veil around what is brighter than `threshold`; `reach` is its width in canvas heights."""
        rows, cols = self.shape
        size = (max(1, cols // GLOW_SHRINK), max(1, rows // GLOW_SHRINK))
        bright = cv2.resize(
            np.maximum(self.pixels - np.float32(threshold), 0), size, interpolation=cv2.INTER_AREA
        )
        veil = np.zeros_like(bright)
        for share, width in ((0.6, 0.15), (0.3, 0.5), (0.1, 1.0)):
            sigma = max(0.8, width * reach * size[1])
            veil += np.float32(share) * cv2.GaussianBlur(
                bright, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT
            )
        self.pixels += np.float32(strength) * cv2.resize(veil, (cols, rows), interpolation=cv2.INTER_LINEAR)


def face_points(corners, shape: tuple[int, int]) -> np.ndarray:
    """World points on a grid over a face, `[rows, cols, 3]` (bilinear between its corners)."""
    a, b, c, d = np.asarray(corners, np.float64)
    v = ((np.arange(shape[0]) + 0.5) / shape[0])[:, None, None]
    u = ((np.arange(shape[1]) + 0.5) / shape[1])[None, :, None]
    return (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)


def spread(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A coarse map enlarged to `shape` by linear interpolation."""
    return cv2.resize(grid.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
