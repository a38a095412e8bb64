"""Streets between two rows of houses, by day and by night."""

import dataclasses

import cv2
import numpy as np

from afunet_jax.data.synthetic import textures as tx
from afunet_jax.data.synthetic.actors import Ball, Bird, CarFront, CarSide, Person
from afunet_jax.data.synthetic.backdrop import Backdrop, Role, new_canvas
from afunet_jax.data.synthetic.canvas import NO_LAMPS, Canvas, Lamps, face_points, spread
from afunet_jax.data.synthetic.sky import DAYS, NIGHT, Mood, disc, paint_sky, stars, sun_position
from afunet_jax.data.synthetic.sprites import Light

FLOOR_METRES = 3.2
BAY_METRES = 2.8
GROUND_METRE = 100  # texels of a metre of road, see Canvas.texture_metre
GLINT_METRES = 0.16  # radius of the sun in a pane, blurred by its unevenness
GLINT = 0.10  # share of the sun's radiance that a pane mirrors
FAR = 90.0  # metres: where the rows of houses end
BULB = np.array([420.0, 330.0, 200.0], np.float32)
LIGHT_GRID = (24, 24)  # points at which lamps are summed on a face


@dataclasses.dataclass(frozen=True)
class House:
    """One house of a row: from `near` to `far` metres along the street, `tall` metres high."""

    near: float
    far: float
    tall: float


def _edges(share: np.ndarray, centre: float, half: float, cell: float) -> np.ndarray:
    """A bar around `centre` in cell shares, with edges one texel wide; `cell` is texels of the cell."""
    return np.clip((half - np.abs(share - centre)) * cell + 0.5, 0, 1).astype(np.float32)


def _panes(
    u: np.ndarray, v: np.ndarray, cu: float, cv: float, wide: float, tall: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks of a window's frame, its glass and its sill in every cell of a facade."""
    block = lambda hu, hv, y=0.54: _edges(v, y, hv, cv)[:, None] * _edges(u, 0.5, hu, cu)[None]
    outer, inner = block(wide, tall), block(wide - 0.03, tall - 0.03)
    cross = np.maximum(
        _edges(u, 0.5, 0.013, cu)[None] * np.ones_like(inner), _edges(v, 0.42, 0.013, cv)[:, None]
    )
    glass = inner * (1 - cross)
    return outer * (1 - glass), glass, block(wide + 0.05, 0.022, 0.54 + tall + 0.02)


def facade(rng, corners, shape, lit: float, sky: np.ndarray, glint=None) -> tuple[np.ndarray, np.ndarray]:
    """A house front with rows of windows and shops on the ground floor.

    Args:
        rng: chooses material, colours and windows.
        corners: of the face, for its size in metres.
        shape: texels.
        lit: share of windows with light on.
        sky: radiance that the panes mirror.
        glint: radiance of the sun that one of them mirrors, or None.

    Returns:
        albedo and own light, both `[rows, cols, 3]`.
    """
    wide, tall = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[3] - corners[0])
    floors, bays = max(1, round(tall / FLOOR_METRES)), max(1, round(wide / BAY_METRES))
    cv, cu = shape[0] / floors, shape[1] / bays
    v, u = (np.arange(shape[0]) + 0.5) / cv, (np.arange(shape[1]) + 0.5) / cu
    row, col = np.minimum(v.astype(int), floors - 1), np.minimum(u.astype(int), bays - 1)
    v, u = (v - row).astype(np.float32), (u - col).astype(np.float32)
    metre = shape[0] / tall
    albedo = (
        tx.bricks(rng, shape, tx.pick(rng, tx.BRICKS), metre)
        if rng.random() < 0.4
        else tx.plaster(rng, shape, tx.pick(rng, tx.PLASTERS), metre)
    )
    trim, size = (
        tx.pick(rng, ((0.7, 0.68, 0.62), (0.25, 0.15, 0.1), (0.1, 0.16, 0.12))),
        rng.uniform(0.17, 0.25),
    )
    frame, glass, sill = _panes(u, v, cu, cv, size, rng.uniform(0.24, 0.31))
    shop_frame, shop_glass, _ = _panes(u, v, cu, cv, 0.43, 0.38)
    ground = (row == floors - 1)[:, None] & (rng.random() < 0.7)
    frame, glass, sill = (
        np.where(ground, shop_frame, frame),
        np.where(ground, shop_glass, glass),
        np.where(ground, 0, sill),
    )
    ledge = _edges(v, 0.0, 0.03, cv)[:, None, None]
    albedo *= 1 + 0.35 * ledge - 0.4 * _edges(v, 0.06, 0.025, cv)[:, None, None]
    cover = np.maximum(frame, sill)[..., None]
    albedo = albedo * (1 - cover) + cover * trim
    albedo *= 1 - glass[..., None] * 0.93
    own = _window_light(rng, (floors, bays), row, col, v, lit, sky)
    if glint is not None:
        own += _glint(rng, (floors, bays), shape, metre)[..., None] * np.asarray(glint, np.float32)
    return albedo, own * glass[..., None]


