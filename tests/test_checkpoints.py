"""Checkpoints and weights: what is saved comes back, and nothing else passes for it."""

import errno
import hashlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time
import zipfile

import jax
import numpy as np
import pytest
import small
import tensorstore

from afunet_jax import checkpoints, files, manifest, torch_weights
from afunet_jax.checkpoints import saving
from afunet_jax.errors import CheckpointError, WeightsError
from afunet_jax.models import afunet

EMPTY = hashlib.sha256(b'').hexdigest()
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


def test_the_best_parameters_are_those_saved_last_at_whatever_step(tmp_path):
    """A run that goes on from before its best step may find better ones at an earlier step."""
    saved = checkpoints.Checkpoints(tmp_path, 2, 0)
    for step, value in ((10, 1.0), (9, 2.0)):
        saved.save_best(step, {'kernel': np.float32([value])}, {'validation': {'psnr_mu': value}})
        saved.wait()
    assert [path.name for path in (tmp_path / checkpoints.BEST).iterdir()] == ['9']
    assert saved.best_about()['validation'] == {'psnr_mu': 2.0}


def test_what_is_saved_is_restored(workdir, params):
    saved = checkpoints.Checkpoints(workdir, keep=2)
    assert saved.latest_step() == 3
    found, state, about = saved.restore(3, params, {'moment': np.zeros(7)})
    assert_equal(found, jax.tree.map(lambda x: x + 3, params))
    np.testing.assert_array_equal(state['moment'], np.arange(7.0))
    assert about['config'] == ABOUT['config'] and about['step'] == 3 and about['format_version'] == 2
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


@pytest.mark.parametrize('change', [{'width': 12}, {'order': 'FA'}, {'ablation': 'M2'}, {'head': 'blend'}, {'num_stages': 2}], ids=str)
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


def test_a_checkpoint_of_a_later_format_is_refused_and_no_older_one_taken(workdir, params):
    (workdir / 'checkpoints' / '3' / manifest.NAME).unlink()
    manifest.write(workdir / 'checkpoints' / '3', format_version=3)
    with pytest.raises(CheckpointError, match='format version 3.*update'):
        checkpoints.load_params(workdir)
    with pytest.raises(CheckpointError, match='format version 3.*update'):
        checkpoints.Checkpoints(workdir).restore_newest(params, {'moment': np.zeros(7)})


# ---- damage ------------------------------------------------------------------------------------------


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


def files_of(checkpoint):
    return sorted(path for path in checkpoint.rglob('*') if path.is_file() and path.stat().st_size)


def restored_step(workdir, params, step=3):
    saved = checkpoints.Checkpoints(workdir)
    try:
        return saved.restore_newest(params, {'moment': np.zeros(step + 4)})
    finally:
        saved.close()


def test_whatever_file_is_truncated_changed_or_missing_the_damage_is_found_and_named(workdir, params):
    checkpoint = workdir / 'checkpoints' / '3'
    listed = files_of(checkpoint)
    assert len(listed) > 10
    rng = np.random.default_rng(0)
    for path in listed:
        whole = path.read_bytes()
        places = {0, len(whole) - 1, *rng.integers(len(whole), size=3).tolist()}
        damages = [lambda place=place: flip(path, place) for place in places]
        damages += [lambda: cut(path, len(whole) - 1), lambda: cut(path, 0), path.unlink]
        for damage in damages:
            damage()
            with pytest.raises(CheckpointError, match=f'checkpoints/3: damaged checkpoint: .*{path.name}'):
                checkpoints.load_params(checkpoint)
            path.write_bytes(whole)
    assert_equal(checkpoints.load_params(checkpoint), jax.tree.map(lambda x: x + 3, params))


@pytest.mark.parametrize('damage', ['byte', 'manifest'])
def test_the_checkpoint_before_a_damaged_one_is_used_and_the_damage_named(workdir, params, damage, capsys):
    checkpoint = workdir / 'checkpoints' / '3'
    if damage == 'byte':
        array = max(files_of(checkpoint / 'state'), key=lambda path: path.stat().st_size)
        flip(array, array.stat().st_size // 2)
    else:
        (checkpoint / manifest.NAME).unlink()
    step, found, state, about = restored_step(workdir, params, step=2)
    assert step == 2 and about['step'] == 2
    assert_equal(found, jax.tree.map(lambda x: x + 2, params))
    err = capsys.readouterr().err
    assert 'checkpoints/3: damaged checkpoint' in err and 'from step 2' in err
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['2', '3.damaged']


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew(workdir, params):
    for step in (2, 3):
        cut(files_of(workdir / 'checkpoints' / str(step) / 'params')[0], 0)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r'(?s)no checkpoint is whole.*checkpoints/3.*checkpoints/2.*backup'):
            restored_step(workdir, params)
    shutil.move(workdir / 'checkpoints' / '3', workdir / 'checkpoints' / '3.damaged')
    shutil.rmtree(workdir / 'checkpoints' / '2')
    with pytest.raises(CheckpointError, match='3.damaged: was set aside'):
        restored_step(workdir, params)


