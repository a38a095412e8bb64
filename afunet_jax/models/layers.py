"""Layers that the blocks are built from: dense layers, MLP, stochastic depth, 3x3 convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from afunet_jax.models import windows

INIT_STD = 0.02
INIT = nn.initializers.normal(INIT_STD)  # of every weight and position table; biases start at 0


Weights = tuple[jax.Array, ...]


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`x @ kernel + bias` on the last axis, computed on a two-dimensional token matrix.

    A weight gradient that contracts one axis is a plain matrix product; one that contracts three misses
    the fast path of XLA's CPU compiler.
    """
    y = x.reshape(-1, x.shape[-1]) @ kernel
    y = y if bias is None else y + bias[None]
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """LayerNorm over the last axis, eps 1e-5, mean and variance in two passes."""
    vector = (1,) * (x.ndim - 1) + (-1,)
    centred = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return centred / deviation * scale.reshape(vector) + bias.reshape(vector)


def gelu(x: jax.Array) -> jax.Array:
    """Exact (erf) GELU."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def mlp(x: jax.Array, fc1: Weights, fc2: Weights) -> jax.Array:
    """Dense, exact GELU, dense."""
    return dense(gelu(dense(x, *fc1)), *fc2)


class Dense(nn.Module):
    """A dense layer's parameters, and the layer."""

    features: int
    use_bias: bool = True

    @nn.compact
    def weights(self, channels: int) -> Weights:
        """Kernel `[channels, features]`, and bias `[features]` if there is one."""
        kernel = self.param('kernel', INIT, (channels, self.features))
        return (kernel, self.param('bias', nn.initializers.zeros, (self.features,))) if self.use_bias else (kernel,)

    def __call__(self, x: jax.Array) -> jax.Array:
        return dense(x, *self.weights(x.shape[-1]))


class LayerNorm(nn.Module):
    """A LayerNorm's parameters, and the norm."""

    @nn.compact
    def weights(self, channels: int) -> Weights:
        """Scale and bias, `[channels]`."""
        scale = self.param('scale', nn.initializers.ones, (channels,))
        return scale, self.param('bias', nn.initializers.zeros, (channels,))

    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, *self.weights(x.shape[-1]))


class Mlp(nn.Module):
    """MLP(a, h, b): Dense a -> h, exact GELU, Dense h -> b. Chunked over tokens, see `windows.map_chunks`."""

    hidden: int
    features: int
    chunks: windows.Chunks = windows.Chunks()

    @nn.compact
    def weights(self, channels: int) -> tuple[Weights, Weights]:
        """Of both dense layers."""
        return Dense(self.hidden, name='fc1').weights(channels), Dense(self.features, name='fc2').weights(self.hidden)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = windows.map_chunks(mlp, self.weights(x.shape[-1]), x.reshape(-1, x.shape[-1]), self.chunks.tokens, self.chunks)
        return y.reshape(*x.shape[:-1], self.features)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): drops a residual branch, example by example.

    A kept branch is divided by 1 - rate. The draw of an example depends on its position in the global
    batch, not on how the batch is spread over devices: pass `positions`.
    """

    rate: float

    @nn.compact
    def __call__(self, batch: int, train: bool, positions: jax.Array | None = None) -> jax.Array | None:
        """What to multiply each example's branch with, `[batch]`: 0 or 1 / (1 - rate). None: nothing is dropped.

        `positions`: int `[batch]`, 0 to batch - 1 if None. Draws from the stream 'dropout'.
        """
        if not train or self.rate == 0:
            return None
        if positions is None:
            positions = jnp.arange(batch)
        key = self.make_rng('dropout')
        keep = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i), 1 - self.rate))(positions)
        return keep.astype(jnp.float32) / (1 - self.rate)


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