def _glint(rng, cells, shape, metre: float) -> np.ndarray:
    """A round patch in a random window, `[rows, cols]`, 0..1."""
    centre = (
        np.array(
            [
                rng.integers(cells[0]) + rng.uniform(0.6, 0.66),
                rng.integers(cells[1]) + rng.uniform(0.56, 0.62),
            ]
        )
        * shape
        / cells
    ).astype(np.float32)
    y = (np.arange(shape[0], dtype=np.float32)[:, None] - centre[0]) / np.float32(metre * GLINT_METRES)
    x = (np.arange(shape[1], dtype=np.float32)[None] - centre[1]) / np.float32(metre * GLINT_METRES)
    return 1 - tx.smoothstep(0.8, 1.2, np.sqrt(x * x + y * y))


def _window_light(rng, cells, row, col, v, lit: float, sky: np.ndarray) -> np.ndarray:
    """What each pane sends out: a mirrored sky, or a room behind with or without light."""
    table = lambda low, high, last=1: rng.uniform(low, high, (*cells, last)).astype(np.float32)
    on = table(0, 1) < np.concatenate([np.full(cells[0] - 1, lit), [min(1.0, 1.6 * lit)]])[:, None, None]
    warm = table(0.25, 1.6) ** 2 * np.array([1.0, 0.72, 0.40], np.float32) * table(0.85, 1.15, 3)
    dark = table(0.02, 0.5) * sky
    # Rows of texels by bays: nothing here changes across a bay.
    blind = v[:, None] > table(-0.5, 0.75)[row][..., 0]
    falloff = (1.15 - 0.7 * v)[:, None, None]
    room = warm[row] * falloff * np.where(blind, 1.0, 0.45)[..., None]
    pane = np.where(on[row], room, dark[row] * np.where(blind, 1.0, 1.8)[..., None])
    return pane.astype(np.float32)[:, col]


def _row_of_houses(rng, start: float) -> list[House]:
    houses, near = [], start
    while near < FAR:
        far = near + rng.uniform(7, 16)
        houses.append(House(near, far, FLOOR_METRES * rng.integers(2, 6) + rng.uniform(0, 1)))
        near = far + (rng.uniform(2.5, 6) if rng.random() < 0.3 else 0.0)
    return houses


