"""Weights from PyTorch and back: nothing lost or left over, and nothing runs that a file brings along."""

import io
import pathlib
import pickle
import sys
import time
import zipfile

import flax.traverse_util
import golden_weights
import jax
import numpy as np
import pytest
import torch

from afunet_jax import torch_weights
from afunet_jax.errors import WeightsError
from afunet_jax.models import afunet
from afunet_jax.models.afunet import AFUNet
from afunet_jax.torch_twin import AFUNetTwin

SMALL = {
    'num_stages': 2,
    'width': 12,
    'sfm_depth': 2,
    'sfm_heads': 4,
    'sam_heads': 2,
    'cfm_heads': 2,
    'window_size': 4,
    'mlp_ratio': 2,
}
CHANGES = [
    *({'num_stages': t} for t in (1, 3, 4, 5, 6)), {'width': 24}, {'sfm_depth': 1}, {'sfm_depth': 5},
    {'sfm_heads': 3}, {'sam_heads': 1}, {'cfm_heads': 4}, {'window_size': 8},
    {'mlp_ratio': 1}, {'mlp_ratio': 3},
]  # fmt: skip
BUFFERS = ('relative_position_index', 'attn_mask')
KINDS = [pytest.param(False, id='zip'), pytest.param(True, id='legacy')]
ATTENTION = 'SFM.0.residual_group.blocks.0.attn'


