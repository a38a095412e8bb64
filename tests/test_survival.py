"""A training that is killed, asked to end, robbed of its disk or its data: what it leaves, and how it goes on.

Whole processes. The quick one of them kills a training three times; more of that, and of what takes longer, is slow:
`pytest -m slow tests/test_survival.py`, and `tests/kill_training.py` for as many kills as one likes.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small

from afunet_jax import checkpoints, evaluation, manifest, parallel, sizes, training
from afunet_jax.data import record
from afunet_jax.errors import CheckpointError, DataError, TrainingError
from afunet_jax.metrics import registry
from afunet_jax.models import afunet
from afunet_jax.training_log import Log

pytestmark = pytest.mark.usefixtures('quickly_compiled')

SECONDS_TO_END = 30.0
MEMORY_STEPS = int(os.environ.get('AFUNET_MEMORY_STEPS', 20_000))
MEMORY_SIZES = int(os.environ.get('AFUNET_MEMORY_SIZES', 300))


# ---- killed ------------------------------------------------------------------------------------------


def kill(out, *flags):
    environment = {key: value for key, value in os.environ.items() if key != 'XLA_FLAGS'}
    done = subprocess.run(
        [sys.executable, small.ROOT / 'tests' / 'kill_training.py', f'--out={out}', *flags],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    figures = json.loads((out / 'kills.json').read_text()) if (out / 'kills.json').exists() else {}
    assert done.returncode == 0, (figures, done.stdout, done.stderr)
    assert figures['differences'] == []
    return figures


def test_killed_and_asked_to_end_a_run_ends_as_the_undisturbed_one(tmp_path):
    assert kill(tmp_path, '--kills=3', '--signals=KILL,TERM,KILL', '--steps=12', '--usual=4')['kills'] == 3


@pytest.mark.slow
def test_killed_25_times(tmp_path):
    figures = kill(tmp_path, '--kills=25')
    assert figures['kills'] == 25 and figures['in_a_save'] > 0 and figures['kept_steps'] > 0


@pytest.mark.slow
def test_every_signal_ends_training_with_its_status_and_loses_nothing(tmp_path):
    assert kill(tmp_path, '--kills=8', '--signals=TERM,INT,USR1,HUP')['kills'] == 8


# ---- in this process ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('survival')
    return small.write_data_set(folder / 'data'), folder / 'prepared'


@pytest.fixture
def config(data):
    return small.config(*data)


def train(config, workdir):
    training.run(afunet.build(config.model), config, workdir)
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def without_speed(lines):
    return [{key: value for key, value in line.items() if key != 'images_per_second'} for line in lines]


def state_of(workdir, step):
    """Parameters and optimizer state of a checkpoint."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as reader:
        return [reader.restore((workdir / 'checkpoints' / str(step) / item).absolute()) for item in ('params', 'state')]


def same_bits(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    return workdir, train(small.config(*data), workdir)


def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before_and_ends_the_same(config, finished, tmp_path, capsys):
    workdir = tmp_path / 'run'
    shutil.copytree(finished[0], workdir)
    damaged = workdir / 'checkpoints' / '4' / 'params' / '_METADATA'
    damaged.write_text(damaged.read_text().replace('kernel', 'kernal', 1))
    lines = train(config, workdir)
    err = capsys.readouterr().err
    assert 'checkpoints/4: damaged checkpoint: params/_METADATA' in err and 'step 2 of 4' in err
    assert without_speed(lines) == without_speed(finished[1])
    assert same_bits(state_of(workdir, 4), state_of(finished[0], 4))


class Linear(nn.Module):
    """The smallest network that a training step takes."""

    window_size: int = 8
    chunk_windows: int = 8
    precision: str = 'highest'

    @nn.compact
    def __call__(self, x, train=False, positions=None):
        return nn.Dense(3)(x)


def test_the_best_of_the_last_step_is_found_again_where_it_could_not_be_written(config, tmp_path, monkeypatch, capsys):
    config.validation.every, write = 4, manifest.write

    def failing(path, **about):
        if path.parent.name == checkpoints.BEST:
            time.sleep(0.5)  # the other checkpoint is sooner
            raise OSError(errno.EIO, 'Input/output error')
        return write(path, **about)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, 'write', failing)
        with pytest.raises(CheckpointError, match='best: a checkpoint cannot be written.*the same command then goes on'):
            train(config, tmp_path / 'run')
    assert not list((tmp_path / 'run' / checkpoints.BEST).iterdir())
    lines = train(config, tmp_path / 'run')
    assert [path.name for path in (tmp_path / 'run' / checkpoints.BEST).iterdir()] == ['4']
    assert [line['step'] for line in lines if 'validation' in line] == [4]
    assert 'nothing to do' not in capsys.readouterr().err
    train(config, tmp_path / 'run')
    assert 'nothing to do' in capsys.readouterr().err


