"""What moves: people, cars, balls, birds and branches, each with a pose for every exposure."""

import dataclasses
import math

import cv2
import numpy as np

from afunet_jax.data.synthetic.canvas import Canvas
from afunet_jax.data.synthetic.sprites import (
    Light,
    Shape,
    capsule,
    cloth,
    draw,
    ellipse,
    rounded,
    soft_shadow,
)
from afunet_jax.data.synthetic.textures import CLOTHS, LEAVES, SKINS, pick

TROUSERS = (
    (0.03, 0.05, 0.12),
    (0.02, 0.02, 0.025),
    (0.35, 0.27, 0.17),
    (0.12, 0.13, 0.14),
    (0.10, 0.16, 0.30),
    (0.16, 0.08, 0.05),
)
BLACK = np.array([0.012, 0.012, 0.014], np.float32)
GLASS = np.array([0.05, 0.06, 0.07], np.float32)
TARGET_PIXELS = 700  # figures smaller than this are drawn enlarged and averaged


def _bent(start, first: float, second: float, upper: float, lower: float):
    """Elbow and hand, or knee and foot, of a limb from `start`; radians from straight down."""
    middle = (start[0] + upper * math.sin(first), start[1] - upper * math.cos(first))
    return middle, (middle[0] + lower * math.sin(second), middle[1] - lower * math.cos(second))


class Person:
    """A walking or standing person of 1.5 to 1.9 m."""

    def __init__(self, rng):
        self.tall = rng.uniform(1.5, 1.9)
        self.shirt, self.trousers, self.hair = (
            pick(rng, CLOTHS),
            pick(rng, TROUSERS),
            pick(rng, ((0.02, 0.015, 0.01), (0.12, 0.07, 0.03), (0.3, 0.2, 0.09))),
        )
        self.skin, self.bag = pick(rng, SKINS), pick(rng, CLOTHS) if rng.random() < 0.5 else None
        self.phase, self.swing, self.facing = (
            rng.uniform(0, 2 * np.pi),
            rng.uniform(0.3, 0.6),
            rng.choice((-1, 1)),
        )
        self.cadence, self.build, self.long = (
            rng.uniform(0.35, 0.9),
            rng.uniform(0.85, 1.2),
            rng.random() < 0.35,
        )
        self.pattern, self.size, self.shadow, self.checked = cloth(rng), self.tall, 0.30, rng.random() < 0.25

    def _leg(self, hip: float, side: float, stride: float) -> list[Shape]:
        k = self.tall
        thigh = side * self.swing * math.sin(stride)
        knee, foot = _bent(
            (0.045 * k * side * 0.6, hip),
            thigh,
            thigh - 0.5 * max(0, math.cos(stride) * side),
            0.25 * k,
            0.25 * k,
        )
        shoe = capsule(
            (foot[0], foot[1] + 0.012 * k),
            (foot[0] + 0.07 * k * self.facing, foot[1] + 0.008 * k),
            0.026 * k,
            0.018 * k,
        )
        return [
            Shape(
                capsule((0.03 * k * side, hip), knee, 0.062 * k * self.build, 0.045 * k),
                self.trousers,
                woven=self.checked,
            ),
            Shape(capsule(knee, foot, 0.044 * k, 0.03 * k), self.trousers * 0.9, woven=self.checked),
            Shape(shoe, BLACK * 2),
        ]

    def _arm(self, shoulder: float, side: float, stride: float) -> list[Shape]:
        k = self.tall
        swing = -side * self.swing * 0.8 * math.sin(stride)
        start = (0.085 * k * self.build * side, shoulder)
        elbow, hand = _bent(
            start, swing + 0.12 * side, swing + 0.12 * side + 0.35 * self.facing, 0.17 * k, 0.15 * k
        )
        return [
            Shape(capsule(start, elbow, 0.036 * k, 0.029 * k), self.shirt * 0.92, woven=True),
            Shape(capsule(elbow, hand, 0.028 * k, 0.02 * k), self.shirt * 0.92 if self.long else self.skin),
            Shape(ellipse(*hand, 0.024 * k, 0.026 * k), self.skin),
        ]

    def shapes(self, time: float) -> list[Shape]:
        """The figure at `time` (-1, 0, 1 for the three exposures)."""
        k, stride = self.tall, self.phase + self.cadence * time
        hip, shoulder = 0.5 * k, 0.80 * k
        torso = np.concatenate(
            [
                ellipse(0, shoulder - 0.01 * k, 0.098 * k * self.build, 0.035 * k),
                ellipse(0, hip, 0.075 * k * self.build, 0.04 * k),
            ]
        )
        torso = cv2.convexHull(torso.astype(np.float32))[:, 0].astype(np.float64)
        head = (0.012 * k * self.facing, 0.925 * k)
        body = self._arm(shoulder, -1, stride) + self._leg(hip, -1, stride) + self._leg(hip, 1, stride)
        if self.bag is not None:
            body.append(
                Shape(
                    rounded(
                        -0.16 * k * self.facing - 0.07 * k,
                        0.5 * k,
                        -0.16 * k * self.facing + 0.07 * k,
                        0.66 * k,
                        0.02,
                    ),
                    self.bag,
                )
            )
        return (
            body
            + [
                Shape(torso, self.shirt, woven=True),
                Shape(capsule((0, 0.82 * k), head, 0.03 * k, 0.035 * k), self.skin * 0.8),
                Shape(ellipse(*head, 0.05 * k, 0.066 * k), self.skin),
                Shape(
                    ellipse(head[0] - 0.016 * k * self.facing, head[1] + 0.022 * k, 0.052 * k, 0.055 * k),
                    self.hair,
                ),
                Shape(
                    ellipse(head[0] + 0.03 * k * self.facing, head[1] - 0.012 * k, 0.026 * k, 0.04 * k),
                    self.skin,
                ),
            ]
            + self._arm(shoulder, 1, stride)
        )


