"""Training: the schedule, the step, the loop, and what it refuses."""

import dataclasses
import json
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from afunet_jax import checkpoints, parallel, safetensors_weights, training, training_log
from afunet_jax.data.scenes import Scene
from afunet_jax.errors import AFUNetError, CheckpointError, ConfigError, DataError, TrainingError, WeightsError
from afunet_jax.models import afunet
from afunet_jax.photos import align
from configs import default

pytestmark = pytest.mark.usefixtures('quickly_compiled')


# ---- the schedule ------------------------------------------------------------------------------------


def test_learning_rate_of_every_epoch_is_the_release_s(golden):
    schedule = training.cosine_by_epoch(5e-4, 5e-6, 400, 740_000)
    rates = [float(schedule(jnp.int32(1850 * epoch))) for epoch in range(400)]
    np.testing.assert_allclose(rates, np.load(golden / 'learning_rate.npy'), rtol=1e-6)


def test_learning_rate_is_constant_within_an_epoch_and_changes_at_its_first_step():
    schedule = jax.jit(training.cosine_by_epoch(1.0, 0.0, 3, 10))  # epochs begin at steps 0, 4, 7
    rates = np.asarray([schedule(step) for step in range(12)])
    assert len(set(rates[:4])) == len(set(rates[4:7])) == len(set(rates[7:])) == 1
    np.testing.assert_allclose(rates[[0, 4, 7]], [1, 0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize(('epochs', 'steps'), [(400, 30), (30, 30), (400, 123_456_789)])
def test_learning_rate_begins_at_the_peak_and_falls_to_the_last_epoch_s(epochs, steps):
    schedule = jax.jit(training.cosine_by_epoch(1e-3, 1e-5, epochs, steps))
    last = 1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * (epochs - 1) / epochs)) / 2
    if steps >= epochs:
        assert float(schedule(0)) == np.float32(1e-3)
        np.testing.assert_allclose(schedule(steps - 1), last, rtol=1e-6)
    middle = [float(schedule(steps * i // 10)) for i in range(10)]
    assert sorted(middle, reverse=True) == middle


def test_a_run_begins_with_what_the_optimizer_says():
    params = {'a': np.ones((2, 3), np.float32), 'b': np.float32(4)}
    optimizer, _ = training.make_optimizer(default.get_config().optimizer, 1000)
    state = training.initial_state(params, optimizer)
    wanted = optimizer.init(params)
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(wanted) and state.step == 0
    for ours, theirs in zip(jax.tree.leaves(state.opt_state), jax.tree.leaves(wanted), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


# ---- whole runs --------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('training')
    return small.write_data_set(folder / 'data'), folder / 'prepared'


@pytest.fixture
def config(data):
    return small.config(*data)


def train(config, workdir, weights='', grow=False):
    training.run(afunet.build(config.model), config, workdir, weights, grow)
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def without_speed(lines):
    return [{key: value for key, value in line.items() if key != 'images_per_second'} for line in lines]


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    return workdir, train(small.config(*data), workdir)


def test_a_run_writes_logs_events_and_checkpoints(finished):
    workdir, lines = finished
    logged = [line for line in lines if 'loss' in line]
    assert [line['step'] for line in logged] == [2, 4]
    for line in logged:
        assert set(line) >= {'loss', 'reconstruction', 'fft', 'gradient_norm', 'learning_rate', 'images_per_second'}
        np.testing.assert_allclose(line['loss'], line['reconstruction'] + line['fft'], rtol=1e-5)
        assert all(np.isfinite(value) for value in line.values())
    assert [line['step'] for line in lines if 'validation' in line] == [2, 4]
    assert list((workdir / 'tensorboard').iterdir())
    assert sorted(p.name for p in (workdir / 'checkpoints').iterdir()) == ['2', '4']
    assert len(list((workdir / 'best').iterdir())) == 1


def test_a_run_learns(config, tmp_path):
    config.model.drop_path = 0.0
    config.train.update(steps=40, log_every=10, checkpoint_every=40)
    config.validation.every = 40
    lines = [line for line in train(config, tmp_path / 'run') if 'loss' in line]
    assert lines[-1]['loss'] < 0.6 * lines[0]['loss']


def test_a_run_that_goes_on_ends_as_the_undisturbed_one(config, finished, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(self, step, metrics, add=training.Log.add):
        if step == 4:
            raise Killed
        add(self, step, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(training.Log, 'add', kill)
        with pytest.raises(Killed):
            train(config, tmp_path / 'run')
    with open(tmp_path / 'run' / 'metrics.jsonl', 'a') as log:
        log.write('{"step": 3, "loss": 0.1}\n{"step": 4, "lo')  # lines of steps that are lost
    lines = train(config, tmp_path / 'run')
    workdir, expected = finished
    assert without_speed(lines) == without_speed(expected)
    ours, theirs = (checkpoints.load_params(w / 'checkpoints' / '4') for w in (tmp_path / 'run', workdir))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))


def test_a_finished_run_is_left_as_it_is(config, data, finished, tmp_path):
    workdir, lines = finished
    assert without_speed(train(config, workdir)) == without_speed(lines)


def test_a_run_goes_on_with_the_validation_that_it_began_with(config, finished):
    config.eval.update(pictures=False, metrics=('psnr_mu',), memory_limit=1.0, scenes=1)
    train(config, finished[0])
    config.eval.pad_to = 16
    with pytest.raises(CheckpointError, match=r'another configuration(.|\n)*eval.pad_to: 8 there, 16 now'):
        train(config, finished[0])


def test_initial_weights_are_where_a_run_begins(config, finished, tmp_path):
    workdir, _ = finished
    config.optimizer.update(learning_rate=1e-12, final_learning_rate=1e-12)
    train(config, tmp_path / 'run', str(workdir / 'checkpoints' / '2'))
    ours = checkpoints.load_params(tmp_path / 'run' / 'checkpoints' / '4')
    theirs = checkpoints.load_params(workdir / 'checkpoints' / '2')
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_weights_without_a_blending_head_get_one(config, finished, tmp_path, capfd):
    workdir, _ = finished
    config.model.head = 'blend'
    train(config, tmp_path / 'run', str(workdir / 'checkpoints' / '2'))
    assert 'has no blending head' in capfd.readouterr().err
    ours = checkpoints.load_params(tmp_path / 'run' / 'checkpoints' / '4')
    drawn = afunet.init_params(afunet.build(config.model), config.seed)['blend']
    learned = jax.tree.map(lambda a, b: not np.array_equal(a, b), ours.pop('blend'), drawn)
    assert not any(learned.pop('guides').values())  # errors say nothing of them
    assert all(jax.tree.leaves(learned))
    jax.tree.map(np.testing.assert_array_equal, ours, checkpoints.load_params(workdir / 'checkpoints' / '2'))


def test_a_blending_head_that_predicts_errors_learns_by_its_mixture(config, finished, tmp_path):
    workdir, _ = finished
    config.model.head = 'blend'
    train(config, tmp_path / 'errors', str(workdir / 'checkpoints' / '2'))
    config.loss.blend = 'mixture'
    lines = train(config, tmp_path / 'mixture', str(tmp_path / 'errors' / 'checkpoints' / '4'))
    losses_told = [line for line in lines if 'log_square' in line]
    assert losses_told and all(
        line['loss'] == pytest.approx(line['log_square'] + line['error_prediction'], rel=1e-5) for line in losses_told
    )
    before, after = (checkpoints.load_params(tmp_path / name / 'checkpoints' / '4') for name in ('errors', 'mixture'))
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, before.pop('blend'), after.pop('blend'))))
    jax.tree.map(np.testing.assert_array_equal, before, after)  # the network stays


def test_a_blending_head_that_cannot_predict_errors_is_not_trained_by_its_mixture(config, finished, tmp_path):
    workdir, _ = finished
    config.model.head, config.loss.blend = 'blend', 'mixture'
    with pytest.raises(ConfigError, match='has no blending head.*config.loss.blend=errors first'):
        train(config, tmp_path / 'run', str(workdir / 'checkpoints' / '2'))


def test_a_loss_that_a_head_does_not_have_is_refused_before_data_are_read(config, tmp_path):
    config.loss.blend = 'psnr'
    with pytest.raises(ConfigError, match='loss.blend is one of errors, mixture'):
        train(config, tmp_path / 'run')


def test_a_blending_head_that_is_not_wanted_is_left_out(config, finished, tmp_path, capfd):
    model = afunet.build({**config.model, 'head': 'blend'})
    params = afunet.init_params(model, 5)
    about = {'model': dict(config.model, head='blend'), 'step': 0, 'config': config.to_dict()}
    safetensors_weights.write(tmp_path / 'blend.safetensors', params, about)
    config.optimizer.update(learning_rate=1e-12, final_learning_rate=1e-12)
    train(config, tmp_path / 'run', str(tmp_path / 'blend.safetensors'))
    assert 'leaves out' in capfd.readouterr().err
    ours = checkpoints.load_params(tmp_path / 'run' / 'checkpoints' / '4')
    del params['blend']
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), ours, params)


