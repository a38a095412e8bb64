"""Scenes outdoors: hills and trees, a shore against the sun, a garden before a house."""

import math

import cv2
import numpy as np

from afunet_jax.data.synthetic import textures as tx
from afunet_jax.data.synthetic.actors import Ball, Bird, Branch, Person
from afunet_jax.data.synthetic.backdrop import Backdrop, Role, new_canvas
from afunet_jax.data.synthetic.canvas import Canvas
from afunet_jax.data.synthetic.sky import CLEAR, DUSK, GOLDEN, Mood, paint_sky, sun_position
from afunet_jax.data.synthetic.sprites import Light, Shape, capsule, draw, ellipse, soft_shadow
from afunet_jax.data.synthetic.street import GLINT, facade

GROUND_METRE = 80  # texels of a metre of meadow, lawn or sand, see Canvas.texture_metre
TREE_HALF = 5.5  # metres on each side of a tree that stay clear of the sun
WAVE_METRE = 45  # texels of a metre of sea
GROUND_TILE = 14  # metres until the texture repeats in mirror image
BARK = ((0.09, 0.06, 0.04), (0.16, 0.13, 0.10))
ROOFS = ((0.38, 0.13, 0.07), (0.16, 0.15, 0.15), (0.30, 0.20, 0.13))


def colours(mood: Mood) -> tuple[np.ndarray, np.ndarray]:
    """Sunlight and skylight of a mood as arrays."""
    return np.array(mood.key, np.float32), np.array(mood.ambient, np.float32)


def ridge(
    rng, canvas: Canvas, lift: float, rough: float, near: np.ndarray, haze: np.ndarray, clear: float
) -> None:
    """A chain of hills that ends at the horizon.

    Args:
        rng: its outline and woods.
        canvas: painted in place.
        lift: mean height above the horizon, in canvas heights.
        rough: relief, in canvas heights.
        near: radiance of the hill without air before it.
        haze: radiance of the air.
        clear: share of the hill's own colour that gets through, 0..1.
    """
    rows, cols = canvas.shape
    relief = tx.fbm(rng, (4, cols), 0.6 * rows, 9, 0.48)[0]
    crest = canvas.view.y - rows * np.maximum(lift + rough * relief, 0.004)
    top, stop = int(np.clip(crest.min() - 1, 0, rows - 1)), min(canvas.horizon_row() + 2, rows)
    if top >= stop:
        return
    row = np.arange(top, stop, dtype=np.float32)[:, None]
    alpha = np.clip(row - crest[None] + 0.5, 0, 1).astype(np.float32)
    woods = 1 + 0.5 * tx.fbm(rng, (stop - top, cols), 0.10 * rows, 7, 0.75, stretch=2.0)
    slope = 1 + 0.30 * np.clip(cv2.GaussianBlur(np.gradient(crest)[None], (0, 0), 2.0), -1.5, 1.5)
    hill = tx.tint(near, woods * slope) * np.float32(clear) + haze * np.float32(1 - clear)
    fog = np.clip((row - crest[None]) / (0.12 * rows), 0, 1)[..., None] * np.float32(0.35 * (1 - clear))
    canvas.blend((top, stop, 0, cols), alpha, hill * (1 - fog) + haze * fog)


def tree(rng, tall: float, kind: str = 'broad') -> list[Shape]:
    """A tree of height `tall` metres: 'broad', 'bush', 'conifer' or 'palm'."""
    return {'broad': _broad, 'bush': _bush, 'conifer': _conifer, 'palm': _palm}[kind](rng, tall)


def _clump(rng, centre, radius: float, leaf: np.ndarray, leaves: int) -> list[Shape]:
    """A ball of leaves, lighter above and on the left; its inside is dark."""
    spots = 0.6 * np.clip(rng.standard_normal((leaves, 2)), -1.8, 1.8)
    lit = rng.uniform(0.6, 1.25, leaves) * (
        0.5 + 0.55 * np.clip(0.5 + 0.5 * spots[:, 1] - 0.2 * spots[:, 0], 0, 1.4)
    )
    size, turn = (
        radius * rng.uniform(0.7, 1.2, leaves) * 0.95 / math.sqrt(leaves),
        rng.uniform(0, np.pi, leaves),
    )
    places = centre + radius * spots * (1.1, 0.9)
    albedo = lit[:, None] * leaf * rng.uniform(0.9, 1.1, (leaves, 3))
    out = [Shape(ellipse(*centre, 0.66 * radius, 0.56 * radius, count=14), leaf * 0.35)]
    return out + [Shape(ellipse(*p, s, 0.55 * s, t, 8), c) for p, s, t, c in zip(places, size, turn, albedo)]


