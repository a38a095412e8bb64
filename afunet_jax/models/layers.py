"""Layers that the blocks are built from: dense layers, MLP, stochastic depth, 3x3 convolutions."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from afunet_jax.models.chunks import Images, map_tiles, memory_like
from afunet_jax.models.execution import Execution, on_cpu

INIT_STD = 0.02
NORM_EPSILON = 1e-5  # added to the variance
STRIP_PIXELS = 2048  # of a strip of a convolution on a CPU, in rows, at least one: what is made of it stays in the cache
INIT = nn.initializers.normal(INIT_STD)  # of every weight and position table; biases start at 0


Weights = tuple[jax.Array, ...]


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`x @ kernel + bias` on the last axis in the type of `x`, computed on a two-dimensional token matrix.

    A weight gradient that contracts one axis is a plain matrix product; one that contracts three misses
    the fast path of XLA's CPU compiler.
    """
    y = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    y = y if bias is None else y + bias.astype(x.dtype)[None]
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def normal_deviation(variance: jax.Array) -> jax.Array:
    """What LayerNorm divides by."""
    return jnp.sqrt(variance + NORM_EPSILON)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """LayerNorm over the last axis, eps 1e-5, mean and variance in two passes. Computed in float32."""
    vector = (1,) * (x.ndim - 1) + (-1,)
    values = x.astype(jnp.float32)
    centred = values - values.mean(-1, keepdims=True)
    deviation = normal_deviation((centred * centred).mean(-1, keepdims=True))
    return (centred / deviation * scale.reshape(vector) + bias.reshape(vector)).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """Exact (erf) GELU. Computed in float32."""
    values = x.astype(jnp.float32)
    return (0.5 * values * (1 + jax.lax.erf(values * 0.5**0.5))).astype(x.dtype)


def mlp(x: jax.Array, fc1: Weights, fc2: Weights) -> jax.Array:
    """Dense, exact GELU, dense."""
    return dense(gelu(dense(x, *fc1)), *fc2)


def _mlp_of_parts(parts: Images, fc1: Weights, fc2: Weights) -> jax.Array:
    return mlp(jnp.concatenate(list(parts.values()), -1), fc1, fc2)


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
    """MLP(a, h, b): Dense a -> h, exact GELU, Dense h -> b. In tiles, see `chunks.map_tiles`."""

    hidden: int
    features: int
    execution: Execution = Execution()

    @nn.compact
    def weights(self, channels: int) -> tuple[Weights, Weights]:
        """Of both dense layers."""
        return Dense(self.hidden, name='fc1').weights(channels), Dense(self.features, name='fc2').weights(self.hidden)

    def __call__(self, *parts: jax.Array, after: jax.Array | None = None) -> jax.Array:
        """Of images `[B, H, W, C]`, put together by channels.

        `after`: an image that is computed just before, if the first part is needed again; else that gives its memory.
        """
        weights = self.weights(sum(x.shape[-1] for x in parts))
        images = {f'part_{i}': x for i, x in enumerate(parts)}
        tile = self.execution.tile(parts[0].shape, 1)
        over = 'part_0' if after is None and parts[0].shape[-1] == self.features else None
        return map_tiles(_mlp_of_parts, weights, images, {}, tile, self.execution.recompute, over, after)


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


