"""From a working directory to one file with everything in it."""

import json

import jax
import numpy as np
import pytest
import small

from afunet_jax import checkpoints, packaging, safetensors_weights
from afunet_jax.models import afunet

FIGURES = {'AFUNet': {'psnr_mu': 31.5}}


@pytest.fixture
def flags(tmp_path):
    """Arguments for a run of two checkpoints, the first of them the best."""
    params = afunet.init_params(afunet.build(small.MODEL), 5)
    about = {'config': {'model': small.MODEL, 'seed': 3}, 'data_position': {'step': 3}}
    saved = checkpoints.Checkpoints(tmp_path / 'run')
    saved.save_best(1, params, {**about, 'validation': {'psnr_mu': 30.0}})
    saved.save(2, jax.tree.map(lambda x: x + 1, params), {'moment': np.zeros(3)}, about)
    saved.wait()
    saved.close()
    (tmp_path / 'eval').mkdir()
    (tmp_path / 'eval' / 'results.json').write_text(json.dumps({'means': FIGURES, 'rows': []}))
    (tmp_path / 'manifest.json').write_text(json.dumps({'seed': 8, 'scenes': [{'source': 'x'}] * 100}))
    return [f'--workdir={tmp_path}/run', f'--results={tmp_path}/eval', f'--data={tmp_path}/manifest.json',
            f'--out={tmp_path}/w.safetensors']  # fmt: skip


def test_the_file_holds_the_best_parameters_and_what_they_are(flags, tmp_path, capsys):
    assert packaging.main([*flags, '--commit=abc', '--license=MIT']) == 0
    about, params = safetensors_weights.read(tmp_path / 'w.safetensors')
    assert about == {
        'format_version': 1, 'model': small.MODEL, 'config': {'model': small.MODEL, 'seed': 3}, 'step': 1,
        'validation': {'psnr_mu': 30.0}, 'recipe': {'seed': 8}, 'commit': 'abc', 'license': 'MIT', 'figures': FIGURES,
    }  # fmt: skip
    expected = checkpoints.load_params(tmp_path / 'run')
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert 'of step 1' in capsys.readouterr().out


def test_a_missing_file_is_told(flags, tmp_path, capsys):
    (tmp_path / 'eval' / 'results.json').unlink()
    with pytest.raises(SystemExit) as stop:
        packaging.main(flags)
    assert stop.value.code == 2
    assert f'{tmp_path}/eval/results.json: cannot be read' in capsys.readouterr().err
    assert not (tmp_path / 'w.safetensors').exists()