def _broad(rng, tall: float, leaves: int = 60) -> list[Shape]:
    bark, leaf = tx.pick(rng, BARK), tx.pick(rng, tx.LEAVES)
    fork = np.array([rng.normal(0, 0.02) * tall, 0.38 * tall])
    shapes = [Shape(capsule((0, -0.02 * tall), fork, 0.035 * tall, 0.024 * tall), bark)]
    clumps = []
    for angle in np.linspace(-1.2, 1.2, 9) + rng.normal(0, 0.12, 9):
        reach = tall * rng.uniform(0.18, 0.5) * (1 - 0.25 * abs(angle))
        tip = fork + reach * np.array([math.sin(angle), math.cos(angle)])
        shapes.append(Shape(capsule(fork, tip, 0.016 * tall, 0.005 * tall), bark))
        clumps += [(tip + rng.normal(0, 0.07 * tall, 2), tall * rng.uniform(0.09, 0.15)) for _ in range(4)]
    for centre, radius in sorted(clumps, key=lambda clump: -clump[0][1]):
        shapes += _clump(rng, centre, radius, leaf, leaves)
    return shapes


def _bush(rng, tall: float) -> list[Shape]:
    """A tree far away: a few clumps, fewer leaves."""
    leaf = tx.pick(rng, tx.LEAVES)
    trunk = Shape(capsule((0, 0), (0, 0.5 * tall), 0.04 * tall, 0.03 * tall), tx.pick(rng, BARK))
    spots = [
        ((rng.uniform(-0.28, 0.28) * tall, rng.uniform(0.35, 0.85) * tall), rng.uniform(0.13, 0.2) * tall)
        for _ in range(7)
    ]
    return [trunk] + [
        shape for centre, radius in spots for shape in _clump(rng, np.array(centre), radius, leaf, 8)
    ]


def _conifer(rng, tall: float) -> list[Shape]:
    leaf = np.array([0.035, 0.075, 0.03], np.float32) * rng.uniform(0.7, 1.5)
    shapes = [Shape(capsule((0, 0), (0, 0.95 * tall), 0.02 * tall, 0.004 * tall), tx.pick(rng, BARK))]
    for level in np.linspace(0.12, 0.98, 17):
        half = 0.24 * tall * (1.02 - level) * rng.uniform(0.8, 1.15)
        teeth = [(x, level * tall - 0.05 * tall * rng.uniform(0.3, 1.2)) for x in np.linspace(-half, half, 9)]
        shapes.append(
            Shape(np.array([(0, level * tall + 0.06 * tall), *teeth[::-1]]), leaf * rng.uniform(0.65, 1.35))
        )
    return shapes


def _palm(rng, tall: float) -> list[Shape]:
    bark, leaf, lean = tx.pick(rng, BARK), tx.pick(rng, tx.LEAVES), rng.normal(0, 0.12)
    spine = [np.array([lean * tall * t * t, tall * t]) for t in np.linspace(0, 1, 9)]
    shapes = [
        Shape(capsule(a, b, 0.026 * tall, 0.022 * tall), bark * rng.uniform(0.8, 1.2))
        for a, b in zip(spine, spine[1:])
    ]
    for angle in np.linspace(-2.2, 2.2, 13) + rng.normal(0, 0.1, 13):
        length, at, turn = 0.42 * tall * rng.uniform(0.8, 1.1), spine[-1], angle * 0.62
        for k in range(10):
            there = at + length / 10 * np.array([math.sin(turn), math.cos(turn)])
            shapes.append(Shape(capsule(at, there, 0.006 * tall, 0.005 * tall), leaf * 0.8))
            for side in (-1, 1):
                tip = there + 0.10 * tall * math.sin(0.4 + 0.25 * k) * np.array(
                    [math.sin(turn + 0.9 * side), math.cos(turn + 0.9 * side)]
                )
                shapes.append(
                    Shape(capsule(there, tip, 0.008 * tall, 0.002 * tall), leaf * rng.uniform(0.6, 1.3))
                )
            at, turn = there, turn + 0.14 * np.sign(angle)
    return shapes