def test_a_checkpoint_of_other_shapes_is_no_damage_and_no_older_one_taken(workdir, params):
    with pytest.raises(CheckpointError, match=r'checkpoints/3: state.*moment.* has shape \(7,\), not \(6,\)'):
        checkpoints.Checkpoints(workdir).restore_newest(params, {'moment': np.zeros(6)})
    assert (workdir / 'checkpoints' / '3').is_dir()


def test_damaged_best_parameters_are_an_error_that_names_the_others(workdir, params, capsys):
    saved = checkpoints.Checkpoints(workdir)
    saved.save_best(2, params, {**ABOUT, 'validation': {'psnr_mu': 30.0}})
    saved.close()
    flip(workdir / 'best' / '2' / 'about' / 'metadata', 5)
    with pytest.raises(CheckpointError, match='best/2: damaged.*about/metadata.*--weights=.*checkpoints/2 or .*/3'):
        checkpoints.load_weights(workdir)
    assert checkpoints.Checkpoints(workdir).best_about() is None
    assert 'best/2: damaged' in capsys.readouterr().err


# ---- checksums that are right, and contents that are not ---------------------------------------------


def describe(workdir, text):
    """The newest checkpoint says something else about itself, and its manifest agrees."""
    checkpoint = workdir / 'checkpoints' / '3'
    (checkpoint / 'about' / 'metadata').write_text(text if isinstance(text, str) else json.dumps(text))
    (checkpoint / manifest.NAME).unlink()
    manifest.write(checkpoint, format_version=2, step=3)


def store(workdir):
    base = {'driver': 'file', 'path': f'{workdir}/checkpoints/3/params/'}
    return tensorstore.KvStore.open({'driver': 'ocdbt', 'base': base}).result()


WHOLE = {'format_version': 2, 'step': 3, **ABOUT}


@pytest.mark.parametrize('about', [
    7, [], 'x', {**WHOLE, 'step': -1}, {**WHOLE, 'step': 2.5}, {**WHOLE, 'format_version': '2'}, {**WHOLE, 'format_version': None},
    {**WHOLE, 'config': []}, {**WHOLE, 'data_position': None}, {**WHOLE, 'log': 7}, {**WHOLE, 'validation': {'psnr_mu': 'x'}},
    pytest.param('[' * 100_000, id='deep'),
], ids=str)  # fmt: skip
def test_descriptions_that_are_none_are_refused(workdir, params, about):
    describe(workdir, about)
    for read in (checkpoints.load_weights, lambda path: restored_step(path, params)):
        with pytest.raises(CheckpointError, match='checkpoints/3: (cannot be read|format version)'):
            read(workdir)


@pytest.mark.parametrize('change', [
    {'num_stages': 6, 'sfm_depth': 32, 'width': 3072, 'mlp_ratio': 64}, {'width': 3072}, {'sfm_depth': 32}, {'window_size': 32},
    {'width': 10**9}, {'num_stages': '1'},
], ids=str)  # fmt: skip
def test_a_description_of_a_larger_network_is_refused_soon_and_without_its_memory(workdir, change):
    describe(workdir, {**WHOLE, 'config': {'model': {**small.MODEL, **change}}})
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError, match='checkpoints/3'):
        checkpoints.load_weights(workdir)
    assert time.process_time() - start < 2 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize('change', [
    {'chunks': [2**40]}, {'shape': [2**40], 'chunks': [2**40]}, {'shape': [7], 'chunks': [7]}, {'dtype': '<f8'}, {'dtype': '|V1000000000'},
    {'compressor': {'id': 'zlib', 'level': 1}}, {'chunks': None}, {'shape': None}, {'filters': [{'id': 'delta'}]},
], ids=str)  # fmt: skip
def test_arrays_described_as_others_are_refused(workdir, change):
    """TensorStore ends the process where it cannot have the memory that a chunk is said to take."""
    arrays, name = store(workdir), 'output_conv.bias/.zarray'
    arrays.write(name, json.dumps({**json.loads(arrays.read(name).result().value), **change}).encode()).result()
    describe(workdir, WHOLE)
    with pytest.raises(CheckpointError, match='checkpoints/3'):
        checkpoints.load_weights(workdir)


