"""Views of HDR images: a lens turned in a panorama, or a crop of a photograph, under a shaken camera.

Positions are in picture pixels from the picture's centre, x to the right, y down. A view is rendered on
a canvas of `SUPERSAMPLING` canvas pixels per picture pixel.
"""

import dataclasses
import math

import cv2
import numpy as np

from afunet_jax.data.brackets.sources import Source, enlarge, panorama_texture, read_image

SUPERSAMPLING = 2  # canvas pixels per picture pixel: averaging 2x2 leaves no aliasing on edges
MAGNIFICATION = (0.9, 1.35)  # picture pixels per panorama pixel at the centre; at most 1.6 in the corners
WIDEST = math.radians(76)  # from the view's centre to its corner: with PITCH it stays away from the poles
PITCH = math.radians(9)  # largest up or down of a backdrop's view
PHOTO_MAGNIFICATION = 1.2  # largest of a photograph
PHOTO_MARGIN = 1.06  # a crop of a photograph leaves this much room for the shake
GRID = 8  # canvas pixels between the nodes where a view's map is computed; linear in between


@dataclasses.dataclass(frozen=True)
class Camera:
    """How a shaken camera moves the picture: by `x`, `y` picture pixels, and by `roll` radians."""

    x: float = 0.0
    y: float = 0.0
    roll: float = 0.0

    @property
    def matrix(self) -> np.ndarray:
        """Where a position of the unshaken picture goes, affine `[3, 3]`."""
        c, s = math.cos(self.roll), math.sin(self.roll)
        return np.array([[c, -s, self.x], [s, c, self.y], [0, 0, 1.0]])


def to_canvas(height: int, width: int) -> np.ndarray:
    """Positions in picture pixels from the centre to indices of canvas pixels (x, y), affine `[3, 3]`."""
    k = SUPERSAMPLING
    return np.array([[k, 0, k * width / 2 - 0.5], [0, k, k * height / 2 - 0.5], [0, 0, 1.0]])


class Panorama:
    """A stereographic lens in a panorama: it keeps shapes, and magnifies its corners less than a pinhole."""

    def __init__(self, source: Source, height: int, width: int, yaw: float, pitch: float, magnification: float):
        """`yaw` and `pitch` in radians; a picture too large for the `magnification` gets a larger one."""
        self._texture = panorama_texture(source)
        self.size, self.yaw, self.pitch = (height, width), yaw, pitch
        per_radian = read_image(source).shape[1] / (2 * math.pi)
        least = 0.5 * math.hypot(height, width) / (2 * math.tan(WIDEST / 2))
        self.focal = max(magnification * per_radian, least)
        self._rays = self._node_rays()

    def _node_rays(self) -> np.ndarray:
        """Unit vectors (right, down, forward) of the grid's nodes, one more than needed on each side."""
        height, width = (SUPERSAMPLING * n for n in self.size)
        axis = lambda n: ((np.arange(-1, -(-n // GRID) + 1) * GRID + GRID / 2) - n / 2) / SUPERSAMPLING
        u, v = (a / (2 * self.focal) for a in np.meshgrid(axis(width), axis(height)))
        square = u * u + v * v
        return np.stack([2 * u, 2 * v, 1 - square], -1) / (1 + square)[..., None]

    def frame(self, camera: Camera = Camera()) -> np.ndarray:
        """What the turned camera sees, float32 canvas `[2 H, 2 W, 3]`."""
        shake = cv2.Rodrigues(np.array([camera.y / self.focal, -camera.x / self.focal, -camera.roll]))[0]
        tilt = cv2.Rodrigues(np.array([self.pitch, 0.0, 0.0]))[0]
        x, y, z = np.moveaxis(self._rays @ (tilt @ shake).T, -1, 0)
        rows, cols = self._texture.shape[:2]
        longitude, latitude = np.arctan2(x, z) + self.yaw, np.arcsin(np.clip(y, -1, 1))
        nodes = np.stack([(longitude / (2 * math.pi) + 0.5) * cols - 0.5,
                          np.clip((latitude / math.pi + 0.5) * rows - 0.5, 0, rows - 1)], -1)
        large = (nodes.shape[1] * GRID, nodes.shape[0] * GRID)
        full = cv2.resize(nodes.astype(np.float32), large, interpolation=cv2.INTER_LINEAR)
        height, width = (SUPERSAMPLING * n for n in self.size)
        places = full[GRID : GRID + height, GRID : GRID + width]
        return cv2.remap(self._texture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


class Photo:
    """A crop of a photograph."""

    def __init__(self, source: Source, height: int, width: int, place: tuple[float, float],
                 magnification: float, flip: bool):
        """`place`: 0 to 1 in each direction, where in the photograph; one too small is magnified more."""
        image = read_image(source)
        image = image[:, ::-1] if flip else image
        least = PHOTO_MARGIN * max(height / image.shape[0], width / image.shape[1])
        self.magnification = max(magnification, least)
        scale = SUPERSAMPLING * self.magnification
        size = tuple(round(n * scale) for n in image.shape[1::-1])
        self._texture = (enlarge(np.ascontiguousarray(image), size) if scale > 1 else
                         cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        self.size = height, width
        room = [n - SUPERSAMPLING * m for n, m in zip(size, (width, height))]
        rim = [0.5 * (1 - 1 / PHOTO_MARGIN) * SUPERSAMPLING * m for m in (width, height)]
        self._corner = [r + p * max(0, n - 2 * r) for n, r, p in zip(room, rim, place)]

    def frame(self, camera: Camera = Camera()) -> np.ndarray:
        """What the shaken camera sees, float32 canvas `[2 H, 2 W, 3]`."""
        height, width = (SUPERSAMPLING * n for n in self.size)
        canvas = to_canvas(*self.size)
        unshaken = canvas @ np.linalg.inv(camera.matrix) @ np.linalg.inv(canvas)
        unshaken[:2, 2] += self._corner
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(self._texture, unshaken[:2], (width, height), flags=flags,
                              borderMode=cv2.BORDER_REFLECT_101)


View = Panorama | Photo


def random_view(rng: np.random.Generator, source: Source, height: int, width: int, pitch: float = PITCH) -> View:
    """A view of a source for a picture `height` x `width`: any direction, up or down by at most `pitch`."""
    if source.projection == 'panorama':
        yaw, up = rng.uniform(-math.pi, math.pi), rng.uniform(-pitch, pitch)
        return Panorama(source, height, width, yaw, up, rng.uniform(*MAGNIFICATION))
    image = read_image(source)
    least = PHOTO_MARGIN * max(height / image.shape[0], width / image.shape[1])
    place, flip = tuple(rng.uniform(0, 1, 2)), bool(rng.random() < 0.5)
    magnification = math.exp(rng.uniform(math.log(least), math.log(max(least, PHOTO_MAGNIFICATION))))
    return Photo(source, height, width, place, magnification, flip)