def convolve_whole(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution with reflection padding, by the library. `[B, H, W, C]` to `[B, H, W, out]`."""
    return jax.lax.conv_general_dilated(
        reflect_pad(x), kernel.astype(x.dtype), (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_in_strips(x: jax.Array, kernel: jax.Array, parts: int = 1) -> tuple[jax.Array, ...]:
    """`convolve_whole` as matrix products on strips of rows, forward and backward, its channels split into parts.

    Three times as fast as XLA's convolution on a CPU, and its gradients nearly twice, because a strip stays in the
    cache. Memory beyond the input and the result: that of a strip.
    """

    def put(results: tuple[jax.Array, ...], first: jax.Array, rows: int) -> tuple[jax.Array, ...]:
        strip = _convolve(_columns(_reflected(x, first, rows)), kernel)
        return _put(results, tuple(jnp.split(strip, parts, -1)), first)

    return _for_strips(put, (_memory(x, kernel.shape[-1] // parts),) * parts, *x.shape[1:3])


def _strips_forward(x: jax.Array, kernel: jax.Array, parts: int) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    return convolve_in_strips(x, kernel, parts), (x, kernel)


def _strips_backward(
    parts: int, kept: tuple[jax.Array, jax.Array], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    (x, kernel), gradient = kept, jnp.concatenate(gradients, -1)
    turned = kernel[::-1, ::-1].swapaxes(2, 3)  # every pixel gathers from its neighbours, the kernel turned round
    height = x.shape[1]
    around = jnp.pad(gradient, ((0, 0), (2, 2), (2, 2), (0, 0)))

    def add(sums: tuple[jax.Array, jax.Array], first: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
        to_padded, to_kernel = sums
        strip = _take(gradient, first, rows).reshape(-1, gradient.shape[-1])
        products = [jnp.matmul(tokens.T, strip, preferred_element_type=kernel.dtype)
                    for tokens in _by_row(_columns(_reflected(x, first, rows)))]  # fmt: skip
        part = _convolve(_columns(_take(around, first, rows + 2)), turned)
        return _put(to_padded, part, first), to_kernel + jnp.stack(products)

    # The padded input's gradient: its last two rows, below the last strip, come after the loop.
    to_padded = jnp.pad(_memory(gradient, x.shape[-1]), ((0, 0), (0, 2), (0, 2), (0, 0)))
    zero = jnp.zeros((3, 3 * x.shape[-1], kernel.shape[-1]), kernel.dtype)
    to_padded, to_kernel = _for_strips(add, (to_padded, zero), *x.shape[1:3])
    rest = _convolve(_columns(_take(around, height, 4)), turned)
    return _unreflected(_put(to_padded, rest, height)), to_kernel.reshape(kernel.shape)


convolve_in_strips.defvjp(_strips_forward, _strips_backward)


def _memory(x: jax.Array, channels: int) -> jax.Array:
    """For the result of a layer of `x`, see `chunks.memory_like`."""
    return memory_like(jax.ShapeDtypeStruct((*x.shape[:-1], channels), x.dtype), x)


def _for_strips(body: Callable[..., Any], sums: Any, height: int, width: int) -> Any:
    """Runs `body(sums, first row, rows)` for all strips; their rows divide the height."""
    rows = max(rows for rows in range(1, max(1, STRIP_PIXELS // width) + 1) if height % rows == 0)
    return jax.lax.fori_loop(0, height // rows, lambda i, sums: body(sums, i * rows, rows), sums)


def _take(x: jax.Array, first: Any, rows: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, first, rows, axis=1)


def _put(images: Any, strips: Any, first: Any) -> Any:
    return jax.tree.map(lambda x, strip: jax.lax.dynamic_update_slice_in_dim(x, strip, first, axis=1), images, strips)


def _reflected(x: jax.Array, first: jax.Array, rows: int) -> jax.Array:
    """Rows `first - 1` to `first + rows` of an image padded by reflection: `[B, rows + 2, W + 2, C]`."""
    height = x.shape[1]
    above = jnp.where(first == 0, 1, first - 1)
    below = jnp.where(first + rows == height, height - 2, first + rows)
    strip = jnp.concatenate([_take(x, above, 1), _take(x, first, rows), _take(x, below, 1)], 1)
    return jnp.concatenate([strip[:, :, 1:2], strip, strip[:, :, -2:-1]], 2)


def _unreflected(padded: jax.Array) -> jax.Array:
    """The gradient of `reflect_pad`: `[B, H + 2, W + 2, C]` to `[B, H, W, C]`."""
    x = padded[:, 1:-1].at[:, 1].add(padded[:, 0]).at[:, -2].add(padded[:, -1])
    return x[:, :, 1:-1].at[:, :, 1].add(x[:, :, 0]).at[:, :, -2].add(x[:, :, -1])


def _columns(strip: jax.Array) -> jax.Array:
    """Every pixel beside its neighbours in its row: `[B, rows, W + 2, C]` to `[B, rows, W, 3 * C]`.

    Neighbourhoods in rows and columns would be three times as much to copy, and XLA copies on one core.
    """
    width = strip.shape[2] - 2
    return jnp.concatenate([strip[:, :, j : j + width] for j in range(3)], -1)


def _by_row(columns: jax.Array) -> list[jax.Array]:
    """`[B, rows + 2, W, 3 * C]` to the tokens `[B * rows * W, 3 * C]` in the row above the pixels, theirs, and below."""
    rows = columns.shape[1] - 2
    return [columns[:, i : i + rows].reshape(-1, columns.shape[-1]) for i in range(3)]


def _convolve(columns: jax.Array, kernel: jax.Array) -> jax.Array:
    """A strip `[B, rows, W, out]` of a convolution from `_columns` of the rows and those around them."""
    batch, rows, width, channels = columns.shape
    matrices = kernel.reshape(3, channels, -1).astype(columns.dtype)
    products = (tokens @ matrix for tokens, matrix in zip(_by_row(columns), matrices))
    return sum(products).reshape(batch, rows - 2, width, -1)


class Conv3x3(nn.Module):
    """3x3 convolution with bias, stride 1, reflection padding; kernel `[3, 3, in, out]`."""

    features: int

    @nn.compact
    def in_parts(self, x: jax.Array, parts: int) -> list[jax.Array]:
        """The result's channels in so many parts: apart they need less memory."""
        kernel = self.param('kernel', INIT, (3, 3, x.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,)).astype(x.dtype).reshape(1, 1, 1, -1)
        if on_cpu():
            found = convolve_in_strips(x, kernel, parts)
        else:
            found = jnp.split(convolve_whole(x, kernel), parts, -1)
        return [part + b for part, b in zip(found, jnp.split(bias, parts, -1), strict=True)]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.in_parts(x, 1)[0]


def depthwise_whole(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise 3x3 convolution with reflection padding, `[B, H, W, C]`, kernel `[3, 3, C]`.

    A sum of nine shifted images, which XLA fuses into one loop; grouped convolutions are slow on CPUs.
    """
    (height, width), padded = x.shape[1:3], reflect_pad(x)
    shifted = ((padded[:, i : i + height, j : j + width], kernel[i, j]) for i in range(3) for j in range(3))
    total = sum(x.astype(jnp.float32) * weight.reshape(1, 1, 1, -1) for x, weight in shifted)
    return total.astype(x.dtype)


@jax.custom_vjp
def depthwise_in_strips(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`depthwise_whole` for a CPU: without a padded copy of the image, which is a third of the peak.

    Rows are taken as vectors of W * C numbers, in which a pixel's neighbour is C places away: three times as fast as
    loops over C channels.
    """
    wide = _wide(kernel, x.shape[2])

    def put(result: jax.Array, first: jax.Array, rows: int) -> jax.Array:
        return _put(result, _depthwise(_reflected(x, first, rows), wide).astype(x.dtype), first)

    return _for_strips(put, _memory(x, x.shape[-1]), *x.shape[1:3])


def _depthwise_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    batch, height, width, channels = x.shape
    flat = gradient.reshape(batch * height, -1).astype(jnp.float32)
    ones = jnp.ones((1, batch * height), jnp.float32)  # a sum over rows as a product: XLA sums on one core
    sums = [ones @ (part.reshape(flat.shape) * flat) for part in _shifted(reflect_pad(x))]
    to_kernel = jnp.stack(sums).reshape(3, 3, width, channels).sum(2)
    around = jnp.pad(gradient, ((0, 0), (2, 2), (2, 2), (0, 0)))
    to_padded = _depthwise(around, _wide(kernel[::-1, ::-1], width + 2))
    return _unreflected(to_padded).astype(x.dtype), to_kernel


depthwise_in_strips.defvjp(lambda x, kernel: (depthwise_in_strips(x, kernel), (x, kernel)), _depthwise_backward)


def _depthwise(padded: jax.Array, wide: jax.Array) -> jax.Array:
    """`[B, rows + 2, W + 2, C]` to `[B, rows, W, C]`, float32; the kernel from `_wide`."""
    batch, rows, width, channels = padded.shape
    total = sum(part.astype(jnp.float32) * weight for part, weight in zip(_shifted(padded), wide, strict=True))
    return total.reshape(batch, rows - 2, width - 2, channels)


def _wide(kernel: jax.Array, width: int) -> jax.Array:
    """`[3, 3, C]` to `[9, 1, 1, width * C]`, for rows as vectors."""
    return jnp.tile(kernel.reshape(9, 1, 1, -1).astype(jnp.float32), width)


def _shifted(padded: jax.Array) -> list[jax.Array]:
    """The nine neighbours of all pixels, rows as vectors: `[B, rows + 2, W + 2, C]` to `[B, rows, W * C]`."""
    batch, rows, width, channels = padded.shape
    flat = padded.reshape(batch, rows, -1)
    length = (width - 2) * channels
    return [flat[:, i : i + rows - 2, j * channels : j * channels + length] for i in range(3) for j in range(3)]


class DepthwiseConv3x3(nn.Module):
    """Depthwise 3x3 convolution with bias, stride 1, reflection padding; kernel `[3, 3, channels]`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', INIT, (3, 3, x.shape[-1]))
        bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        convolve = depthwise_in_strips if on_cpu() else depthwise_whole
        return convolve(x, kernel) + bias.astype(x.dtype).reshape(1, 1, 1, -1)