@pytest.mark.parametrize('bad', [np.nan, np.inf, 1e38])
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(bad):
    model, optimizer = Linear(), optax.adam(0.1)
    batch = {'input': np.ones((4, 2, 2, 18), np.float32), 'label': np.zeros((4, 2, 2, 3), np.float32)}
    params = jax.tree.map(np.asarray, model.init(jax.random.key(0), batch['input'])['params'])
    opt_state = jax.tree.map(np.asarray, optimizer.init(params))

    def loss(prediction, label):
        return jnp.mean((prediction - label) ** 2), {}

    step = training.make_step(model, optimizer, seed=0)
    rest = jax.tree_util.Partial(loss), parallel.on_devices(0)
    start = parallel.replicate(training.TrainState(np.int32(0), params, opt_state))
    good, metrics = step(start, parallel.shard(batch), *rest)
    assert parallel.unreplicate(metrics)['skipped'] == 0 and parallel.unreplicate(metrics)['stop'] == 0
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start))  # its memory is the new state's
    before = parallel.unreplicate(good)
    assert not same_bits(before.params, params) and before.step == 1
    batch['label'][3, 0, 0, 0] = bad  # of the last device alone
    after, metrics = step(good, parallel.shard(batch), *rest)
    after, metrics = parallel.unreplicate((after, metrics))
    assert metrics['skipped'] == 1 and not np.isfinite(metrics['loss']) and after.step == 2
    assert same_bits((after.params, after.opt_state), (before.params, before.opt_state))


@pytest.mark.slow
def test_steps_that_are_not_finite_are_left_out_and_counted(config, finished, tmp_path, monkeypatch):
    class Broken:
        """The batches, the third one with a value that is no number."""

        def __init__(self, batches):
            self._batches = batches

        def __getattr__(self, name):
            return getattr(self._batches, name)

        def __next__(self):
            batch = next(self._batches)
            if self._batches.get_state()['step'] == 3:
                batch['label'][0, 0, 0, 0] = np.nan
            return batch

    make = training._batches
    monkeypatch.setattr(training, '_batches', lambda *args: Broken(make(*args)))
    config.train.update(non_finite='skip', checkpoint_every=1, keep_checkpoints=4, log_every=1)
    lines = train(config, tmp_path / 'run')
    logged = {line['step']: line for line in lines if 'epoch' in line}
    assert logged[3]['skipped'] == 1 and 'loss' not in logged[3]
    assert all('skipped' not in logged[step] and np.isfinite(logged[step]['loss']) for step in (1, 2, 4))
    after = {step: state_of(tmp_path / 'run', step) for step in (2, 3, 4)}
    assert same_bits(after[2], state_of(finished[0], 2)), 'finite steps are those of the default'
    assert same_bits(after[3], after[2]) and not same_bits(after[4], after[3])
    about, _ = checkpoints.load_checkpoint(tmp_path / 'run' / 'checkpoints' / '4')
    assert about['log']['skipped_in_all'] == 1