@pytest.mark.parametrize('listed', [
    None, [], 'x', {'about/metadata': 'x'}, {'about/metadata': {'bytes': 1}}, {'../../../x': {'bytes': 0, 'sha256': EMPTY}},
    {'/dev/zero': {'bytes': 0, 'sha256': EMPTY}}, {'pipe': {'bytes': 0, 'sha256': EMPTY}}, {'': {'bytes': 0, 'sha256': EMPTY}},
    {'x' * 5000: {'bytes': 0, 'sha256': EMPTY}}, {'a\0b': {'bytes': 0, 'sha256': EMPTY}}, {'zero': {'bytes': 0, 'sha256': EMPTY}},
], ids=lambda listed: str(listed)[:30])  # fmt: skip
def test_a_manifest_that_lists_no_files_of_its_folder_is_damage(workdir, listed):
    checkpoint = workdir / 'checkpoints' / '3'
    os.mkfifo(checkpoint / 'pipe')
    (checkpoint / 'zero').symlink_to('/dev/zero')
    about = {'format_version': 2} if listed is None else {'format_version': 2, 'files': listed}
    (checkpoint / manifest.NAME).write_text(manifest._text(about))
    with pytest.raises(CheckpointError, match='checkpoints/3: damaged checkpoint: '):
        checkpoints.load_weights(workdir)


def test_folders_whose_names_are_no_steps_are_no_checkpoints(workdir, params):
    for name in ('007', '٣', '²', '-4'):
        shutil.copytree(workdir / 'checkpoints' / '3', workdir / 'checkpoints' / name)
    assert restored_step(workdir, params)[0] == 3
    assert_equal(checkpoints.load_params(workdir), jax.tree.map(lambda x: x + 3, params))


def test_a_config_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'config.json')
    with pytest.raises(CheckpointError, match='config.json'):
        checkpoints.claim_workdir(tmp_path, {}, free=())


# ---- saving ------------------------------------------------------------------------------------------


def test_what_a_killed_process_left_behind_is_removed_and_never_read(workdir, params):
    folder = workdir / 'checkpoints'
    left = ['.saving-9', '.saving-9.orbax-checkpoint-tmp', '.saving-no-more-1', '9.orbax-checkpoint-tmp']
    for name in left:
        shutil.copytree(folder / '3', folder / name)
    assert restored_step(workdir, params)[0] == 3
    assert sorted(path.name for path in folder.iterdir()) == ['2', '3']


def test_a_save_that_fails_is_an_error_and_leaves_the_others_whole(workdir, params, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, 'No space left on device')

    saved = checkpoints.Checkpoints(workdir)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, 'write', full)
        saved.save(4, params, {'moment': np.zeros(8)}, ABOUT)
        with pytest.raises(CheckpointError, match='checkpoints: .*No space left on device.*before it are whole.*room'):
            saved.wait()
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['2', '3']
    saved.save(4, params, {'moment': np.zeros(8)}, ABOUT)  # there is room again
    saved.close()
    assert restored_step(workdir, params, step=4)[0] == 4


@pytest.mark.parametrize('killed', [True, False])
def test_the_only_checkpoint_stays_until_the_one_of_the_same_step_is_in_its_place(tmp_path, params, monkeypatch, killed):
    saved, rename = checkpoints.Checkpoints(tmp_path, keep=1), pathlib.Path.rename
    saved.save(3, params, {'moment': np.zeros(7)}, ABOUT)
    saved.wait()

    def failing(path, place):
        if path.name == '.saving-3':
            raise OSError(errno.EIO, 'Input/output error')
        return rename(path, place)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, 'rename', failing)
        if killed:
            patch.setattr(saving._Folder, '_clear', lambda folder: None)
        saved.save(3, params, {'moment': np.ones(7)}, ABOUT)
        with pytest.raises(CheckpointError, match='Input/output error'):
            saved.wait()
    if killed:
        saved = checkpoints.Checkpoints(tmp_path, keep=1)
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['3']
    step, found, state, _ = saved.restore_newest(params, {'moment': np.zeros(7)})
    assert step == 3 and not state['moment'].any()
    assert_equal(found, params)


LIMITED = """
import resource, sys
import numpy as np
from afunet_jax import checkpoints
from afunet_jax.errors import CheckpointError
saved = checkpoints.Checkpoints(sys.argv[1])
about = {'config': {}}
tree = {'a': np.random.default_rng(0).random(100_000)}
saved.save(1, tree, tree, about)
saved.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
saved.save(2, tree, tree, about)
try:
    saved.wait()
except CheckpointError as error:
    print(error)
print(saved.restore_newest(tree, tree)[0])
"""


