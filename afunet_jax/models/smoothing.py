"""Takes noise out of an image: means of alike pixels, where a head says what is alike.

Not in the paper. A bilateral filter (Tomasi and Manduchi, "Bilateral filtering for gray and color images", ICCV 1998)
whose widths are given for every pixel, and which also compares features, as joint filters do: what is an edge in noise
shows in more than two pixels.
"""

import jax
import jax.numpy as jnp

from afunet_jax.hdr import mu_law

RADIUS = 2  # pixels: means of up to 5x5
WIDTHS = 2  # guides that say how fast weights fall with a difference of values, and with distance
FEATURES = 4  # guides that are compared
START = (8.0, 1.0)  # of the widths: values 0.018 apart, and neighbours, weigh 1/e and 1/15
STEEPEST = 25.0  # of the widths: beyond, exponentials would grow without bound
_OFFSETS = [(i, j) for i in range(2 * RADIUS + 1) for j in range(2 * RADIUS + 1) if (i, j) != (RADIUS, RADIUS)]


def smoothed(image: jax.Array, guides: jax.Array) -> jax.Array:
    """Means of the 5x5 pixels around each one, reflected at the border, with weights

        exp(-(exp(a) (mean over colours of (tau(p) - tau(q))^2) + exp(b) |p - q|^2 + |f(p) - f(q)|^2))

    for a neighbour q of p, tau the mu-law; a, b and f are the guides of p, f also of q. p itself weighs 1.

    Args:
        image: linear `[B, H, W, 3]`, not negative.
        guides: `[B, H, W, 6]`: the logarithms a and b, four features f.

    Returns:
        `[B, H, W, 3]`, between the least and the largest value around each pixel.
    """
    rows, columns = image.shape[1:3]
    colours = [image[..., c] for c in range(3)]  # planes: loops over three channels are slow on CPUs
    by_value, by_distance, *features = (guides[..., c] for c in range(guides.shape[-1]))
    by_value, by_distance = (jnp.exp(jnp.minimum(log, STEEPEST)) for log in (by_value, by_distance))
    compared = [mu_law(colour) for colour in colours] + features
    border = ((0, 0), (0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS))
    around = jnp.pad(jnp.stack(colours + compared), border, mode='reflect')

    @jax.checkpoint
    def add(sums: tuple[jax.Array, jax.Array], offset: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        there = jax.lax.dynamic_slice(around, (0, 0, *offset), (around.shape[0], image.shape[0], rows, columns))
        squares = [(here - other) ** 2 for here, other in zip(compared, there[3:])]
        distance = ((offset - RADIUS) ** 2).sum()
        weight = jnp.exp(-(by_value * sum(squares[:3]) / 3 + by_distance * distance + sum(squares[3:])))
        return (sums[0] + weight[None] * there[:3], sums[1] + weight), None

    start = jnp.stack(colours), jnp.ones_like(colours[0])
    (total, weights), _ = jax.lax.scan(add, start, jnp.array(_OFFSETS))
    return jnp.moveaxis(total / weights[None], 0, -1)
