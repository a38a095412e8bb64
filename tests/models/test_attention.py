"""The attention kernels against plain formulas, values and gradients, also on extreme logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax.models import attention

pytestmark = pytest.mark.usefixtures('quickly_compiled')


def plain_window_attention(q, k, v, bias, mask):
    """Head by head, as Eq. (12) and the Swin paper have it."""
    d, out = q.shape[-1] // len(bias), []
    for h in range(len(bias)):
        q_h, k_h, v_h = (x[..., h * d : (h + 1) * d] for x in (q, k, v))
        logits = q_h @ k_h.swapaxes(1, 2) / np.sqrt(d) + bias[h][None] + (0 if mask is None else mask)
        out.append(jax.nn.softmax(logits, axis=-1) @ v_h)
    return jnp.concatenate(out, -1)


def plain_channel_attention(w, source, weights, temperature):
    shape, (w, source) = w.shape, (x.reshape(len(x), -1, x.shape[-1]) for x in (w, source))
    q, k, v = w @ weights[0], source @ weights[1], source @ weights[2]
    heads, d = temperature.shape[0], q.shape[-1] // temperature.shape[0]
    out = []
    for h in range(heads):
        q_h, k_h, v_h = (x[..., h * d : (h + 1) * d].transpose(0, 2, 1) for x in (q, k, v))
        q_h, k_h = (x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in (q_h, k_h))
        out.append(jax.nn.softmax(q_h @ k_h.transpose(0, 2, 1) * temperature[h], axis=-1) @ v_h)
    return (jnp.concatenate(out, axis=1).transpose(0, 2, 1) @ weights[3]).reshape(shape)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def values_and_gradients(f, *args):
    def total(*args):
        output = f(*args)
        weights = jnp.cos(jnp.arange(output.size)).reshape(output.shape)
        return (output * weights).sum(), output

    (_, output), gradients = jax.jit(jax.value_and_grad(total, argnums=tuple(range(len(args))), has_aux=True))(*args)
    return output, gradients


def assert_close(ours, plain, tolerance=2e-6):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.parametrize('scale', [1.0, 30.0])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize(('heads', 'd'), [(2, 5), (1, 12), (4, 18)])
def test_window_attention_is_the_plain_formula(scale, masked, heads, d):
    q, k, v = (scale * normal(i, 6, 16, heads * d) for i in range(3))
    bias = normal(3, heads, 16, 16)
    regions = (normal(4, 6, 16) > 0).astype(jnp.int32) if masked else None
    mask = jnp.where(regions[:, :, None] == regions[:, None], 0.0, -100.0) if masked else None
    ours = values_and_gradients(lambda *a: attention.window_attention(*a, regions), q, k, v, bias)
    plain = values_and_gradients(lambda *a: plain_window_attention(*a, mask), q, k, v, bias)
    # Rounding of the logits, which grow with scale ** 2, is a relative error of the weights.
    assert_close(ours, plain, 1e-6 * max(1, scale**2))


def test_window_attention_survives_logits_that_overflow_exp():
    q = jnp.full((1, 4, 2), 1e3)
    k = jnp.asarray([[[1e3, 0], [0, 0], [-1e3, 0], [0, -1e3]]])
    v = normal(0, 1, 4, 2)
    output, gradients = values_and_gradients(attention.window_attention, q, k, v, jnp.zeros((1, 4, 4)))
    np.testing.assert_allclose(output, jnp.broadcast_to(v[:, :1], output.shape), rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)
    for gradient in (gradients[0], gradients[1], gradients[3]):  # the winner takes all, whatever moves a little
        np.testing.assert_array_equal(gradient, 0)


def test_window_attention_keeps_no_logits_for_its_gradient():
    q, k, v, bias = (jax.ShapeDtypeStruct(s, jnp.float32) for s in [(6, 16, 8)] * 3 + [(2, 16, 16)])
    _, pull = jax.eval_shape(lambda *a: jax.vjp(attention.window_attention, *a), q, k, v, bias)
    assert max(leaf.size for leaf in jax.tree.leaves(pull)) <= 6 * 16 * 8


def channel_weights(channels, scale=1.0):
    return tuple(scale * normal(10 + i, channels, channels) for i in range(4))


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e3])
@pytest.mark.parametrize('tile', [(6, 8), (2, 8), (3, 4)])
def test_channel_attention_is_the_plain_formula(scale, tile):
    w, source = (scale * normal(i, 2, 6, 8, 12) for i in range(2))
    temperature = jnp.asarray([0.7, 20.0])
    ours = values_and_gradients(
        lambda *a: attention.channel_attention(*a, tile), w, source, channel_weights(12), temperature
    )
    plain = values_and_gradients(plain_channel_attention, w, source, channel_weights(12), temperature)
    assert_close(ours, plain, 1e-5)


@pytest.mark.parametrize('tile', [(3, 4), (1, 2)])
def test_channels_that_are_zero_everywhere_have_finite_gradients(tile):
    w = normal(0, 1, 3, 4, 4).at[..., 1].set(0)
    query, _, value, projection = channel_weights(4)
    weights = query.at[:, 1].set(0), jnp.zeros((4, 4)), value, projection
    output, gradients = values_and_gradients(
        lambda *a: attention.channel_attention(*a, tile), w, normal(1, 1, 3, 4, 4), weights, jnp.ones(2)
    )
    assert np.isfinite(output).all() and all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
