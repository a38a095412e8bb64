import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from small import MODEL

from afunet_jax import hdr
from afunet_jax.models import afunet
from afunet_jax.models.blend import CANDIDATES, Blend

SIZE = (2, 11, 14)  # no multiple of the window
EXPOSURES = ((0, 2, 4), (-3, 0, 3), (-60, 0, 60), (0, 0, 0))


def photos(evs=(0, 2, 4), seed=0):
    """The network's input, `[2, 11, 14, 18]`."""
    ldrs = np.random.default_rng(seed).random((SIZE[0], 3, *SIZE[1:], 3), np.float32)
    return np.stack([hdr.network_input(one, np.array(evs)) for one in ldrs])


def with_parameters(seed=1, deviation=0.3):
    """A head, its parameters, what it is given: features, the network's image, the input."""
    rng = np.random.default_rng(seed)
    head = Blend(6)
    features, merged = rng.standard_normal((*SIZE, 5)).astype(np.float32), rng.random((*SIZE, 3), np.float32)
    x = photos()
    shapes = jax.eval_shape(head.init, jax.random.key(0), features, merged, x)['params']
    params = jax.tree.map(lambda leaf: (deviation * rng.standard_normal(leaf.shape)).astype(np.float32), shapes)
    return head, params, (features, merged, x)


def candidates(merged, x):
    return np.stack([merged, *(x[..., 6 * i : 6 * i + 3] for i in range(3))])


def convolution(x, weights):
    padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.einsum('bhwcij,ijco->bhwo', windows, np.float64(weights['kernel'])) + weights['bias']


def test_it_is_a_softmax_over_the_network_and_the_exposures():
    head, params, (features, merged, x) = with_parameters()
    compressed = [np.log1p(5000 * np.float64(image)) / np.log(5001) for image in candidates(merged, x)]
    seen = np.concatenate([features, *compressed, *(x[..., 6 * i + 3 : 6 * i + 6] for i in range(3))], -1)
    for name in ('hidden_0', 'hidden_1'):
        seen = convolution(seen, params[name])
        seen = seen * scipy.special.ndtr(seen)
    logits = convolution(seen, params['weights']).reshape(*SIZE, CANDIDATES, 3)
    expected = (scipy.special.softmax(logits, -2) * np.moveaxis(candidates(merged, x), 0, -2)).sum(-2)
    actual = jax.jit(head.apply)({'params': params}, features, merged, x)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('evs', EXPOSURES)
@pytest.mark.parametrize('deviation', [0.0, 0.3, 100.0])
def test_the_result_lies_between_the_candidates(evs, deviation):
    head, params, (features, merged, _) = with_parameters(deviation=deviation)
    x = photos(evs)
    result = np.asarray(head.apply({'params': params}, features, merged, x))
    given = candidates(merged, x)
    slack = 1e-6 * given.max(0)
    assert np.isfinite(result).all()
    assert (result >= given.min(0) - slack).all() and (result <= given.max(0) + slack).all()


@pytest.mark.parametrize('chosen', range(CANDIDATES))
def test_one_candidate_can_be_taken_as_it_is(chosen):
    head, params, (features, merged, x) = with_parameters(deviation=0.0)
    params['weights']['bias'] = np.repeat(200 * (np.arange(CANDIDATES) == chosen), 3).astype(np.float32)
    result = head.apply({'params': params}, features, merged, x)
    np.testing.assert_array_equal(result, candidates(merged, x)[chosen])


@pytest.mark.parametrize('evs', EXPOSURES)
def test_gradients_are_finite_and_reach_all_parameters(evs):
    head, params, (features, merged, _) = with_parameters()

    def loss(params):
        return hdr.mu_law(head.apply({'params': params}, features, merged, jnp.asarray(photos(evs)))).mean()

    gradients = jax.tree.leaves(jax.grad(loss)(params))
    assert all(np.isfinite(g).all() and g.any() for g in gradients)


def test_in_the_network_it_comes_after_equation_16_and_changes_nothing_else():
    plain, blending = afunet.build(MODEL), afunet.build({**MODEL, 'head': 'blend'})
    params = afunet.init_params(blending, 0)
    rest = {name: params[name] for name in params if name != 'blend'}
    assert jax.tree.structure(rest) == jax.tree.structure(afunet.init_params(plain, 0))
    x = photos()
    apply = jax.jit(lambda p, x: blending.apply({'params': p}, x))
    expected = jax.jit(lambda p, x: plain.apply({'params': p}, x))(rest, x)
    params['blend']['weights']['bias'] = np.repeat([200, 0, 0, 0], 3).astype(np.float32)
    np.testing.assert_allclose(apply(params, x), expected, rtol=0, atol=1e-6)
    params['blend']['weights']['bias'] = np.repeat([0, 0, 200, 0], 3).astype(np.float32)
    np.testing.assert_array_equal(apply(params, x), x[..., 6:9])
