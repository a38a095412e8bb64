"""The fused kernels in Pallas' interpret mode against the plain formula; and lowered to Triton for a GPU."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afunet_jax.errors import ConfigError
from afunet_jax.models import fused_attention, windows
from afunet_jax.models.fused_attention import fused_window_attention

pytestmark = pytest.mark.usefixtures('quickly_compiled')

TOLERANCE = 2e-6  # of the largest number of a result, or of 1: some float32 roundings of sums over N and d
SWIN, SAM = (4, 64, 18), (2, 64, 12)  # heads, N, d


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def integers(seed, low, high, *shape):
    return jax.random.randint(jax.random.key(seed), shape, low, high).astype(jnp.float32)


def random_inputs(n, heads, size, d):
    q, k, v = (normal(i, n, size, heads * d) for i in range(3))
    return (q, k, v), normal(3, heads, size, size)


def some_regions(n, size):
    return jax.random.randint(jax.random.key(9), (n, size), 0, 3)


def split_heads(tokens, heads):
    """q, k, v as `[n, heads, N, d]` each."""
    x = jnp.concatenate(tokens, -1)
    return x.reshape(*x.shape[:2], 3, heads, -1).transpose(2, 0, 3, 1, 4)


def join_heads(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def plain(tokens, bias, regions):
    """The formula as it is written in the paper on Swin, and JAX's own derivative of it."""
    q, k, v = split_heads(tokens, bias.shape[0])
    logits = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]) + bias[None]
    if regions is not None:
        logits = logits + windows.shift_mask(regions)[:, None]
    return join_heads(jax.nn.softmax(logits, axis=-1) @ v)


def fused(tokens, bias, regions):
    return fused_window_attention(tokens, bias, regions, interpret=True)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(f, tokens, bias, regions):
    """The result, and the gradients of tokens and bias for an arbitrary gradient of the result."""
    output, pull = jax.vjp(lambda tokens, bias: f(tokens, bias, regions), tokens, bias)
    weights = jnp.cos(jnp.arange(output.size)).reshape(output.shape).astype(output.dtype)
    return output, *pull(weights)


def assert_close(ours, theirs, tolerance=TOLERANCE, least=1.0):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(least, np.abs(b).max()))


