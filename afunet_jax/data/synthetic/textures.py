"""Materials: albedo maps `[rows, cols, 3]` in linear RGB, drawn from a generator.

Sizes called cells are in texels. A material's coarse structure depends on the generator alone, so
a scene looks the same at every size; finer texels only add finer octaves.
"""

import math

import cv2
import numpy as np

Shape = tuple[int, int]
MIN_CELL = 2.0  # texels: noise finer than this is grain, not texture
GREY_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)  # luminance of linear Rec. 709

# Albedos in linear RGB.
BRICKS = ((0.36, 0.13, 0.08), (0.28, 0.11, 0.07), (0.42, 0.22, 0.13), (0.45, 0.33, 0.22))
PLASTERS = (
    (0.72, 0.62, 0.42),
    (0.66, 0.47, 0.33),
    (0.62, 0.60, 0.55),
    (0.74, 0.70, 0.62),
    (0.42, 0.52, 0.58),
    (0.60, 0.33, 0.24),
    (0.48, 0.55, 0.42),
    (0.70, 0.55, 0.50),
)
WOODS = ((0.30, 0.16, 0.08), (0.42, 0.26, 0.13), (0.20, 0.10, 0.05), (0.50, 0.36, 0.21))
STONES = ((0.40, 0.38, 0.34), (0.30, 0.30, 0.31), (0.48, 0.43, 0.35))
CLOTHS = (
    (0.50, 0.05, 0.05),
    (0.05, 0.10, 0.35),
    (0.03, 0.03, 0.04),
    (0.70, 0.68, 0.62),
    (0.60, 0.40, 0.05),
    (0.06, 0.25, 0.12),
    (0.30, 0.32, 0.36),
    (0.10, 0.30, 0.45),
    (0.45, 0.12, 0.28),
    (0.75, 0.30, 0.08),
)
SKINS = ((0.55, 0.32, 0.22), (0.42, 0.22, 0.13), (0.22, 0.11, 0.06), (0.62, 0.40, 0.30))
LEAVES = ((0.09, 0.17, 0.03), (0.05, 0.12, 0.03), (0.15, 0.20, 0.04), (0.22, 0.15, 0.03))


