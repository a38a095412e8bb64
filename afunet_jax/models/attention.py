"""The two attention kernels: within windows (SAM, SFM), and between channels (CFM).

In both, head h owns channels h * d to (h + 1) * d. How they lie in between is the kernels' own business, and is
chosen for speed. Softmax and norms are float32 in any case.
"""

import jax
import jax.numpy as jnp

from afunet_jax.models import chunks, windows

FLOAT32 = {'preferred_element_type': jnp.float32}  # of the products that a softmax or a norm is made of
NORM_FLOOR = 1e-12  # below this norm a channel is left as it is instead of divided by its norm


@jax.custom_vjp
def window_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, regions: jax.Array | None = None
) -> jax.Array:
    """softmax(q k^T d^(-1/2) + bias + mask) v, in every window and head.

    Args:
        q, k, v: `[n, N, heads * d]`, n windows of the whole batch.
        bias: learned relative position bias, `[heads, N, N]`, query before key.
        regions: int `[n, N]`, numbers of the regions of a shifted image: -100 is added to the logits of pixels
            that lie in different ones. None: no mask.

    Returns:
        `[n, N, heads * d]`. Memory: one array of n * heads * N * N numbers; nothing of that size is kept for
        the gradient, which computes the softmax anew, and takes three.
    """
    weights, total = _softmax(q, k, bias, regions)
    output = jnp.einsum('nhdj,nhji->nhdi', _channels(v, bias), weights.astype(v.dtype), **FLOAT32)
    return _from_channels((output / total).astype(v.dtype))


def _window_forward(q, k, v, bias, regions):
    return window_attention(q, k, v, bias, regions), (q, k, v, bias, regions)


def _window_backward(kept, gradient):
    q, k, v, bias, regions = kept
    weights, total = _softmax(q, k, bias, regions)
    weights = weights / total
    to_output = _channels(gradient, bias)
    to_v = jnp.einsum('nhdi,nhji->nhdj', to_output, weights.astype(v.dtype))
    to_weights = jnp.einsum('nhjd,nhdi->nhji', _tokens(v, bias), to_output, **FLOAT32)
    to_logits = weights * (to_weights - (weights * to_weights).sum(-2, keepdims=True))
    # The sum over windows as a product: twice as fast as XLA's reduction on a CPU.
    to_bias = (jnp.ones((1, len(to_logits))) @ to_logits.reshape(len(to_logits), -1)).reshape(bias.shape)
    scale, to_logits = _scale(q, bias), to_logits.astype(q.dtype)
    to_q = jnp.einsum('nhdj,nhji->nhdi', _channels(k, bias), to_logits) * scale
    to_k = jnp.einsum('nhdi,nhji->nhdj', _channels(q, bias), to_logits) * scale
    to_q, to_k, to_v = map(_from_channels, (to_q, to_k, to_v))
    return to_q, to_k, to_v, to_bias.swapaxes(1, 2), None


window_attention.defvjp(_window_forward, _window_backward)


def _softmax(q: jax.Array, k: jax.Array, bias: jax.Array, regions: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Exponentials `[n, heads, N, N]`, key before query, and their sums over keys `[n, heads, 1, N]`.

    Written out, and divided after the product with v: as `jax.nn.softmax` it costs XLA's CPU compiler the
    fast path of the small products. Keys come first because sums over rows are quicker than along them.
    """
    logits = jnp.einsum('nhjd,nhdi->nhji', _tokens(k, bias), _channels(q * _scale(q, bias), bias), **FLOAT32)
    logits = logits + bias.swapaxes(1, 2)[None]
    if regions is not None:
        logits = logits + windows.shift_mask(regions)[:, None]
    weights = jnp.exp(logits - logits.max(-2, keepdims=True))
    return weights, weights.sum(-2, keepdims=True)


def _scale(q: jax.Array, bias: jax.Array) -> float:
    return (q.shape[-1] // bias.shape[0]) ** -0.5


def _tokens(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`[n, N, heads * d]` to `[n, heads, N, d]`."""
    n, tokens, channels = x.shape
    return x.reshape(n, tokens, bias.shape[0], channels // bias.shape[0]).transpose(0, 2, 1, 3)


def _channels(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`[n, N, heads * d]` to `[n, heads, d, N]`."""
    return _tokens(x, bias).swapaxes(2, 3)


def _from_channels(x: jax.Array) -> jax.Array:
    """The inverse of `_channels`."""
    n, heads, d, tokens = x.shape
    return x.transpose(0, 3, 1, 2).reshape(n, tokens, heads * d)


def channel_attention(
    w: jax.Array, source: jax.Array, weights: tuple[jax.Array, ...], temperature: jax.Array, tile: chunks.Size
) -> jax.Array:
    """Transposed attention: softmax(q^T k temperature) v over the channels of each head, projected.

    q = w query, k = source key, v = source value; q and k are L2-normalised over all positions. The norms divide
    the `d x d` product instead of the feature maps, and value, attention and projection become one `C x C`
    matrix before they meet the map: the same, without maps of q, k and v.

    Args:
        w, source: `[B, H, W, C]`.
        weights: query, key, value and projection, `[C, C]`.
        temperature: `[heads]`, multiplies the logits.
        tile: the part of the image in which q and k are computed at once; it divides (H, W).

    Returns:
        `[B, H, W, C]`. Gradients are finite everywhere, also for channels that are zero at all positions.
    """
    query, key, value, projection = weights
    heads, channels = temperature.shape[0], w.shape[-1]
    d = channels // heads
    images = {'w': w, 'source': source}
    products, squares_q, squares_k = chunks.sum_tiles(_products, (query, key), images, tile)
    logits = jnp.stack([products[:, i : i + d, i : i + d] for i in range(0, channels, d)], 1)
    norm_q, norm_k = (_norm(squares).reshape(-1, heads, d) for squares in (squares_q, squares_k))
    logits = logits / norm_q[..., :, None] / norm_k[..., None, :]
    attended = jax.nn.softmax(logits * temperature[None, :, None, None], axis=-1)
    matrix = jnp.einsum('ihd,bhcd,hco->bio', value.reshape(channels, heads, d), attended,
                        projection.reshape(heads, d, channels))  # fmt: skip
    source_tokens = source.reshape(len(source), -1, channels)
    return jnp.einsum('bpi,bio->bpo', source_tokens, matrix.astype(source.dtype)).reshape(source.shape)


def _products(images: chunks.Images, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q^T k of all channels with all, of which the heads are the diagonal blocks, and the squares of q and k.

    The other blocks cost less than splitting the maps by head.
    """
    batch, *_, channels = images['w'].shape
    pairs = (images['w'], query), (images['source'], key)
    q, k = ((x.reshape(-1, channels) @ w.astype(x.dtype)).reshape(batch, -1, channels) for x, w in pairs)
    squares = [jnp.square(x.astype(jnp.float32)).sum(1) for x in (q, k)]
    return jnp.einsum('bpc,bpe->bce', q, k, **FLOAT32), *squares


def _norm(squares: jax.Array) -> jax.Array:
    """L2 norm from the sum of squares, at least `NORM_FLOOR`."""
    return jnp.sqrt(jnp.maximum(squares, NORM_FLOOR**2))
