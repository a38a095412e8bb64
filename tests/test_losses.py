"""The losses against PyTorch, the release's figures, and what data-parallel training needs of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from golden_weights import golden_input, golden_parameters

from afunet_jax import hdr, losses, torch_twin, vgg
from afunet_jax.errors import ConfigError, DataError


@pytest.fixture(scope='module')
def vgg_params():
    rng = np.random.default_rng(0)
    state = {}
    for key, shape in vgg.expected_shapes().items():
        deviation = np.sqrt(2 / np.prod(shape[1:])) if key.endswith('weight') else 0.1
        state[key] = np.float32(deviation) * rng.standard_normal(shape, np.float32)
    return vgg.from_state_dict(state)


@pytest.fixture
def images():
    """Odd width: the last column of rfft2 then has no twin."""
    rng = np.random.default_rng(1)
    return rng.random((4, 18, 17, 3), np.float32), rng.random((4, 18, 17, 3), np.float32)


@jax.jit
def value_and_grad(loss, prediction, label):
    return jax.value_and_grad(loss, has_aux=True)(prediction, label)


def make(name, vgg_params):
    return losses.make_loss(name, vgg_params if name == 'paper' else None)


def to_torch(x):
    return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2).copy())


def test_release_terms_and_gradient_match_pytorch(images):
    (total, terms), gradient = value_and_grad(losses.make_loss('release'), *map(jnp.asarray, images))
    prediction = to_torch(images[0]).requires_grad_()
    expected = torch_twin.release_loss_terms(prediction, to_torch(images[1]))
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        assert term == pytest.approx(expected[name].item(), rel=1e-6)
    sum(expected.values()).backward()
    assert total == pytest.approx(sum(expected.values()).item(), rel=1e-6)
    wanted = prediction.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_release_terms_match_the_release(golden):
    twin = torch_twin.AFUNetTwin().eval()
    state = twin.state_dict() | {k: torch.from_numpy(v) for k, v in golden_parameters().items()}
    twin.load_state_dict(state)
    with torch.no_grad():
        prediction = twin(torch.from_numpy(golden_input(6, (2, 18, 32, 32)))).numpy()
    label = golden_input(7, (2, 3, 32, 32))
    prediction, label = (jnp.asarray(x.transpose(0, 2, 3, 1)) for x in (prediction, label))
    total, terms = losses.make_loss('release')(prediction, label)
    expected = np.load(golden / 'gradient.npz')
    assert total == pytest.approx(expected['loss'].item(), rel=1e-6)
    assert terms['reconstruction'] == pytest.approx(expected['loss_recon'].item(), rel=1e-6)
    assert terms['fft'] == pytest.approx(expected['loss_fft'].item(), rel=1e-6)


def test_vgg_loss_is_the_sum_of_the_layers_means(images, vgg_params):
    prediction, label = map(jnp.asarray, images)
    features = [vgg.features(vgg_params, hdr.mu_law(x)) for x in (prediction, label)]
    expected = sum(np.abs(np.subtract(a, b)).mean(dtype=np.float64) for a, b in zip(*features))
    assert losses.vgg_loss(prediction, label, vgg_params) == pytest.approx(expected, rel=1e-5)


def test_known_reconstruction():
    prediction = jnp.full((1, 16, 16, 3), 1.0)
    assert losses.reconstruction_loss(prediction, jnp.zeros_like(prediction)) == pytest.approx(1.0, abs=1e-6)


def test_known_fft_loss():
    # A constant difference of 1 has one entry that is not zero: H * W, real, of H * (W // 2 + 1).
    prediction = jnp.full((1, 8, 6, 3), 1.0)
    expected = 8 * 6 / (2 * 8 * 4)
    assert losses.fft_loss(prediction, jnp.zeros_like(prediction)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('name', ['release', 'paper', 'reconstruction'])
def test_terms_add_up_to_the_total(name, images, vgg_params):
    total, terms = make(name, vgg_params)(*map(jnp.asarray, images))
    second = {'release': ['fft'], 'paper': ['vgg'], 'reconstruction': []}[name]
    assert list(terms) == ['reconstruction', *second]
    assert total == pytest.approx(sum(map(float, terms.values())), rel=1e-6)
    assert all(term > 0 for term in terms.values())
    assert total.shape == () and total.dtype == jnp.float32


def test_the_weight_scales_the_second_term_only(images):
    prediction, label = map(jnp.asarray, images)
    _, terms = losses.make_loss('release', weight=0.5)(prediction, label)
    assert terms['fft'] == pytest.approx(0.5 * float(losses.fft_loss(prediction, label)), rel=1e-6)
    assert terms['reconstruction'] == losses.reconstruction_loss(prediction, label)


@pytest.mark.parametrize('name', ['release', 'paper', 'reconstruction'])
def test_mean_over_equal_shards_is_the_loss_of_the_batch(name, images, vgg_params):
    loss = make(name, vgg_params)
    prediction, label = map(jnp.asarray, images)
    (total, terms), gradient = value_and_grad(loss, prediction, label)
    shards = [value_and_grad(loss, prediction[i : i + 2], label[i : i + 2]) for i in (0, 2)]
    assert total == pytest.approx(np.mean([float(s[0][0]) for s in shards]), rel=1e-6)
    for term in terms:
        assert terms[term] == pytest.approx(np.mean([float(s[0][1][term]) for s in shards]), rel=1e-6)
    joined = jnp.concatenate([s[1] for s in shards]) / 2
    np.testing.assert_allclose(gradient, joined, rtol=0, atol=1e-5 * np.abs(joined).max())


@pytest.mark.parametrize('name', ['release', 'paper', 'reconstruction'])
def test_gradient_is_finite_at_zero_and_for_equal_images(name, images, vgg_params):
    loss = make(name, vgg_params)
    label = jnp.asarray(images[1])
    black = jnp.zeros_like(label)
    assert jnp.isfinite(value_and_grad(loss, black, label)[1]).all()
    assert jnp.isfinite(value_and_grad(loss, label, label)[1]).all()
    # tau(0) is exactly 0, so this is the kink of the absolute value, where PyTorch's slope is 0.
    assert not value_and_grad(loss, black, black)[1].any()


def test_tau_is_float32_whatever_the_input(images):
    prediction, label = images
    half = jnp.asarray(prediction, jnp.bfloat16)
    total, _ = losses.make_loss('release')(half, jnp.asarray(label))
    assert total.dtype == jnp.float32
    assert total == losses.make_loss('release')(half.astype(jnp.float32), jnp.asarray(label))[0]


@pytest.mark.parametrize('name', ['release', 'paper'])
def test_a_loss_passes_through_jit_as_an_argument(name, images, vgg_params):
    images = tuple(map(jnp.asarray, images))
    loss = make(name, vgg_params)
    by_argument = jax.jit(lambda function, *args: function(*args)[0])
    assert by_argument(loss, *images) == pytest.approx(float(loss(*images)[0]), rel=1e-5)


@pytest.mark.parametrize(
    ('first', 'second'),
    [
        ((2, 16, 16, 3), (2, 16, 8, 3)),
        ((2, 16, 16, 3), (1, 16, 16, 3)),
        ((16, 16, 3), (16, 16, 3)),
        ((1, 3, 16, 16), (1, 3, 16, 16)),
    ],
)
def test_refuses_other_shapes(first, second):
    with pytest.raises(DataError, match=r'\[B, H, W, 3\]'):
        losses.make_loss('release')(jnp.zeros(first), jnp.zeros(second))


def test_refuses_an_unknown_name():
    with pytest.raises(ConfigError, match='"release", "paper" or "reconstruction", but is "l2"'):
        losses.make_loss('l2')


def test_the_paper_s_loss_needs_vgg_and_no_other_takes_it(vgg_params):
    with pytest.raises(ConfigError, match='vgg19-dcbb9e9d.pth.*nothing is downloaded'):
        losses.make_loss('paper')
    with pytest.raises(ConfigError, match='is "release"'):
        losses.make_loss('release', vgg_params)
