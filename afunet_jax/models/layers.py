"""Layers that the blocks are built from: dense layers, MLP, stochastic depth, 3x3 convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

INIT_STD = 0.02
INIT = nn.initializers.normal(INIT_STD)  # of every weight and position table; biases start at 0


class Dense(nn.Module):
    """A dense layer on the last axis, computed on a two-dimensional token matrix.

    The same as `nn.Dense`; but a weight gradient that contracts one axis is a plain matrix product,
    and one that contracts three misses the fast path of XLA's CPU compiler.
    """

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', INIT, (x.shape[-1], self.features))
        y = x.reshape(-1, x.shape[-1]) @ kernel
        if self.use_bias:
            y = y + self.param('bias', nn.initializers.zeros, (self.features,))[None]
        return y.reshape(*x.shape[:-1], self.features)


class LayerNorm(nn.Module):
    """LayerNorm over channels, eps 1e-5, mean and variance in two passes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param('scale', nn.initializers.ones, (channels,))
        bias = self.param('bias', nn.initializers.zeros, (channels,))
        centred = x - x.mean(-1, keepdims=True)
        deviation = jnp.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
        vector = (1,) * (x.ndim - 1) + (channels,)
        return centred / deviation * scale.reshape(vector) + bias.reshape(vector)


class Mlp(nn.Module):
    """MLP(a, h, b): Dense a -> h, exact GELU, Dense h -> b."""

    hidden: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.gelu(Dense(self.hidden, name='fc1')(x), approximate=False)
        return Dense(self.features, name='fc2')(x)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): drops a residual branch, example by example.

    A kept branch is divided by 1 - rate. The draw of an example depends on its position in the global
    batch, not on how the batch is spread over devices: pass `positions`.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, positions: jax.Array | None = None) -> jax.Array:
        """x `[B, ...]`; positions int `[B]`, 0 to B - 1 if None. Draws from the stream 'dropout'."""
        if not train or self.rate == 0:
            return x
        if positions is None:
            positions = jnp.arange(x.shape[0])
        key = self.make_rng('dropout')
        keep = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i), 1 - self.rate))(positions)
        keep = keep.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(keep, x / (1 - self.rate), 0)


def reflect_pad(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` to `[B, H + 2, W + 2, C]` by reflection; the edge pixel is not repeated."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')


class Conv3x3(nn.Module):
    """3x3 convolution with bias, stride 1, reflection padding; kernel `[3, 3, in, out]`."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', INIT, (3, 3, x.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        y = jax.lax.conv_general_dilated(
            reflect_pad(x), kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        return y + bias.reshape(1, 1, 1, -1)


class DepthwiseConv3x3(nn.Module):
    """Depthwise 3x3 convolution with bias, stride 1, reflection padding; kernel `[3, 3, channels]`.

    A sum of nine shifted images, which XLA fuses into one loop; grouped convolutions are slow on CPUs.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, height, width, channels = x.shape
        kernel = self.param('kernel', INIT, (3, 3, channels))
        bias = self.param('bias', nn.initializers.zeros, (channels,))
        padded = reflect_pad(x)
        y = bias.reshape(1, 1, 1, -1)
        for i in range(3):
            for j in range(3):
                y = y + padded[:, i : i + height, j : j + width] * kernel[i, j].reshape(1, 1, 1, -1)
        return y
