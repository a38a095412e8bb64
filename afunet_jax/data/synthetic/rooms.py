"""Scenes that look out of the dark: a room with windows, an archway."""

import math

import cv2
import numpy as np

from afunet_jax.data.synthetic import textures as tx
from afunet_jax.data.synthetic.actors import Ball, Person
from afunet_jax.data.synthetic.backdrop import Backdrop, Role, new_canvas
from afunet_jax.data.synthetic.canvas import Canvas, Lamps, View, face_points, spread
from afunet_jax.data.synthetic.nature import paint_country, spread_ground
from afunet_jax.data.synthetic.sky import CLEAR, GOLDEN, disc, sun_position
from afunet_jax.data.synthetic.sprites import Light, Shape, capsule, draw, ellipse, rounded, soft_shadow

LIGHT_GRID = (20, 20)  # points at which the windows' light is summed on a face
WINDOW_SAMPLES = (2, 3)  # points that stand for a window as a lamp
GROUND_METRE = 130  # texels of a metre of floor, see Canvas.texture_metre
INDOORS = 0.10  # the eye indoors: outdoor light is let in at this share, so that rooms are dim
BOUNCE = 0.012  # light in a room that comes from everywhere
CORNER = 0.5  # metres: how far the dark of a corner reaches
BULB = np.array([160.0, 125.0, 75.0], np.float32)
SUNLIGHT = np.array([1.5, 1.2, 0.85], np.float32)


def outlook(rng, shape, sunny: bool) -> np.ndarray:
    """A view of the country `[rows, cols, 3]`, as it is seen through a window or an arch."""
    canvas = new_canvas(rng, shape, (0.9, 1.2), (0.55, 0.68))
    mood = (CLEAR, GOLDEN)[rng.integers(2)]
    paint_country(rng, canvas, mood, sun_position(rng, canvas, 0.45, 0.85) if sunny else None)
    return canvas.pixels


def _corner_shade(shape, wide: float, tall: float) -> np.ndarray:
    """Less light near the edges of a wall, `[rows, cols, 1]`."""
    v = (np.arange(shape[0]) + 0.5) / shape[0] * tall
    u = (np.arange(shape[1]) + 0.5) / shape[1] * wide
    dark = lambda t, length: np.exp(-t / CORNER) + np.exp(-(length - t) / CORNER)
    return ((1 - 0.55 * dark(v, tall))[:, None] * (1 - 0.55 * dark(u, wide))[None])[..., None].astype(
        np.float32
    )