def check(tokens, bias, regions, tolerance=TOLERANCE):
    output, d_tokens, d_bias = value_and_gradients(fused, tokens, bias, regions)
    expected, d_tokens_expected, d_bias_expected = value_and_gradients(plain, tokens, bias, regions)
    assert_close((output, d_bias), (expected, d_bias_expected), tolerance)
    # Those of q and k are sums that may cancel, of numbers below 1 times the scaled entries of k and q.
    terms = max(1.0, *(float(jnp.abs(x).max()) for x in tokens)) * (output.shape[-1] // bias.shape[0]) ** -0.5
    assert_close(d_tokens, d_tokens_expected, tolerance, max(1.0, terms))
    return output, d_tokens, d_bias


@pytest.mark.parametrize(
    ('heads', 'size', 'd', 'shifted'),
    [
        (*SWIN, False),
        (*SWIN, True),
        (*SAM, False),
        (2, 16, 8, True),
        (1, 16, 16, False),
        (3, 16, 18, True),
        (2, 64, 32, True),
    ],
)
def test_values_and_gradients_are_those_of_the_plain_formula(heads, size, d, shifted):
    check(*random_inputs(3, heads, size, d), some_regions(3, size) if shifted else None)


@pytest.mark.parametrize('n', [1, 601])
def test_any_number_of_windows_fills_the_programs(n):
    check(*random_inputs(n, 2, 16, 4), some_regions(n, 16))


def test_the_regions_of_a_shifted_image():
    regions = windows.regions_of_windows(jnp.asarray(windows.shift_regions(8, 24, 8, 4)), 8)
    assert len(set(np.asarray(regions).ravel())) == 6
    check(*random_inputs(3, *SWIN), regions)


def saturated(n, heads, size, d):
    """Logits of up to some thousands, most rows with a single weight."""
    (_, _, v), bias = random_inputs(n, heads, size, d)
    return (integers(0, -64, 64, *v.shape), integers(1, -64, 64, *v.shape), v), jnp.round(bias)


def far_from_zero(n, heads, size, d):
    """Logits around 1000 with many weights in every row."""
    (_, _, v), bias = random_inputs(n, heads, size, d)
    q, k = (integers(i, -2, 3, *v.shape).at[..., ::d].set(64) for i in range(2))
    return (q, k, v), jnp.round(bias)


def equal(n, heads, size, d):
    (_, k, v), bias = random_inputs(n, heads, size, d)
    return (jnp.zeros_like(k), k, v), jnp.full_like(bias, -7)


def one_hot(n, heads, size, d):
    (q, k, v), _ = random_inputs(n, heads, size, d)
    return (q, k, v), 1e4 * jnp.broadcast_to(jnp.eye(size)[::-1], (heads, size, size))


# Integers and d = 16 make the logits exact in float32: any order of sums gives the same ones.
@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('inputs', [saturated, far_from_zero, equal, one_hot])
def test_extreme_logits(inputs, shifted):
    tokens, bias = inputs(3, 2, 64, 16)
    q, k, v = split_heads(tokens, 2)
    output, d_tokens, _ = check(tokens, bias, some_regions(3, 64) if shifted else None)
    if inputs is equal and not shifted:
        mean = jnp.broadcast_to(v.mean(2, keepdims=True), v.shape)
        np.testing.assert_allclose(output, join_heads(mean), atol=1e-6)
    if inputs is one_hot:
        np.testing.assert_array_equal(output, join_heads(v[:, :, ::-1]))
        assert not jnp.any(d_tokens[0])
    if inputs is saturated:
        assert jnp.abs(jnp.einsum('nhid,nhjd->nhij', q, k) / 4).max() > 3000


def test_pixels_that_are_all_in_regions_of_their_own_attend_to_themselves():
    tokens, bias = random_inputs(3, *SWIN)
    output, *_ = check(tokens, bias, jnp.broadcast_to(jnp.arange(64), (3, 64)))
    np.testing.assert_allclose(output, tokens[2], atol=1e-6)


@pytest.mark.parametrize('cuts', [[0, 3], [0, 1, 3]])
def test_parts_may_lie_in_one_array_or_in_several(cuts):
    parts, bias = random_inputs(3, *SAM)
    joined = tuple(jnp.concatenate(parts[a:b], -1) for a, b in itertools.pairwise(cuts))
    output, d_joined, d_bias = value_and_gradients(fused, joined, bias, None)
    expected, d_parts, d_bias_expected = value_and_gradients(fused, parts, bias, None)
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(jnp.concatenate(d_joined, -1), jnp.concatenate(d_parts, -1))
    np.testing.assert_array_equal(d_bias, d_bias_expected)


def test_padding_of_a_head_reads_and_writes_nothing_of_the_next():
    (q, k, v), bias = random_inputs(3, *SWIN)
    spoilt = tuple(x.at[..., 18:36].set(jnp.nan) for x in (q, k, v))
    ours = value_and_gradients(fused, spoilt, bias, None)
    theirs = value_and_gradients(fused, (q, k, v), bias, None)
    keep = np.r_[0:18, 36:72]
    for a, b in zip(jax.tree.leaves(ours[:2]), jax.tree.leaves(theirs[:2]), strict=True):
        np.testing.assert_array_equal(a[..., keep], b[..., keep])
        assert jnp.isnan(a[..., 18:36]).all()
    np.testing.assert_array_equal(jnp.delete(ours[2], 1, 0), jnp.delete(theirs[2], 1, 0))


def test_bfloat16_stays_within_its_rounding():
    tokens, bias = random_inputs(3, *SWIN)
    tokens = tuple(x.astype(jnp.bfloat16) for x in tokens)
    exact = tuple(x.astype(jnp.float32) for x in tokens)
    ours = value_and_gradients(fused, tokens, bias, some_regions(3, 64))
    theirs = value_and_gradients(plain, exact, bias, some_regions(3, 64))
    assert [x.dtype for x in jax.tree.leaves(ours)] == 4 * [jnp.bfloat16] + [jnp.float32]
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.linalg.norm(a.astype(jnp.float32) - b) < 2**-8 * jnp.linalg.norm(b)
    assert_close(ours, theirs, 2**-7)


def test_it_works_in_chunks_that_a_gradient_computes_anew():
    (q, k, v), bias = random_inputs(6, *SAM)
    tokens, regions = (q, jnp.concatenate([k, v], -1)), some_regions(6, 64)

    def chunked(tokens, bias, regions):
        rows = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (tokens, regions))
        call = jax.checkpoint(lambda rows, bias: fused(rows[0], bias, rows[1]))
        return jax.lax.map(lambda rows: call(rows, bias), rows).reshape(q.shape)

    args = tokens, bias, regions
    assert_close(value_and_gradients(chunked, *args), value_and_gradients(plain, *args))


