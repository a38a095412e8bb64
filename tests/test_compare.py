"""The comparison with PyTorch: it passes what is equal, and fails what is not, each part for itself."""

import contextlib
import dataclasses
import io
import json
import sys
import textwrap

import jax
import numpy as np
import pytest
import small
import torch

from afunet_jax import checkpoints, compare, torch_twin, torch_weights
from afunet_jax.compare import __main__ as command_line
from afunet_jax.compare import differences, networks
from afunet_jax.errors import ConfigError, DataError, WeightsError
from afunet_jax.models import afunet
from afunet_jax.models.afunet import AFUNet

TINY = {
    'num_stages': 1,
    'width': 12,
    'sfm_depth': 2,
    'sfm_heads': 4,
    'sam_heads': 2,
    'cfm_heads': 2,
    'window_size': 4,
}
MODEL = AFUNet(**TINY)
SIZE = (10, 12)  # padded to 12x12
BUFFERS = ('relative_position_index', 'attn_mask')

CLONE = textwrap.dedent("""
    {imports}
    from afunet_jax.torch_twin import AFUNetTwin
    from models import CAPO
    import helper_of_the_clone

    class AFUNet(AFUNetTwin):
        def __init__(self, img_size, in_chans, window_size, img_range, depths, embed_dim, num_heads, mlp_ratio):
            assert tuple(img_size) == (5 * window_size,) * 2 and in_chans == 18 and img_range == 1
            half = num_heads[0] // 2
            super().__init__(num_stages=len(depths), width=embed_dim, sfm_depth=depths[0],
                             sfm_heads=num_heads[0], sam_heads=half, cfm_heads=half,
                             window_size=window_size, mlp_ratio=mlp_ratio)
            self.made_by = 'the clone'
""")


@pytest.fixture(scope='module')
def params():
    """Initial values, enlarged until every block counts."""
    rng = np.random.default_rng(0)
    flat = torch_weights.to_state_dict(afunet.init_params(MODEL, 0))
    state = {
        k: v if k.endswith(BUFFERS) else v * 5 + rng.normal(0, 0.05, v.shape)
        for k, v in flat.items()
    }
    return torch_weights.from_state_dict(state)


@pytest.fixture(scope='module')
def batch():
    rng = np.random.default_rng(1)
    return rng.random((2, *SIZE, 18), np.float32), rng.random((2, *SIZE, 3), np.float32)


@dataclasses.dataclass
class Run:
    """What the command did: status, screen, JSON, the comparison, and the network before and after."""

    status: int
    text: str
    json: dict
    found: compare.Comparison
    before: dict
    after: dict


@pytest.fixture(scope='module')
def command(params, tmp_path_factory):
    """The whole comparison, made once: most of its time is compilation."""
    folder, kept, really_compare = tmp_path_factory.mktemp('compare'), {}, compare.compare

    def watched(*args, network, **kwargs):
        network.train()  # a caller's mode is no matter
        kept['before'] = {k: v.clone() for k, v in network.state_dict().items()}
        kept['found'] = really_compare(*args, network=network, **kwargs)
        kept['after'] = network.state_dict()
        return kept['found']

    torch_weights.write_pth(folder / 'weights.pth', params)
    out, screen = folder / 'new' / 'out.json', io.StringIO()
    arguments = [
        f'--weights={folder / "weights.pth"}',
        '--size=10x12',
        '--steps=2',
        f'--json={out}',
    ]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(screen):
        patch.setattr(command_line, 'compare', watched)
        status = command_line.main(arguments)
    return Run(status, screen.getvalue(), json.loads(out.read_text()), **kept)


@pytest.fixture(scope='module')
def found(command):
    return command.found


def test_the_twin_is_equal_block_by_block(found):
    assert found.above == []
    names = ['D1_x', 'D3_x', 'alpha1', 'alpha3', 'sfm', 'u_cfm', 'v_cfm', 'D2T_y2', 'x_p', 'mlp_end']
    assert [row.name for row in found.blocks] == [
        'tokens_after_norm',
        *(f'stage0_{name}' for name in names),
        'output',
    ]
    assert [row.name for row in found.losses] == ['loss', 'reconstruction', 'fft']
    assert [row.name for row in found.training] == ['step 0', 'step 1', 'step 2']
    assert found.training[0].jax == pytest.approx(found.losses[0].jax, rel=1e-6)
    assert found.training[1].jax != found.training[0].jax


