"""Checkpoints and weights: what is saved comes back, and nothing else passes for it."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import small

from afunet_jax import checkpoints, torch_weights
from afunet_jax.errors import CheckpointError, WeightsError
from afunet_jax.models import afunet

ABOUT = {'config': {'model': small.MODEL}, 'data_position': {'step': 3}}


@pytest.fixture(scope='module')
def params():
    return afunet.init_params(afunet.build(small.MODEL), seed=5)


@pytest.fixture
def workdir(params, tmp_path):
    saved = checkpoints.Checkpoints(tmp_path / 'run', keep=2)
    for step in (1, 2, 3):
        saved.save(step, jax.tree.map(lambda x: x + step, params), {'moment': np.arange(step + 4.0)}, ABOUT)
    saved.wait()
    saved.close()
    return tmp_path / 'run'


def assert_equal(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_saved_is_restored(workdir, params):
    saved = checkpoints.Checkpoints(workdir, keep=2)
    assert saved.latest_step() == 3
    found, state, about = saved.restore(3, params, {'moment': np.zeros(7)})
    assert_equal(found, jax.tree.map(lambda x: x + 3, params))
    np.testing.assert_array_equal(state['moment'], np.arange(7.0))
    assert about['config'] == ABOUT['config'] and about['step'] == 3 and about['format_version'] == 1
    saved.close()


def test_the_latest_checkpoints_are_kept(workdir):
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['2', '3']


def test_weights_come_from_a_workdir_a_folder_of_checkpoints_or_one_of_them(workdir, params):
    for path, step in ((workdir, 3), (workdir / 'checkpoints', 3), (workdir / 'checkpoints' / '2', 2)):
        settings, found = checkpoints.load_weights(path)
        assert settings == small.MODEL
        assert_equal(found, jax.tree.map(lambda x: x + step, params))


def test_the_best_parameters_come_before_the_latest(workdir, params):
    saved = checkpoints.Checkpoints(workdir)
    assert saved.best_about() is None
    saved.save_best(2, params, {**ABOUT, 'validation': {'psnr_mu': 30.0}})
    saved.wait()
    assert saved.best_about()['validation'] == {'psnr_mu': 30.0}
    saved.close()
    assert_equal(checkpoints.load_params(workdir), params)


def test_a_pth_is_weights_too(tmp_path, params):
    torch_weights.write_pth(tmp_path / 'weights.pth', params)
    settings, found = checkpoints.load_weights(tmp_path / 'weights.pth')
    assert_equal(found, params)
    checkpoints.check_architecture(settings, afunet_settings(), 'weights.pth')


def afunet_settings(**change):
    from configs import default

    model = default.get_config().model
    model.update({**small.MODEL, **change})
    return model


@pytest.mark.parametrize('change', [{'width': 12}, {'order': 'FA'}, {'ablation': 'M2'}, {'num_stages': 2}], ids=str)
def test_weights_of_another_architecture_are_refused(change):
    found = {key: value for key, value in small.MODEL.items() if key != 'drop_path'}
    with pytest.raises(WeightsError, match=f'some.pth: .*{next(iter(change))}'):
        checkpoints.check_architecture(found, afunet_settings(**change), 'some.pth')


def test_stochastic_depth_is_no_part_of_the_architecture():
    checkpoints.check_architecture({**small.MODEL, 'drop_path': 0.0}, afunet_settings(drop_path=0.9), 'x')


def test_an_empty_folder_and_a_missing_path_say_what_was_expected(tmp_path):
    with pytest.raises(CheckpointError, match='working directory'):
        checkpoints.load_params(tmp_path)
    with pytest.raises(WeightsError, match='no such file'):
        checkpoints.load_params(tmp_path / 'nothing')


@pytest.mark.parametrize('damage', ['about', 'params', 'garbage'])
def test_a_damaged_checkpoint_is_named(workdir, damage):
    checkpoint = workdir / 'checkpoints' / '3'
    if damage == 'garbage':
        (checkpoint / 'about' / 'metadata').write_text('{"conf')
    elif damage == 'about':
        shutil.rmtree(checkpoint / 'about')
    else:
        shutil.rmtree(checkpoint / 'params')
        (checkpoint / 'params').mkdir()
    with pytest.raises(CheckpointError, match='checkpoints/3'):
        checkpoints.load_params(checkpoint)


def test_a_checkpoint_of_a_later_format_is_refused(workdir):
    about = workdir / 'checkpoints' / '3' / 'about' / 'metadata'
    about.write_text(json.dumps({**json.loads(about.read_text()), 'format_version': 2}))
    with pytest.raises(CheckpointError, match='format version 2.*update'):
        checkpoints.load_params(workdir)


def test_a_workdir_is_claimed_once(tmp_path):
    config = {'a': {'b': 1, 'c': 2}, 'seed': 3}
    checkpoints.claim_workdir(tmp_path, config, free=('a.c',))
    checkpoints.claim_workdir(tmp_path, {'a': {'b': 1, 'c': 5}, 'seed': 3}, free=('a.c',))
    for other in ({'a': {'b': 2, 'c': 2}, 'seed': 3}, {'a': {'b': 1, 'c': 2}}, {**config, 'new': 1}):
        with pytest.raises(CheckpointError, match='another configuration'):
            checkpoints.claim_workdir(tmp_path, other, free=('a.c',))
    assert json.loads((tmp_path / 'config.json').read_text()) == config


def test_checkpoints_without_their_config_are_not_claimed(workdir):
    assert not (workdir / 'config.json').exists()
    with pytest.raises(CheckpointError, match='no config.json'):
        checkpoints.claim_workdir(workdir, {}, free=())


def test_a_damaged_config_is_named(tmp_path):
    pathlib.Path(tmp_path / 'config.json').write_text('{')
    with pytest.raises(CheckpointError, match='config.json'):
        checkpoints.claim_workdir(tmp_path, {}, free=())
