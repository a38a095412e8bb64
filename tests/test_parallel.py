"""Data parallelism: the number of devices and processes changes no result beyond rounding."""

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small

from afunet_jax import checkpoints, parallel
from afunet_jax.data import layouts, tfds_builders
from afunet_jax.errors import ConfigError, TrainingError

STEPS = 10
GLOO_SECONDS = 30  # in which devices on CPUs of several processes must be connected
LONGEST_END = 60  # seconds in which the others end after one has


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


@pytest.mark.slow  # two processes of two devices do too, and whole runs of other tests are on four
def test_four_devices_train_as_one_does(settings, one_device):
    folder, flags = settings
    status, _, err = small.run('train.py', *flags, f'--workdir={folder}/four', devices=4)
    assert status == 0, err
    assert '4 x cpu' in err
    assert_same_training(read(folder / 'four'), one_device)


def test_two_processes_train_as_one_does(settings, one_device):
    folder, flags = settings
    processes = start_processes(flags, folder / 'two', 2, devices=2)
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
    processes = start_processes(endless(flags, checkpoint_every=100000), folder / 'asked', 2, devices=2)
    wait_for(processes[0], 'step 3/')
    for process in processes:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # not at the same moment
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert [status for _, status in ends] == [143, 143], ends
    steps = [int(re.search(r'stopped after step (\d+) of', err)[1]) for err, _ in ends]
    assert steps[0] == steps[1]
    assert [path.name for path in (folder / 'asked' / 'checkpoints').iterdir()] == [str(steps[0])]


@pytest.mark.slow
def test_three_processes_end_after_a_fourth_is_killed_and_all_started_again_train_as_one_does(settings, one_device):
    folder, flags = settings
    workdir = folder / 'four_processes'
    processes = start_processes(flags, workdir, 4)
    wait_for(processes[0], 'step 2/')
    processes[2].kill()
    killed = time.monotonic()
    ends = [(process.communicate(timeout=100)[1], process.returncode) for process in processes]
    assert time.monotonic() - killed < LONGEST_END
    assert all(status for _, status in ends), ends
    for i in (0, 1, 3):  # by us, or by jax before we could
        assert any(words in ends[i][0] for words in ('has lost another one', 'another task died', 'gloo')), ends[i]
    saved = checkpoints.Checkpoints(workdir).latest_step()
    assert saved and checkpoints.load_checkpoint(workdir / 'checkpoints' / str(saved))[0]['step'] == saved

    processes = start_processes(flags, workdir, 4)
    ends = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert [status for _, status in ends] == [0] * 4, ends
    assert '4 x cpu in 4 processes' in ends[0][0] and f'step {saved} of 10' in ends[0][0]
    assert_same_training(read(workdir), one_device)


