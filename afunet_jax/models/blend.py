"""A head that chooses, pixel by pixel, between the network's image and the three exposures.

Not in the paper, whose Eq. (16) draws every pixel anew: what stands still and is exposed well is already in the
photos, more exactly than a small network can draw it. The head predicts how far each of the four candidates is from
the truth, and takes their mean with weights that fall with that error: the nearer, the heavier, as inverse variances do.

It learns to predict errors (`losses.error_prediction`), alone, behind a trained network, which it leaves as it is:
gradients stop before it. A head that learns weights by the error of the mixture ends with one candidate everywhere,
because the best of them on average is soon the only one that has a gradient; trained together with its network it
takes the middle exposure, and the network forgets what it could do where that is noise.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from afunet_jax.hdr import mu_law
from afunet_jax.models.layers import Conv3x3, LayerNorm, gelu

CANDIDATES = 4  # the network's image and three exposures
HIDDEN_LAYERS = 2
TYPICAL = -4.0  # natural logarithm of the error that is predicted at the start, of mu-law values
SHARPNESS = 4  # weights are errors to the power of minus this: of 2, 4 and 8 the best on validation scenes


class Blend(nn.Module):
    """Candidates for a pixel, and how far each will be from the truth.

    Attributes:
        hidden: channels of the layers between.
    """

    hidden: int

    @nn.compact
    def __call__(self, features: jax.Array, merged: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """For `mixed` and `losses.error_prediction`.

        Args:
            features: that the network's image was made of, `[B, H, W, C]`.
            merged: the network's image, linear, `[B, H, W, 3]`.
            x: the network's input, `[B, H, W, 18]`, see `hdr.network_input`.

        Returns:
            The candidates, linear `[4, B, H, W, 3]`: the network's image, the short, middle and long exposure; and the
            natural logarithms of their predicted absolute errors, of mu-law values.
        """
        features, merged = jax.lax.stop_gradient((features, merged))
        parts = jnp.split(x, 6, -1)
        radiances, ldrs = parts[0::2], parts[1::2]
        candidates = [merged, *radiances]
        compressed = [mu_law(image) for image in candidates]
        apart = [jnp.abs(image - compressed[0]) for image in compressed[1:]]  # large where something has moved
        seen = jnp.concatenate([LayerNorm(name='norm')(features), *compressed, *ldrs, *apart], -1)
        for i in range(HIDDEN_LAYERS):
            seen = gelu(Conv3x3(self.hidden, name=f'hidden_{i}')(seen))
        errors = Conv3x3(3 * CANDIDATES, name='errors').in_parts(seen, CANDIDATES)
        return jnp.stack(candidates), jnp.stack(errors) + TYPICAL


def mixed(candidates: jax.Array, log_errors: jax.Array) -> jax.Array:
    """Mean of the candidates with weights `error ** -SHARPNESS`, by pixel and colour: it lies between them."""
    return (jax.nn.softmax(-SHARPNESS * log_errors, 0) * candidates).sum(0)
