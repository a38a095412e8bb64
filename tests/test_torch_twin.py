"""The PyTorch twin against the numbers that the release computed."""

import numpy as np
import pytest
import torch
from golden_weights import golden_input, golden_parameters, state_dict_entries

from afunet_jax import torch_twin

INPUTS = {
    'a': (1, (1, 18, 64, 64)),
    'b': (2, (2, 18, 40, 56)),
    'c': (3, (1, 18, 50, 73)),
    'd': (4, (1, 18, 100, 120)),
    'w1': (8, (1, 18, 8, 8)),
    'w2': (9, (1, 18, 8, 16)),
    'w3': (10, (2, 18, 21, 8)),
}


def golden_twin(num_stages=4):
    model = torch_twin.AFUNetTwin(num_stages=num_stages)
    state = model.state_dict()
    state.update({k: torch.from_numpy(v.copy()) for k, v in golden_parameters(num_stages).items()})
    model.load_state_dict(state, strict=True)
    return model.eval()


@pytest.fixture(scope='module')
def twin():
    return golden_twin()


@torch.no_grad()
def run(model, x, multiple=None):
    x = torch.from_numpy(x)
    height, width = x.shape[-2:]
    if multiple:
        x = torch.nn.functional.pad(x, (0, -width % multiple, 0, -height % multiple), mode='reflect')
    return model(x)[..., :height, :width].numpy()


@pytest.mark.parametrize('num_stages', [2, 4, 6])
def test_state_dict_has_the_released_keys_shapes_and_buffers(num_stages):
    model = torch_twin.AFUNetTwin(num_stages=num_stages)
    parameters = dict(model.named_parameters())
    found = {
        key: (tuple(value.shape), 'parameter' if key in parameters else 'buffer')
        for key, value in model.state_dict().items()
    }
    assert found == state_dict_entries(num_stages)


def test_parameter_count_is_the_release_s():
    assert sum(p.numel() for p in torch_twin.AFUNetTwin().parameters()) == 1_162_035


