"""The two attention kernels: within windows (SAM, SFM), and between channels (CFM)."""

import jax
import jax.numpy as jnp

NORM_FLOOR = 1e-12  # below this norm a channel is left as it is instead of divided by its norm


def window_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """softmax(q k^T d^(-1/2) + bias + mask) v, in every window and head.

    The softmax is written out and its division done after the product with v, on `[N, d]` instead of
    `[N, N]`: as `jax.nn.softmax` it costs XLA's CPU compiler the fast path of the small products.

    Args:
        q, k, v: `[n, heads, N, d]`, n windows of the whole batch.
        bias: learned relative position bias, `[heads, N, N]`.
        mask: added to the logits of all heads, `[n, N, N]`, or None.

    Returns:
        `[n, heads, N, d]`. Memory: three arrays of n * heads * N * N numbers when differentiated, one when not.
    """
    d = q.shape[-1]
    logits = jnp.einsum('nhid,nhjd->nhij', q * d**-0.5, k) + bias[None]
    if mask is not None:
        logits = logits + mask[:, None]
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    return jnp.einsum('nhij,nhjd->nhid', weights, v) / weights.sum(-1, keepdims=True)


def channel_attention(q: jax.Array, k: jax.Array, v: jax.Array, temperature: jax.Array) -> jax.Array:
    """Transposed attention: softmax(q^T k temperature) v over the channels of each head.

    q and k are L2-normalised over all positions. The norms divide the `d x d` product instead of the
    feature maps, which is the same and saves two passes over them.

    Args:
        q, k, v: `[B, P, C]`, P = H * W positions; head h owns channels h * d to (h + 1) * d.
        temperature: `[heads]`, multiplies the logits.

    Returns:
        `[B, P, C]`. Gradients are finite everywhere, also for channels that are zero at all positions.
    """
    batch, positions, channels = q.shape
    heads = temperature.shape[0]
    q, k, v = (x.reshape(batch, positions, heads, channels // heads) for x in (q, k, v))
    logits = jnp.einsum('bphc,bphd->bhcd', q, k)
    logits = logits / _norm(q)[..., :, None] / _norm(k)[..., None, :]
    weights = jax.nn.softmax(logits * temperature[None, :, None, None], axis=-1)
    return jnp.einsum('bhcd,bphd->bphc', weights, v).reshape(batch, positions, channels)


def _norm(x: jax.Array) -> jax.Array:
    """L2 norm over positions, at least `NORM_FLOOR`: `[B, P, heads, d]` to `[B, heads, d]`."""
    return jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=1), NORM_FLOOR**2))
