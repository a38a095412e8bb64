"""Data parallelism: the number of devices and processes changes no result beyond rounding."""

import json
import re
import shutil
import signal
import socket
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small

from afunet_jax import parallel
from afunet_jax.errors import ConfigError

STEPS = 10


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp('parallel')
    config = small.config(small.write_data_set(folder / 'data', test=0), folder / 'prepared')
    config.train.update(steps=STEPS, log_every=1, checkpoint_every=1, keep_checkpoints=STEPS + 1)
    config.validation.every = 5
    return folder, small.flags(config)


@pytest.fixture(scope='module')
def one_device(settings):
    folder, flags = settings
    status, _, err = small.run('train.py', *flags, f'--workdir={folder}/one')
    assert status == 0, err
    return read(folder / 'one')


def read(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    validations = [line['validation']['psnr_mu'] for line in lines if 'validation' in line]
    with ocp.PyTreeCheckpointer() as reader:
        moments = reader.restore(workdir.absolute() / 'checkpoints' / '1' / 'state')[0]['mu']
    gradients = jax.tree.map(lambda m: np.asarray(m) / 0.1, moments)  # Adam's first moment is 0.1 of the gradient
    return {'losses': losses, 'validations': validations, 'gradients': gradients}


def assert_same_training(ours, theirs):
    assert len(ours['losses']) == len(theirs['losses']) == STEPS
    np.testing.assert_allclose(ours['losses'][0], theirs['losses'][0], rtol=1e-6)
    np.testing.assert_allclose(ours['losses'], theirs['losses'], rtol=1e-4)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(theirs['gradients']))
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours['gradients']), jax.tree.leaves(theirs['gradients']), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest, err_msg=jax.tree_util.keystr(path))
    np.testing.assert_allclose(ours['validations'], theirs['validations'], rtol=1e-4)


def test_four_devices_train_as_one_does(settings, one_device):
    folder, flags = settings
    status, _, err = small.run('train.py', *flags, f'--workdir={folder}/four', devices=4)
    assert status == 0, err
    assert '4 x cpu' in err
    assert_same_training(read(folder / 'four'), one_device)


def test_two_processes_train_as_one_does(settings, one_device):
    folder, flags = settings
    processes = start_two(flags, folder / 'two')
    ends = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert [status for _, status in ends] == [0, 0], ends
    assert 'in 2 processes' in ends[0][0] and 'step 10/10' in ends[0][0]
    assert 'step 10/10' not in ends[1][0], 'only the main process reports'
    assert_same_training(read(folder / 'two'), one_device)


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 2, 8])
def test_a_run_saved_on_four_devices_goes_on_on_others(settings, devices, tmp_path):
    folder, flags = settings
    flags = [*(flag for flag in flags if 'batch_size' not in flag), '--config.train.batch_size=8']
    whole = folder / 'eight_rows'
    if not whole.exists():
        status, _, err = small.run('train.py', *flags, f'--workdir={whole}', devices=4)
        assert status == 0, err
    assert_same_after_a_cut(whole, tmp_path / 'run', flags, devices)


@pytest.mark.slow
def test_a_run_saved_by_two_processes_goes_on_in_one(settings, one_device, tmp_path):
    folder, flags = settings
    if not (folder / 'two').exists():
        test_two_processes_train_as_one_does(settings, one_device)
    assert_same_after_a_cut(folder / 'two', tmp_path / 'run', flags, 1)


def assert_same_after_a_cut(whole, workdir, flags, devices):
    """Goes on with a copy of a run from its fifth step: the same bits at the start, the same losses beyond rounding."""
    shutil.copytree(whole, workdir)
    for step in range(6, STEPS + 1):
        shutil.rmtree(workdir / 'checkpoints' / str(step))
    status, _, err = small.run('train.py', *flags, f'--workdir={workdir}', devices=devices)
    assert status == 0 and f'{devices} x cpu in 1 process, global batch' in err and 'step 5 of 10' in err, err
    ours, theirs = read(workdir), read(whole)
    assert ours['losses'][:5] == theirs['losses'][:5]
    assert_same_training(ours, theirs)


@pytest.mark.slow
def test_two_processes_that_are_asked_to_end_stop_after_the_same_step_with_one_checkpoint(settings):
    folder, flags = settings
    flags = [flag for flag in flags if '.steps=' not in flag and '.checkpoint_every' not in flag]
    flags += ['--config.train.steps=100000', '--config.train.checkpoint_every=100000', '--config.validation.scenes=0']
    processes = start_two(flags, folder / 'asked')
    for line in processes[0].stderr:
        if 'step 3/' in line:
            break
    for process in processes:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # not at the same moment
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert [status for _, status in ends] == [143, 143], ends
    steps = [int(re.search(r'stopped after step (\d+) of', err)[1]) for err, _ in ends]
    assert steps[0] == steps[1]
    assert [path.name for path in (folder / 'asked' / 'checkpoints').iterdir()] == [str(steps[0])]


def start_two(flags, workdir):
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
    return [
        small.start('train.py', *flags, f'--workdir={workdir}', f'--coordinator=localhost:{port}',
                    '--num_processes=2', f'--process_id={i}', devices=2)
        for i in range(2)
    ]  # fmt: skip


def test_a_batch_that_does_not_divide_says_what_would():
    with pytest.raises(ConfigError, match='batch of 4 or 8.*1 or 2 or 3 devices') as error:
        parallel.check_batch_size(6)
    assert '4 devices' in str(error.value)
    assert parallel.check_batch_size(8) == 2


def test_replicate_and_unreplicate_are_inverse():
    tree = {'a': np.arange(6.0, dtype=np.float32).reshape(2, 3), 'b': np.int32(7)}
    there = parallel.replicate(tree)
    assert there['a'].shape == (4, 2, 3)
    back = parallel.unreplicate(there)
    assert back['b'].shape == () and back['b'] == 7
    np.testing.assert_array_equal(back['a'], tree['a'])


def test_positions_number_the_rows_of_the_global_batch():
    step = jax.pmap(lambda rows: parallel.positions(rows.shape[0]), axis_name=parallel.AXIS)
    np.testing.assert_array_equal(step(parallel.shard(np.zeros(12))), np.arange(12).reshape(4, 3))


@pytest.mark.parametrize('given', [('localhost:1', None, None), (None, 2, 0)])
def test_half_of_the_flags_of_several_hosts_is_an_error(given):
    with pytest.raises(ConfigError, match='all three'):
        parallel.start(*given)


def test_compiled_programs_are_kept_in_a_folder_of_this_processor(monkeypatch, tmp_path):
    kept = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    try:
        jax.config.update('jax_compilation_cache_dir', None)
        parallel.use_compilation_cache()
        first = jax.config.jax_compilation_cache_dir
        assert first.startswith(str(tmp_path))
        parallel.use_compilation_cache()  # what is set already stays
        assert jax.config.jax_compilation_cache_dir == first
        jax.config.update('jax_compilation_cache_dir', None)
        monkeypatch.setattr(parallel, '_processor', lambda: 'another')
        parallel.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir != first
    finally:
        jax.config.update('jax_compilation_cache_dir', kept)


def test_free_memory_is_some_of_this_machine():
    free = parallel.free_memory()
    assert free is None or 0 < free < 2**50