def test_a_blending_head_without_a_trained_network_is_refused(config, tmp_path):
    config.model.head = 'blend'
    with pytest.raises(ConfigError, match='--weights='):
        train(config, tmp_path / 'run')


def test_a_network_grows_from_weights_of_fewer_stages(config, finished, tmp_path, capfd):
    workdir, _ = finished
    config.model.num_stages, weights = 2, str(workdir / 'checkpoints' / '2')
    with pytest.raises(WeightsError, match='num_stages is 1 in the weights, 2 in the config'):
        train(config, tmp_path / 'run', weights)
    config.optimizer.update(learning_rate=1e-12, final_learning_rate=1e-12)
    train(config, tmp_path / 'run', weights, grow=True)
    assert 'has 1 of 2 stages' in capfd.readouterr().err
    drawn = afunet.init_params(afunet.build(config.model), config.seed)
    wanted = afunet.grown(checkpoints.load_params(weights), drawn)
    ours = checkpoints.load_params(tmp_path / 'run' / 'checkpoints' / '4')
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), ours, wanted)


def test_a_network_does_not_shrink(config, tmp_path):
    settings = dict(config.model, num_stages=2)
    params = afunet.init_params(afunet.build(settings), 5)
    about = {'model': settings, 'step': 0, 'config': config.to_dict()}
    safetensors_weights.write(tmp_path / 'two.safetensors', params, about)
    with pytest.raises(WeightsError, match='num_stages is 2 in the weights, 1 in the config'):
        train(config, tmp_path / 'run', str(tmp_path / 'two.safetensors'), grow=True)


