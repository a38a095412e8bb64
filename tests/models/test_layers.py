"""Layers against PyTorch's and Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from afunet_jax.models import layers

pytestmark = pytest.mark.usefixtures('quickly_compiled')


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def torch_convolution(x, kernel, groups=1):
    """Values and gradients (input, kernel) of sum(y * cos(index)), with reflection padding."""
    x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    kernel = torch.tensor(kernel, requires_grad=True)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode='reflect')
    y = torch.nn.functional.conv2d(padded, kernel, groups=groups).permute(0, 2, 3, 1)
    (y * torch.cos(torch.arange(y.numel()).reshape(y.shape))).sum().backward()
    return y.detach().numpy(), x.grad.permute(0, 2, 3, 1).numpy(), kernel.grad.numpy()


def ours(f, x, kernel):
    def total(x, kernel):
        y = f(x, kernel)
        return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(x, kernel)
    return y, *gradients


def in_two_parts(x, kernel):
    first, second = layers.convolve_in_strips(x, kernel, 2)
    assert first.shape == second.shape
    return jnp.concatenate([first, second], -1)


def in_strips(x, kernel):
    (found,) = layers.convolve_in_strips(x, kernel)
    return found


@pytest.mark.parametrize('convolve', [in_strips, in_two_parts, layers.convolve_whole])
@pytest.mark.parametrize(('height', 'width'), [(16, 24), (7, 5), (8, 40), (24, 8), (2, 2), (3, 9)])
def test_convolutions_and_their_gradients_are_pytorch_s(convolve, height, width):
    x, kernel = normal(0, 2, height, width, 6), normal(1, 3, 3, 6, 4)
    found = ours(convolve, x, kernel)
    expected = torch_convolution(x, kernel.transpose(3, 2, 0, 1))
    for a, b in zip(found, (*expected[:2], expected[2].transpose(2, 3, 1, 0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


@pytest.mark.parametrize('convolve', [layers.depthwise_in_strips, layers.depthwise_whole])
@pytest.mark.parametrize(('height', 'width'), [(9, 11), (16, 8), (2, 2)])
def test_depthwise_convolution_and_its_gradients_are_pytorch_s(convolve, height, width):
    x, kernel = normal(0, 2, height, width, 5), normal(1, 3, 3, 5)
    found = ours(convolve, x, kernel)
    expected = torch_convolution(x, kernel.transpose(2, 0, 1)[:, None], groups=5)
    for a, b in zip(found, (*expected[:2], expected[2][:, 0].transpose(1, 2, 0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


def test_dense_norm_and_gelu_are_flax_s():
    x, kernel, bias = normal(0, 2, 3, 4, 5), normal(1, 5, 7), normal(2, 7)
    flax_dense = nn.Dense(7).apply({'params': {'kernel': kernel, 'bias': bias}}, x)
    np.testing.assert_allclose(layers.dense(x, kernel, bias), flax_dense, rtol=0, atol=1e-5)
    weights = {'scale': normal(3, 5), 'bias': normal(4, 5)}
    flax_norm = nn.LayerNorm(epsilon=1e-5).apply({'params': weights}, x)
    np.testing.assert_allclose(layers.layer_norm(x, **weights), flax_norm, rtol=0, atol=1e-5)
    np.testing.assert_allclose(layers.gelu(x), nn.gelu(x, approximate=False), rtol=0, atol=1e-6)


def test_norms_of_large_constant_offsets_do_not_cancel():
    x = normal(0, 4, 64) + 1000
    expected = torch.nn.functional.layer_norm(torch.tensor(x), (64,)).numpy()
    np.testing.assert_allclose(layers.layer_norm(x, np.ones(64), np.zeros(64)), expected, rtol=0, atol=2e-4)


def test_stochastic_depth_drops_at_its_rate_and_keeps_the_mean():
    drop = layers.DropPath(0.3)
    keep = np.asarray(drop.apply({}, 4000, True, rngs={'dropout': jax.random.key(0)}))
    assert set(np.unique(keep)) == {np.float32(0), np.float32(1) / np.float32(0.7)}
    assert abs((keep == 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    assert drop.apply({}, 4, False) is None
