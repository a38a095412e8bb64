"""Training: the state, the step, the loop, and what is written down on the way."""

import collections
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tensorboardX

from afunet_jax import checkpoints, evaluation, files, losses, parallel, reports, vgg
from afunet_jax.data import batches as batches_lib
from afunet_jax.data import datasets
from afunet_jax.data.progress import format_duration
from afunet_jax.errors import ConfigError, TrainingError
from afunet_jax.models import afunet

STEPS_IN_FLIGHT = 2  # steps that may be under way before the host looks at a loss
FREE_SETTINGS = (  # may differ when a run goes on: they change no number of it beyond rounding
    'model.chunk_windows', 'model.remat', 'model.attention', 'data.dir', 'data.prepared_dir', 'loss.vgg_weights',
    'eval', 'train.threads', 'train.log_every', 'train.checkpoint_every', 'train.keep_checkpoints', 'validation.every',
)  # fmt: skip


@flax.struct.dataclass
class TrainState:
    """What a step changes: number of finished steps, parameters, optimizer state."""

    step: jax.Array
    params: Any
    opt_state: Any


def cosine_by_epoch(peak: float, final: float, epochs: int, steps: int) -> Callable[[jax.Array], jax.Array]:
    """Cosine from `peak` to near `final`, constant within each of `epochs` equal parts of `steps`.

    lr(e) = final + (peak - final) (1 + cos(pi e / epochs)) / 2, e = 0 to epochs - 1.
    """
    if epochs < 1 or steps < 1:
        raise ConfigError(f'optimizer.epochs={epochs} and train.steps={steps} must be at least 1')
    e = np.arange(epochs)
    rates = final + (peak - final) * (1 + np.cos(np.pi * e / epochs)) / 2
    first_steps = -(-e * steps // epochs)  # of each epoch, exact in integers

    def schedule(step: jax.Array) -> jax.Array:
        epoch = jnp.searchsorted(jnp.asarray(first_steps, jnp.int32), step, side='right') - 1
        return jnp.asarray(rates, jnp.float32)[jnp.clip(epoch, 0, epochs - 1)]

    return schedule


def make_optimizer(config: Any, steps: int) -> tuple[optax.GradientTransformation, Callable[[jax.Array], jax.Array]]:
    """Adam and its learning rate from the config's `optimizer` section."""
    schedule = cosine_by_epoch(config.learning_rate, config.final_learning_rate, config.epochs, steps)
    return optax.adam(schedule, config.b1, config.b2, config.eps), schedule


def train_step(
    state: TrainState,
    batch: Any,
    loss: losses.Loss,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on one device's share of a batch, inside `parallel.parallel_step`.

    Args:
        state: replicated.
        batch: `input` `[b, s, s, 18]` and `label` `[b, s, s, 3]`, this device's rows.
        loss: `loss(prediction, label) -> (total, terms)`, plain means over the batch.
        model, optimizer: static.
        seed: of stochastic depth, which is drawn from (seed, step, position in the global batch).

    Returns:
        The next state, and the global batch's `loss`, its terms and `gradient_norm`.
    """
    positions = parallel.positions(batch['input'].shape[0])
    key = jax.random.fold_in(jax.random.key(seed), state.step)

    def objective(params):
        prediction = model.apply(
            {'params': params}, batch['input'], train=True, positions=positions, rngs={'dropout': key}
        )
        return loss(prediction, batch['label'])

    (total, terms), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    gradients, metrics = parallel.mean((gradients, {'loss': total, **terms}))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    metrics['gradient_norm'] = optax.global_norm(gradients)
    return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state), metrics


def run(model: nn.Module, config: Any, workdir: str | pathlib.Path, weights: str = '') -> None:
    """Trains as the config says, or goes on where the run in `workdir` stopped.

    Args:
        model: the network of `config.model`.
        config: see `configs/default.py`.
        workdir: of checkpoints, logs and the config; made if absent.
        weights: initial parameters of a new run: a `.pth`, a checkpoint or a working directory.

    Raises:
        AFUNetError: the config, the data, the weights or the directory are not usable, or the loss is not finite.
    """
    workdir = pathlib.Path(workdir)
    settings = config.to_dict()
    _check_config(config)
    checkpoints.check_workdir(workdir, settings, FREE_SETTINGS)
    loss = losses.make_loss(config.loss.name, _vgg_params(config.loss), config.loss.weight)
    optimizer, schedule = make_optimizer(config.optimizer, config.train.steps)
    store, held_back = _read_in_turn(config)
    batches = _batches(store, config)
    if parallel.is_main():
        checkpoints.claim_workdir(workdir, settings, FREE_SETTINGS)
    parallel.barrier('workdir')
    saved = checkpoints.Checkpoints(workdir, config.train.keep_checkpoints, parallel.process_index())
    state = _start(model, optimizer, config, saved, batches, weights)
    trainer = Trainer(model, optimizer, schedule, config, workdir, saved, batches, Validator(model, config, held_back))
    try:
        trainer.train(state, loss)
    finally:
        batches.close()
        saved.close()


class Trainer:
    """The loop of one run: step, watch, log, validate, save."""

    def __init__(self, model, optimizer, schedule, config, workdir, saved, batches, validator):
        self._config, self._settings = config, config.to_dict()
        self._saved, self._batches, self._validate = saved, batches, validator
        self._step = parallel.parallel_step(
            lambda state, batch, loss: train_step(
                state, batch, loss, model=model, optimizer=optimizer, seed=config.seed
            )
        )
        self._schedule, self._workdir = schedule, workdir
        about = saved.best_about()
        self._best = about['validation']['psnr_mu'] if about else -math.inf

    def train(self, state: TrainState, loss: losses.Loss) -> None:
        """Runs from the state's step to the config's last."""
        train, first = self._config.train, int(state.step)
        log = Log(self._workdir, first, self._schedule, self._config)
        if first >= train.steps:
            log.say(f'nothing to do: {self._workdir} has finished its {train.steps} steps')
        state, loss = parallel.replicate(state), parallel.replicate(loss)
        for step in range(first + 1, train.steps + 1):
            state, metrics = self._step(state, parallel.shard(next(self._batches)), loss)
            log.add(step, metrics)
            last = step == train.steps
            if last or step % train.log_every == 0:
                log.write(step)
            if self._validate and (last or step % self._config.validation.every == 0):
                self._keep_best(step, state, log)
            if last or step % train.checkpoint_every == 0:
                self._save(step, state, log)
        self._saved.wait()
        log.close()

    def _save(self, step: int, state: TrainState, log: 'Log') -> None:
        log.drain()  # nothing that is not finite is ever saved
        if parallel.is_main():
            host = parallel.unreplicate(state)
            self._saved.save(step, host.params, host.opt_state, self._about())

    def _keep_best(self, step: int, state: TrainState, log: 'Log') -> None:
        log.drain()
        params = parallel.unreplicate(state.params)
        scores = self._validate(params)
        log.validation(step, scores)
        if scores['psnr_mu'] > self._best:
            self._best = scores['psnr_mu']
            if parallel.is_main():
                self._saved.save_best(step, params, {**self._about(), 'validation': scores})

    def _about(self) -> dict[str, Any]:
        return {'config': self._settings, 'data_position': self._batches.get_state()}


class Validator:
    """Mean scores of the scenes held back, shared out over the processes. False if there are none."""

    def __init__(self, model: nn.Module, config: Any, scenes: list):
        self._model, self._eval, self._scenes = model, config.eval, scenes
        self._network = None

    def __bool__(self) -> bool:
        return bool(self._scenes)

    def __call__(self, params: Any) -> dict[str, float]:
        if self._network is None:
            self._network = evaluation.Network(
                self._model, params, self._eval.pad_to, self._eval.small_images, self._eval.memory_limit
            )
        self._network.set_params(params)
        index, count = parallel.process_index(), parallel.process_count()
        rows = evaluation.evaluate({evaluation.NETWORK: self._network}, self._scenes[index::count])
        names = evaluation.PSNR_AND_SSIM
        sums = np.array([[row[name] for name in names] for row in rows]).reshape(-1, len(names))
        total = parallel.sum_over_processes(sums.sum(0)) / len(self._scenes)
        return dict(zip(names, map(float, total)))


class Log:
    """Watches the losses; writes JSON lines, TensorBoard events and the progress line.

    The host looks at a step's metrics when `STEPS_IN_FLIGHT` more are under way, so that the devices
    never wait for it. Only the main process writes.
    """

    def __init__(self, workdir: pathlib.Path, first: int, schedule: Callable, config: Any):
        self._schedule, self._train = schedule, config.train
        self._epochs = config.optimizer.epochs
        self._pending = collections.deque()
        self._seen = []
        self._start = self._last = time.monotonic()
        self._first, self._last_step = first, first
        self._main = parallel.is_main()
        if self._main:
            _forget_after(workdir / reports.TRAINING_LOG, first)
            self._file = open(workdir / reports.TRAINING_LOG, 'a', encoding='utf-8')
            self._events = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'), purge_step=first + 1)
            self.say(
                f'{parallel.describe()}, global batch {self._train.batch_size}, '
                f'step {first} of {self._train.steps}'
            )

    def say(self, line: str) -> None:
        """Prints a line on stderr, in the main process."""
        if self._main:
            print(line, file=sys.stderr, flush=True)

    def add(self, step: int, metrics: Any) -> None:
        """Takes a step's metrics, still on the devices."""
        self._pending.append((step, metrics))
        while len(self._pending) > STEPS_IN_FLIGHT:
            self._look()

    def drain(self) -> None:
        """Waits for all steps, and checks them."""
        while self._pending:
            self._look()

    def _look(self) -> None:
        step, metrics = self._pending.popleft()
        metrics = {key: float(value) for key, value in parallel.unreplicate(metrics).items()}
        bad = [key for key, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f'step {step}: {", ".join(f"{key} is {metrics[key]}" for key in bad)}; training stops here, and the '
                'last checkpoint was written before. Lower optimizer.learning_rate, or check the labels of the data'
            )
        self._seen.append(metrics)

    def write(self, step: int) -> None:
        """Logs the means since the last line."""
        self.drain()
        now = time.monotonic()
        rate = (step - self._last_step) * self._train.batch_size / (now - self._last)
        means = {key: sum(m[key] for m in self._seen) / len(self._seen) for key in self._seen[0]}
        line = {
            'step': step,
            'epoch': (step - 1) * self._epochs // self._train.steps,
            **means,
            'learning_rate': float(self._schedule(step - 1)),
            'images_per_second': round(rate, 3),
        }
        self._append(step, line)
        left = (now - self._start) / (step - self._first) * (self._train.steps - step)
        if self._last_step == self._first:  # the compilation took part of the first interval: leave it out from now on
            self._start, self._first = now, step
        self.say(
            f'step {step}/{self._train.steps}  loss {means["loss"]:.5f}  gradient {means["gradient_norm"]:.3f}  '
            f'lr {line["learning_rate"]:.2e}  {rate:.1f} images/s  ETA {format_duration(left)}'
        )
        self._seen, self._last, self._last_step = [], now, step

    def validation(self, step: int, scores: dict[str, float]) -> None:
        """Logs the scores of a validation."""
        self._append(step, {'step': step, 'validation': scores})
        self.say(f'step {step}  validation: PSNR-mu {scores["psnr_mu"]:.3f} dB, PSNR-l {scores["psnr_l"]:.3f} dB')

    def _append(self, step: int, line: dict[str, Any]) -> None:
        if not self._main:
            return
        self._file.write(json.dumps(line) + '\n')
        self._file.flush()
        for key, value in {**line, **line.get('validation', {})}.items():
            if key not in ('step', 'validation'):
                name = f'validation/{key}' if 'validation' in line else f'train/{key}'
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Finishes the files."""
        if self._main:
            self._file.close()
            self._events.close()


def _check_config(config: Any) -> None:
    """Rules that concern training and no other part; each before anything is read or written."""
    parallel.check_batch_size(config.train.batch_size)
    for section, key in (
        ('train', 'steps'), ('train', 'log_every'), ('train', 'checkpoint_every'),
        ('train', 'keep_checkpoints'), ('validation', 'every'),
    ):  # fmt: skip
        if config[section][key] < 1:
            raise ConfigError(f'config.{section}.{key} is {config[section][key]}, but must be at least 1')


def _vgg_params(config: Any) -> Any:
    return vgg.load(config.vgg_weights) if config.name == 'paper' else None


def _read_in_turn(config: Any) -> tuple[batches_lib.SceneStore, list]:
    """Every process reads the data; one after the other, so that the first prepares them."""
    for turn in range(parallel.process_count()):
        if turn == parallel.process_index():
            found = datasets.training_scenes(config.data, config.validation.scenes)
        parallel.barrier(f'data {turn}')
    return found


def _batches(store: batches_lib.SceneStore, config: Any) -> batches_lib.TrainBatches:
    train = config.train
    return batches_lib.train_batches(
        store, batch_size=train.batch_size, crop_size=train.crop_size, crops_per_scene=train.crops_per_scene,
        augmentation=train.augmentation, seed=config.seed, num_threads=train.threads,
        process_index=parallel.process_index(), process_count=parallel.process_count(),
    )  # fmt: skip


def _start(model, optimizer, config, saved, batches, weights: str) -> TrainState:
    """The newest checkpoint's state, or a new one."""
    params = afunet.init_params(model, config.seed)
    opt_state = jax.tree.map(np.asarray, optimizer.init(params))
    step = saved.latest_step()
    if step is None:
        if weights:
            settings, params = checkpoints.load_weights(weights)
            checkpoints.check_architecture(settings, config.model, weights)
        return TrainState(np.int32(0), params, opt_state)
    params, opt_state, about = saved.restore(step, params, opt_state)
    batches.set_state(about['data_position'])
    return TrainState(np.int32(step), params, opt_state)


def _forget_after(path: pathlib.Path, step: int) -> None:
    """Drops the log's lines after a step: they are written again by the run that goes on from it."""
    if not path.exists():
        return
    lines = []
    for line in path.read_text(encoding='utf-8').splitlines(keepends=True):
        try:
            if json.loads(line)['step'] <= step:
                lines.append(line)
        except ValueError:  # the line at which the run was killed
            break
    files.write_text(path, ''.join(lines))