def test_blocks_are_compared_with_their_padding_and_the_output_without(found):
    assert {row.shape[:3] for row in found.blocks[:-1]} == {(1, 12, 12)}
    assert found.blocks[-1].shape == (1, *SIZE, 3)
    assert '10x12 pixels is padded by reflection, bottom and right, to 12x12' in compare.format_comparison(
        found
    )


def test_every_parameter_of_the_release_has_its_gradient_compared(found):
    keys = {key for key, _, _ in torch_weights.name_table(1, 2)}
    assert {row.name for row in found.gradients} == keys
    assert all(row.pytorch > 0 for row in found.gradients)


def changed(params, key, change):
    """The twin with one parameter changed."""
    network = compare.twin(MODEL, params)
    with torch.no_grad():
        change(network.get_parameter(key))
    return network


def test_a_wrong_weight_is_seen_where_it_acts_and_after(params, batch):
    network = changed(params, 'a_32.0.residual_group.blocks.0.attn.q.weight', lambda p: p.mul_(1.1))
    found = compare.compare(MODEL, params, batch[0], network=network)
    blocks = [row.name for row in found.blocks]
    assert found.above == [
        name for name in blocks[blocks.index('stage0_alpha3') :] if name != 'stage0_D2T_y2'
    ]
    assert (found.losses, found.gradients, found.training) == ([], [], [])
    text = compare.format_comparison(found)
    assert text.count('ABOVE') == len(found.above) and 'above tolerance: stage0_alpha3' in text


def test_a_wrong_gradient_of_the_right_norm_is_seen(params, batch):
    network = compare.twin(MODEL, params)
    ours = next(differences.their_steps(network, *batch, 0))
    network.conv_skip.weight.register_hook(lambda gradient: -gradient)
    theirs = next(differences.their_steps(network, *batch, 0))
    rows = differences.gradient_differences(ours.gradients, theirs.gradients, compare.Tolerances().gradients)
    (bad,) = [row for row in rows if not row.within]
    assert bad.name == 'conv_skip.weight' and bad.relative == pytest.approx(2, abs=1e-3)
    assert bad.jax == pytest.approx(bad.pytorch, rel=1e-4)


def test_the_network_that_is_compared_with_is_not_changed(command):
    assert command.before.keys() == command.after.keys()
    assert all(torch.equal(value, command.after[key]) for key, value in command.before.items())


def test_a_comparison_with_a_number_that_is_none_is_above():
    ones, bad = np.ones((1, 2, 2, 1), np.float32), np.full((1, 2, 2, 1), np.nan, np.float32)
    for ours, theirs in ((ones, bad), (bad, ones), (bad, bad)):
        assert differences.block_difference('output', ours, theirs, compare.Tolerances()).within is False
        assert differences.block_difference('sfm', ours, theirs, compare.Tolerances()).within is False
    assert differences.value_difference('loss', float('nan'), 1, 1e-4).within is False
    assert differences.value_difference('loss', 1, 0, 1e-4).relative == float('inf')
    assert differences.value_difference('loss', 0, 0, 1e-4).within is True


def test_differences_are_what_numpy_says():
    ours, theirs = np.float32([[[[1, 2.5]]]]), np.float32([[[[1, -4]]]])
    row = differences.block_difference('sfm', ours, theirs, compare.Tolerances())
    assert (row.largest, row.mean, row.relative, row.within) == (6.5, 3.25, 1.625, False)
    row = differences.block_difference('output', ours, ours + 1e-6, compare.Tolerances(output=1e-5))
    assert row.within is True
    with pytest.raises(ConfigError, match='not the same network'):
        differences.block_difference('sfm', ours, theirs[..., :1], compare.Tolerances())


def test_a_gradient_below_rounding_is_measured_by_the_whole():
    whole, tiny = np.ones(4, np.float32), np.float32([1e-12])
    rows = differences.gradient_differences({'a': whole, 'b': 1.5 * tiny}, {'a': whole, 'b': tiny}, 1e-4)
    assert [row.within for row in rows] == [True, True]
    rows = differences.gradient_differences({'a': whole, 'b': 0 * tiny}, {'a': whole, 'b': 1e6 * tiny}, 1e-4)
    assert [row.within for row in rows] == [True, False]