def test_files_that_may_not_grow_stop_the_save_with_the_reason(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', LIMITED, tmp_path], capture_output=True, text=True, cwd=small.ROOT,
        env={**small.os.environ, 'JAX_PLATFORMS': 'cpu'},
    )  # fmt: skip
    message, step = done.stdout.splitlines()
    assert 'checkpoints: a checkpoint cannot be written' in message and 'File too large' in message, done.stderr
    assert step == '1' and [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['1']


# ---- format version 1 --------------------------------------------------------------------------------


@pytest.fixture
def version_1(tmp_path):
    """What the release before manifests wrote: a run of 4 steps that was killed after 2."""
    with zipfile.ZipFile(pathlib.Path(__file__).parent / 'fixtures' / 'workdir_v1.zip') as archive:
        archive.extractall(tmp_path / 'v1')
    return tmp_path / 'v1'


def test_version_1_is_read(version_1):
    assert not list(version_1.rglob(manifest.NAME))
    about, params = checkpoints.load_checkpoint(version_1 / 'checkpoints' / '2')
    assert about['format_version'] == 1 and about['data_position']['step'] == 2
    best, best_params = checkpoints.load_checkpoint(version_1)
    assert best['validation']['psnr_mu'] == pytest.approx(7.598, abs=1e-3)
    assert_equal(params, best_params)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == afunet.count_parameters(params) > 1000


def test_damage_in_version_1_is_found_where_orbax_finds_it(version_1):
    cut(version_1 / 'checkpoints' / '2' / 'params' / 'manifest.ocdbt', 20)
    with pytest.raises(CheckpointError, match='checkpoints/2'):
        checkpoints.load_params(version_1 / 'checkpoints' / '2')


# ---- one run in a directory --------------------------------------------------------------------------


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path):
    with checkpoints.locked_workdir(tmp_path / 'run'):
        with pytest.raises(CheckpointError, match=r'another run trains here \(host .*, process \d+, since 20\d\d-'):
            with checkpoints.locked_workdir(tmp_path / 'run'):
                pass
    with checkpoints.locked_workdir(tmp_path / 'run'):
        pass


def test_a_lock_dies_with_its_process(tmp_path):
    code = f'import sys; from afunet_jax import files\nwith files.locked({str(tmp_path / "lock")!r}): print(1, flush=True); input()'
    process = subprocess.Popen(
        [sys.executable, '-c', code], cwd=small.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    with pytest.raises(files.LockedError, match=f'process {process.pid}'), files.locked(tmp_path / 'lock'):
        pass
    process.kill()
    process.communicate()
    with files.locked(tmp_path / 'lock'):
        pass


def test_a_workdir_is_claimed_once(tmp_path):
    config = {'a': {'b': 1, 'c': 2}, 'seed': 3}
    checkpoints.claim_workdir(tmp_path, config, free=('a.c',))
    checkpoints.claim_workdir(tmp_path, {'a': {'b': 1, 'c': 5}, 'seed': 3}, free=('a.c',))
    for other in ({'a': {'b': 2, 'c': 2}, 'seed': 3}, {'a': {'b': 1, 'c': 2}}, {**config, 'new': 1}):
        with pytest.raises(CheckpointError, match='another configuration'):
            checkpoints.claim_workdir(tmp_path, other, free=('a.c',))
    assert json.loads((tmp_path / 'config.json').read_text()) == config


@pytest.mark.parametrize(
    ('key', 'did', 'other'),
    [('model.head', 'sigmoid', 'blend'), ('model.precision', 'highest', 'default'), ('eval.align', 'off', 'homography')],
)
def test_a_workdir_of_an_older_release_is_claimed_by_what_that_release_did(tmp_path, key, did, other):
    section, name = key.split('.')
    checkpoints.claim_workdir(tmp_path, {section: {'width': 72}}, free=())
    checkpoints.claim_workdir(tmp_path, {section: {'width': 72, name: did}}, free=())
    with pytest.raises(CheckpointError, match=f"{key}: '{did}' there, '{other}' now"):
        checkpoints.claim_workdir(tmp_path, {section: {'width': 72, name: other}}, free=())


def test_checkpoints_without_their_config_are_not_claimed(workdir):
    assert not (workdir / 'config.json').exists()
    with pytest.raises(CheckpointError, match='no config.json'):
        checkpoints.claim_workdir(workdir, {}, free=())


def test_a_damaged_config_is_named(tmp_path):
    pathlib.Path(tmp_path / 'config.json').write_text('{')
    with pytest.raises(CheckpointError, match='config.json'):
        checkpoints.claim_workdir(tmp_path, {}, free=())