def test_more_steps_that_are_not_finite_than_the_limit_stop_the_run(config, tmp_path):
    config.train.update(non_finite='skip', non_finite_limit=2)
    log = Log(tmp_path, 0, lambda step: 0.1, config, {'skipped_in_all': 1})
    log._skip(5, {'loss': np.nan, 'gradient_norm': 1.0})
    with pytest.raises(TrainingError, match='step 6: loss is nan.*the 2 steps that train.non_finite_limit'):
        log._skip(6, {'loss': np.nan, 'gradient_norm': np.nan})
    log.close()


def test_the_rate_that_is_logged_is_the_one_that_was_used(config, tmp_path):
    log = Log(tmp_path, 0, lambda count: 0.1 / (1 + count), config, {'skipped_in_all': 2})
    log.write(6)  # the sixth step, the fourth that Adam counts
    log.close()
    assert json.loads((tmp_path / 'metrics.jsonl').read_text())['learning_rate'] == 0.1 / 4


def test_a_second_run_is_refused_and_the_first_one_left_alone(config, finished):
    workdir, lines = finished
    with checkpoints.locked_workdir(workdir):
        with pytest.raises(CheckpointError, match=f'another run trains here .*process {os.getpid()}'):
            train(config, workdir)
    assert (workdir / 'metrics.jsonl').read_text().count('\n') == len(lines)


# ---- data that change --------------------------------------------------------------------------------


@pytest.fixture
def own_data(config, finished, tmp_path):
    """A copy of the data and of the finished run; copied files have other times and the same contents."""
    shutil.copytree(config.data.dir, tmp_path / 'data', copy_function=shutil.copyfile)
    shutil.copytree(finished[0], tmp_path / 'run')
    config.data.update(dir=str(tmp_path / 'data'), prepared_dir=str(tmp_path / 'prepared'))
    return tmp_path / 'data' / 'Training'


def test_data_that_were_copied_are_the_same_data(config, own_data, tmp_path):
    record.check(tmp_path / 'run', config.data)


@pytest.mark.parametrize('change', ['contents', 'missing', 'scene', 'new'])
def test_a_run_whose_data_have_changed_stops_and_names_the_file(config, own_data, tmp_path, change):
    label = own_data / '002' / 'HDRImg.hdr'
    if change == 'contents':
        data = bytearray(label.read_bytes())
        data[-1] ^= 1
        label.write_bytes(data)
        message = '002/HDRImg.hdr: has other contents'
    elif change == 'missing':
        label.unlink()
        message = '002/HDRImg.hdr: has other contents|002/HDRImg.hdr: is missing'
    elif change == 'scene':
        shutil.rmtree(own_data / '002')
        message = '002/1.tif: is missing'
    else:
        shutil.copytree(own_data / '002', own_data / '004')
        message = '004/1.tif: was not there'
    with pytest.raises(DataError, match=message):
        train(config, tmp_path / 'run')


@pytest.mark.slow
def test_data_that_disappear_while_a_run_has_them_in_memory_do_not_touch_it(config, finished, own_data, tmp_path, monkeypatch):
    def remove(self, step, metrics, add=Log.add):
        shutil.rmtree(own_data.parent, ignore_errors=True)
        shutil.rmtree(config.data.prepared_dir, ignore_errors=True)
        add(self, step, metrics)

    monkeypatch.setattr(Log, 'add', remove)
    assert without_speed(train(config, tmp_path / 'new')) == without_speed(finished[1])
    with pytest.raises(DataError, match=re.escape(str(own_data.parent))):
        train(config, tmp_path / 'new')