def pick(rng: np.random.Generator, palette: tuple) -> np.ndarray:
    """One colour of `palette`, varied a little in brightness and hue, float32 `[3]`."""
    colour = np.array(palette[rng.integers(len(palette))], np.float32)
    return np.clip(colour * rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, 3), 0.004, 0.9).astype(
        np.float32
    )


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def fbm(
    rng, shape: Shape, cell: float, octaves: int = 6, gain: float = 0.55, stretch: float = 1.0
) -> np.ndarray:
    """Fractal noise of zero mean and about unit deviation.

    Args:
        rng: advanced by one spawn, whatever the size.
        shape: rows and columns.
        cell: size of the coarsest octave in texels; each next octave is half of it.
        octaves: at most this many; those finer than `MIN_CELL` are left out.
        gain: amplitude of an octave relative to the one before.
        stretch: width of a cell relative to its height.

    Returns:
        float32 `[rows, cols]`.
    """
    child = rng.spawn(1)[0]
    count = min(octaves, max(1, int(math.log2(max(cell, MIN_CELL) / MIN_CELL)) + 1))
    rows, cols = math.ceil(shape[0] / cell) + 2, math.ceil(shape[1] / (cell * stretch)) + 2
    field = np.zeros((rows, cols), np.float32)
    for octave in range(count):
        if octave:
            field = cv2.resize(field, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        field += np.float32(gain**octave) * child.standard_normal(field.shape, np.float32)
    size = (math.ceil(cols * cell * stretch), math.ceil(rows * cell))
    field = cv2.resize(field, size, interpolation=cv2.INTER_CUBIC)[: shape[0], : shape[1]]
    return field * np.float32(1.0 / math.sqrt(sum(gain ** (2 * k) for k in range(octaves))))


def tint(colour: np.ndarray, modulation: np.ndarray) -> np.ndarray:
    """`colour * modulation`, kept positive: `[3]` and `[rows, cols]` to `[rows, cols, 3]`."""
    return np.maximum(modulation, 0.05)[..., None].astype(np.float32) * np.asarray(colour, np.float32)


def plaster(rng, shape: Shape, colour, metre: float) -> np.ndarray:
    """A painted wall with stains and streaks; `metre` is the texels of one metre."""
    stains = fbm(rng, shape, 1.5 * metre, 5, 0.6)
    streaks = fbm(rng, shape, 2.0 * metre, 4, 0.6, stretch=0.12)
    return tint(colour, 1.0 + 0.07 * stains + 0.05 * streaks)


def _courses(rng, shape: Shape, height: float, length: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """A bond of rectangles: a random value for each, and how far a texel is inside its joints."""
    y = (np.arange(shape[0], dtype=np.float32) + 0.5) / height
    row = y.astype(np.int32)
    x = (np.arange(shape[1], dtype=np.float32) + 0.5)[None, :] / length + (row[:, None] * shift)
    col = x.astype(np.int32)
    values = rng.spawn(1)[0].standard_normal((64, 64)).astype(np.float32)
    fy, fx = (y - row)[:, None], x - col
    inside = np.minimum(np.minimum(fy, 1 - fy) * height, np.minimum(fx, 1 - fx) * length)
    return values[row[:, None] % 64, col % 64], inside


def bricks(rng, shape: Shape, colour, metre: float) -> np.ndarray:
    """Running bond: bricks of 25 by 7.5 cm and pale joints."""
    value, inside = _courses(rng, shape, 0.085 * metre, 0.26 * metre, 0.5)
    wall = tint(colour, 1.0 + 0.16 * value + 0.08 * fbm(rng, shape, 2.0 * metre, 6, 0.65))
    joint = smoothstep(0.0, max(1.0, 0.016 * metre), inside)[..., None]
    return wall * joint + np.float32(0.30) * (1 - joint) * (0.5 + 0.8 * np.float32(np.mean(colour)))


def slabs(rng, shape: Shape, colour, metre: float, size: float = 0.6) -> np.ndarray:
    """Paving or floor tiles, `size` metres square, with dark joints."""
    value, inside = _courses(rng, shape, size * metre, size * metre, 0.0)
    worn = fbm(rng, shape, 1.2 * metre, 6, 0.65)
    joint = smoothstep(0.0, max(1.0, 0.02 * metre), inside)
    return tint(colour, (1.0 + 0.10 * value + 0.10 * worn) * (0.35 + 0.65 * joint))


def planks(rng, shape: Shape, colour, metre: float, width: float = 0.16) -> np.ndarray:
    """Boards along the columns with stretched grain."""
    value, inside = _courses(rng, shape, width * metre, 2.3 * metre, 0.37)
    grain = fbm(rng, shape, 0.10 * metre, 5, 0.7, stretch=12.0)
    joint = smoothstep(0.0, max(1.0, 0.008 * metre), inside)
    return tint(colour, (1.0 + 0.18 * value + 0.14 * grain) * (0.3 + 0.7 * joint))


def roof_tiles(rng, shape: Shape, colour, metre: float) -> np.ndarray:
    """Rows of overlapping tiles, darker under each edge."""
    value, _ = _courses(rng, shape, 0.28 * metre, 0.22 * metre, 0.5)
    y = (np.arange(shape[0], dtype=np.float32) + 0.5) / (0.28 * metre)
    edge = 0.45 + 0.55 * smoothstep(0.0, 0.35, y - np.floor(y))[:, None]
    return tint(colour, (1.0 + 0.15 * value + 0.10 * fbm(rng, shape, 2 * metre)) * edge)


def asphalt(rng, shape: Shape, colour, metre: float) -> np.ndarray:
    """Road: fine stones, patches and wear."""
    patches = smoothstep(0.4, 0.6, fbm(rng, shape, 5 * metre, 3, 0.4))
    return tint(colour, 1.0 + 0.14 * fbm(rng, shape, 0.5 * metre, 5, 0.8) - 0.22 * patches)


def meadow(rng, shape: Shape, colour, metre: float) -> np.ndarray:
    """Grass: clumps of green, dry patches."""
    dry = smoothstep(-0.2, 1.8, fbm(rng, shape, 6 * metre, 5, 0.6))[..., None]
    blades = (
        1.0
        + 0.20 * fbm(rng, shape, 0.8 * metre, 6, 0.85)
        + 0.26 * fbm(rng, shape, 0.30 * metre, 5, 0.95, stretch=0.3)
    )
    green = tint(colour, blades)
    return green * (1 - dry) + tint(np.array([0.26, 0.22, 0.08], np.float32), blades) * dry


def sand(rng, shape: Shape, colour, metre: float) -> np.ndarray:
    """Sand with wind ripples along the columns."""
    ripples = fbm(rng, shape, 0.35 * metre, 4, 0.7, stretch=5.0)
    return tint(colour, 1.0 + 0.13 * ripples + 0.08 * fbm(rng, shape, 3 * metre, 5, 0.6))


def foliage(rng, shape: Shape, colour, metre: float) -> np.ndarray:
    """A hedge or thicket: leaves in light and gaps of deep shade."""
    leaves = fbm(rng, shape, 0.45 * metre, 5, 0.9)
    gaps = smoothstep(-1.2, 0.4, fbm(rng, shape, 0.9 * metre, 5, 0.75))
    return tint(colour, (1.0 + 0.45 * leaves) * (0.15 + 0.95 * gaps))
