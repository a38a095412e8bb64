"""From a working directory to one file with everything in it."""

import json

import jax
import numpy as np
import pytest
import small

from afunet_jax import checkpoints, packaging, safetensors_weights
from afunet_jax.models import afunet

ROWS = [
    {'scene': '001', 'method': 'AFUNet', 'height': 8, 'width': 8, 'seconds': 1.0, 'psnr_mu': 30.0},
    {'scene': '002', 'method': 'AFUNet', 'height': 8, 'width': 8, 'seconds': 1.0, 'psnr_mu': 33.0},
    {'scene': '003', 'method': 'AFUNet', 'height': 8, 'width': 8, 'seconds': 1.0, 'psnr_mu': 50.0},
]
SCENES = [{'folder': 'Training/001', 'split': 'train', 'static': True}] + [
    {'folder': f'Test/Test-set/{i:03}', 'split': 'test', 'static': i == 3} for i in (1, 2, 3)
]
FIGURES = {
    'moving': {'AFUNet': {'psnr_mu': 31.5, 'seconds': 1.0}}, 'static': {'AFUNet': {'psnr_mu': 50.0, 'seconds': 1.0}},
}  # fmt: skip


@pytest.fixture
def flags(tmp_path):
    """Arguments for a run of two checkpoints, the first of them the best."""
    params = afunet.init_params(afunet.build(small.MODEL), 5)
    data = {'dir': '/home/me/data', 'prepared_dir': '/home/me/prepared', 'layout': 'synthetic'}
    about = {'config': {'model': small.MODEL, 'seed': 3, 'data': data}, 'data_position': {'step': 3}}
    saved = checkpoints.Checkpoints(tmp_path / 'run')
    saved.save_best(1, params, {**about, 'validation': {'psnr_mu': 30.0}})
    saved.save(2, jax.tree.map(lambda x: x + 1, params), {'moment': np.zeros(3)}, about)
    saved.wait()
    saved.close()
    (tmp_path / 'eval').mkdir()
    (tmp_path / 'eval' / 'results.json').write_text(json.dumps({'scenes': ROWS, 'eval': {'align': 'homography'}}))
    (tmp_path / 'manifest.json').write_text(json.dumps({'seed': 8, 'scenes': SCENES}))
    return [f'--workdir={tmp_path}/run', f'--results={tmp_path}/eval', f'--data={tmp_path}/manifest.json',
            f'--out={tmp_path}/w.safetensors']  # fmt: skip


def test_the_file_holds_the_best_parameters_and_what_they_are(flags, tmp_path, capsys):
    assert packaging.main([*flags, '--commit=abc', '--license=MIT']) == 0
    about, params = safetensors_weights.read(tmp_path / 'w.safetensors')
    assert about == {
        'format_version': 1, 'model': small.MODEL, 'step': 1,
        'config': {'model': small.MODEL, 'seed': 3, 'data': {'dir': '', 'prepared_dir': '', 'layout': 'synthetic'}},
        'validation': {'psnr_mu': 30.0}, 'recipes': [{'seed': 8}], 'commit': 'abc', 'license': 'MIT', 'figures': FIGURES,
        'before': [], 'eval': {'align': 'homography'},
    }  # fmt: skip
    expected = checkpoints.load_params(tmp_path / 'run')
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    told = capsys.readouterr().out
    assert 'of 1 steps' in told and 'moving, 2 scenes' in told and 'static, 1 scenes' in told


def test_the_file_tells_of_earlier_trainings_in_order(flags, tmp_path, capsys):
    assert packaging.main([*flags, f'--before={tmp_path}/run/checkpoints/2', f'--before={tmp_path}/run']) == 0
    about, _ = safetensors_weights.read(tmp_path / 'w.safetensors')
    assert [one['step'] for one in about['before']] == [2, 1]
    assert about['before'][0]['config'] == about['config']
    assert 'of 2 + 1 + 1 steps' in capsys.readouterr().out


def test_the_file_tells_of_all_data_sets(flags, tmp_path):
    (tmp_path / 'more.json').write_text(json.dumps({'seed': 9, 'scenes': SCENES[:1]}))
    assert packaging.main([*flags, f'--data={tmp_path}/more.json']) == 0
    about, _ = safetensors_weights.read(tmp_path / 'w.safetensors')
    assert about['recipes'] == [{'seed': 8}, {'seed': 9}] and about['figures'] == FIGURES


def test_a_file_that_was_trained_on_hands_its_history_down(flags, tmp_path, capsys):
    assert packaging.main([*flags, f'--before={tmp_path}/run/checkpoints/2']) == 0
    (tmp_path / 'old.safetensors').write_bytes((tmp_path / 'w.safetensors').read_bytes())
    (tmp_path / 'more.json').write_text(json.dumps({'seed': 9, 'scenes': SCENES[:1]}))
    capsys.readouterr()
    assert packaging.main([*flags, f'--before={tmp_path}/old.safetensors', f'--data={tmp_path}/more.json']) == 0
    about, _ = safetensors_weights.read(tmp_path / 'w.safetensors')
    assert [one['step'] for one in about['before']] == [2, 1] and about['recipes'] == [{'seed': 8}, {'seed': 9}]
    assert all(set(one) == {'step', 'config'} for one in about['before'])
    assert 'of 2 + 1 + 1 steps' in capsys.readouterr().out


def test_scenes_of_another_data_set_are_refused(flags, tmp_path, capsys):
    (tmp_path / 'manifest.json').write_text(json.dumps({'seed': 8, 'scenes': SCENES[:3]}))
    with pytest.raises(SystemExit):
        packaging.main(flags)
    assert 'scenes 003 of the results are no test scenes' in capsys.readouterr().err


def test_a_missing_file_is_told(flags, tmp_path, capsys):
    (tmp_path / 'eval' / 'results.json').unlink()
    with pytest.raises(SystemExit) as stop:
        packaging.main(flags)
    assert stop.value.code == 2
    assert f'{tmp_path}/eval/results.json: cannot be read' in capsys.readouterr().err
    assert not (tmp_path / 'w.safetensors').exists()