class CarSide:
    """A car that drives across, seen from its side."""

    def __init__(self, rng):
        self.paint = pick(rng, CLOTHS + ((0.75, 0.76, 0.78), (0.55, 0.03, 0.03)))
        self.size, self.facing, self.roof = (
            rng.uniform(4.0, 4.7),
            rng.choice((-1, 1)),
            rng.uniform(1.40, 1.60),
        )
        self.night, self.pattern, self.shadow = False, None, 2.2

    def shapes(self, time: float) -> list[Shape]:
        """The car; its wheels turn with `time`."""
        half, top, f = self.size / 2, self.roof, self.facing
        m = lambda points: np.array(points) * (f, 1)
        body = [
            (-half, 0.35),
            (-half, 0.80),
            (-half + 0.15, 0.92),
            (half - 1.1, 0.96),
            (half - 0.1, 0.78),
            (half, 0.6),
            (half, 0.32),
        ]
        cabin = [(-half + 0.25, 0.9), (-half + 0.75, top), (half - 2.0, top), (half - 1.05, 0.94)]
        panes = [
            [(-half + 0.55, 0.94), (-half + 0.88, top - 0.08), (-0.42, top - 0.08), (-0.42, 0.94)],
            [(-0.32, 0.94), (-0.32, top - 0.08), (half - 2.08, top - 0.08), (half - 1.3, 0.94)],
        ]
        out = [
            Shape(m(cabin), self.paint),
            Shape(m(body), self.paint),
            Shape(m([(-half, 0.32), (-half, 0.42), (half, 0.42), (half, 0.32)]), BLACK * 2),
        ]
        out += [Shape(m(p), GLASS) for p in panes] + [
            Shape(
                m([(-half + 0.1, 0.70), (half - 0.1, 0.70), (half - 0.1, 0.72), (-half + 0.1, 0.72)]),
                self.paint * 0.5,
            )
        ]
        for x in (-half + 0.8, half - 0.85):
            out += [
                Shape(ellipse(x * f, 0.33, 0.38, 0.36), BLACK * 0.5),
                Shape(ellipse(x * f, 0.31, 0.31, 0.31), BLACK),
                Shape(ellipse(x * f, 0.31, 0.18, 0.18), np.full(3, 0.35)),
            ]
            for k in range(5):
                a = 2 * np.pi * k / 5 + 1.3 * time * f
                out.append(
                    Shape(
                        capsule(
                            (x * f, 0.31), (x * f + 0.15 * math.cos(a), 0.31 + 0.15 * math.sin(a)), 0.02, 0.03
                        ),
                        BLACK * 3,
                    )
                )
        lamp = np.array([9.0, 8.4, 6.6]) if self.night else None
        tail = np.array([2.2, 0.08, 0.04]) if self.night else None
        out.append(Shape(m(ellipse(half - 0.10, 0.66, 0.10, 0.06)), np.full(3, 0.7), lamp))
        return out + [Shape(m(ellipse(-half + 0.06, 0.74, 0.06, 0.08)), np.array([0.5, 0.03, 0.02]), tail)]


