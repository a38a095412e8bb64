import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import small

from afunet_jax import checkpoints, export
from afunet_jax.errors import ConfigError
from afunet_jax.models import afunet

ALONE = '''
import json, pathlib, sys
sys.modules['afunet_jax'] = sys.modules['flax'] = None  # importing them fails
import jax, numpy as np
folder = pathlib.Path(sys.argv[1])
exported = jax.export.deserialize((folder / 'net.stablehlo').read_bytes())
inputs = np.load(folder / 'inputs.npz')
np.savez(folder / 'outputs.npz', **{name: exported.call(x) for name, x in inputs.items()})
'''


@pytest.fixture(scope='module')
def model():
    return afunet.build(small.MODEL)


@pytest.fixture(scope='module')
def params(model):
    initial = afunet.init_params(model, 0)
    return jax.tree.map(lambda x: 5 * x + 0.01, initial)  # far enough from zero that every block counts


def image(height, width, batch=1):
    return np.random.default_rng(height * width).random((batch, height, width, 18)).astype(np.float32)


_seen = {}


def native(model, params, x):
    """The network's own output; of a model, by the image's size, computed once."""
    key = (model, x.shape)
    if key not in _seen:
        _seen[key] = np.asarray(jax.jit(lambda x: model.apply({'params': params}, x))(x))
    return _seen[key]


@pytest.fixture(scope='module')
def symbolic(model, params):
    return jax.export.deserialize(export.export_network(model, params).serialize())


@pytest.mark.parametrize('size', [(8, 24), (40, 56)])
def test_one_symbolic_file_computes_what_the_network_computes_at_any_size(model, params, symbolic, size):
    x = image(*size)
    expected = native(model, params, x)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(symbolic.call(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('size, at_once', [
    (export.Size(40, 56), 'row'),
    (export.Size(None, 56), 'image'),
    pytest.param(export.Size(40, 56, batch=2), 'row', marks=pytest.mark.slow),
    pytest.param(export.Size(), 'image', marks=pytest.mark.slow),
])  # fmt: skip
def test_fixed_sizes_and_batches(model, params, size, at_once):
    exported = export.export_network(model, params, size, at_once=at_once)
    x = image(40, 56, size.batch)
    np.testing.assert_allclose(exported.call(x), native(model, params, x), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('settings', [{'order': 'FA', 'num_stages': 2}, {'ablation': 'M1', 'head': 'blend'}, {'window_size': 4}])
def test_other_architectures(settings):
    model = afunet.build({**small.MODEL, **settings})
    params = afunet.init_params(model, 1)
    x = image(16, 24)
    exported = export.export_network(model, params)
    np.testing.assert_allclose(exported.call(x), native(model, params, x), rtol=0, atol=1e-5)


def test_other_sizes_are_refused_by_the_file(symbolic):
    with pytest.raises(ValueError, match='12|divisible|8\\*h'):
        symbolic.call(image(12, 16))


def test_the_program_is_for_any_device(model, params, symbolic):
    """No trace of this machine: neither its CPU path, nor sizes, nor arrays as large as an image."""
    assert symbolic.platforms == export.DEFAULT_PLATFORMS
    few = len(export.export_network(model, params, export.Size(64, 64)).serialize())
    many = len(export.export_network(model, params, export.Size(1024, 1536)).serialize())
    assert many < few + 10_000


def test_the_file_runs_where_our_package_cannot_be_imported(model, params, tmp_path, monkeypatch):
    settings = {key: value for key, value in small.MODEL.items()}
    monkeypatch.setattr(checkpoints, 'load_weights', lambda path: (settings, params))
    about = export.write(tmp_path / 'net.stablehlo', 'weights.pth')
    inputs = {'a': image(40, 56)}
    np.savez(tmp_path / 'inputs.npz', **inputs)
    done = subprocess.run(
        [sys.executable, '-c', ALONE, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    outputs = np.load(tmp_path / 'outputs.npz')
    for name, x in inputs.items():
        np.testing.assert_allclose(outputs[name], native(model, params, x), rtol=0, atol=1e-5)
    assert json.loads((tmp_path / 'net.stablehlo.json').read_text()) == about
    assert about['input']['shape'] == ['1', '8*h', '8*w', '18'] and about['platforms'] == ['cpu', 'cuda']
    assert 'over the short exposure, whose EV is 0' in about['input']['ev']
    assert 'with EV 0 for the short exposure from 0 to 1' in about['output']['range']
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'inputs.npz', 'net.stablehlo', 'net.stablehlo.json', 'outputs.npz']  # fmt: skip


@pytest.mark.parametrize('change, message', [
    ({'size': export.Size(100, 64)}, 'height is a multiple of the window, 8 pixels, not 100'),
    ({'size': export.Size(64, 0)}, 'width is a multiple of the window'),
    ({'size': export.Size(batch=0)}, 'batch is at least 1'),
    ({'platforms': ('cpu', 'abacus')}, 'not abacus'),
    ({'platforms': ()}, 'not none'),
    ({'at_once': 'pixel'}, "not 'pixel'"),
])  # fmt: skip
def test_impossible_requests(model, params, change, message):
    with pytest.raises(ConfigError, match=message):
        export.export_network(model, params, **change)


def test_the_command_takes_the_packaged_weights_or_says_what_is_missing(tmp_path):
    status, out, err = small.run('-m afunet_jax.export', f'--out={tmp_path}/a.stablehlo')
    assert status == 0 and '8*h, 8*w, 18' in out, err
    status, _, err = small.run('-m afunet_jax.export', '--weights=/nowhere/a.pth')
    assert status == 2 and '/nowhere/a.pth: no such file' in err


@pytest.mark.slow
def test_the_command_exports_the_full_network(tmp_path):
    import golden_weights
    import torch

    state = {key: torch.from_numpy(value) for key, value in golden_weights.golden_parameters().items()}
    torch.save({'state_dict': state}, tmp_path / 'golden.pth')
    status, out, err = small.run(
        '-m afunet_jax.export', f'--weights={tmp_path}/golden.pth', f'--out={tmp_path}/net.stablehlo')
    assert status == 0, err
    assert '[1, 8*h, 8*w, 18] -> [1, 8*h, 8*w, 3]' in out
    exported = jax.export.deserialize((tmp_path / 'net.stablehlo').read_bytes())
    x = golden_weights.golden_input(1, (1, 18, 64, 64)).transpose(0, 2, 3, 1)
    expected = np.load(golden_weights.GOLDEN / 'forward.npz')['a_output'].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(exported.call(x), expected, rtol=0, atol=1e-5)