@pytest.mark.slow
def test_an_error_of_the_main_process_alone_ends_the_others(settings, tmp_path):
    folder, flags = settings
    processes = start_processes(endless(flags, checkpoint_every=5), tmp_path / 'run', 2)
    while not list((tmp_path / 'run' / 'checkpoints').glob('[0-9]*')) and processes[0].poll() is None:
        time.sleep(0.01)
    resource.prlimit(processes[0].pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    err = processes[0].communicate(timeout=100)[1]
    ended = time.monotonic()
    assert processes[0].returncode == 2 and re.search('error: .*cannot be written', err), err
    assert processes[1].wait(timeout=100)
    assert time.monotonic() - ended < LONGEST_END


@pytest.mark.slow
def test_processes_wait_for_the_one_that_prepares_the_data_longer_than_devices_wait_to_be_connected(
    settings, one_device, tmp_path
):
    folder, flags = settings
    flags = [*(flag for flag in flags if 'prepared_dir' not in flag), f'--config.data.prepared_dir={tmp_path}/prepared']
    source = tfds_builders.find_source(folder / 'data', layouts.get_layout('kalantari'))
    home = tmp_path / 'prepared' / f'kalantari-{source.fingerprint}'
    home.mkdir(parents=True)
    with open(home / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        processes = start_processes(flags, tmp_path / 'run', 2)
        wait_for(processes[0], 'waiting for it')
        time.sleep(GLOO_SECONDS + 20)  # with the start of the other
    ends = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert [status for _, status in ends] == [0, 0], ends
    assert_same_training(read(tmp_path / 'run'), one_device)


@pytest.mark.slow
def test_others_do_not_wait_for_a_main_process_that_cannot_prepare_the_data(settings, tmp_path):
    folder, flags = settings
    shutil.copytree(folder / 'data', tmp_path / 'data')
    next((tmp_path / 'data').rglob('exposure.txt')).write_text('0\n')
    flags = [*(flag for flag in flags if 'data.dir' not in flag), f'--config.data.dir={tmp_path}/data']
    processes = start_processes(flags, tmp_path / 'run', 2)
    err = processes[0].communicate(timeout=100)[1]
    ended = time.monotonic()
    assert processes[0].returncode == 2 and 'exposure.txt' in err, err
    assert processes[1].wait(timeout=100)
    assert time.monotonic() - ended < LONGEST_END


SRUN = """
import os, signal, subprocess, sys
command = [arg for arg in sys.argv[1:] if not arg.startswith('--kill-on-bad-exit')]
tasks = [
    subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={
        **os.environ, 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_STEP_NUM_NODES': '1', 'SLURM_NTASKS': '2',
        'SLURM_STEP_NUM_TASKS': '2', 'SLURM_PROCID': str(i), 'SLURM_LOCALID': str(i),
        'XLA_FLAGS': '--xla_force_host_platform_device_count=1', 'JAX_PLATFORMS': 'cpu'})
    for i in range(2)
]
for line in tasks[0].stderr:
    print(line, end='', file=sys.stderr, flush=True)
    if 'step 3/' in line and 'SLURM_TIME_IS_OVER' in os.environ:
        for task in tasks:
            task.send_signal(signal.SIGUSR1)
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.mark.slow
def test_the_script_for_slurm_saves_at_the_end_of_its_time_is_queued_again_and_goes_on(settings, one_device, tmp_path):
    folder, flags = settings
    commands = tmp_path / 'bin'
    commands.mkdir()
    (commands / 'srun').write_text(f'#!{sys.executable}\n{SRUN}')
    (commands / 'scontrol').write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/scontrol\n')
    (commands / 'python').write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for name in ('srun', 'scontrol', 'python'):
        (commands / name).chmod(0o755)
    environment = {
        **os.environ, 'PATH': f'{commands}:{os.environ["PATH"]}', 'SLURM_JOB_ID': str(os.getpid()),
        'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
    }  # fmt: skip
    script = ['bash', 'docs/slurm.sh', *flags, f'--workdir={tmp_path}/run']
    first = subprocess.run(
        script, cwd=small.ROOT, env={**environment, 'SLURM_TIME_IS_OVER': '1'}, capture_output=True, text=True
    )
    assert first.returncode == 138, first.stderr
    stopped = int(re.search(r'stopped after step (\d+) of 10', first.stderr)[1])
    assert (tmp_path / 'scontrol').read_text() == f'requeue {os.getpid()}\n'
    second = subprocess.run(script, cwd=small.ROOT, env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert f'in 2 processes, global batch 4, step {stopped} of 10' in second.stderr
    assert_same_training(read(tmp_path / 'run'), one_device)


def endless(flags, checkpoint_every):
    """The flags of a run that others end, without validation."""
    flags = [flag for flag in flags if '.steps=' not in flag and '.checkpoint_every' not in flag]
    return [*flags, '--config.train.steps=100000', f'--config.train.checkpoint_every={checkpoint_every}',
            '--config.validation.scenes=0']  # fmt: skip


def wait_for(process, text):
    """Returns when the process has said the text."""
    said = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            return
    raise AssertionError(''.join(said))


def start_processes(flags, workdir, number, devices=1):
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
    return [
        small.start('train.py', *flags, f'--workdir={workdir}', f'--coordinator=localhost:{port}',
                    f'--num_processes={number}', f'--process_id={i}', devices=devices)
        for i in range(number)
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


def test_what_was_replicated_is_left_alone_by_a_step_that_reuses_memory():
    space = np.zeros(4096 + 64, np.uint8)
    start = -space.ctypes.data % 64  # where JAX could take a host array as its own
    tree = {'a': space[start : start + 4096].view(np.float32)}
    step = parallel.program(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    there = parallel.replicate(tree)
    assert not np.shares_memory(np.asarray(there['a'].addressable_shards[0].data), tree['a'])
    assert parallel.unreplicate(step(there))['a'].max() == 1
    assert there['a'].is_deleted() and not tree['a'].any()


def test_a_step_on_replicated_state_and_on_its_own_result_is_one_program(caplog):
    traced = []

    def counted(tree):
        traced.append(1)
        return jax.tree.map(lambda x: x + 1, tree)

    step = parallel.program(counted, donate_argnums=0)
    state = parallel.replicate({'a': np.zeros(3, np.float32), 'n': np.int32(0)})
    with caplog.at_level('WARNING'), jax.log_compiles():
        state = step(step(step(state)))
    compiled = [record.getMessage() for record in caplog.records]
    assert parallel.unreplicate(state)['n'] == 3
    assert len(traced) == sum('Finished XLA compilation' in line for line in compiled) == 1


def test_positions_number_the_rows_of_the_global_batch():
    step = jax.pmap(lambda rows: parallel.positions(rows.shape[0]), axis_name=parallel.AXIS)
    np.testing.assert_array_equal(step(parallel.shard(np.zeros(12))), np.arange(12).reshape(4, 3))


@pytest.mark.slow
def test_processes_that_begin_with_different_things_stop(settings, tmp_path):
    folder, flags = settings
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
    processes = [
        small.start('train.py', *flags, f'--config.seed={seed}', f'--workdir={tmp_path}/mixed{seed}',
                    f'--coordinator=localhost:{port}', '--num_processes=2', f'--process_id={i}')
        for i, seed in enumerate((1, 2))
    ]  # fmt: skip
    for process in processes:
        err = process.communicate(timeout=100)[1]
        assert process.returncode == 2 and 'process 1 has another configuration than process 0' in err, err


def test_what_must_be_the_same_is_compared_and_named(monkeypatch):
    parallel.check_same({'thing': b'1'})  # alone, nothing is
    monkeypatch.setattr(parallel.jax, 'process_count', lambda: 2)

    def gather(digests):
        theirs = digests.copy()
        theirs[1] += 1
        return np.stack([digests, theirs])

    monkeypatch.setattr(parallel.multihost_utils, 'process_allgather', gather)
    with pytest.raises(ConfigError, match='^process 1 has another step than process 0[.]'):
        parallel.check_same({'configuration': b'a', 'step': b'7'})
    monkeypatch.setattr(parallel.multihost_utils, 'process_allgather', lambda digests: np.stack([digests, digests]))
    parallel.check_same({'configuration': b'a', 'step': b'7'})


@pytest.mark.parametrize('error', [MemoryError(), jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 9 GB')])
def test_memory_that_is_not_enough_is_a_message_with_cures(error):
    with pytest.raises(TrainingError, match='train.batch_size.*model.remat=on'), parallel.together():
        raise error


def test_an_address_without_a_port_is_refused():
    with pytest.raises(ConfigError, match="host:port of process 0, but it is 'HOST0'"):
        parallel.start('HOST0', 2, 0)


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


def test_without_a_home_directory_compiled_programs_are_not_kept(monkeypatch, capfd):
    kept = jax.config.jax_compilation_cache_dir

    def no_home():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(parallel.pathlib.Path, 'home', no_home)
    try:
        jax.config.update('jax_compilation_cache_dir', None)
        parallel.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir is None
        assert 'JAX_COMPILATION_CACHE_DIR' in capfd.readouterr().err
    finally:
        jax.config.update('jax_compilation_cache_dir', kept)


def test_free_memory_is_some_of_this_machine():
    free = parallel.free_memory()
    assert free is None or 0 < free < 2**50