class Street:
    """The state shared by the parts of one street while it is painted."""

    def __init__(self, rng, shape, mood: Mood, night: bool):
        self.rng, self.mood, self.night = rng, mood, night
        self.canvas: Canvas = new_canvas(rng, shape, (0.62, 0.85), (0.52, 0.62), x=(0.3, 0.7))
        self.half = rng.uniform(4.5, 7.5)  # metres from the axis to the house fronts
        self.shade = rng.choice((-1, 1))  # the side whose fronts lie in shade
        self.reach = rng.uniform(0.35, 1.1) * self.half  # how far the shadow falls
        self.key, self.ambient = (np.array(c, np.float32) for c in (mood.key, mood.ambient))
        self.rows = {side: _row_of_houses(rng, rng.uniform(2.0, 5.0)) for side in (-1, 1)}
        self.lamps = self._lamps() if night else NO_LAMPS

    def _lamps(self) -> Lamps:
        places = [
            (s * (self.half - 1.6), 4.6, z)
            for z in np.arange(self.rng.uniform(4, 7), 60, 12)
            for s in (-1, 1)
        ]
        colour = np.array([9.0, 6.6, 3.6]) * self.rng.uniform(0.8, 1.3)
        return Lamps(np.array(places), np.tile(colour, (len(places), 1)), np.zeros((len(places), 3)))

    def irradiance(self, corners, shape, normal, sunny: float) -> np.ndarray:
        """Light on a wall `[rows, cols, 3]`: skylight less near the ground, sun, lamps."""
        points = face_points(corners, LIGHT_GRID)
        open_sky = (0.35 + 0.65 * np.clip(points[..., 1:2] / 9, 0, 1)).astype(np.float32)
        grid = self.ambient * open_sky + self.key * np.float32(sunny) + self.lamps.irradiance(points, normal)
        return spread(grid, shape)

    def wall(self, corners, normal, sunny: float) -> None:
        """Paints one wall of a house."""
        corners = np.array(corners, np.float64)
        shape = self.canvas.texels(corners)
        sky = np.array(self.mood.horizon, np.float32) * 0.45
        glint = GLINT * np.array(self.mood.sun) if sunny > 0.5 and not self.night else None
        albedo, own = facade(self.rng.spawn(1)[0], corners, shape, 0.42 if self.night else 0.04, sky, glint)
        self.canvas.face(
            corners,
            albedo * self.irradiance(corners, shape, normal, sunny) + own * (1.6 if self.night else 0.6),
        )

    def house(self, side: int, house: House, hidden: bool) -> None:
        """Paints a house: the end that faces the eye unless `hidden`, the front, the eaves."""
        x, outer = side * self.half, side * (self.half + 10)
        left, right = min(x, outer), max(x, outer)
        if not hidden:
            self.wall(
                [
                    (left, house.tall, house.near),
                    (right, house.tall, house.near),
                    (right, 0, house.near),
                    (left, 0, house.near),
                ],
                (0, 0, -1),
                0.25 if side != self.shade else 0.0,
            )
        ends = (house.far, house.near) if side > 0 else (house.near, house.far)
        front = [(x, house.tall, ends[0]), (x, house.tall, ends[1]), (x, 0, ends[1]), (x, 0, ends[0])]
        self.wall(front, (-side, 0, 0), 0.8 if side != self.shade else 0.0)
        eave = [
            (x, house.tall + 0.35, ends[0]),
            (x, house.tall + 0.35, ends[1]),
            (x - side * 0.4, house.tall, ends[1]),
            (x - side * 0.4, house.tall, ends[0]),
        ]
        dark = self.key * (0.12 if side == self.shade else 0.35) * 0.5 + self.ambient * 0.4
        self.canvas.polygon(self.canvas.view.project(eave), dark)

    def houses(self) -> None:
        """Paints both rows, far to near."""
        every = [
            (side, house, next_to)
            for side, row in self.rows.items()
            for next_to, house in zip([None, *row], row)
        ]
        for side, house, next_to in sorted(every, key=lambda item: -item[1].near):
            hidden = next_to is not None and next_to.far == house.near and next_to.tall >= house.tall
            self.house(side, house, hidden)

    def _albedo(self) -> np.ndarray:
        """The right half of road, kerb, pavement and markings; `Canvas.ground` mirrors it at x = 0."""
        m, road = self.canvas.texture_metre(GROUND_METRE), self.half - 2.4
        shape = (int(8 * m), int((self.half + 6) * m))
        albedo = tx.asphalt(self.rng, shape, np.array([0.10, 0.10, 0.105]), m)
        x = (np.arange(shape[1]) + 0.5) / m
        z = (np.arange(shape[0]) + 0.5) / m
        path = tx.slabs(self.rng, shape, tx.pick(self.rng, tx.STONES), m, 0.5)
        albedo = np.where((np.abs(x) > road)[None, :, None], path, albedo)
        albedo[:, np.abs(np.abs(x) - road) < 0.09] = (0.34, 0.33, 0.31)
        albedo[:, np.abs(np.abs(x) - road + 0.13) < 0.05] = (0.03, 0.03, 0.03)
        dashes = np.ix_(z % 4 < 2, np.abs(x) < 0.07)
        albedo[dashes] = albedo[dashes] * 0.4 + 0.42
        return albedo

    def ground(self) -> None:
        """Paints road and pavements with the houses' shadow and the lamps' pools of light."""
        canvas, top = self.canvas, self.canvas.horizon_row()
        albedo = canvas.ground(self._albedo(), canvas.texture_metre(GROUND_METRE))
        grid = canvas.ground_points()
        light = self.ambient * 0.8 + self.lamps.irradiance(grid, (0, 1, 0))
        size = (grid.shape[0] * 8, grid.shape[1] * 8)
        light = spread(light, size)[: albedo.shape[0], : albedo.shape[1]]
        sunny = 1 - self._shadow()[top:, :, None]
        canvas.pixels[top:] = albedo * (light + self.key * sunny * 0.75)

    def _shadow(self) -> np.ndarray:
        """Share of the sun that the shaded row keeps off the ground, `[H, W]`."""
        everything = (0, self.canvas.shape[0], 0, self.canvas.shape[1])
        polygons = []
        for house in self.rows[self.shade]:
            edge = self.shade * (self.half - self.reach * house.tall / 10)
            outline = [
                (self.shade * (self.half + 14), 0, house.near),
                (edge, 0, house.near + 1.5),
                (edge, 0, house.far + 1.5),
                (self.shade * (self.half + 14), 0, house.far),
            ]
            polygons.append(self.canvas.view.project(outline))
        mask = self.canvas.coverage(polygons, everything)
        return cv2.GaussianBlur(mask, (0, 0), 0.002 * self.canvas.shape[0])

    def lamp_posts(self) -> None:
        """Paints posts, arms and bulbs, far to near."""
        for x, y, z in sorted(self.lamps.positions.tolist(), key=lambda p: -p[2]):
            scale = self.canvas.view.focal / z
            foot, top = self.canvas.view.project([(x * 1.1, 0, z), (x * 1.1, y + 0.1, z)])
            w = max(0.6, 0.055 * scale)
            self.canvas.polygon(
                [foot - (w, 0), foot + (w, 0), top + (w * 0.6, 0), top - (w * 0.6, 0)], self.ambient * 0.5
            )
            bulb = self.canvas.view.project([(x, y, z)])[0]
            self.canvas.polygon([top, top + (0, w), bulb + (0, w), bulb], self.ambient * 0.5)
            disc(self.canvas, bulb, max(1.0, 0.11 * scale), BULB)

    def light(self, x: float, z: float) -> Light:
        """On a figure at (x, z)."""
        shaded = (x - self.shade * (self.half - self.reach)) * self.shade > 0
        near = self.lamps.irradiance(np.array([[x, 1.2, z]]), np.zeros(3))[0]
        key = near + self.key * (0.0 if shaded else 0.9)
        return Light(key, self.ambient * 0.9 + 0.25 * near, -self.shade)