def plant(canvas: Canvas, shapes: list[Shape], x: float, z: float, light: Light, shadow: float) -> None:
    """Puts a tree or another figure on the ground at (x, z) metres, with a shadow `shadow` metres wide."""
    foot = canvas.view.project([(x, 0, z)])[0]
    metre = canvas.view.focal / z
    soft_shadow(
        canvas,
        foot + (0.35 * shadow * metre * -light.side, 0),
        shadow * metre,
        max(1.0, 0.5 * shadow * metre * canvas.view.eye / z),
        0.75,
    )
    draw(canvas, shapes, foot, metre, light)


def earth(rng, canvas: Canvas, material, colour, key, ambient, cloudy: float = 0.6) -> None:
    """Paints the ground below the horizon, under the shadows of clouds."""
    metre = canvas.texture_metre(GROUND_METRE)
    shape = (int(GROUND_TILE * metre),) * 2
    albedo = canvas.ground(material(rng, shape, np.asarray(colour, np.float32), metre), metre)
    top = canvas.horizon_row()
    grid = canvas.ground_points()
    broad = tx.fbm(rng, grid.shape[:2], 12, 3, 0.5, stretch=4.0)
    sunny = 1 - cloudy * tx.smoothstep(0.1, 0.9, broad)[..., None]
    light = spread_ground(ambient + key * 0.75 * sunny, albedo.shape)
    canvas.pixels[top:] = albedo * light


def spread_ground(grid: np.ndarray, shape) -> np.ndarray:
    """A map on the grid of `Canvas.ground_points`, enlarged to the ground's pixels."""
    large = cv2.resize(grid.astype(np.float32), None, fx=8, fy=8, interpolation=cv2.INTER_LINEAR)
    return large[: shape[0], : shape[1]]


def _spots(
    rng, canvas: Canvas, count: int, near: float, far: float, sun=None, half: float = TREE_HALF
) -> list[tuple[float, float]]:
    """Places (x, z) in view, far to near, where a figure `2 half` metres wide leaves the sun free."""
    out = []
    for _ in range(count):
        z = near * (far / near) ** rng.random()
        column = rng.uniform(-0.05, 1.05) * canvas.shape[1]
        if sun is None or abs(column - sun[0]) > half * canvas.view.focal / z:
            out.append(((column - canvas.view.x) * z / canvas.view.focal, z))
    return sorted(out, key=lambda spot: -spot[1])


def _fence(canvas: Canvas, z: float, light: Light) -> None:
    """Posts and two rails across the picture, `z` metres away."""
    half = canvas.shape[1] * z / canvas.view.focal
    wood = np.array([0.30, 0.24, 0.17], np.float32)
    rails = [
        Shape(np.array([(-half, y), (half, y), (half, y + 0.09), (-half, y + 0.09)]), wood)
        for y in (0.45, 0.85)
    ]
    posts = [
        Shape(np.array([(x - 0.06, 0), (x + 0.06, 0), (x + 0.05, 1.15), (x - 0.05, 1.15)]), wood * 0.85)
        for x in np.arange(-half, half, 2.2)
    ]
    draw(canvas, rails + posts, canvas.view.project([(0, 0, z)])[0], canvas.view.focal / z, light)


def paint_country(rng, canvas: Canvas, mood: Mood, sun) -> Light:
    """Sky, hills, meadow and trees onto a canvas; the light on a figure."""
    key, ambient = colours(mood)
    paint_sky(rng, canvas, mood, rng.uniform(0.35, 0.65), sun)
    haze = np.array(mood.horizon, np.float32) * 0.55
    forest = np.array([0.10, 0.13, 0.06], np.float32) * (key * 0.6 + ambient)
    levels = rng.integers(2, 5)
    for k in range(levels):
        near = (k + 1) / levels
        ridge(
            rng,
            canvas,
            0.13 * (1 - 0.75 * near),
            0.05 * (1.15 - near),
            forest * (1.6 - 0.6 * near),
            haze,
            0.25 + 0.65 * near,
        )
    earth(rng, canvas, tx.meadow, (0.10, 0.16, 0.04), key, ambient)
    side = -1.0 if sun is not None and sun[0] < canvas.view.x else 1.0
    behind = 0.55 if sun is not None else 1.0
    light = Light(key * behind, ambient, side)
    for x, z in _spots(rng, canvas, 30, 40, 140, sun):
        plant(
            canvas,
            tree(rng, rng.uniform(5, 10), 'conifer' if rng.random() < 0.3 else 'bush'),
            x,
            z,
            light,
            3.0,
        )
    if rng.random() < 0.6:
        _fence(canvas, rng.uniform(12, 20), light)
    kind = 'conifer' if rng.random() < 0.35 else 'broad'
    for x, z in _spots(rng, canvas, rng.integers(3, 7), 10, 30, sun):
        plant(canvas, tree(rng, rng.uniform(5, 9), kind), x, z, light, 2.4)
    return light


