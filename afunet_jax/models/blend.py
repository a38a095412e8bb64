"""A head that chooses, pixel by pixel, between the network's image and the three exposures.

Not in the paper, whose Eq. (16) draws every pixel anew: what stands still and is exposed well is already in the
photos, more exactly than a small network can draw it. As in networks that predict weights instead of values
(Bako et al. 2017, Mildenhall et al. 2018), the weights are those of a convex combination, so that the result lies
between the candidates whatever the network does.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from afunet_jax.hdr import mu_law
from afunet_jax.models.layers import Conv3x3, gelu

CANDIDATES = 4  # the network's image and three exposures
HIDDEN_LAYERS = 2


class Blend(nn.Module):
    """Convex combination of the network's image and the exposures' radiances, weights by pixel and colour.

    Attributes:
        hidden: channels of the layers between.
    """

    hidden: int

    @nn.compact
    def __call__(self, features: jax.Array, merged: jax.Array, x: jax.Array) -> jax.Array:
        """`[B, H, W, 3]`, linear.

        Args:
            features: that the network's image was made of, `[B, H, W, C]`.
            merged: the network's image, linear, `[B, H, W, 3]`.
            x: the network's input, `[B, H, W, 18]`, see `hdr.network_input`.
        """
        parts = jnp.split(x, 6, -1)
        radiances, ldrs = parts[0::2], parts[1::2]
        candidates = [merged, *radiances]
        seen = jnp.concatenate([features, *map(mu_law, candidates), *ldrs], -1)
        for i in range(HIDDEN_LAYERS):
            seen = gelu(Conv3x3(self.hidden, name=f'hidden_{i}')(seen))
        logits = Conv3x3(3 * CANDIDATES, name='weights').in_parts(seen, CANDIDATES)
        largest = jax.lax.stop_gradient(jnp.stack(logits).max(0))
        weights = [jnp.exp(part - largest) for part in logits]
        return sum(w * image for w, image in zip(weights, candidates, strict=True)) / sum(weights)