def random_params(settings, seed=0):
    """Every number another one: two that change places are seen."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), afunet.parameter_shapes(AFUNet(**settings))
    )


@pytest.fixture(scope='module')
def params():
    return random_params(SMALL)


@pytest.fixture
def state(params):
    """A state dict that a test may change."""
    return torch_weights.to_state_dict(params)


def assert_same_bits(ours, theirs):
    ours, theirs = (flax.traverse_util.flatten_dict(tree, sep='/') for tree in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        assert value.dtype == theirs[path].dtype == np.float32 and value.shape == theirs[path].shape, path
        assert value.tobytes() == np.asarray(theirs[path]).tobytes(), path


# ---- there and back ---------------------------------------------------------------------------------


@pytest.mark.parametrize('change', [{}, *CHANGES], ids=str)
def test_parameters_come_back_bit_by_bit_and_tell_their_architecture(change):
    settings = SMALL | change
    params = random_params(settings)
    state = torch_weights.to_state_dict(params)
    assert torch_weights.architecture(state) == settings
    assert_same_bits(torch_weights.from_state_dict(state), params)


@pytest.mark.parametrize(
    'change',
    [{}, {'num_stages': 3}, {'width': 24, 'window_size': 8}, {'sfm_depth': 3, 'mlp_ratio': 3}],
    ids=str,
)
def test_the_export_loads_into_the_twin_strictly(change):
    settings = SMALL | change
    state = torch_weights.to_state_dict(random_params(settings))
    twin = AFUNetTwin(**settings)
    buffers = {key: value.clone() for key, value in twin.named_buffers()}
    twin.load_state_dict(
        {key: torch.from_numpy(np.array(value)) for key, value in state.items()}, strict=True
    )
    assert all(torch.equal(value, buffers[key]) for key, value in twin.named_buffers())
    assert all(value.dtype == twin.state_dict()[key].dtype for key, value in twin.named_buffers())


@pytest.mark.parametrize('num_stages', [2, 4, 6])
def test_the_export_has_the_keys_and_shapes_of_the_release(num_stages):
    state = torch_weights.to_state_dict(random_params({'num_stages': num_stages}))
    entries = golden_weights.state_dict_entries(num_stages)
    assert {key: value.shape for key, value in state.items()} == {
        key: shape for key, (shape, _) in entries.items()
    }
    parameters = {key for key, (_, kind) in entries.items() if kind == 'parameter'}
    assert all(state[key].dtype == np.float32 for key in parameters)
    if num_stages == 4:
        assert sum(state[key].size for key in parameters) == 1_162_035


def test_the_unused_norm_is_written_as_it_starts_and_dropped(state):
    np.testing.assert_array_equal(state['patch_embed_div3.norm.weight'], np.ones(4))
    np.testing.assert_array_equal(state['patch_embed_div3.norm.bias'], np.zeros(4))
    without = {key: value for key, value in state.items() if not key.startswith('patch_embed_div3')}
    assert_same_bits(torch_weights.from_state_dict(without), torch_weights.from_state_dict(state))


def test_golden_parameters_come_back_bit_by_bit():
    golden = golden_weights.golden_parameters(2)
    state = torch_weights.to_state_dict(torch_weights.from_state_dict(golden))
    for key, value in golden.items():
        if not key.startswith('patch_embed_div3'):
            assert state[key].tobytes() == value.tobytes(), key


def test_layouts_are_pytorch_s(params, state):
    dense, conv = params['stage_1']['mlp_d3']['fc1']['kernel'], params['shallow_2']['kernel']
    assert state['A3.1.fc1.weight'][5, 2] == dense[2, 5]
    assert state['conv2.0.weight'][3, 4, 0, 2] == conv[0, 2, 4, 3]
    assert (
        state['f_32.0.conv.weight'][3, 0, 2, 1] == params['stage_0']['cfm_v']['depthwise']['kernel'][2, 1, 3]
    )
    assert state['f_12.1.attn.k.weight'][3, 1, 0, 0] == params['stage_1']['cfm_u']['key']['kernel'][1, 3]
    assert state['f_12.1.attn.temperature'][1, 0, 0] == params['stage_1']['cfm_u']['temperature'][1]
    assert state['beta2.1'] == params['stage_1']['dcm']['beta_3']


def test_the_name_table_names_everything_once():
    rows = torch_weights.name_table(3, 2)
    keys, paths = [key for key, _, _ in rows], [path for _, path, _ in rows]
    assert len(set(keys)) == len(keys) and len(set(paths)) == len(paths)
    shapes = afunet.parameter_shapes(AFUNet(num_stages=3, sfm_depth=2))
    assert set(paths) == set(flax.traverse_util.flatten_dict(shapes, sep='/'))


def test_parallel_training_s_prefix_is_no_matter(params, state):
    prefixed = {f'module.{key}': value for key, value in state.items()}
    assert torch_weights.architecture(prefixed) == SMALL
    assert_same_bits(torch_weights.from_state_dict(prefixed), params)


def test_buffers_may_be_missing_and_masks_are_ignored(params, state):
    bare = {key: value for key, value in state.items() if not key.endswith(BUFFERS)}
    assert_same_bits(torch_weights.from_state_dict(bare), params)
    masks = [key for key in state if key.endswith('attn_mask')]
    assert len(masks) == 2
    assert_same_bits(torch_weights.from_state_dict(state | {key: np.zeros(1) for key in masks}), params)


def test_arrays_do_not_share_memory_with_the_state_dict(state):
    params = torch_weights.from_state_dict(state)
    assert not np.shares_memory(params['shallow_norm']['scale'], state['patch_embed.norm.weight'])
    params['shallow_norm']['scale'][:] = 7
    assert not (state['patch_embed.norm.weight'] == 7).any()


def test_tensors_and_other_types_become_float32(params, state):
    tensors = {
        key: torch.from_numpy(value.copy()).double() if value.dtype == np.float32 else value
        for key, value in state.items()
    }
    assert_same_bits(torch_weights.from_state_dict(tensors), params)


# ---- errors of a state dict -------------------------------------------------------------------------


def test_one_error_lists_all_that_is_wrong(state):
    del state['conv_skip.bias'], state['A1.1.fc1.weight']
    state['out.0.weight'] = state['out.0.weight'][:2]
    state['beta1.0'] = np.zeros(1, np.float32)
    state |= {'extra.weight': np.zeros(3), 'A1.7.fc1.bias': np.zeros(8)}
    state[f'{ATTENTION}.relative_position_index'] = state[f'{ATTENTION}.relative_position_index'].T
    with pytest.raises(WeightsError) as error:
        torch_weights.from_state_dict(state)
    assert sorted(line.strip() for line in str(error.value).split('\n')[1:]) == sorted([
        'missing: A1.1.fc1.weight', 'missing: conv_skip.bias',
        'misshapen: out.0.weight is [2, 4, 3, 3], expected [3, 4, 3, 3]',
        'misshapen: beta1.0 is [1], expected []',
        'surplus: A1.7.fc1.bias', 'surplus: extra.weight',
        f'{ATTENTION}.relative_position_index: another numbering of relative positions than ours',
    ])  # fmt: skip


@pytest.mark.parametrize(
    'index', [np.zeros((3, 3), np.int64), np.zeros((16, 16), np.int64)], ids=['shape', 'values']
)
def test_another_numbering_of_positions_is_an_error(state, index):
    state[f'{ATTENTION}.relative_position_index'] = index
    with pytest.raises(WeightsError, match='another numbering of relative positions'):
        torch_weights.from_state_dict(state)


def test_a_surplus_block_far_away_is_a_short_error_soon(state):
    block = 'SFM.0.residual_group.blocks'
    state |= {key.replace(f'{block}.1.', f'{block}.400000.'): value for key, value in state.items()}
    start = time.perf_counter()
    with pytest.raises(WeightsError) as error:
        torch_weights.from_state_dict(state)
    assert time.perf_counter() - start < 10
    lines = str(error.value).split('\n')
    assert len(lines) < 60 and any(f'surplus: {block}.400000.norm1.weight' in line for line in lines)


@pytest.mark.parametrize('key', [f'foo.{name}' for name in BUFFERS])
def test_a_buffer_of_no_block_is_surplus(state, key):
    with pytest.raises(WeightsError, match=f'surplus: {key}'):
        torch_weights.from_state_dict(state | {key: np.zeros(1)})


def test_keys_with_and_without_prefix_are_an_error(state):
    with pytest.raises(WeightsError, match='with and without "module."') as error:
        torch_weights.from_state_dict(state | {'module.conv_skip.bias': state['conv_skip.bias'] + 1})
    assert 'conv_skip.bias' in str(error.value)


def test_a_stage_with_a_hole_lists_its_keys(state):
    broken = {key: value for key, value in state.items() if not key.startswith('SFM.0.')}
    with pytest.raises(WeightsError) as error:
        torch_weights.from_state_dict(broken)
    missing = {key for key, _, _ in torch_weights.name_table(2, 2) if key.startswith('SFM.0.')}
    assert {
        line.split('missing: ')[1] for line in str(error.value).split('\n') if 'missing: ' in line
    } == missing


@pytest.mark.parametrize('state_dict', [
    {}, {'weight': np.zeros(3)}, torch.nn.TransformerEncoderLayer(8, 2, 8).state_dict(),
    {f'{ATTENTION}.relative_position_bias_table': np.zeros(7)},
    {f'{ATTENTION}.relative_position_bias_table': np.zeros((49, 4))},
], ids=['empty', 'one', 'transformer', 'flat', 'alone'])  # fmt: skip
def test_another_network_is_an_error(state_dict):
    with pytest.raises(WeightsError, match='not the weights of an AFUNet'):
        torch_weights.from_state_dict(state_dict)


def test_more_stages_than_there_are_is_an_error(state):
    for stage in range(2, 7):
        state |= {key.replace('SFM.1.', f'SFM.{stage}.'): value for key, value in state.items()}
    with pytest.raises(WeightsError, match='num_stages is 1 to 6'):
        torch_weights.from_state_dict(state)


@pytest.mark.parametrize(
    'change', [{'order': 'FA'}, {'ablation': 'M1'}, {'ablation': 'M2'}, {'ablation': 'M3'}, {'head': 'blend'}], ids=str
)
def test_a_variant_without_pytorch_code_is_not_exported(change):
    with pytest.raises(WeightsError, match='only the full AFUNet'):
        torch_weights.to_state_dict(random_params(SMALL | change))


def test_parameters_of_something_else_are_not_exported(params):
    for other in ({}, {'dense': {'kernel': np.zeros(3)}}, params | {'more': np.zeros(3)}):
        with pytest.raises(WeightsError, match='only the full AFUNet'):
            torch_weights.to_state_dict(other)


# ---- files ------------------------------------------------------------------------------------------


def as_tensors(state):
    return {key: torch.from_numpy(np.array(value)) for key, value in state.items()}


def test_a_written_file_is_the_release_s_dict(tmp_path, params):
    path = tmp_path / 'new' / 'weights.pth'
    torch_weights.write_pth(path, params)
    content = torch.load(path, weights_only=True)
    assert list(content) == ['state_dict']
    AFUNetTwin(**SMALL).load_state_dict(content['state_dict'], strict=True)
    assert_same_bits(torch_weights.from_state_dict(torch_weights.read_pth(path)), params)
    assert list(path.parent.iterdir()) == [path]


WRAPPED = {
    'bare': lambda state: state,
    'state_dict': lambda state: {'state_dict': state},
    'release': lambda state: {
        'epoch': 3,
        'state_dict': state,
        'optimizer': {'lr': 5e-4},
        'lr_scheduler': {'last_epoch': 2},
    },
    'parallel': lambda state: {'state_dict': {f'module.{key}': value for key, value in state.items()}},
    'gradient': lambda state: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()
    },
}


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('wrap', WRAPPED)
def test_every_kind_of_file_is_read(tmp_path, params, state, wrap, zipped):
    path = tmp_path / 'weights.pth'
    torch.save(WRAPPED[wrap](as_tensors(state)), path, _use_new_zipfile_serialization=zipped)
    assert_same_bits(torch_weights.from_state_dict(torch_weights.read_pth(path)), params)


def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def zipped(name, data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr(name, data)
    return file.getvalue()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


NO_WEIGHTS = {
    'text': b'These are no weights.\n', 'empty': b'', 'zip': zipped('a.txt', b'a'), 'one byte': b'\x80',
    'zip with a pickle': zipped('archive/data.pkl', pickle.dumps(3)),
    'image': b'\x89PNG\r\n\x1a\n' + bytes(100),
    'a number': saved(3), 'a list': saved([torch.zeros(3)]), 'a tensor': saved(torch.zeros(3)),
    'nothing': saved({}),
    'numbered': saved({0: torch.zeros(3)}), 'values': saved({'weight': torch.zeros(3), 'epoch': 3}),
    'state dict of values': saved({'state_dict': {'a': 3.0}}), 'whole model': saved(torch.nn.Linear(2, 2)),
    'text for a state dict': saved({'state_dict': 'a'}), 'pickle': pickle.dumps({'a': 1}),
    'numpy': pickle.dumps(np.zeros(3)),
}  # fmt: skip


@pytest.mark.parametrize('name', NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_an_error(tmp_path, name):
    path = tmp_path / 'weights.pth'
    path.write_bytes(NO_WEIGHTS[name])
    with pytest.raises(WeightsError, match='weights.pth: '):
        torch_weights.read_pth(path)


def test_numbers_that_were_changed_are_an_error(tmp_path, params):
    """PyTorch does not look at the checksums of its archives."""
    torch_weights.write_pth(tmp_path / 'weights.pth', params)
    data = bytearray((tmp_path / 'weights.pth').read_bytes())
    place = data.index(torch_weights.read_pth(tmp_path / 'weights.pth')['conv_skip.bias'].tobytes())
    data[place + 5] ^= 1
    (tmp_path / 'weights.pth').write_bytes(data)
    with pytest.raises(WeightsError, match='weights.pth: damaged: the checksum of .*data/.* differs'):
        torch_weights.read_pth(tmp_path / 'weights.pth')


@pytest.mark.parametrize('legacy', KINDS)
def test_a_truncated_file_is_an_error(tmp_path, legacy):
    data = saved(
        {'state_dict': {'a': torch.arange(50.0), 'b': torch.zeros(3, 3)}},
        _use_new_zipfile_serialization=not legacy,
    )
    path = tmp_path / 'weights.pth'
    for length in range(0, len(data) - 1, max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match='damaged'):
            torch_weights.read_pth(path)


@pytest.mark.parametrize('legacy', KINDS)
def test_damaged_bytes_are_an_error_of_ours_or_harmless(tmp_path, legacy):
    path, rng = tmp_path / 'weights.pth', np.random.default_rng(0)
    data = saved({'state_dict': {'a': torch.arange(50.0)}}, _use_new_zipfile_serialization=not legacy)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            torch_weights.read_pth(path)
        except WeightsError:
            pass  # any other error fails the test


@pytest.mark.parametrize('kind', ['pickle', 'zip', 'legacy', 'inside'])
def test_nothing_runs_that_a_file_brings_along(tmp_path, state, kind):
    trap, path = Trap(tmp_path / 'it ran'), tmp_path / 'weights.pth'
    data = {
        'pickle': lambda: pickle.dumps(trap),
        'zip': lambda: saved(trap),
        'legacy': lambda: saved(trap, _use_new_zipfile_serialization=False),
        'inside': lambda: saved({'state_dict': as_tensors(state), 'epoch': trap}),
    }[kind]()
    path.write_bytes(data)
    with pytest.raises(WeightsError, match='weights.pth: not a file of PyTorch weights, or damaged'):
        torch_weights.read_pth(path)
    assert not trap.path.exists()
    if kind == 'pickle':  # and the trap works
        pickle.loads(data)
        assert trap.path.exists()


@pytest.mark.parametrize('kind', ['float16', 'bfloat16', 'sparse', 'meta', 'nested', 'quantised'])
def test_unusual_tensors_are_read_or_a_clear_error(tmp_path, kind):
    tensor = {
        'bfloat16': lambda: torch.ones(3, dtype=torch.bfloat16),
        'float16': lambda: torch.ones(3, dtype=torch.float16),
        'sparse': lambda: torch.eye(3).to_sparse(),
        'meta': lambda: torch.ones(3, device='meta'),
        'nested': lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]),
        'quantised': lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
    }[kind]()
    path = tmp_path / 'weights.pth'
    torch.save({'a': tensor}, path)
    try:
        found = torch_weights.read_pth(path)
    except WeightsError as error:
        assert kind not in ('float16', 'bfloat16') and 'weights.pth' in str(error) and 'dense' in str(error)
    else:
        assert kind in ('float16', 'bfloat16') and set(found) == {'a'} and np.asarray(found['a'], np.float32).max() == 1


def test_no_file_is_an_error(tmp_path):
    for path in (tmp_path / 'weights.pth', tmp_path):
        with pytest.raises(WeightsError, match='no such file'):
            torch_weights.read_pth(path)


def test_a_missing_pytorch_says_what_to_install(tmp_path, params, monkeypatch):
    path = tmp_path / 'weights.pth'
    path.write_bytes(b'anything')
    monkeypatch.setitem(sys.modules, 'torch', None)
    for attempt in (lambda: torch_weights.read_pth(path), lambda: torch_weights.write_pth(path, params)):
        with pytest.raises(WeightsError, match='pip install -r requirements-dev.txt'):
            attempt()
    assert path.read_bytes() == b'anything'
    assert torch_weights.architecture(torch_weights.to_state_dict(params)) == SMALL  # arrays need no PyTorch


def test_a_failed_write_leaves_the_old_file(tmp_path, params, monkeypatch):
    path = tmp_path / 'weights.pth'
    path.write_bytes(b'old')

    def fail(content, file):
        pathlib.Path(file).write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        torch_weights.write_pth(path, params)
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]