def landscape(rng, shape) -> Backdrop:
    """Hills, a meadow and trees under clouds, the sun in most of the pictures."""
    canvas = new_canvas(rng, shape, (0.75, 1.0), (0.48, 0.66))
    mood = (CLEAR, GOLDEN)[rng.integers(2)]
    sun = sun_position(rng, canvas, 0.25, 0.8)
    light = paint_country(rng, canvas, mood, sun)
    canvas.glow(0.03, 3.0, 0.12)
    roles = (
        Role(Person, (2, 4), (3.5, 12)),
        Role(Ball, (1, 2), (3, 7), height=(0.0, 0.8)),
        Role(Bird, (0, 4), (10, 25)),
        Role(Branch, (0, 2), (1.3, 2.2), height=None),
    )
    return Backdrop(canvas, lambda x, z: light, roles)


def _sea(rng, canvas: Canvas, mood: Mood, sun, far: float) -> None:
    """Water from the horizon to `far` metres: the mirrored sky, waves, and the sun's glitter."""
    top = canvas.horizon_row()
    stop = int(np.clip(canvas.view.y + canvas.view.focal * canvas.view.eye / far, top + 1, canvas.shape[0]))
    rows, cols = canvas.shape
    metre = canvas.texture_metre(WAVE_METRE)
    field = tx.fbm(rng, (int(20 * metre),) * 2, 1.5 * metre, 6, 0.7, stretch=3.0)
    waves = canvas.ground(np.repeat(field[..., None], 3, 2), metre)[: stop - top, :, 0]
    share = np.linspace(0, 1, stop - top, dtype=np.float32)[:, None, None]
    mirror = (
        np.array(mood.horizon, np.float32) * 0.75 * (1 - share)
        + np.array(mood.zenith, np.float32) * 0.9 * share
    )
    deep = np.array([0.012, 0.035, 0.045], np.float32)
    sea = (
        mirror * np.clip(0.55 + 0.28 * waves[..., None], 0.08, 1.6)
        + deep * np.array(mood.ambient, np.float32) * 3
    )
    width = (0.04 + 0.10 * share[..., 0]) * cols
    column = np.exp(-(((np.arange(cols, dtype=np.float32)[None] - sun[0]) / width) ** 2))
    glitter = column * (0.25 + 5.0 * tx.smoothstep(0.35, 1.5, waves + 0.4 * column))
    canvas.pixels[top:stop] = sea + glitter[..., None] * np.array(mood.aureole, np.float32) * 0.45


def _parasol(rng) -> list[Shape]:
    cloth = [tx.pick(rng, tx.CLOTHS), np.array([0.72, 0.70, 0.66], np.float32)]
    shapes = [Shape(capsule((0, 0), (0.1, 2.1), 0.025, 0.02), np.array([0.5, 0.45, 0.4]))]
    edge = np.linspace(-1.2, 1.2, 7)
    for k, (a, b) in enumerate(zip(edge, edge[1:])):
        arc = [(0.1 + x, 1.75 + 0.6 * math.sqrt(max(0.0, 1 - (x / 1.25) ** 2))) for x in np.linspace(a, b, 6)]
        shapes.append(Shape(np.array([(0.1 + a, 1.72), *arc, (0.1 + b, 1.72)]), cloth[k % 2]))
    return shapes