# ---- old checkpoints ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_format_version_1_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.unpack_archive(pathlib.Path(__file__).parent / 'fixtures' / 'workdir_v1.zip', 'run')
    config = small.config(small.write_data_set(pathlib.Path('data')), 'prepared')
    config.model.update(sfm_depth=1, drop_path=0.0, ablation='M1')
    before = (tmp_path / 'run' / 'metrics.jsonl').read_text()
    lines = train(config, pathlib.Path('run'))
    assert (tmp_path / 'run' / 'metrics.jsonl').read_text().startswith(before)
    continued = without_speed(lines)
    assert [line['step'] for line in continued] == [2, 2, 4, 4]
    undisturbed = without_speed(train(config, pathlib.Path('new')))
    for ours, theirs in zip(continued, undisturbed, strict=True):
        for key, value in theirs.items():
            np.testing.assert_allclose(_flat(ours[key]), _flat(value), rtol=1e-3, err_msg=key)


def _flat(value):
    return list(value.values()) if isinstance(value, dict) else value


# ---- programs that are asked to end ------------------------------------------------------------------


def end_at(process, text, number):
    """Sends the signal when stderr says the text; (status, stderr, seconds to the end)."""
    said = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            break
    process.send_signal(number)
    start = time.monotonic()
    _, rest = process.communicate(timeout=60)
    return process.returncode, ''.join(said) + rest, time.monotonic() - start


@pytest.fixture(scope='module')
def program_flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp('programs')
    config = small.config(small.write_data_set(folder / 'data', train=3, test=30), folder / 'prepared')
    config.train.update(steps=2000, log_every=1, checkpoint_every=2000)
    return folder, small.flags(config)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_train_py_saves_and_ends(program_flags, tmp_path, number):
    _, flags = program_flags
    process = small.start('train.py', *flags, f'--workdir={tmp_path}/run')
    status, err, seconds = end_at(process, 'step 3/', number)
    assert status == 128 + number and seconds < SECONDS_TO_END and 'Traceback' not in err
    step = int(re.search(r'stopped after step (\d+) of 2000, which is saved', err)[1])
    found = sorted(int(path.name) for path in (tmp_path / 'run' / 'checkpoints').iterdir())
    assert found == sorted({*range(2, step + 1, 2), step})[-2:]  # the last two: validations, every second step, save too
    print(f'{seconds:.1f} s to the end')


@pytest.mark.slow
def test_eval_py_ends_and_leaves_nothing_half_written(program_flags, tmp_path):
    folder, flags = program_flags
    config = small.config(folder / 'data', folder / 'prepared')
    config.validation.scenes = 0
    train(config, tmp_path / 'run')
    flags = [flag for flag in flags if '.train.' not in flag] + ['--config.eval.metrics=("psnr_mu",)']
    process = small.start('eval.py', *flags, f'--weights={tmp_path}/run', f'--out={tmp_path}/out')
    deadline = time.monotonic() + 120
    while not list((tmp_path / 'out').rglob('*.hdr')) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and time.monotonic() - start < SECONDS_TO_END, err
    assert 'SIGTERM: ended before its work was done' in err and 'Traceback' not in err
    assert not (tmp_path / 'out' / 'results.json').exists()
    assert not [path for path in (tmp_path / 'out').rglob('.*') if path.is_file()]


PREPARE = """
from afunet_jax import cli
from afunet_jax.data import tfds_builders
import sys
@cli.errors_as_messages
def main():
    tfds_builders.prepare(sys.argv[1], 'kalantari', sys.argv[2], progress=lambda *_: print('scene', file=sys.stderr, flush=True))
main()
"""