def equations(jaxpr):
    """All equations outside the kernels."""
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name != 'pallas_call':
            for value in equation.params.values():
                inner = getattr(value, 'jaxpr', value)
                if hasattr(inner, 'eqns'):
                    yield from equations(inner)


def kernels(jaxpr):
    return [e.params['jaxpr'] for e in equations(jaxpr) if e.primitive.name == 'pallas_call']


def shapes(n, heads, size, d, dtype=jnp.float32, parts=(3,)):
    tokens = tuple(jax.ShapeDtypeStruct((n, size, part * heads * d), dtype) for part in parts)
    bias = jax.ShapeDtypeStruct((heads, size, size), jnp.float32)
    return tokens, bias, jax.ShapeDtypeStruct((n, size), jnp.int32)


def gradients(tokens, bias, regions):
    output, pull = jax.vjp(lambda tokens, bias: fused_window_attention(tokens, bias, regions), tokens, bias)
    return output, pull(output)


def test_memory_holds_neither_logits_nor_mask_nor_copies_of_tokens():
    n, (heads, size, d) = 2048, SWIN
    jaxpr = jax.make_jaxpr(gradients)(*shapes(n, *SWIN)).jaxpr
    seen = list(equations(jaxpr))
    arrays = {x.aval.shape for e in seen for x in e.outvars}
    partial_sums = (fused_attention.BACKWARD_PROGRAMS, heads, size, size)
    tokens, output, bias = (n, size, 3 * heads * d), (n, size, heads * d), (heads, size, size)
    assert arrays == {tokens, output, bias, partial_sums}
    assert len(kernels(jaxpr)) == 2
    assert {e.primitive.name for e in seen} <= {'pallas_call', 'reduce_sum', 'custom_vjp_call', 'jit', 'pjit'}


def test_products_of_float32_are_full_float32():
    products = [
        e
        for kernel in kernels(jax.make_jaxpr(gradients)(*shapes(8, *SWIN)).jaxpr)
        for e in equations(kernel)
        if e.primitive.name == 'dot_general'
    ]
    assert len(products) == 2 + 5
    for e in products:
        assert set(e.params['precision']) == {jax.lax.Precision.HIGHEST}
        assert e.outvars[0].aval.dtype == jnp.float32


def a_gpu():
    """An H100 that is not there: new releases of JAX ask for which GPU they lower."""
    device = jax.sharding.AbstractDevice(device_kind='NVIDIA H100', num_cores=132, platform='gpu')
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.AbstractMesh((1,), ('x',), auto, abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ('n', 'heads', 'size', 'd', 'parts'),
    [
        (1024, *SWIN, (3,)),
        (1024, *SAM, (1, 2)),
        (5, 2, 16, 8, (1, 1, 1)),
        (375_000, *SWIN, (3,)),  # a photo of 4000x6000, more than 2^32 bytes
    ],
)
def test_triton_takes_the_kernels(n, heads, size, d, parts, dtype):
    with a_gpu():
        traced = jax.jit(gradients).trace(*shapes(n, heads, size, d, dtype, parts))
        lowered = traced.lower(lowering_platforms=('cuda',))
    text = lowered.as_text()
    assert text.count('custom_call @') == text.count('xla.gpu.triton') == 2
    assert 'addptr' in text and 'atomic' not in text  # sums in a fixed order


def test_what_the_kernels_cannot_do_is_said():
    def call(n, heads, size, d, dtype=jnp.float32):
        tokens, bias, regions = shapes(n, heads, size, d, dtype)
        return jax.eval_shape(fused_window_attention, tokens, bias, regions)

    with pytest.raises(ConfigError, match='power of two, not 36'):
        call(2, 2, 36, 8)
    with pytest.raises(ConfigError, match='not 256'):
        call(2, 2, 256, 8)
    with pytest.raises(ConfigError, match='at most 64 channels a head, not 65'):
        call(2, 2, 16, 65)
    with pytest.raises(ConfigError, match='not float16'):
        call(2, 2, 16, 8, jnp.float16)
    assert call(2, 2, 16, 64).shape == (2, 16, 128)


def test_shapes_must_belong_together():
    (tokens,), bias, regions = shapes(4, 2, 16, 8)
    cut = jax.ShapeDtypeStruct((4, 16, 40), jnp.float32)
    for args in [((cut,), bias, regions), ((tokens,), bias, shapes(3, 2, 16, 8)[2])]:
        with pytest.raises(ValueError, match=r'\[n, N'):
            jax.eval_shape(fused_window_attention, *args)
    with pytest.raises(ValueError, match='bias'):
        jax.eval_shape(fused_window_attention, (tokens,), shapes(4, 2, 64, 8)[1], regions)