def shore(rng, shape) -> Backdrop:
    """A beach with a low sun over the sea; people stand against the light."""
    canvas = new_canvas(rng, shape, (0.75, 1.0), (0.42, 0.58), eye=(1.6, 2.4))
    mood = (GOLDEN, DUSK)[rng.integers(2)]
    key, ambient = colours(mood)
    sun = sun_position(rng, canvas, 0.22, 0.45)
    paint_sky(rng, canvas, mood, rng.uniform(0.3, 0.55), sun)
    if rng.random() < 0.6:
        ridge(
            rng,
            canvas,
            0.0,
            0.04,
            np.array([0.02, 0.03, 0.03], np.float32),
            np.array(mood.horizon, np.float32) * 0.7,
            0.55,
        )
    earth(rng, canvas, tx.sand, (0.42, 0.33, 0.22), key * 0.35, ambient, 0.3)
    far = rng.uniform(9, 18)
    _sea(rng, canvas, mood, sun, far)
    _surf(rng, canvas, far, key * 0.5 + ambient)
    light = Light(key * 0.28, ambient, -1.0 if sun[0] < canvas.view.x else 1.0)
    for x, z in _spots(rng, canvas, rng.integers(2, 5), 6, far, sun, 1.8):
        plant(canvas, _parasol(rng), x, z, light, 0.7)
    for x, z in _spots(rng, canvas, rng.integers(1, 4), 8, 16, sun, 3.0):
        plant(canvas, tree(rng, rng.uniform(3.5, 5.5), 'palm'), x, z, light, 0.6)
    canvas.glow(0.04, 3.0, 0.12)
    roles = (
        Role(Person, (3, 5), (3.5, 11)),
        Role(Ball, (1, 2), (3, 7), height=(0.2, 1.6)),
        Role(Bird, (1, 5), (10, 25)),
    )
    return Backdrop(canvas, lambda x, z: light, roles)


def _surf(rng, canvas: Canvas, far: float, white: np.ndarray) -> None:
    """The wet strip and two lines of foam where the sea ends."""
    half = canvas.shape[1] * far / canvas.view.focal
    x = np.linspace(-half, half, 160)
    for z, thick, colour, opacity in (
        (far * 0.93, 0.10, white * 0.12, 0.75),
        (far, 0.025, white * 0.8, 0.9),
        (far * 1.22, 0.02, white * 0.6, 0.6),
    ):
        line = z + 0.03 * z * tx.fbm(rng, (4, 160), 40, 5, 0.6)[1]
        edge = lambda depth: canvas.view.project(np.stack([x, 0 * x, depth], -1))
        canvas.polygon(
            np.concatenate([edge(line * (1 - thick)), edge(line * (1 + thick))[::-1]]),
            colour,
            opacity,
            blur=0.0015 * canvas.shape[0],
        )


def _dapples(rng, shape, scale: float) -> np.ndarray:
    """Sunlight that leaves let through, 0..1: patches inside the tree's shadow."""
    crown = tx.smoothstep(-0.2, 0.9, tx.fbm(rng, shape, 2.2 * scale, 3, 0.5))
    gaps = tx.smoothstep(-0.1, 0.9, tx.fbm(rng, shape, 0.30 * scale, 3, 0.6))
    return 1 - crown * (1 - gaps)


def garden(rng, shape) -> Backdrop:
    """A house across the picture in the sun, half in a tree's shade, with a lawn and a hedge."""
    canvas = new_canvas(rng, shape, (0.7, 0.9), (0.52, 0.62))
    mood = CLEAR if rng.random() < 0.6 else GOLDEN
    key, ambient = colours(mood)
    sun = sun_position(rng, canvas, 0.80, 0.88)
    paint_sky(rng, canvas, mood, rng.uniform(0.3, 0.6), sun)
    earth(rng, canvas, tx.meadow, (0.09, 0.17, 0.04), key, ambient, 0.75)
    light = Light(key * 0.8, ambient, rng.choice((-1.0, 1.0)))
    for x, z in _spots(rng, canvas, 7, 16, 30, sun):
        plant(canvas, tree(rng, rng.uniform(6, 9)), x, z, light, 2.5)
    _villa(rng, canvas, key, ambient, np.array(mood.horizon, np.float32))
    if rng.random() < 0.6:
        z, share = rng.uniform(6, 8), 0.94 if sun[0] < 0.5 * canvas.shape[1] else 0.06
        plant(
            canvas,
            _broad(rng, rng.uniform(4.5, 6), 130),
            (share * canvas.shape[1] - canvas.view.x) * z / canvas.view.focal,
            z,
            light,
            2.0,
        )
    canvas.glow(0.03, 3.0, 0.10)
    roles = (
        Role(Person, (2, 4), (3.5, 8)),
        Role(Ball, (1, 3), (2.5, 6), height=(0.0, 1.6)),
        Role(Bird, (0, 2), (8, 12)),
        Role(Branch, (0, 2), (1.3, 2.2), height=None),
    )
    return Backdrop(canvas, lambda x, z: light, roles)


