"""Layers that the blocks are built from: dense layers, MLP, stochastic depth, 3x3 convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from afunet_jax.models import windows

INIT_STD = 0.02
STRIP_ROWS = 8  # of a convolution on a CPU
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
        weights, tokens = self.weights(x.shape[-1]), x.reshape(-1, x.shape[-1])
        y = windows.map_chunks(mlp, weights, tokens, self.chunks.tokens, self.chunks)
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


def convolve_whole(padded: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution of an image that is padded already, by the library."""
    return jax.lax.conv_general_dilated(
        padded, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )  # fmt: skip


def _patches(padded: jax.Array, first: jax.Array, rows: int) -> jax.Array:
    """The 3x3 neighbourhoods of `rows` rows of pixels, `[B * rows * W, 9 * C]`."""
    width = padded.shape[2] - 2
    strip = jax.lax.dynamic_slice_in_dim(padded, first, rows + 2, axis=1)
    shifted = [strip[:, i : i + rows, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, -1).reshape(-1, 9 * padded.shape[-1])


def _strips(height: int) -> int:
    """Rows of a strip: the largest divisor of the height that is at most `STRIP_ROWS`."""
    return max(rows for rows in range(1, STRIP_ROWS + 1) if height % rows == 0)


@jax.custom_vjp
def convolve_in_strips(padded: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolve_whole` as matrix products on strips of rows, forward and backward.

    Three times as fast as XLA's convolution on a CPU, and its gradients nearly twice, because a strip's
    neighbourhoods stay in the cache. `[B, H + 2, W + 2, C]`, kernel `[3, 3, C, out]` to `[B, H, W, out]`.
    """
    batch, height, width = padded.shape[0], padded.shape[1] - 2, padded.shape[2] - 2
    rows, features = _strips(height), kernel.shape[-1]
    matrix = kernel.reshape(-1, features)

    def strip(first: jax.Array) -> jax.Array:
        return (_patches(padded, first, rows) @ matrix).reshape(batch, rows, width, features)

    result = jax.lax.map(strip, jnp.arange(0, height, rows))
    return jnp.moveaxis(result, 0, 1).reshape(batch, height, width, features)


def _convolve_forward(padded: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_in_strips(padded, kernel), (padded, kernel)


def _convolve_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    padded, kernel = kept
    _, height, _, features = gradient.shape
    rows = _strips(height)

    def add(total: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
        strip = jax.lax.dynamic_slice_in_dim(gradient, first, rows, axis=1).reshape(-1, features)
        return total + _patches(padded, first, rows).T @ strip, None

    zero = jnp.zeros((9 * padded.shape[-1], features), kernel.dtype)
    to_kernel, _ = jax.lax.scan(add, zero, jnp.arange(0, height, rows))
    # Every input pixel gathers from its neighbours with the kernel turned round; two more rows make the
    # height divide into strips again.
    extra = -(height + 2) % rows
    around = jnp.pad(gradient, ((0, 0), (2, 2 + extra), (2, 2), (0, 0)))
    to_input = convolve_in_strips(around, kernel[::-1, ::-1].swapaxes(2, 3))[:, : height + 2]
    return to_input, to_kernel.reshape(kernel.shape)


convolve_in_strips.defvjp(_convolve_forward, _convolve_backward)


class Conv3x3(nn.Module):
    """3x3 convolution with bias, stride 1, reflection padding; kernel `[3, 3, in, out]`."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', INIT, (3, 3, x.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        convolve = convolve_in_strips if windows.on_cpu() else convolve_whole
        return convolve(reflect_pad(x), kernel) + bias.reshape(1, 1, 1, -1)


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
