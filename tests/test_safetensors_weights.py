"""Weights in one file: the round trip, and every file that must be refused."""

import json

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from afunet_jax import checkpoints
from afunet_jax import safetensors_weights as weights
from afunet_jax.errors import WeightsError
from afunet_jax.models import afunet

SETTINGS = {'num_stages': 1, 'width': 12, 'sfm_depth': 1, 'sfm_heads': 2}


@pytest.fixture
def params():
    return afunet.init_params(afunet.build(SETTINGS), 3)


@pytest.fixture
def path(tmp_path, params):
    weights.write(tmp_path / 'w.safetensors', params, {'model': SETTINGS, 'step': 7})
    return tmp_path / 'w.safetensors'


def rewrite(path, change):
    """The file with its arrays or its description changed."""
    with safetensors.safe_open(path, 'numpy') as file:
        about, arrays = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    change(arrays, about)
    path.write_bytes(safetensors.numpy.save(arrays, about))


def test_what_is_written_is_read(path, params):
    about, found = weights.read(path)
    assert about == {'format_version': 1, 'model': SETTINGS, 'step': 7}
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_load_weights_takes_the_file(path, params):
    settings, found = checkpoints.load_weights(path)
    assert settings == SETTINGS
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_every_truncation_is_refused(path):
    data = path.read_bytes()
    for size in (0, 5, 9, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(WeightsError, match='damaged'):
            weights.read(path)


def description(**values):
    return lambda arrays, about: about.update(about=json.dumps({**json.loads(about['about']), **values}))


@pytest.mark.parametrize(('change', 'message'), [
    (lambda arrays, about: about.clear(), 'no description of ours'),
    (lambda arrays, about: about.update(about='{'), 'cannot be read'),
    (lambda arrays, about: about.update(about='[]'), 'cannot be read'),
    (lambda arrays, about: about.update(about='{"format_version": 1, "model": 3}'), 'cannot be read'),
    (description(format_version=2), 'format version 2'),
    (description(model={**SETTINGS, 'width': 13}), 'names no network'),
    (description(model={**SETTINGS, 'width': 24}), 'is float32'),
    (description(model={**SETTINGS, 'num_stages': 2}), 'is missing'),
    (lambda arrays, about: arrays.update(more=np.zeros(3, np.float32)), 'more is not a parameter'),
    (lambda arrays, about: arrays.update({'output_conv/bias': np.full(3, np.nan, np.float32)}), 'not finite'),
])  # fmt: skip
def test_other_files_are_refused(path, change, message):
    rewrite(path, change)
    with pytest.raises(WeightsError, match=message):
        weights.read(path)


def test_a_missing_file_and_another_suffix_are_refused(tmp_path, params):
    with pytest.raises(WeightsError, match='cannot be read'):
        weights.read(tmp_path / 'none.safetensors')
    with pytest.raises(WeightsError, match='ends in .safetensors'):
        weights.write(tmp_path / 'w.npz', params, {'model': SETTINGS})
    assert not list(tmp_path.iterdir())


def test_without_packaged_weights_the_cure_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, 'PACKAGED', tmp_path / 'none.safetensors')
    with pytest.raises(WeightsError, match='--weights='):
        weights.packaged()