def _villa(rng, canvas: Canvas, key, ambient, sky) -> None:
    """The house: front, dark doorway, tiled roof, chimney, hedge and path."""
    wide, low = rng.uniform(9, 13), rng.random() < 0.5
    tall, z = (3.3, rng.uniform(9.5, 12)) if low else (5.8, rng.uniform(14, 17))
    x = rng.uniform(-0.6, 0.3) * wide - 0.2 * wide
    flat = lambda x0, x1, y0, y1, depth=0.0: np.array(
        [(x0, y1, z - depth), (x1, y1, z - depth), (x1, y0, z - depth), (x0, y0, z - depth)]
    )
    front = flat(x, x + wide, 0, tall)
    size = canvas.texels(front)
    albedo, own = facade(rng, front, size, 0.0, sky * 0.2, GLINT * np.array(CLEAR.sun))
    sunny = _dapples(rng, size, size[0] / tall * 1.4)[..., None]
    canvas.face(front, albedo * (ambient + key * 0.85 * sunny) + own)
    _roof(rng, canvas, z, x, wide, tall, key, ambient)
    door = x + wide * rng.uniform(0.3, 0.6)
    canvas.face(
        flat(door, door + 1.3, 0, 2.3, 0.01), np.full((8, 8, 3), 0.45, np.float32) * (ambient + key * 0.5)
    )
    canvas.face(
        flat(door + 0.12, door + 1.18, 0, 2.2, 0.02),
        np.full((8, 8, 3), 0.0007, np.float32)
        * (1 + 4 * np.linspace(0, 1, 8, dtype=np.float32))[:, None, None],
    )
    for x0 in (x - 7, x + wide):
        hedge = flat(x0, x0 + 7, 0, 1.5, 0.5)
        leaves = tx.foliage(
            rng, canvas.texels(hedge), np.array([0.06, 0.13, 0.03]), canvas.texels(hedge)[0] / 1.5
        )
        canvas.face(hedge, leaves * (ambient + key * 0.6))


def _roof(rng, canvas: Canvas, z: float, x: float, wide: float, tall: float, key, ambient) -> None:
    """A hipped roof, seen from the front, with its chimney and the shadow under the eaves."""
    top, back = tall + rng.uniform(1.2, 1.8), z + 2.5
    for place in (0.25, 0.75):
        stack = np.array(
            [
                (x + place * wide, top + 0.5, back),
                (x + place * wide + 0.7, top + 0.5, back),
                (x + place * wide + 0.7, tall, back),
                (x + place * wide, tall, back),
            ]
        )
        canvas.face(stack, tx.bricks(rng, (60, 36), tx.pick(rng, tx.BRICKS), 40) * (ambient + key * 0.7))
    slope = np.array(
        [
            (x + 0.12 * wide, top, back),
            (x + 0.88 * wide, top, back),
            (x + wide + 0.4, tall - 0.05, z - 0.4),
            (x - 0.4, tall - 0.05, z - 0.4),
        ]
    )
    size = canvas.texels(slope)
    canvas.face(
        slope, tx.roof_tiles(rng, size, tx.pick(rng, ROOFS), size[1] / (wide * 0.9)) * (ambient + key)
    )
    eaves = np.array(
        [
            (x - 0.4, tall - 0.05, z - 0.4),
            (x + wide + 0.4, tall - 0.05, z - 0.4),
            (x + wide + 0.4, tall - 0.22, z - 0.4),
            (x - 0.4, tall - 0.22, z - 0.4),
        ]
    )
    canvas.polygon(canvas.view.project(eaves), ambient * 0.35)
    shade = np.array(
        [(x, tall - 0.1, z), (x + wide, tall - 0.1, z), (x + wide, tall - 0.8, z), (x, tall - 0.8, z)]
    )
    canvas.polygon(canvas.view.project(shade), ambient * 0.10, 0.8, blur=0.002 * canvas.shape[0])
