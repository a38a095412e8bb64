"""A head that chooses, pixel by pixel, between the network's image and what the exposures show.

Not in the paper, whose Eq. (16) draws every pixel anew: what stands still and is exposed well is already in the
photos, more exactly than a small network can draw it. The head predicts how far each of the five candidates is from
the truth, and takes their mean with weights that fall with that error: the nearer, the heavier, as inverse variances
do. What noise is left goes with means of alike pixels around, see `smoothing`: the head says which are alike.

Whether two exposures differ by noise or because something has moved does not show in a few pixels. So the head is told
how well images agree in views of 16 and 64 pixels, and how noisy they are there; see `_views`.

It learns to predict errors (`losses.error_prediction`), alone, behind a trained network, which it leaves as it is:
gradients stop before it. A head that learns weights by the error of the mixture ends with one candidate everywhere,
because the best of them on average is soon the only one that has a gradient; trained together with its network it
takes the middle exposure, and the network forgets what it could do where that is noise. A head that can predict errors
already is made better by the error of the mixture (`losses.make_blend_loss`, 'mixture'): it is trained so by last, and
from that alone learns what is alike.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from afunet_jax.hdr import mu_law, weighted_merge
from afunet_jax.models.layers import Conv3x3, Dense, LayerNorm, gelu
from afunet_jax.models.smoothing import FEATURES, START

CANDIDATES = 5  # the network's image, three exposures, and their weighted merge
HIDDEN_LAYERS = 2
TYPICAL = -4.0  # natural logarithm of the error that is predicted at the start, of mu-law values
SHARPNESS = 4  # weights are errors to the power of minus this: of 2, 4 and 8 the best on validation scenes
CELL = 4  # rows and columns of pixels over which differences are averaged, noise with them
VIEWS = (4, 16)  # rows and columns of cells in which images are compared
VIEW_CHANNELS = 8  # that every pixel is told of the views: as many as it takes, for they are large
USABLE = (0.01, 0.98)  # LDR values between which an exposure shows what was there
LEAST_DIFFERENCE, LEAST_NOISE = 1e-3, 1e-4  # of mu-law values, added before their logarithm is taken
LEAST_SHARE = 1e-4  # of values that can be compared, added before it divides


class Blend(nn.Module):
    """Candidates for a pixel, how far each will be from the truth, and which pixels around are alike.

    Attributes:
        hidden: channels of the layers between.
    """

    hidden: int

    @nn.compact
    def __call__(self, features: jax.Array, merged: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """For `mixed`, `smoothing.smoothed` and `losses.make_blend_loss`.

        Args:
            features: that the network's image was made of, `[B, H, W, C]`; H and W are multiples of `CELL`.
            merged: the network's image, linear, `[B, H, W, 3]`.
            x: the network's input, `[B, H, W, 18]`, see `hdr.network_input`.

        Returns:
            The candidates, linear `[5, B, H, W, 3]`: the network's image, the short, middle and long exposure, their
            weighted merge; the natural logarithms of their predicted absolute errors, of mu-law values; and the guides
            of `smoothing.smoothed`, `[B, H, W, 6]`.
        """
        features, merged = jax.lax.stop_gradient((features, merged))
        parts = jnp.split(x, 6, -1)
        radiances, ldrs = parts[0::2], parts[1::2]
        candidates = [merged, *radiances, weighted_merge(radiances, ldrs)]
        compressed = [mu_law(image) for image in candidates]
        apart = [jnp.abs(image - compressed[0]) for image in compressed[1:]]  # large where something has moved
        views = gelu(Dense(self.hidden, name='views_hidden')(_views(compressed[:4], ldrs)))
        views = _enlarged(Dense(VIEW_CHANNELS, name='views')(views))
        seen = jnp.concatenate([LayerNorm(name='norm')(features), *compressed, *ldrs, *apart, views], -1)
        for i in range(HIDDEN_LAYERS):
            seen = gelu(Conv3x3(self.hidden, name=f'hidden_{i}')(seen))
        errors = Conv3x3(3 * CANDIDATES, name='errors').in_parts(seen, CANDIDATES)
        start = jnp.array([*START, *(0.0,) * FEATURES]).reshape(1, 1, 1, -1)
        guides = Conv3x3(start.size, name='guides')(seen) + start
        return jnp.stack(candidates), jnp.stack(errors) + TYPICAL, guides


def mixed(candidates: jax.Array, log_errors: jax.Array) -> jax.Array:
    """Mean of the candidates with weights `error ** -SHARPNESS`, by pixel and colour: it lies between them."""
    return (jax.nn.softmax(-SHARPNESS * log_errors, 0) * candidates).sum(0)


def _views(images: Sequence[jax.Array], ldrs: Sequence[jax.Array]) -> jax.Array:
    """What shows in the surroundings of a pixel only, for every cell, `[B, H / CELL, W / CELL, 26]`.

    Args:
        images: the network's and the three exposures', mu-law, `[B, H, W, 3]`.
        ldrs: of the exposures.

    Returns:
        For each pair of images the logarithm of how far the means of cells are apart, in two views, and if both are
        exposures the share of values that could be compared; for each image the logarithm of its noise, the mean
        deviation from the neighbours, in the cell, and in the smoothest cell of the wider view.
    """
    usable = [_usable(ldr) for ldr in ldrs]
    masks = [jnp.ones_like(usable[0]), *usable]
    found = []
    for first, second in itertools.combinations(range(len(images)), 2):
        mask = masks[first] * masks[second]
        share = _cells(mask).mean(-1, keepdims=True)
        difference = jnp.abs(_cells((images[first] - images[second]) * mask)).mean(-1, keepdims=True)
        for view in VIEWS:
            seen = _around(share, view)
            found.append(jnp.log(_around(difference, view) / (seen + LEAST_SHARE) + LEAST_DIFFERENCE))
            found += [seen] if first else []
    for image in images:
        noise = _cells(jnp.abs(image - _around(image, 3)).mean(-1, keepdims=True))
        smoothest = -_both_ways(nn.max_pool, -noise, VIEWS[-1])
        found += [jnp.log(noise + LEAST_NOISE), jnp.log(smoothest + LEAST_NOISE)]
    return jnp.concatenate(found, -1)


def _usable(ldr: jax.Array) -> jax.Array:
    """1 where a colour is neither black nor clipped, else 0, `[B, H, W, 3]`."""
    return ((ldr > USABLE[0]) & (ldr < USABLE[1])).astype(jnp.float32)


def _cells(image: jax.Array) -> jax.Array:
    """Means of cells, `[B, H / CELL, W / CELL, C]`."""
    return nn.avg_pool(image, (CELL, CELL), (CELL, CELL))


def _enlarged(cells: jax.Array) -> jax.Array:
    """From cells to pixels, bilinear."""
    batch, rows, columns, channels = cells.shape
    return jax.image.resize(cells, (batch, CELL * rows, CELL * columns, channels), 'linear')


def _around(image: jax.Array, side: int) -> jax.Array:
    """Mean of the square of so many rows and columns around each place, as far as the image goes."""
    rows, columns = (_inside(length, side) for length in image.shape[1:3])
    total = _both_ways(functools.partial(nn.pool, init=0.0, reduce_fn=jax.lax.add), image, side)
    return total / (rows.reshape(1, -1, 1, 1) * columns.reshape(1, 1, -1, 1))


def _inside(length: int, side: int) -> jax.Array:
    """How many of `side` neighbours in a row of so many places there are, for each of them.

    Pooling of ones would give the same, and XLA takes minutes to do that while it compiles.
    """
    place = jnp.arange(length)
    return jnp.minimum(place + side // 2, length - 1) - jnp.maximum(place - (side - 1) // 2, 0) + 1


def _both_ways(pool: Callable[..., jax.Array], image: jax.Array, side: int) -> jax.Array:
    """Pools over rows, then over columns: 2 * side values a place instead of side ** 2."""
    for shape in ((side, 1), (1, side)):
        image = pool(image, window_shape=shape, strides=(1, 1), padding='SAME')
    return image