def run(losses, offset=0.0, flip_at=None):
    """A run whose predictions lie above a black label, one pixel of one step below it."""
    for step, loss in enumerate(losses):
        image = np.full((1, 8, 8, 3), 0.5, np.float32)
        image[0, 0, 0, 0] = 0.1 + (-1e-6 if step == flip_at else 1e-6)
        yield differences.Step({'loss': loss + offset * step}, image, {})


def test_steps_are_judged_until_a_value_is_on_the_other_side_of_its_label():
    label = np.full((1, 8, 8, 3), 0.1, np.float32)
    rows = differences.step_differences(run([1, 1, 1, 1]), run([1, 1, 2, 2], flip_at=1), label, 1e-4)
    assert [row.sign_changes for row in rows] == [0, 1, 0, 0]
    assert [row.within for row in rows] == [True, True, None, None]
    rows = differences.step_differences(run([1, 1, 1, 1]), run([1, 2, 2, 2], flip_at=1), label, 1e-4)
    assert [row.within for row in rows] == [True, False, None, None]  # the flip excuses nothing before it
    rows = differences.step_differences(run([1, 1, 1, 1]), run([1, 1, 2, 2]), label, 1e-4)
    assert [row.within for row in rows] == [True, True, False, False]


def test_signs_of_zero_are_no_change():
    label = np.zeros((1, 8, 8, 3), np.float32)
    image = np.random.default_rng(0).random(label.shape, np.float32)
    assert differences.sign_changes(image, image * np.float32(1 + 1e-7), label) == 0
    assert differences.sign_changes(label, label, label) == 0
    assert differences.sign_changes(image, label, image / 2) > image.size / 2


@pytest.mark.parametrize('change', [{'order': 'FA'}, {'ablation': 'M2'}, {'head': 'blend'}], ids=str)
def test_only_the_full_network_can_be_compared(change, batch):
    with pytest.raises(ConfigError, match='order AF, ablation M4, head sigmoid'):
        compare.compare(dataclasses.replace(MODEL, **change), {}, *batch)


def test_shapes_are_checked(params, batch):
    x, label = batch
    with pytest.raises(DataError, match=r'\[B, H, W, 18\]'):
        compare.compare(MODEL, params, x[..., :17])
    with pytest.raises(DataError, match=r'\[2, 10, 12, 3\] and the label \[2, 10, 12, 1\]'):
        compare.compare(MODEL, params, x, label[..., :1])
    with pytest.raises(DataError, match='1x12 pixels cannot be padded'):
        compare.compare(MODEL, params, x[:, :1])


# ---- the authors' class -----------------------------------------------------------------------------


def make_clone(folder, text):
    models = folder / 'models'
    models.mkdir(parents=True)
    (models / '__init__.py').write_text('')
    (models / 'CAPO.py').write_text('')
    (folder / 'helper_of_the_clone.py').write_text('')
    (models / 'AFUNet.py').write_text(text)
    return folder


@pytest.fixture
def other_models_package(monkeypatch):
    """A package of ours that is called models, as theirs is."""
    ours = type(sys)('models')
    monkeypatch.setitem(sys.modules, 'models', ours)
    return ours


def test_the_class_of_a_clone_is_compared(tmp_path, params, batch, other_models_package):
    clone = make_clone(tmp_path / 'clone', CLONE.format(imports=''))
    path = list(sys.path)
    network = compare.authors_network(clone, MODEL, params)
    assert network.made_by == 'the clone' and not network.training
    x = torch.from_numpy(np.moveaxis(batch[0][:, :8], -1, 1).copy())
    blocks, expected = (torch_twin.intermediates(n, x) for n in (network, compare.twin(MODEL, params)))
    assert all(np.array_equal(blocks[name], value) for name, value in expected.items())
    assert sys.path == path and sys.modules['models'] is other_models_package
    assert not {'models.AFUNet', 'models.CAPO', 'helper_of_the_clone'} & set(sys.modules)
    assert not list(clone.rglob('__pycache__'))


def test_two_clones_do_not_mix(tmp_path, params):
    first = make_clone(tmp_path / 'a', CLONE.format(imports=''))
    second = make_clone(tmp_path / 'b', CLONE.format(imports='').replace('the clone', 'the other'))
    networks = [compare.authors_network(clone, MODEL, params) for clone in (first, second)]
    assert [network.made_by for network in networks] == ['the clone', 'the other']


