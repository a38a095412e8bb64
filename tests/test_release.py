"""The network and a step of its training, against the release's numbers and the twin in PyTorch.

Compiled as users have it: no test here takes `quickly_compiled`.
"""

import functools
import types

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small
import torch

from afunet_jax import losses, torch_twin, torch_weights, training
from afunet_jax.models import afunet
from afunet_jax.models.afunet import AFUNet

OUTPUT_BAR = 2e-6  # absolute
BLOCK_BAR = 1e-5  # of an array's largest value
NOISE = 1e-9  # gradients that are zero in exact arithmetic: biases of keys, which the softmax does not see
SMALL = {'num_stages': 1, 'width': 12, 'sfm_depth': 2, 'sfm_heads': 2, 'sam_heads': 1, 'cfm_heads': 2}
FORWARD = {  # name: (stages, seed of the input, its NCHW shape)
    'a': (4, 1, (1, 18, 64, 64)), 'b': (4, 2, (2, 18, 40, 56)), 'c': (4, 3, (1, 18, 50, 73)),
    'd': (4, 4, (1, 18, 100, 120)), 'w1': (4, 8, (1, 18, 8, 8)), 'w2': (4, 9, (1, 18, 8, 16)),
    'w3': (4, 10, (2, 18, 21, 8)),
    **{f'stages{t}': (t, 30 + t, (1, 18, 24, 32)) for t in (2, 3, 5, 6)},
}  # fmt: skip


@functools.cache
def golden_params(num_stages=4):
    return torch_weights.from_state_dict(golden_weights.golden_parameters(num_stages))


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, -3, -1))


@functools.cache
def jitted(num_stages):
    model = AFUNet(num_stages=num_stages)
    return jax.jit(lambda params, x: model.apply({'params': params}, x))


@pytest.mark.parametrize('name', FORWARD)
def test_outputs_are_those_of_the_release(name, golden):
    stages, seed, shape = FORWARD[name]
    x = channels_last(golden_weights.golden_input(seed, shape))
    height, width = x.shape[1:3]
    if name == 'd':  # padded to 128, as an evaluation does
        x = np.pad(x, ((0, 0), (0, 128 - height), (0, 128 - width), (0, 0)), mode='reflect')
    output = np.asarray(jitted(stages)(golden_params(stages), x))[:, :height, :width]
    expected = channels_last(np.load(golden / 'forward.npz')[f'{name}_output'])
    np.testing.assert_allclose(output, expected, rtol=0, atol=OUTPUT_BAR)


def intermediates(model, params, x):
    """The sown arrays, with the release's names."""
    output, found = jax.jit(lambda p, x: model.apply({'params': p}, x, mutable=['intermediates']))(params, x)
    found = jax.tree.map(np.asarray, found['intermediates'])
    arrays = {'tokens_after_norm': found['z'][0], 'output': np.asarray(output)}
    names = {'d_1': 'D1_x', 'd_3': 'D3_x', 'alpha_1': 'alpha1', 'alpha_3': 'alpha3', 'h': 'sfm',
             'u_cfm': 'u_cfm', 'v_cfm': 'v_cfm', 'x_p': 'x_p', 'end': 'mlp_end'}  # fmt: skip
    for t in range(model.num_stages):
        stage = found[f'stage_{t}']
        arrays |= {f'stage{t}_{theirs}': stage[ours][0] for ours, theirs in names.items()}
        arrays[f'stage{t}_D2T_y2'] = stage['dcm']['d2t'][0]
    return arrays


def test_every_block_computes_what_the_release_computes(golden):
    x = channels_last(golden_weights.golden_input(5, (1, 18, 16, 24)))
    ours = intermediates(AFUNet(), golden_params(), x)
    theirs = dict(np.load(golden / 'intermediate.npz'))
    theirs['output'] = channels_last(theirs['output'])
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        actual = ours[name].reshape(expected.shape)
        bar = BLOCK_BAR * np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bar, err_msg=name)


# ---- other sizes, by the twin --------------------------------------------------------------------------