class CarFront:
    """A car that comes closer or drives away."""

    def __init__(self, rng):
        self.paint = pick(rng, CLOTHS + ((0.75, 0.76, 0.78), (0.55, 0.03, 0.03)))
        self.size, self.rear, self.roof = 1.8, rng.random() < 0.5, rng.uniform(1.42, 1.6)
        self.night, self.pattern, self.shadow = False, None, 1.0

    def shapes(self, time: float) -> list[Shape]:
        """The car, the same at every `time`."""
        top = self.roof
        out = [Shape(rounded(x - 0.13, 0.0, x + 0.13, 0.6, 0.05), BLACK) for x in (-0.68, 0.68)]
        out += [
            Shape(
                np.array(
                    [
                        (-0.80, 0.85),
                        (-0.60, top - 0.05),
                        (-0.5, top),
                        (0.5, top),
                        (0.60, top - 0.05),
                        (0.80, 0.85),
                    ]
                ),
                self.paint,
            ),
            Shape(rounded(-0.9, 0.28, 0.9, 0.98, 0.14), self.paint),
            Shape(np.array([(-0.70, 0.93), (-0.54, top - 0.10), (0.54, top - 0.10), (0.70, 0.93)]), GLASS),
            Shape(rounded(-0.9, 0.26, 0.9, 0.48, 0.06), BLACK * 2),
            Shape(rounded(-0.45, 0.56, 0.45, 0.74, 0.04), BLACK * 2.5),
            Shape(rounded(-0.26, 0.38, 0.26, 0.49, 0.01), np.full(3, 0.65)),
        ]
        white, red = np.array([14.0, 13.0, 10.0]), np.array([2.6, 0.07, 0.04])
        glow = (red if self.rear else white) if self.night else None
        albedo = np.array([0.5, 0.02, 0.02]) if self.rear else np.full(3, 0.75)
        return out + [Shape(ellipse(x, 0.72, 0.15, 0.085), albedo, glow) for x in (-0.68, 0.68)]


class Ball:
    """A ball in the air or on the ground, turning."""

    def __init__(self, rng):
        self.size, self.height = rng.uniform(0.2, 0.36), rng.uniform(0.0, 0.4)
        self.colours = [pick(rng, CLOTHS), np.full(3, 0.75, np.float32), pick(rng, CLOTHS)]
        self.spin, self.turn, self.pattern, self.shadow = rng.uniform(0.3, 1.2), rng.uniform(0, 6), None, 0.2

    def shapes(self, time: float) -> list[Shape]:
        """The ball with its six wedges."""
        r, y = self.size / 2, self.height + self.size / 2
        out = [Shape(ellipse(0, y, r, r), self.colours[0])]
        for k in range(6):
            a = self.turn + self.spin * time + k * np.pi / 3
            edge = [(r * math.cos(a + t), y + r * math.sin(a + t)) for t in np.linspace(0, np.pi / 3, 8)]
            out.append(Shape(np.array([(0.2 * r, y + 0.25 * r), *edge]), self.colours[k % 3]))
        glint = Shape(ellipse(0.3 * r, y + 0.4 * r, 0.13 * r, 0.1 * r), np.full(3, 0.95))
        return [*out, glint]