def test_weights_of_another_architecture_are_refused(config, finished, tmp_path):
    config.model.width = 12
    with pytest.raises(WeightsError, match='width is 6 in the weights, 12 in the config'):
        train(config, tmp_path / 'run', str(finished[0]))


def test_a_workdir_of_another_config_is_refused_and_left_alone(config, finished):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
    config.optimizer.learning_rate = 1.0
    with pytest.raises(CheckpointError, match='optimizer.learning_rate: 0.002 there, 1.0 now'):
        train(config, workdir)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob('*')} == before


def test_settings_that_change_no_number_may_differ_when_a_run_goes_on(config, finished):
    config.train.update(log_every=1, threads=0)
    train(config, finished[0])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(config, tmp_path):
    config.optimizer.update(learning_rate=1e30, final_learning_rate=1e30)
    config.train.update(steps=20, checkpoint_every=1, keep_checkpoints=20)
    with pytest.raises(TrainingError, match=r'step [23]: .*(loss|gradient_norm) is (nan|inf)'):
        train(config, tmp_path / 'run')
    for checkpoint in (tmp_path / 'run' / 'checkpoints').iterdir():
        params = checkpoints.load_params(checkpoint)
        assert int(checkpoint.name) < 3 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ('section', 'key', 'value', 'message'),
    [
        ('train', 'steps', 0, 'train.steps is 0'),
        ('train', 'log_every', 0, 'train.log_every is 0'),
        ('train', 'batch_size', 6, 'batch'),
        ('train', 'crop_size', 64, 'crop'),
        ('train', 'augmentation', 'mirrors', 'mirrors'),
        ('validation', 'scenes', 3, 'validation.scenes=3'),
        ('loss', 'name', 'l2', 'l2'),
        ('loss', 'name', 'paper', 'vgg'),
        ('loss', 'vgg_weights', 'vgg19.pth', 'loss.vgg_weights is for loss.name=paper'),
        ('loss', 'weight', float('nan'), 'loss.weight'),
        ('train', 'threads', -1, 'train.threads'),
        ('data', 'dir', '', 'config.data.dir'),
        ('data', 'layout', 'kalantari2', 'kalantari2'),
        ('optimizer', 'epochs', 0, 'optimizer.epochs=0'),
        ('optimizer', 'epochs', 10**18, 'optimizer.epochs=1000000000000000000'),
        ('train', 'steps', 2**31, 'train.steps=2147483648'),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_written(config, tmp_path, section, key, value, message):
    config[section][key] = value
    with pytest.raises((ConfigError, DataError, WeightsError), match=f'(?i){message}'):
        train(config, tmp_path / 'run')
    assert not (tmp_path / 'run' / 'checkpoints').exists()
    assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize(
    ('section', 'key', 'value', 'message'),
    [
        ('eval', 'pad_to', 12, r'eval.pad_to is a multiple of the window \(8 pixels\), 16 for one'),
        ('eval', 'pad_to', 128, 'scene 003, held back for validation: 40x56 pixels cannot be padded'),
        ('eval', 'memory_limit', -1.0, 'memory_limit'),
    ],
)
def test_what_no_validation_could_be_done_with_is_refused_before_the_first_step(
    config, tmp_path, section, key, value, message
):
    config[section][key] = value
    with pytest.raises((ConfigError, DataError), match=message):
        train(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_the_time_left_counts_all_intervals_but_the_first(config, tmp_path, monkeypatch, capfd):
    now = iter([0, 100, 110, 410, 420])  # the compilation, a step, a long validation, a step
    monkeypatch.setattr(training_log.time, 'monotonic', lambda: next(now))
    config.train.steps = 7
    log = training_log.Log(tmp_path, 0, lambda step: 1e-3, config)
    for step in (1, 2, 3, 4):
        log.write(step)
    log.close()
    assert re.findall(r'ETA (\S+)', capfd.readouterr().err)[-1] == '5:20'  # 320 s for steps 2 to 4, and 3 are left


def test_more_threads_than_batches_ahead_are_possible(config):
    config.train.threads = 8
    store, _ = training._read_in_turn(config)
    batches = training._batches(store, config)
    assert next(batches)['input'].shape == (4, 16, 16, 18)
    batches.close()


def test_an_unusable_workdir_can_be_used_once_the_cause_is_mended(config, tmp_path):
    config.data.dir = str(tmp_path / 'nowhere')
    with pytest.raises(AFUNetError, match='nowhere'):
        train(config, tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_a_run_that_ended_before_its_first_checkpoint_leaves_the_workdir_to_another(config, finished, tmp_path):
    config.model.sfm_depth = 1
    with pytest.raises(WeightsError, match='sfm_depth'):
        train(config, tmp_path / 'run', weights=str(finished[0]))
    assert not list((tmp_path / 'run').glob('*.json'))
    config.model.sfm_depth = small.MODEL['sfm_depth']
    config.train.steps = 1
    config.validation.scenes = 0
    train(config, tmp_path / 'run', weights=str(finished[0]))
    assert checkpoints.Checkpoints(tmp_path / 'run').latest_step() == 1


def test_the_batch_divides_over_the_devices_that_tests_fake():
    assert parallel.device_count() == 4


# ---- validation --------------------------------------------------------------------------------------


def test_scenes_are_aligned_once_for_all_validations(monkeypatch, capsys):
    rng = np.random.default_rng(3)
    scenes = [
        Scene(name, rng.integers(0, 2**16, (3, 16, 24, 3), np.uint16), np.float32([0, 2, 4]), rng.random((16, 24, 3), np.float32))
        for name in 'ab'
    ]
    moved, asked = [dataclasses.replace(scene, ldrs=scene.ldrs[::-1]) for scene in scenes], []

    def aligned(scene, method):
        asked.append((scene.name, method))
        return moved['ab'.index(scene.name)], scene.name != 'b'

    monkeypatch.setattr(align, 'align_scene', lambda scene, method: (scene, True) if method == 'off' else aligned(scene, method))
    model, never = afunet.build(small.MODEL), types.SimpleNamespace(number=None)
    params, config = afunet.init_params(model, 0), small.config('unused', 'unused')
    expected = training.Validator(model, config, moved)(params, never)
    config.eval.align = 'homography'
    validate = training.Validator(model, config, scenes)
    assert 'nearly all clipped or black: b (eval.align=homography)' in capsys.readouterr().err
    assert validate(params, never) == validate(params, never) == expected
    assert asked == [('a', 'homography'), ('b', 'homography')]
    config.eval.align = 'on'
    with pytest.raises(ConfigError, match="eval.align is one of off, translation, homography, flow, not 'on'"):
        training.Validator(model, config, scenes)