@pytest.mark.parametrize(
    'change',
    [{'width': 24, 'sfm_heads': 3, 'sam_heads': 4, 'cfm_heads': 1}, {'window_size': 4, 'mlp_ratio': 3}, {'sfm_depth': 3}],
    ids=str,
)
def test_other_sizes_compute_what_the_twin_computes(change):
    settings = {**SMALL, **change}
    params = small.parameters(AFUNet(**settings))
    twin = torch_twin.AFUNetTwin(**settings).eval()
    twin.load_state_dict({k: torch.tensor(v) for k, v in torch_weights.to_state_dict(params).items()}, strict=True)
    x = np.random.default_rng(1).random((2, 20, 28, 18), np.float32)
    with torch.no_grad():
        expected = twin(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    actual = jax.jit(lambda p, x: AFUNet(**settings).apply({'params': p}, x))(params, x)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=OUTPUT_BAR)


# ---- a step of training --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def step():
    """The batch of `gradient.npz`, the golden parameters, and one step's function on one device."""
    x, y = (golden_weights.golden_input(seed, (2, c, 32, 32)).transpose(0, 2, 3, 1) for seed, c in ((6, 18), (7, 3)))
    model, loss = afunet.AFUNet(drop_path=0.0), losses.make_loss('release')

    def objective(params):
        return loss(model.apply({'params': params}, jnp.asarray(x), train=True), jnp.asarray(y))

    return golden_params(), jax.jit(jax.value_and_grad(objective, has_aux=True))


def test_loss_and_all_gradient_norms_are_those_of_the_release(step, golden):
    params, step = step
    (loss, terms), gradients = step(params)
    theirs = np.load(golden / 'gradient.npz')
    np.testing.assert_allclose(loss, theirs['loss'], rtol=1e-6)
    np.testing.assert_allclose(terms['reconstruction'], theirs['loss_recon'], rtol=1e-6)
    np.testing.assert_allclose(terms['fft'], theirs['loss_fft'], rtol=1e-6)
    ours = torch_weights.to_state_dict(gradients)
    keys = [name.removeprefix('norm/') for name in theirs.files if name.startswith('norm/')]
    keys = [key for key in keys if torch_weights.UNUSED not in key]
    assert len(keys) > 400
    for key in keys:
        norm = np.linalg.norm(ours[key].astype(np.float64))
        np.testing.assert_allclose(norm, theirs[f'norm/{key}'], rtol=1e-4, atol=NOISE, err_msg=key)
        head = ours[key].ravel()[:8]
        scale = max(np.abs(ours[key]).max(), NOISE)
        np.testing.assert_allclose(head, theirs[f'head/{key}'], rtol=0, atol=1e-3 * scale + NOISE, err_msg=key)


def test_five_adam_steps_follow_the_release(step, golden):
    params, step = step
    config = types.SimpleNamespace(
        learning_rate=5e-4, final_learning_rate=5e-4, epochs=1, b1=0.9, b2=0.999, eps=1e-8
    )
    optimizer, _ = training.make_optimizer(config, steps=5)

    @jax.jit
    def update(params, opt_state, gradients):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state, ours = optimizer.init(params), []
    for _ in range(5):
        (loss, _), gradients = step(params)
        ours.append(float(loss))
        params, opt_state = update(params, opt_state, gradients)
    ours.append(float(step(params)[0][0]))
    theirs = np.load(golden / 'train.npz')
    np.testing.assert_allclose(ours, theirs['losses'], rtol=1e-4)
    exported = torch_weights.to_state_dict(params)
    for name in (name for name in theirs.files if name.startswith('norm/') and torch_weights.UNUSED not in name):
        # Adam's first steps have the size of the learning rate whatever the gradient, noise included.
        norm = np.linalg.norm(exported[name.removeprefix('norm/')])
        drift = 5 * 5e-4 * np.sqrt(exported[name.removeprefix('norm/')].size)
        np.testing.assert_allclose(norm, theirs[name], rtol=1e-4, atol=drift * 0.05, err_msg=name)