class Bird:
    """A bird with beating wings."""

    def __init__(self, rng):
        self.size, self.height, self.phase = rng.uniform(0.6, 1.0), rng.uniform(3.0, 8.0), rng.uniform(0, 6)
        self.pattern, self.shadow, self.colour = None, 0.0, np.full(3, rng.uniform(0.02, 0.3), np.float32)

    def shapes(self, time: float) -> list[Shape]:
        """Body and two wings."""
        s, y = self.size, self.height
        beat = 0.3 * s * math.sin(self.phase + 1.5 * time)
        out = [
            Shape(ellipse(0, y, 0.20 * s, 0.06 * s), self.colour),
            Shape(ellipse(0.2 * s, y + 0.03 * s, 0.06 * s, 0.05 * s), self.colour),
        ]
        for side in (-1, 1):
            wing = [
                (-0.1 * s, y),
                (0.12 * s, y),
                (side * 0.3 * s + 0.05 * s, y + beat * 0.8),
                (side * 0.6 * s, y + beat),
                (side * 0.28 * s - 0.08 * s, y + beat * 0.6),
            ]
            out.append(Shape(np.array(wing), self.colour * 0.9))
        return out


class Branch:
    """A leafy branch that hangs into the picture and sways."""

    def __init__(self, rng):
        self.size, self.lean = rng.uniform(0.35, 0.6), rng.uniform(-0.5, 0.5)
        self.pattern, self.shadow, self.sway = None, 0.0, rng.uniform(0.008, 0.03) * rng.choice((-1, 1))
        self.bark, self.stems, self.leaves = pick(rng, ((0.08, 0.05, 0.03),)), [], []
        for _ in range(7):
            self._grow(
                rng, np.zeros(2), rng.uniform(-0.9, 0.9) + self.lean, self.size * rng.uniform(0.5, 1.0), 0.009
            )

    def _grow(self, rng, start, angle: float, length: float, radius: float) -> None:
        """A stem of five bends, downwards from `start`, leaves on both sides."""
        here = start
        for _ in range(5):
            angle += rng.normal(0, 0.16)
            there = here + length / 5 * np.array([math.sin(angle), -math.cos(angle)])
            self.stems.append(capsule(here, there, radius, radius * 0.75))
            for _ in range(9):
                spot = here + (there - here) * rng.random() + rng.normal(0, 0.02, 2)
                turn = angle + rng.normal(0, 0.9)
                self.leaves.append(
                    (ellipse(*spot, 0.010, 0.034, turn, 9), pick(rng, LEAVES) * rng.uniform(0.6, 1.7))
                )
            here, radius = there, radius * 0.75

    def shapes(self, time: float) -> list[Shape]:
        """Stems and leaves, turned about the origin by the wind."""
        c, s = math.cos(self.sway * time), math.sin(self.sway * time)
        turn = np.array([[c, s], [-s, c]])
        stems = [Shape(p @ turn, self.bark) for p in self.stems]
        return stems + [Shape(p @ turn, colour) for p, colour in self.leaves]


@dataclasses.dataclass
class Actor:
    """A figure in the world: `place` (X, Y, Z) in metres in the middle exposure, and how far it goes.

    Attributes:
        figure: what is drawn.
        place: world position of its origin at the middle exposure.
        step: world displacement `[2, 3]` of the short and of the long exposure against the middle one.
        light: on the figure.
    """

    figure: object
    place: np.ndarray
    step: np.ndarray
    light: Light

    def position(self, exposure: int) -> np.ndarray:
        """World position at exposure 0, 1 or 2."""
        return self.place + (self.step[0], np.zeros(3), self.step[1])[exposure]


def draw_actor(canvas: Canvas, actor: Actor, exposure: int, moving: bool) -> None:
    """Draws an actor as exposure 0 (short), 1 (middle) or 2 (long) sees it, in place."""
    place = actor.position(exposure)
    foot = canvas.view.project(place[None])[0]
    metre = canvas.view.focal / place[2]
    figure = actor.figure
    if figure.shadow:
        floor = canvas.view.project(np.array([[place[0], 0.0, place[2]]]))[0]
        flat = canvas.view.eye / place[2]
        soft_shadow(canvas, floor, figure.shadow * metre, max(1.0, figure.shadow * metre * flat * 0.45), 0.72)
    detail = int(np.clip(TARGET_PIXELS / max(metre * figure.size, 1), 1, 3))
    shapes = figure.shapes(float(exposure - 1) if moving else 0.0)
    draw(canvas, shapes, foot, metre, actor.light, figure.pattern, detail)