@pytest.mark.slow
def test_preparation_ends_and_the_next_one_starts_clean(tmp_path):
    small.write_data_set(tmp_path / 'data', train=40, test=0, height=200, width=300)
    command = [sys.executable, '-c', PREPARE, tmp_path / 'data', tmp_path / 'prepared']
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    process = subprocess.Popen(command, cwd=small.ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    status, err, seconds = end_at(process, 'scene', signal.SIGTERM)
    assert status == 143 and seconds < SECONDS_TO_END and 'Traceback' not in err, err
    done = subprocess.run(command, cwd=small.ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stderr.count('scene') == 40


# ---- a full disk -------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'no file system can be mounted here: {done.stderr.strip()}')
    try:
        yield
    finally:
        subprocess.run(['umount', folder], check=True)


def check_full_disk(workdir, status, err):
    assert status == 2, err
    # Orbax may add traces of its own threads before.
    assert re.search(r'error: .*cannot be written \(.*(No space left|File too large)', err.splitlines()[-1]), err
    assert 'whole' in err
    whole = sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir())
    assert whole and all(isinstance(step, int) for step in whole)
    for step in whole:
        checkpoints.load_checkpoint(workdir / 'checkpoints' / str(step))


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_leaves_whole_checkpoints(program_flags, tmp_path):
    _, flags = program_flags
    flags = [flag for flag in flags if 'checkpoint_every' not in flag] + ['--config.train.checkpoint_every=1']
    flags += ['--config.train.keep_checkpoints=100', '--config.validation.scenes=0']
    with small_disk(tmp_path / 'disk', '2m'):
        status, _, err = small.run('train.py', *flags, f'--workdir={tmp_path}/disk/run')
        check_full_disk(tmp_path / 'disk' / 'run', status, err)


@pytest.mark.slow
def test_a_limit_of_the_files_size_stops_the_run(program_flags, tmp_path):
    _, flags = program_flags
    flags = [flag for flag in flags if 'checkpoint_every' not in flag] + ['--config.train.checkpoint_every=5']
    flags += ['--config.validation.scenes=0', f'--workdir={tmp_path}/run']
    process = small.start('train.py', *flags)
    while not list((tmp_path / 'run' / 'checkpoints').glob('[0-9]*')) and process.poll() is None:
        time.sleep(0.01)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    _, err = process.communicate(timeout=120)
    check_full_disk(tmp_path / 'run', process.returncode, err)


# ---- memory ------------------------------------------------------------------------------------------


MEMORY = """
import os, sys, time
os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
sys.path[:0] = ['tests', '.']
import jax, small
from afunet_jax import training, parallel
from afunet_jax.models import afunet
from afunet_jax.training_log import Log
folder, steps = sys.argv[1], int(sys.argv[2])
config = small.config(folder + '/data', folder + '/prepared')
config.model.update(sfm_depth=1, ablation='M1')
every = max(steps // 20, 1)
config.train.update(steps=steps, crop_size=8, batch_size=2, log_every=every, checkpoint_every=every, threads=1)
config.validation.every = every
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: compiled.append(name) if 'backend_compile' in name else None)
write = Log.write
def measured(self, step):
    write(self, step)
    pages = int(open('/proc/self/statm').read().split()[1])
    print(step, pages * os.sysconf('SC_PAGE_SIZE'), len(compiled), flush=True)
Log.write = measured
training.run(afunet.build(config.model), config, folder + '/run')
"""


def memory_of(code, *arguments):
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)], cwd=small.ROOT, capture_output=True, text=True,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.array([[int(value) for value in line.split()] for line in done.stdout.splitlines()])