def test_a_missing_timm_says_what_to_install(tmp_path, params, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    clone = make_clone(tmp_path, CLONE.format(imports='from timm.models.layers import DropPath'))
    with pytest.raises(ConfigError, match='pip install timm'):
        compare.authors_network(clone, MODEL, params)
    assert 'models.AFUNet' not in sys.modules


def test_an_installed_timm_is_used(tmp_path, params, monkeypatch):
    layers = type(sys)('timm.models.layers')
    layers.DropPath = torch.nn.Identity
    for name, module in {
        'timm': type(sys)('timm'),
        'timm.models': type(sys)('timm.models'),
        'timm.models.layers': layers,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    clone = make_clone(tmp_path, CLONE.format(imports='from timm.models.layers import DropPath'))
    assert compare.authors_network(clone, MODEL, params).made_by == 'the clone'


BROKEN = {  # text of models/AFUNet.py: what the error says
    'import einops_of_nowhere': 'pip install einops_of_nowhere',
    'class Other: pass': 'has no class AFUNet',
    'def broken(': 'SyntaxError',
    'raise ValueError("boom")': 'ValueError: boom',
    'class AFUNet:\n    def __init__(self, dim): pass': 'cannot be made with the arguments of the release',
}


@pytest.mark.parametrize('text', BROKEN)
def test_a_clone_that_is_none_is_a_clear_error(tmp_path, params, text):
    with pytest.raises(ConfigError, match=BROKEN[text]):
        compare.authors_network(make_clone(tmp_path, text), MODEL, params)


def test_a_folder_without_the_file_is_a_clear_error(tmp_path, params):
    with pytest.raises(ConfigError, match='AFUNet.py: no such file'):
        compare.authors_network(tmp_path, MODEL, params)


def test_weights_must_fit_the_class_of_a_clone(tmp_path, params):
    text = CLONE.format(imports='') + '        self.surplus = __import__("torch").nn.Linear(1, 1)\n'
    with pytest.raises(WeightsError, match='surplus.weight'):
        compare.authors_network(make_clone(tmp_path, text), MODEL, params)


# ---- the command ------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path, params):
    path = tmp_path / 'weights.pth'
    torch_weights.write_pth(path, params)
    return path


def test_the_command_prints_and_writes_every_figure(command):
    assert command.status == command_line.OK and 'Everything judged is within tolerance' in command.text
    content = command.json
    assert content['ok'] and content['above'] == []
    assert content['model'] == {name: getattr(MODEL, name) for name in networks.ARCHITECTURE}
    parts = ('blocks', 'losses', 'gradients', 'training')
    assert {p: content[p] for p in parts} == {
        p: dataclasses.asdict(command.found)[p] for p in parts
    } | {'blocks': [{**dataclasses.asdict(row), 'shape': list(row.shape)} for row in command.found.blocks]}
    assert all(
        f'{row["name"]} ' in command.text
        for part in ('blocks', 'losses', 'training')
        for row in content[part]
    )
    worst = max(command.found.gradients, key=lambda row: row.relative)
    assert f'{worst.name} ' in command.text and compare.format_comparison(command.found) in command.text


def test_what_is_not_finite_is_a_string_in_json(found):
    row = differences.value_difference('loss', float('nan'), 1.0, 1e-4)
    content = compare.to_json(dataclasses.replace(found, losses=[row]), {})
    assert content['losses'][0]['jax'] == 'nan' and content['above'] == ['loss: loss']
    json.dumps(content, allow_nan=False)


def test_a_scene_above_its_tolerance_is_exit_status_1(tmp_path, weights, golden, capsys, monkeypatch):
    def strict(model, params, x, label, **kwargs):
        return compare.compare(model, params, x, tolerances=compare.Tolerances(blocks=0))

    monkeypatch.setattr(command_line, 'compare', strict)
    out = tmp_path / 'out.json'
    arguments = [f'--scene={golden / "scene" / "001"}', '--size=9x9']
    assert command_line.main([f'--weights={weights}', f'--json={out}', *arguments]) == command_line.ABOVE
    text, content = capsys.readouterr().out, json.loads(out.read_text())
    assert 'ABOVE' in text and '001, 9x9' in text
    assert not content['ok'] and 'output' not in content['above'] and content['tolerances']['blocks'] == 0


def test_a_scene_is_cut_from_its_centre(golden):
    x, label = compare.read_scene(golden / 'scene' / '001')
    expected = np.load(golden / 'scene.npz')
    np.testing.assert_allclose(np.moveaxis(x, -1, 0), expected['inputs'], rtol=1e-6)
    np.testing.assert_array_equal(np.moveaxis(label, -1, 0), expected['label'])
    flags = command_line._parser().parse_args([f'--scene={golden / "scene" / "001"}', '--size=16x24'])
    image, cut, name = command_line._batch_of(flags)
    np.testing.assert_array_equal(image[0], x[12:28, 16:40])
    np.testing.assert_array_equal(cut[0], label[12:28, 16:40])
    assert '16x24' in name


def test_a_scene_without_ground_truth_gets_a_random_label(golden):
    scene = golden / 'scene' / '001'
    flags = command_line._parser().parse_args([f'--scene={scene}', '--layout=tursun', '--size=16x16'])
    image, label, name = command_line._batch_of(flags)
    assert label.shape == (*image.shape[:3], 3) and 'random label' in name


def test_without_weights_there_are_initial_values():
    flags = command_line._parser().parse_args(['--stages=2', '--seed=3'])
    model, params, name = command_line._weights_of(flags)
    assert model == AFUNet(num_stages=2) and name == 'random initial values of seed 3'
    expected = afunet.init_params(model, 3)
    assert all(map(np.array_equal, jax.tree.leaves(params), jax.tree.leaves(expected)))
    assert command_line._weights_of(command_line._parser().parse_args([]))[0] == AFUNet(num_stages=4)


def test_weights_of_a_bfloat16_training_are_compared_in_float32(monkeypatch):
    trained = {**TINY, 'dtype': 'bfloat16', 'attention': 'fused', 'drop_path': 0.3}
    monkeypatch.setattr(checkpoints, 'load_weights', lambda path: (trained, {}))
    model, _, _ = command_line._weights_of(command_line._parser().parse_args(['--weights=workdir']))
    assert model == afunet.build(TINY)


ERRORS = {  # arguments: what the message says
    '--weights=nowhere.pth': 'no such file',
    '--weights=x.pth --stages=2': 'not allowed with argument --weights',
    '--stages=9': 'num_stages is 1 to 6',
    '--steps=-1': "0 or more, not '-1'",
    '--seed=1.5': "0 or more, not '1.5'",
    '--json=.': 'is a folder',
    '--scene=nowhere/001': 'no such folder',
    '--scene={golden}/scene/002': 'no scene of layout kalantari',
    '--scene={golden}/scene/001 --layout=other': "invalid choice: 'other'",
    '--scene={golden}/scene/001 --size=41x8': '--size=41x8 does not fit',
    '--stages=1 --size=4x8': 'cannot be padded',
    '--stages=1 --authors=nowhere': 'AFUNet.py: no such file',
    '--size=0x8': "height and width like 64x64, not '0x8'",
    '--size=8': "height and width like 64x64, not '8'",
}


@pytest.mark.parametrize('arguments', ERRORS)
def test_errors_are_messages_and_exit_status_2(arguments, golden, capsys):
    with pytest.raises(SystemExit) as exit_:
        command_line.main(arguments.format(golden=golden).split())
    assert exit_.value.code == 2
    assert ERRORS[arguments] in capsys.readouterr().err


def test_weights_of_another_order_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, 'load_weights', lambda path: ({**TINY, 'order': 'FA'}, {}))
    with pytest.raises(SystemExit) as exit_:
        command_line.main(['--weights=workdir'])
    assert exit_.value.code == 2 and 'order FA' in capsys.readouterr().err


def test_a_missing_pytorch_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(SystemExit) as exit_:
        command_line.main(['--stages=1'])
    assert exit_.value.code == 2 and 'pip install -r requirements-dev.txt' in capsys.readouterr().err


def test_the_program_compares_a_checkpoint_of_training(tmp_path):
    params = afunet.init_params(afunet.build(small.MODEL), seed=5)
    saved = checkpoints.Checkpoints(tmp_path / 'run')
    about = {'config': {'model': small.MODEL}, 'data_position': {'step': 1}}
    saved.save(1, params, {'moment': np.zeros(3)}, about)
    saved.close()
    out = tmp_path / 'out.json'
    status, text, errors = small.run(
        '-m afunet_jax.compare', f'--weights={tmp_path / "run"}', f'--json={out}', '--size=16x16', '--steps=1'
    )
    assert status == command_line.OK, errors + text
    content = json.loads(out.read_text())
    assert content['ok'] and len(content['training']) == 2 and 'Warning' not in errors
    assert content['model']['width'] == small.MODEL['width']