def _paint(rng, shape, mood: Mood, night: bool) -> Street:
    street = Street(rng, shape, mood, night)
    sun = None
    if night or rng.random() < 0.6:
        sun = sun_position(rng, street.canvas, 0.45, 0.8)
        sun[0] = street.canvas.view.x + rng.uniform(-0.025, 0.025) * shape[1]
    paint_sky(rng, street.canvas, mood, rng.uniform(0.2, 0.6), sun)
    if night:
        stars(rng, street.canvas, 60)
    street.ground()
    street.houses()
    street.lamp_posts()
    return street


def day(rng, shape) -> Backdrop:
    """A street in sunshine: one row of houses lit, the other in shade."""
    street = _paint(rng, shape, DAYS[rng.integers(2)], False)
    street.canvas.glow(0.05, 3.0, 0.10)
    w = street.half
    roles = (
        Role(Person, (2, 4), (4, 16), (-w + 0.7, w - 0.7)),
        Role(CarFront, (1, 2), (9, 25), (-w + 3.2, w - 3.2), along=True),
        Role(CarSide, (0, 1), (9, 14), (-2.5, 2.5)),
        Role(Bird, (0, 3), (12, 25)),
        Role(Ball, (0, 1), (4, 8), (-3, 3)),
    )
    return Backdrop(street.canvas, street.light, roles)


def night(rng, shape) -> Backdrop:
    """A street at night: lamps with pools of light, lit windows, head lamps."""
    street = _paint(rng, shape, NIGHT, True)
    street.canvas.glow(0.10, 2.0, 0.10)
    w = street.half
    roles = (
        Role(Person, (2, 4), (4, 13), (-w + 0.7, w - 0.7)),
        Role(CarFront, (1, 3), (8, 25), (-w + 3.2, w - 3.2), along=True),
        Role(CarSide, (0, 1), (9, 14), (-2.5, 2.5)),
    )
    return Backdrop(street.canvas, street.light, roles, night=True)