class Room:
    """A room of `wide` by `tall` by `deep` metres; the eye looks at its back wall."""

    def __init__(self, rng, shape):
        self.rng = rng
        self.canvas = new_canvas(rng, shape, (0.50, 0.62), (0.46, 0.54), (1.3, 1.6), (0.4, 0.6))
        self.wide, self.tall, self.deep = rng.uniform(5, 7), rng.uniform(2.7, 3.3), rng.uniform(5.6, 7.0)
        self.left = -self.wide * rng.uniform(0.4, 0.6)
        self.right = self.left + self.wide
        self.windows = self._windows()
        self.lamps = self._lamps()

    def _windows(self) -> list[np.ndarray]:
        """Corners of the back wall's windows."""
        count = self.rng.integers(1, 4)
        low, high = self.rng.choice((0.12, 0.8)), self.tall - self.rng.uniform(0.2, 0.4)
        pitch = self.wide / count
        size = pitch * self.rng.uniform(0.66, 0.84)
        out = []
        for k in range(count):
            x = self.left + (k + 0.5) * pitch
            out.append(
                np.array(
                    [
                        (x - size / 2, high, self.deep),
                        (x + size / 2, high, self.deep),
                        (x + size / 2, low, self.deep),
                        (x - size / 2, low, self.deep),
                    ]
                )
            )
        return out

    def _lamps(self) -> Lamps:
        points = np.concatenate([face_points(w, WINDOW_SAMPLES).reshape(-1, 3) for w in self.windows])
        area = sum(np.ptp(w[:, 0]) * np.ptp(w[:, 1]) for w in self.windows)
        colour = np.array([0.75, 0.85, 1.0]) * INDOORS * area / len(points) * self.rng.uniform(0.8, 1.4)
        return Lamps(points, np.tile(colour, (len(points), 1)), np.tile((0, 0, -1.0), (len(points), 1)))

    def light_on(self, corners, shape, normal) -> np.ndarray:
        """Light on a face `[rows, cols, 3]`."""
        grid = self.lamps.irradiance(face_points(corners, LIGHT_GRID), normal)
        return spread(grid + np.float32(BOUNCE) * np.array([1.0, 0.9, 0.75], np.float32), shape)

    def surface(self, corners, normal, material, colour, **options) -> None:
        """Paints one wall of the room, `material` in `colour`."""
        corners = np.array(corners, np.float64)
        wide, tall = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[3] - corners[0])
        shape = self.canvas.texels(corners)
        albedo = material(self.rng, shape, np.asarray(colour, np.float32), shape[0] / tall, **options)
        self.canvas.face(
            corners, albedo * self.light_on(corners, shape, normal) * _corner_shade(shape, wide, tall)
        )

    def shell(self) -> None:
        """Paints ceiling, floor and walls."""
        l, r, h, d, n = self.left, self.right, self.tall, self.deep, 0.3
        paper = tx.pick(self.rng, tx.PLASTERS)
        self.surface([(l, h, n), (r, h, n), (r, h, d), (l, h, d)], (0, -1, 0), tx.plaster, (0.75, 0.74, 0.71))
        self._floor()
        self.surface([(l, h, n), (l, h, d), (l, 0, d), (l, 0, n)], (1, 0, 0), tx.plaster, paper)
        self.surface([(r, h, d), (r, h, n), (r, 0, n), (r, 0, d)], (-1, 0, 0), tx.plaster, paper)
        self.surface([(l, h, d), (r, h, d), (r, 0, d), (l, 0, d)], (0, 0, -1), tx.plaster, paper * 0.9)

    def _floor(self) -> None:
        canvas, metre = self.canvas, self.canvas.texture_metre(GROUND_METRE)
        shape = (int(self.deep * metre), int(self.wide * metre))
        if self.rng.random() < 0.65:
            albedo = tx.planks(self.rng, shape[::-1], tx.pick(self.rng, tx.WOODS), metre).swapaxes(0, 1)
        else:
            albedo = tx.slabs(self.rng, shape, tx.pick(self.rng, tx.STONES), metre, 0.45)
        ground = canvas.ground(np.ascontiguousarray(albedo), metre)
        points = canvas.ground_points()
        light = self.lamps.irradiance(points, (0, 1, 0)) + np.float32(BOUNCE)
        canvas.pixels[canvas.horizon_row() :] = ground * spread_ground(light, ground.shape)
        self._sunbeams(ground)

    def _sunbeams(self, albedo: np.ndarray) -> None:
        """Patches of sunlight on the floor, cut by the windows' bars, and the windows' dim reflection."""
        lean, reach = self.rng.uniform(-0.9, 0.9), self.rng.uniform(0.5, 0.9)
        top = self.canvas.horizon_row()
        whole = (0, self.canvas.shape[0], 0, self.canvas.shape[1])
        beam = []
        for window in self.windows:
            x0, x1, y0, y1 = window[:, 0].min(), window[:, 0].max(), window[:, 1].min(), window[:, 1].max()
            for a in range(2):
                xa, xb = x0 + (x1 - x0) * (a / 2 + 0.02), x0 + (x1 - x0) * (a / 2 + 0.48)
                corner = lambda x, y: (x + lean * y, 0, max(0.6, self.deep - reach * y))
                beam.append(
                    self.canvas.view.project([corner(xa, y0), corner(xb, y0), corner(xb, y1), corner(xa, y1)])
                )
        mask = cv2.GaussianBlur(self.canvas.coverage(beam, whole), (0, 0), 0.0025 * self.canvas.shape[0])
        self.canvas.pixels[top:] += (
            mask[top:, :, None] * albedo * SUNLIGHT * np.float32(self.rng.uniform(0.3, 0.8))
        )

    def glaze(self) -> None:
        """Paints the view through the windows, their frames, bars and curtains."""
        corners = np.concatenate(self.windows)
        box = self.canvas.box(self.canvas.view.project(corners))
        view = outlook(self.rng, (box[1] - box[0], box[3] - box[2]), self.rng.random() < 0.75)
        for window in self.windows:
            pane = self.canvas.view.project(window)
            inner = self.canvas.box(pane)
            part = view[inner[0] - box[0] : inner[1] - box[0], inner[2] - box[2] : inner[3] - box[2]]
            self.canvas.blend(inner, self.canvas.coverage([pane], inner), part)
            self._bars(window)
        if self.rng.random() < 0.7:
            self._curtains()

    def _bars(self, window: np.ndarray) -> None:
        x0, x1, y0, y1 = window[:, 0].min(), window[:, 0].max(), window[:, 1].min(), window[:, 1].max()
        white, z = np.array([0.05, 0.048, 0.045]) * self.rng.uniform(0.3, 1.2), self.deep
        bars = [
            (x0 - 0.06, x0 + 0.03, y0, y1),
            (x1 - 0.03, x1 + 0.06, y0, y1),
            (x0 - 0.06, x1 + 0.06, y1 - 0.03, y1 + 0.06),
            (x0 - 0.1, x1 + 0.1, y0 - 0.07, y0 + 0.03),
        ]
        bars += [
            ((x0 + x1) / 2 - 0.025, (x0 + x1) / 2 + 0.025, y0, y1),
            (x0, x1, y0 + 0.66 * (y1 - y0) - 0.02, y0 + 0.66 * (y1 - y0) + 0.02),
        ]
        for a, b, c, d in bars:
            self.canvas.polygon(self.canvas.view.project([(a, d, z), (b, d, z), (b, c, z), (a, c, z)]), white)

    def _curtains(self) -> None:
        """Cloth on both sides of the wall of windows: light shines through it where glass is behind."""
        colour = tx.pick(self.rng, tx.CLOTHS)
        for x in (self.left + 0.08, self.right - 0.08):
            inside = x + (0.75 if x < (self.left + self.right) / 2 else -0.75)
            a, b = min(x, inside), max(x, inside)
            cloth = np.array(
                [
                    (a, self.tall - 0.1, self.deep - 0.1),
                    (b, self.tall - 0.1, self.deep - 0.1),
                    (b, 0.05, self.deep - 0.1),
                    (a, 0.05, self.deep - 0.1),
                ]
            )
            shape = self.canvas.texels(cloth)
            wave = np.sin(
                np.linspace(0, 2 * np.pi * self.rng.uniform(4, 7), shape[1]) + self.rng.uniform(0, 6)
            )
            folds = 0.55 + 0.45 * wave[None] + 0.1 * tx.fbm(self.rng, shape, shape[0] / 3)
            self.canvas.face(cloth, tx.tint(colour * 0.16, folds))

    def block(self, x0, x1, y0, y1, z0, z1, albedo) -> None:
        """A box of furniture: the top and the two sides that the eye sees, then its front."""
        shade = self.rng.uniform(0.85, 1.15)
        box = lambda *corners: np.array(corners, np.float64)
        faces = (
            [(box((x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0)), (0, 1, 0))]
            if y1 < self.canvas.view.eye
            else []
        )
        if x0 > 0:
            faces.append((box((x0, y1, z1), (x0, y1, z0), (x0, y0, z0), (x0, y0, z1)), (-1, 0, 0)))
        if x1 < 0:
            faces.append((box((x1, y1, z0), (x1, y1, z1), (x1, y0, z1), (x1, y0, z0)), (1, 0, 0)))
        faces.append((box((x0, y1, z0), (x1, y1, z0), (x1, y0, z0), (x0, y0, z0)), (0, 0, -1)))
        for corners, normal in faces:
            shape = self.canvas.texels(corners)
            grain = 1 + 0.08 * tx.fbm(self.rng, shape, max(3.0, shape[0] / 4), 6, 0.65, stretch=3.0)
            self.canvas.face(corners, tx.tint(albedo * shade, grain) * self.light_on(corners, shape, normal))

    def _shade(self, x: float, z: float, wide: float, deep: float) -> None:
        foot = self.canvas.view.project([(x, 0, z)])[0]
        metre = self.canvas.view.focal / z
        soft_shadow(self.canvas, foot, wide * metre, max(1.0, deep * metre * self.canvas.view.eye / z), 0.85)

    def table(self, x: float, z: float) -> None:
        """A table with four legs, a bowl and a vase on it."""
        wood, w, d, h = tx.pick(self.rng, tx.WOODS), self.rng.uniform(1.2, 1.8), 0.8, 0.74
        self._shade(x, z + d / 2, 0.7 * w, 0.6 * d)
        for lx in (x - w / 2, x + w / 2 - 0.07):
            for lz in (z + d - 0.07, z):
                self.block(lx, lx + 0.07, 0, h, lz, lz + 0.07, wood * 0.8)
        self.block(x - w / 2 - 0.05, x + w / 2 + 0.05, h, h + 0.05, z - 0.05, z + d, wood)
        light, foot = self.light(x, z), self.canvas.view.project([(x - 0.2 * w, h + 0.05, z + 0.3)])[0]
        vase = [
            Shape(ellipse(0, 0.12, 0.075, 0.12), tx.pick(self.rng, tx.CLOTHS)),
            Shape(capsule((0, 0.2), (0, 0.27), 0.035, 0.045), tx.pick(self.rng, tx.CLOTHS)),
        ]
        for angle in self.rng.uniform(-0.9, 0.9, 14):
            tip = (0.34 * math.sin(angle), 0.27 + 0.3 * math.cos(angle))
            vase += [
                Shape(capsule((0, 0.27), tip, 0.005, 0.004), tx.pick(self.rng, tx.LEAVES)),
                Shape(ellipse(*tip, 0.04, 0.04, count=10), tx.pick(self.rng, tx.CLOTHS + tx.LEAVES)),
            ]
        draw(self.canvas, vase, foot, self.canvas.view.focal / (z + 0.3), light)

    def shelf(self, side: int) -> None:
        """A bookcase along one side wall."""
        depth, z0, z1 = 0.35, self.rng.uniform(2.2, 2.8), self.rng.uniform(3.6, 4.2)
        x = self.left + depth if side < 0 else self.right - depth
        near, far = ((x, z0), (x, z1))
        ends = (near, far) if side < 0 else (far, near)
        tall = self.rng.uniform(1.8, 2.2)
        corners = np.array(
            [(x, tall, ends[0][1]), (x, tall, ends[1][1]), (x, 0, ends[1][1]), (x, 0, ends[0][1])]
        )
        shape = self.canvas.texels(corners)
        wood = tx.pick(self.rng, tx.WOODS)
        outer = self.left if side < 0 else self.right
        self.block(min(x, outer), max(x, outer), 0, tall, z0, z0 + 0.02, wood)
        self.canvas.face(corners, self._books(shape, wood) * self.light_on(corners, shape, (-side, 0, 0)))

    def _books(self, shape, wood: np.ndarray) -> np.ndarray:
        """Five boards with rows of books of different heights and colours."""
        image = np.broadcast_to(wood * 0.12, (*shape, 3)).astype(np.float32).copy()
        step = shape[0] / 5
        for board in range(5):
            floor = int((board + 1) * step) - max(1, int(0.06 * step))
            x = 0.02 * shape[1]
            while x < 0.97 * shape[1]:
                width = shape[1] * self.rng.uniform(0.012, 0.032)
                top = floor - int(step * self.rng.uniform(0.5, 0.82))
                if self.rng.random() > 0.08:
                    image[top:floor, int(x) : max(int(x) + 1, int(x + width * 0.93))] = tx.pick(
                        self.rng, tx.CLOTHS + tx.WOODS
                    )
                x += width
            image[floor : int((board + 1) * step) + 1] = wood
        return image

    def sofa(self, x: float, z: float) -> None:
        """A sofa of soft blocks, seen from behind its seat."""
        cloth, w = tx.pick(self.rng, tx.CLOTHS), self.rng.uniform(1.7, 2.2)
        self._shade(x, z + 0.4, 0.62 * w, 0.8)
        self.block(x - w / 2, x + w / 2, 0.1, 0.85, z + 0.75, z + 0.95, cloth)
        self.block(x - w / 2, x + w / 2, 0.1, 0.45, z + 0.1, z + 0.75, cloth * 1.1)
        for arm in (x - w / 2 - 0.18, x + w / 2):
            self.block(arm, arm + 0.18, 0.05, 0.62, z + 0.05, z + 0.95, cloth * 0.9)
        light, metre = self.light(x, z), self.canvas.view.focal / (z + 0.6)
        cushion = [Shape(rounded(-0.2, 0, 0.2, 0.36, 0.06), tx.pick(self.rng, tx.CLOTHS))]
        draw(
            self.canvas,
            cushion,
            self.canvas.view.project([(x + self.rng.uniform(-0.6, 0.6), 0.45, z + 0.6)])[0],
            metre,
            light,
        )

    def pictures(self) -> None:
        """Framed pictures on a side wall."""
        side = self.rng.choice((-1, 1))
        x = self.left + 0.02 if side < 0 else self.right - 0.02
        for z in (1.6, 2.9, 4.2)[: self.rng.integers(1, 4)]:
            ends = (z, z + 0.8) if side < 0 else (z + 0.8, z)
            frame = lambda m: np.array(
                [
                    (x, 2.1 - m, ends[0] + m * np.sign(ends[1] - ends[0])),
                    (x, 2.1 - m, ends[1] - m * np.sign(ends[1] - ends[0])),
                    (x, 1.4 + m, ends[1] - m * np.sign(ends[1] - ends[0])),
                    (x, 1.4 + m, ends[0] + m * np.sign(ends[1] - ends[0])),
                ]
            )
            self.canvas.face(frame(0), tx.tint(np.array([0.02, 0.015, 0.01]), np.ones((8, 8))))
            art = self._painting((48, 64))
            self.canvas.face(frame(0.06), art * self.light_on(frame(0.06), (48, 64), (-side, 0, 0)))

    def _painting(self, shape) -> np.ndarray:
        """Three colours in soft bands and blots, an albedo."""
        a, b, c = (tx.pick(self.rng, tx.CLOTHS + tx.PLASTERS) for _ in range(3))
        bands = tx.smoothstep(-0.2, 0.2, tx.fbm(self.rng, shape, 20, 3, stretch=3.0))[..., None]
        blots = tx.smoothstep(0.6, 0.9, tx.fbm(self.rng, shape, 16, 4))[..., None]
        return (a * bands + b * (1 - bands)) * (1 - blots) + c * blots

    def pendant(self) -> None:
        """A lamp that hangs from the ceiling, its bulb on."""
        x, z = self.rng.uniform(-0.5, 0.5), self.rng.uniform(2.4, 3.4)
        foot, metre = self.canvas.view.project([(x, self.tall, z)])[0], self.canvas.view.focal / z
        drop = self.rng.uniform(0.5, 0.8)
        cord = [Shape(np.array([(-0.008, 0), (0.008, 0), (0.008, -drop), (-0.008, -drop)]), np.full(3, 0.02))]
        hood = [
            Shape(
                np.array([(-0.05, -drop), (0.05, -drop), (0.24, -drop - 0.2), (-0.24, -drop - 0.2)]),
                tx.pick(self.rng, tx.CLOTHS),
            )
        ]
        draw(self.canvas, cord + hood, foot, metre, self.light(x, z))
        disc(self.canvas, foot + (0, (drop + 0.22) * metre), 0.055 * metre, BULB)

    def light(self, x: float, z: float) -> Light:
        """On a figure at (x, z): from the windows behind it and from the walls."""
        point = np.array([[x, 1.0, z]])
        near = self.lamps.irradiance(point, np.zeros(3))[0]
        return Light(0.30 * near, 0.16 * near + np.float32(BOUNCE), float(self.rng.choice((-1, 1))))