@pytest.mark.slow
def test_memory_of_training_does_not_grow(tmp_path):
    small.write_data_set(tmp_path / 'data', train=2, test=0)
    seen = memory_of(MEMORY, tmp_path, MEMORY_STEPS)
    steps, memory, compiled = seen.T
    settled = memory[len(memory) // 4 :]
    print(f'{steps[-1]} steps: {memory[0] / 1e6:.1f} MB at step {steps[0]}, '
          f'{settled[0] / 1e6:.1f} to {settled[-1] / 1e6:.1f} MB, compiled {compiled}')  # fmt: skip
    assert settled.max() < 1.02 * settled[0]
    assert compiled[2] == compiled[-1], 'nothing is compiled after the first evaluation'


SIZES = """
import os, sys
os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
sys.path[:0] = ['tests', '.']
import numpy as np, small
from afunet_jax import evaluation
from afunet_jax.data.scenes import Scene
from afunet_jax.models import afunet
model = afunet.build({**small.MODEL, 'sfm_depth': 1, 'ablation': 'M1'})
network = evaluation.Network(model, afunet.init_params(model, 0), pad_to=8)
rng = np.random.default_rng(0)
for i, size in enumerate(rng.permutation(int(sys.argv[1]))):  # small and large ones in all thirds
    height, width = 16 + 8 * (size % 20), 16 + 8 * (size // 20 + 19 - size % 20)
    label = rng.random((height, width, 3), np.float32)
    scene = Scene('x', np.full((3, height, width, 3), 1000, np.uint16), np.array([0, 2, 4], np.float32), label)
    row, = evaluation.evaluate({'network': network}, [scene])
    assert np.isfinite([row[name] for name in evaluation.PSNR_AND_SSIM]).all()
    pages = int(open('/proc/self/statm').read().split()[1])
    print(i, pages * os.sysconf('SC_PAGE_SIZE'), len(open('/proc/self/maps').readlines()), flush=True)
"""


@pytest.mark.slow
def test_memory_of_evaluations_of_many_sizes_does_not_grow():
    seen = memory_of(SIZES, MEMORY_SIZES)
    assert len(seen) == MEMORY_SIZES
    _, second, third = (part.max(0) for part in np.array_split(seen, 3))  # caches fill up and are let go: the peaks
    print(f'{MEMORY_SIZES} sizes: {seen[0, 1] / 1e6:.1f} MB after the first, then at most {second[1] / 1e6:.1f} MB '
          f'and {second[2]} mappings in the second third, {third[1] / 1e6:.1f} MB and {third[2]} in the last')  # fmt: skip
    assert third[1] < 1.02 * second[1], 'resident memory'
    assert third[2] < 1.02 * second[2], 'memory mappings, of which Linux allows a process 65,530'


def test_only_so_many_sizes_are_kept(monkeypatch):
    monkeypatch.setattr(sizes, 'KEPT', 2)
    monkeypatch.setattr(sizes, '_noted', set())
    traced = []
    program = jax.jit(lambda x: traced.append(len(x)) or x + 1)
    for side in (3, 4, 3, 4, 5, 5, 4, 3):  # 5 lets 3 and 4 go, the last 3 lets 5 and 4 go
        sizes.note(side)
        program(np.ones(side))
    assert traced == [3, 4, 5, 4, 3]


def test_sizes_of_validations_are_not_let_go(monkeypatch):
    monkeypatch.setattr(sizes, 'KEPT', 1)
    monkeypatch.setattr(sizes, '_noted', set())
    monkeypatch.setattr(sizes, '_let_go', lambda: pytest.fail('let go'))
    with sizes.kept():
        sizes.note(1)
        sizes.note(2)
    sizes.note(3)


def test_every_metric_tells_its_sizes(monkeypatch):
    noted = []
    monkeypatch.setattr(sizes, 'note', noted.append)
    label = np.random.default_rng(0).random((24, 32, 3), np.float32)
    for name, metric in registry.METRICS.items():
        noted.clear()
        metric(label * 0.9, label)
        assert label.shape in noted, name


def test_a_network_keeps_only_the_programs_of_the_last_sizes(monkeypatch):
    monkeypatch.setattr(evaluation, 'KEPT_PROGRAMS', 2)
    network = evaluation.Network(Linear(), Linear().init(jax.random.key(0), np.ones((1, 8, 8, 18)))['params'], pad_to=8)
    for side in (8, 16, 8, 24, 8, 16):  # the last 16 was dropped for 24
        assert network.merge(np.ones((1, side, 8, 18), np.float32)).shape == (1, side, 8, 3)
    assert [size['height'] for size in network.compiled_sizes] == [8, 16, 24, 16]