def test_buffers_follow_the_contract():
    blocks = torch_twin.AFUNetTwin(num_stages=2).SFM[0].residual_group.blocks
    index = blocks[0].attn.relative_position_index
    assert index.dtype == torch.int64
    for i, j in ((0, 0), (0, 63), (63, 0), (9, 17), (40, 3)):
        assert index[i, j] == (i // 8 - j // 8 + 7) * 15 + (i % 8 - j % 8 + 7)
    mask = blocks[1].attn_mask
    assert mask.shape == (25, 64, 64)
    assert set(mask.unique().tolist()) == {0.0, -100.0}
    assert not mask[0].any()  # inner windows are whole
    assert mask[4].any() and mask[20].any() and mask[24].any()  # right column, bottom row
    assert torch.equal(mask, mask.transpose(1, 2))
    # In the last window the four quarters are four regions.
    assert (mask[24] == 0).sum() == 4 * 16 * 16


@pytest.mark.parametrize('name', INPUTS)
def test_forward_matches_the_release(twin, golden, name):
    output = run(twin, golden_input(*INPUTS[name]), multiple=128 if name == 'd' else None)
    expected = np.load(golden / 'forward.npz')[f'{name}_output']
    assert output.shape == expected.shape
    np.testing.assert_allclose(output, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize('num_stages', [2, 3, 5, 6])
def test_forward_matches_the_release_with_other_numbers_of_stages(golden, num_stages):
    output = run(golden_twin(num_stages), golden_input(30 + num_stages, (1, 18, 24, 32)))
    expected = np.load(golden / 'forward.npz')[f'stages{num_stages}_output']
    np.testing.assert_allclose(output, expected, rtol=0, atol=2e-6)


def test_intermediates_match_the_release(twin, golden):
    found = torch_twin.intermediates(twin, torch.from_numpy(golden_input(5, (1, 18, 16, 24))))
    expected = dict(np.load(golden / 'intermediate.npz'))
    assert found.keys() == expected.keys()
    output = expected.pop('output')
    np.testing.assert_allclose(found['output'], output.transpose(0, 2, 3, 1), rtol=0, atol=2e-6)
    for name, value in expected.items():
        assert found[name].shape == (1, 16, 24, value.shape[-1])
        tolerance = 1e-5 * np.abs(value).max()
        ours = found[name].reshape(value.shape)
        np.testing.assert_allclose(ours, value, rtol=0, atol=tolerance, err_msg=name)


def test_intermediates_leave_no_hook_behind(twin):
    x = torch.from_numpy(golden_input(5, (1, 18, 8, 8)))
    torch_twin.intermediates(twin, x)
    with pytest.raises(RuntimeError):
        torch_twin.intermediates(twin, x[:, :17])
    assert not any(module._forward_hooks for module in twin.modules())


@pytest.fixture
def batch():
    x, y = golden_input(6, (2, 18, 32, 32)), golden_input(7, (2, 3, 32, 32))
    return torch.from_numpy(x), torch.from_numpy(y)


def test_gradients_match_the_release(golden, batch):
    model = golden_twin()
    expected = np.load(golden / 'gradient.npz')
    terms = torch_twin.release_loss_terms(model(batch[0]), batch[1])
    loss = sum(terms.values())
    loss.backward()
    assert loss.item() == pytest.approx(expected['loss'].item(), rel=1e-6)
    assert terms['reconstruction'].item() == pytest.approx(expected['loss_recon'].item(), rel=1e-6)
    assert terms['fft'].item() == pytest.approx(expected['loss_fft'].item(), rel=1e-6)
    for key, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        norm = expected[f'norm/{key}']
        assert gradient.norm().item() == pytest.approx(norm.item(), rel=1e-4, abs=1e-9), key
        head, wanted = gradient.flatten()[:8].numpy(), expected[f'head/{key}']
        np.testing.assert_allclose(head, wanted, rtol=0, atol=1e-4 * norm + 1e-9, err_msg=key)


@pytest.mark.slow
def test_five_adam_steps_match_the_release(golden, batch):
    model = golden_twin()
    expected = np.load(golden / 'train.npz')
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    losses = []
    for _ in range(5):
        loss = torch_twin.release_loss(model(batch[0]), batch[1])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    losses.append(torch_twin.release_loss(model(batch[0]), batch[1]).item())
    np.testing.assert_allclose(losses, expected['losses'], rtol=1e-4)
    for key, parameter in model.named_parameters():
        assert parameter.norm().item() == pytest.approx(expected[f'norm/{key}'].item(), rel=1e-4), key


def test_drop_path_keeps_or_drops_whole_examples():
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 2, 1)
    y = torch_twin.DropPath(0.1).train()(x)
    per_example = y.flatten(1)
    assert torch.equal(per_example, per_example[:, :1].expand_as(per_example))
    values = y.unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.9]))
    assert (y == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_drop_path_rates_follow_the_contract():
    model = torch_twin.AFUNetTwin(num_stages=3)
    sfm = [b.drop_path.probability for s in model.SFM for b in s.residual_group.blocks]
    np.testing.assert_allclose(sfm, np.linspace(0, 0.1, 15), atol=1e-7)
    for group in (model.a_12, model.a_32):
        sam = [s.residual_group.blocks[0].drop_path.probability for s in group]
        np.testing.assert_allclose(sam, np.linspace(0, 0.1, 6)[:3], atol=1e-7)


def test_stochastic_depth_acts_in_training_only():
    model = golden_twin(2)
    x = torch.from_numpy(golden_input(30, (2, 18, 8, 8)))
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        model.train()
        torch.manual_seed(0)
        outputs = [model(x) for _ in range(4)]
    assert any(not torch.equal(outputs[0], y) for y in outputs[1:])


def test_initial_values():
    torch.manual_seed(0)
    state = torch_twin.AFUNetTwin().state_dict()
    for key, (shape, kind) in state_dict_entries().items():
        value = state[key]
        if kind == 'buffer':
            continue
        if key.endswith('.bias'):
            assert not value.any(), key
        elif 'temperature' in key or len(shape) == 1:
            assert (value == 1).all(), key
        elif key.startswith('beta'):
            assert value == 0.5, key
        else:
            assert value.std().item() == pytest.approx(0.02, rel=0.2), key