def room(rng, shape) -> Backdrop:
    """A furnished room: bright windows, patches of sun, dark corners and a lamp."""
    place = Room(rng, shape)
    place.shell()
    place.glaze()
    place.pictures()
    place.shelf(rng.choice((-1, 1)))
    place.sofa(rng.uniform(-1.2, 1.2), place.deep - 1.3)
    if rng.random() < 0.8:
        place.table(rng.uniform(-1.4, 1.4), rng.uniform(3.1, 3.5))
    place.pendant()
    place.canvas.glow(0.02, 1.5, 0.10)
    inside = (place.left + 0.4, place.right - 0.4)
    roles = (Role(Person, (1, 3), (2.3, 3.0), inside), Role(Ball, (1, 3), (1.8, 2.9), inside, (0.0, 1.6)))
    return Backdrop(place.canvas, place.light, roles)


def _arch(x: float, half: float, spring: float, z: float) -> np.ndarray:
    """The outline of an opening: two jambs and a half circle, world points `[N, 3]`."""
    angle = np.linspace(0, np.pi, 40)
    curve = [(x + half * math.cos(a), spring + half * math.sin(a), z) for a in angle]
    return np.array([(x + half, 0, z), *curve, (x - half, 0, z)])


class Arcade:
    """A dark vault whose arches open on a bright country."""

    def __init__(self, rng, shape):
        self.rng = rng
        view = outlook_view(rng, shape)
        self.canvas = Canvas(*shape, view)
        self.mood = (CLEAR, GOLDEN)[rng.integers(2)]
        self.wall, self.thick = (
            rng.uniform(4.0, 5.5),
            rng.uniform(0.5, 0.9),
        )  # distance of the wall, its thickness
        count = rng.integers(1, 4)
        self.half = rng.uniform(1.15, 1.5) if count == 1 else rng.uniform(0.75, 1.0)
        self.spring = rng.uniform(1.7, 2.3)
        pitch = 2 * self.half + rng.uniform(0.5, 0.9)
        self.centres = (np.arange(count) - (count - 1) / 2) * pitch + rng.uniform(-0.4, 0.4)
        self.stone = tx.pick(rng, tx.STONES + tx.BRICKS)
        self.lamps = self._lamps()

    def _lamps(self) -> Lamps:
        spots = [(x, y, self.wall) for x in self.centres for y in (0.6, 1.4, 2.2)]
        colour = np.array([0.9, 0.92, 1.0]) * INDOORS * self.half
        return Lamps(
            np.array(spots), np.tile(colour, (len(spots), 1)), np.tile((0, 0, -1.0), (len(spots), 1))
        )

    def outside(self) -> Light:
        """Paints the country beyond."""
        x = self.centres[len(self.centres) // 2] + self.rng.uniform(-0.4, 0.4) * self.half
        sun = self.canvas.view.project(
            [(x, self.spring + self.rng.uniform(0.25, 0.6) * self.half, self.wall)]
        )[0]
        return paint_country(self.rng, self.canvas, self.mood, sun)

    def _masonry(self, shape, metre: float) -> np.ndarray:
        material = tx.bricks if self.stone[0] > 1.3 * self.stone[2] else lambda *a: tx.slabs(*a, size=0.4)
        return material(self.rng, shape, self.stone, metre)

    def reveals(self) -> None:
        """Paints the inner sides of the arches: lit from outside, brighter on one jamb."""
        far, sunny = self.wall + self.thick, self.rng.choice((-1, 1))
        for x in self.centres:
            outline = _arch(x, self.half, self.spring, 0)[:, :2]
            for a, b in zip(outline, outline[1:]):
                normal = np.array([a[1] - b[1], b[0] - a[0]])
                lit = 0.10 + 0.25 * max(0.0, float(normal @ (sunny, 0.2)) / (np.hypot(*normal) + 1e-9))
                quad = [(*a, far), (*b, far), (*b, self.wall), (*a, self.wall)]
                self.canvas.polygon(
                    self.canvas.view.project(quad), self.stone * lit * (0.85 + 0.3 * self.rng.random())
                )

    def front(self) -> None:
        """Paints the wall around the openings, and the floor and ceiling before it."""
        rows, cols = self.canvas.shape
        whole = (0, rows, 0, cols)
        holes = self.canvas.coverage(
            [self.canvas.view.project(_arch(x, self.half, self.spring, self.wall)) for x in self.centres],
            whole,
        )
        metre = self.canvas.view.focal / self.wall
        grid = np.stack(
            np.meshgrid(
                (np.arange(0, cols, 16) + 8 - self.canvas.view.x) / metre,
                self.canvas.view.eye - (np.arange(0, rows, 16) + 8 - self.canvas.view.y) / metre,
            ),
            -1,
        )
        light = np.full((*grid.shape[:2], 3), BOUNCE * 0.6, np.float32)
        for x in self.centres:
            distance = np.hypot(
                np.maximum(np.abs(grid[..., 0] - x) - self.half, 0),
                np.maximum(grid[..., 1] - self.spring - self.half, 0),
            )
            light += 0.035 * np.exp(-distance / 0.35)[..., None].astype(np.float32)
        light = cv2.resize(light, None, fx=16, fy=16)[:rows, :cols]
        floor = int(self.canvas.view.y + self.canvas.view.eye * metre)
        wall = self._masonry((rows, cols), metre) * light
        self.canvas.pixels += (1 - holes)[..., None] * (wall - self.canvas.pixels)
        if floor < rows:
            self._floor(floor)

    def _floor(self, top: int) -> None:
        canvas, metre = self.canvas, self.canvas.texture_metre(GROUND_METRE)
        albedo = canvas.ground(
            tx.slabs(self.rng, (int(9 * metre), int(6 * metre)), tx.pick(self.rng, tx.STONES), metre, 0.5),
            metre,
        )
        light = self.lamps.irradiance(canvas.ground_points(), (0, 1, 0)) + np.float32(0.7 * BOUNCE)
        start = canvas.horizon_row()
        lit = (albedo * spread_ground(light, albedo.shape))[top - start :]
        beams = []
        lean = self.rng.uniform(-0.5, 0.5)
        for x in self.centres:
            corner = lambda px, y: (px + lean * y, 0, max(0.6, self.wall - 0.9 * y))
            beams.append(
                canvas.view.project(
                    [corner(px, y) for px, y in _arch(x, self.half * 0.97, self.spring, 0)[:, :2]]
                )
            )
        mask = cv2.GaussianBlur(
            canvas.coverage(beams, (0, canvas.shape[0], 0, canvas.shape[1])), (0, 0), 0.003 * canvas.shape[0]
        )
        canvas.pixels[top:] = lit + mask[top:, :, None] * albedo[top - start :] * SUNLIGHT * np.float32(0.5)

    def light(self, x: float, z: float) -> Light:
        """On a figure at (x, z): little inside, the sun outside."""
        near = self.lamps.irradiance(np.array([[x, 1.0, z]]), np.zeros(3))[0]
        return Light(0.3 * near, 0.12 * near + np.float32(0.5 * BOUNCE), 1.0)


def outlook_view(rng, shape) -> View:
    """The view of a person inside a vault."""
    rows, cols = shape
    return View(
        rng.uniform(0.7, 0.9) * max(rows, cols),
        rng.uniform(0.42, 0.58) * cols,
        rng.uniform(0.52, 0.6) * rows,
        rng.uniform(1.45, 1.7),
    )


def archway(rng, shape) -> Backdrop:
    """Out of a dark vault into the sun: figures stand dark in the openings."""
    place = Arcade(rng, shape)
    place.outside()
    place.reveals()
    place.front()
    place.canvas.glow(0.03, 1.5, 0.10)
    roles = (
        Role(Person, (2, 3), (2.4, 3.9), (-2.5, 2.5)),
        Role(Ball, (1, 3), (2.0, 3.6), (-2, 2), (0.0, 1.6)),
    )
    return Backdrop(place.canvas, place.light, roles)
