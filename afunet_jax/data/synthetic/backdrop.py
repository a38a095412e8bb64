"""What a kind of scene hands over: the painted world without its moving figures, and who may enter it."""

import dataclasses
import math
from collections.abc import Callable

from afunet_jax.data.synthetic.canvas import Canvas, View
from afunet_jax.data.synthetic.sprites import Light


@dataclasses.dataclass(frozen=True)
class Role:
    """A sort of moving figure and where it may stand.

    Attributes:
        figure: class of the figure, made from a generator.
        count: smallest and largest number of them.
        depth: nearest and farthest distance, metres.
        lateral: leftmost and rightmost x, metres.
        height: lowest and highest y of the origin, metres; None hangs it from the upper edge.
        along: it moves towards or away from the eye, not across.
    """

    figure: type
    count: tuple[int, int]
    depth: tuple[float, float]
    lateral: tuple[float, float] = (-math.inf, math.inf)
    height: tuple[float, float] | None = (0.0, 0.0)
    along: bool = False


@dataclasses.dataclass
class Backdrop:
    """A painted world.

    Attributes:
        canvas: radiance and view.
        light: light on a figure that stands at (x, z) metres.
        roles: the moving figures.
        night: cars have their lights on.
    """

    canvas: Canvas
    light: Callable[[float, float], Light]
    roles: tuple[Role, ...]
    night: bool = False


def new_canvas(
    rng, shape: tuple[int, int], focal=(0.75, 1.0), horizon=(0.5, 0.6), eye=(1.5, 1.8), x=(0.35, 0.65)
) -> Canvas:
    """An empty canvas and a random view: `focal` in widths, `horizon` and `x` in shares of the canvas."""
    rows, cols = shape
    view = View(
        rng.uniform(*focal) * max(rows, cols),
        rng.uniform(*x) * cols,
        rng.uniform(*horizon) * rows,
        rng.uniform(*eye),
    )
    return Canvas(rows, cols, view)
