"""Training: the state, the step, and the loop, which survives what happens to a process in a week.

A run goes on where it stopped: parameters, optimizer state, place in the data, and the log. Killed at any moment, it
ends with the same bits as one that nothing disturbed (same machine, same number of devices). What asks it to end
(see `signals`) is obeyed after the step under way, with a checkpoint.
"""

import contextlib
import functools
import math
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from afunet_jax import checkpoints, evaluation, losses, parallel, signals, sizes, vgg
from afunet_jax.data import batches as batches_lib
from afunet_jax.data import datasets, record
from afunet_jax.errors import CheckpointError, ConfigError
from afunet_jax.models import afunet
from afunet_jax.photos import align
from afunet_jax.training_log import NON_FINITE, SKIPPED, STOP, Log

FREE_IN_STEPS = (  # neither a step of training nor an image of the network depends on them beyond rounding
    'model.chunk_windows', 'model.remat', 'model.attention', 'data.dir', 'data.prepared_dir', 'data.follow_links',
    'data.max_pixels', 'loss.vgg_weights', 'train.threads', 'train.log_every', 'train.checkpoint_every',
    'train.keep_checkpoints', 'train.non_finite', 'train.non_finite_limit', 'validation.every', 'eval.memory_limit',
)  # fmt: skip
FREE_SETTINGS = (  # may differ when a run goes on; of `eval`, all but what its validations depend on
    *FREE_IN_STEPS, 'eval.split', 'eval.metrics', 'eval.baselines', 'eval.report', 'eval.report_inline',
    'eval.pictures', 'eval.scenes',
)  # fmt: skip

OF_A_HOST = (  # may differ between the processes of one run
    'data.dir', 'data.prepared_dir', 'data.follow_links', 'loss.vgg_weights', 'train.threads', 'eval.memory_limit',
)  # fmt: skip

MOST_STEPS = 2**31 - 1  # a step's number is an int32
MOST_EPOCHS = 1_000_000  # of the learning rate, which has a table of them


@flax.struct.dataclass
class TrainState:
    """What a step changes: number of finished steps, parameters, optimizer state."""

    step: jax.Array
    params: Any
    opt_state: Any


def cosine_by_epoch(peak: float, final: float, epochs: int, steps: int) -> Callable[[jax.Array], jax.Array]:
    """Cosine from `peak` to near `final`, constant within each of `epochs` equal parts of `steps`.

    lr(e) = final + (peak - final) (1 + cos(pi e / epochs)) / 2, e = 0 to epochs - 1.

    Raises:
        ConfigError: `epochs` is not 1 to `MOST_EPOCHS`, or `steps` not 1 to `MOST_STEPS`.
    """
    if not (1 <= epochs <= MOST_EPOCHS and 1 <= steps <= MOST_STEPS):
        raise ConfigError(
            f'optimizer.epochs={epochs} must be 1 to {MOST_EPOCHS:,}, and train.steps={steps} 1 to {MOST_STEPS:,}'
        )
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


def initial_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Of a new run, NumPy arrays: step 0, and Adam's counts and moments, which are 0 (`optimizer.init` takes a program
    for every shape to say so)."""
    shapes = jax.eval_shape(optimizer.init, params)
    return TrainState(np.int32(0), params, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))


def make_step(
    model: nn.Module, optimizer: optax.GradientTransformation, seed: int
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """A training step on every device of all processes at once: `step(state, batch, loss, stop) -> (state, metrics)`.

    It is two programs, one after the other: `gradients`, and `update`, which has three kernels for every parameter. Both
    in one take 200 MB more to compile, and no less time to run. A loss or gradient that is not finite leaves parameters
    and optimizer state (with it the schedule's count of steps) as they are.

    Args:
        model: the network.
        optimizer: of `state.opt_state`.
        seed: of stochastic depth, which is drawn from (seed, step, position in the global batch).

    Returns:
        The step. Its arguments have a leading axis of this process's devices: `state` (`parallel.replicate`; its memory
        is reused), the batch with `input` `[devices, b, s, s, 18]` and `label` `[devices, b, s, s, 3]`
        (`parallel.shard`), the loss (see `gradients`, replicated), and `stop`, 1 where a process was asked to end
        (`parallel.on_devices`). It returns the next state, and of the global batch `loss`, its terms, `gradient_norm`,
        the sum of `stop`, and `skipped`, 1 if the step has left the state as it was, else 0.
    """
    first = parallel.program(functools.partial(gradients, model=model, seed=seed))
    second = parallel.program(functools.partial(update, optimizer=optimizer), donate_argnums=0)

    def step(state, batch, loss, stop):
        return second(state, *first(state.params, state.step, batch, loss, stop))

    return step


def gradients(
    params: Any, step: jax.Array, batch: Any, loss: losses.Loss | losses.BlendLoss, stop: jax.Array, *,
    model: nn.Module, seed: int,
) -> tuple[Any, dict[str, jax.Array]]:
    """Means over the global batch, from each device's share of it, inside a `parallel.program`.

    Args:
        params: replicated.
        step: number of finished steps.
        batch: `input` `[b, s, s, 18]` and `label` `[b, s, s, 3]`, this device's rows.
        loss: `loss(prediction, label) -> (total, terms)`, plain means over the batch; of a network with a blending
            head that of `losses.make_blend_loss`.
        stop: 1 or 0, of this device.
        model, seed: see `make_step`.

    Returns:
        The gradient of every parameter, and the metrics `loss`, its terms and the sum of `stop`.
    """
    positions = parallel.positions(batch['input'].shape[0])
    key = jax.random.fold_in(jax.random.key(seed), step)

    def objective(params):
        prediction, sown = model.apply(
            {'params': params}, batch['input'], train=True, positions=positions, rngs={'dropout': key},
            mutable=[afunet.BLENDED],
        )  # fmt: skip
        if blended := sown.get(afunet.BLENDED):
            return loss(prediction, blended['candidates'][0], blended['log_errors'][0], batch['label'])
        return loss(prediction, batch['label'])

    with jax.default_matmul_precision(model.precision):
        (total, terms), found = jax.value_and_grad(objective, has_aux=True)(params)
    found, metrics = parallel.mean((found, {'loss': total, **terms}))
    return found, {**metrics, STOP: parallel.total(stop)}


def update(
    state: TrainState, gradient: Any, metrics: dict[str, jax.Array], *, optimizer: optax.GradientTransformation
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state, and the metrics with what only the update knows; arguments as `make_step` has them."""
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    norm = optax.global_norm(gradient)
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics['loss'])
    after = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
    unchanged = state.replace(step=after.step)  # the draws of stochastic depth go on, as the data do
    after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, unchanged)
    return after, {**metrics, 'gradient_norm': norm, SKIPPED: 1.0 - finite}


def run(model: nn.Module, config: Any, workdir: str | pathlib.Path, weights: str = '', grow: bool = False) -> None:
    """Trains as the config says, or goes on where the run in `workdir` stopped.

    Args:
        model: the network of `config.model`.
        config: see `configs/default.py`.
        workdir: of checkpoints, logs and the config; made if absent.
        weights: initial parameters of a new run: a `.pth`, a checkpoint or a working directory.
        grow: these may have fewer stages: those that are added leave the output as it is, at first; see `afunet.grown`.

    Raises:
        AFUNetError: the config, the data, the weights or the directory are not usable, another run works in the
            directory, the disk is full, or the loss is not finite.
        signals.Interrupted: a signal has ended the run; it says whether a checkpoint was saved.
    """
    workdir = pathlib.Path(workdir)
    settings = config.to_dict()
    _check_config(config)
    checkpoints.check_workdir(workdir, settings, FREE_SETTINGS)
    loss = _loss(config)
    optimizer, schedule = make_optimizer(config.optimizer, config.train.steps)
    with contextlib.ExitStack() as held:
        begun = (workdir / checkpoints.CONFIG_FILE).exists()
        if begun and parallel.is_main():  # a second run shall not read its data first
            held.enter_context(checkpoints.locked_workdir(workdir))
        record.check(workdir, config.data)
        store, held_back = _read_in_turn(config)
        validate = Validator(model, config, held_back)
        batches = _batches(store, config)
        held.callback(batches.close)
        if parallel.is_main():
            if not begun:
                held.enter_context(checkpoints.locked_workdir(workdir))
                held.callback(_leave_to_another, workdir)
            checkpoints.claim_workdir(workdir, settings, FREE_SETTINGS)
            record.write(workdir, config.data)
        parallel.barrier('workdir')
        saved = checkpoints.Checkpoints(workdir, config.train.keep_checkpoints, parallel.process_index())
        held.callback(saved.close)
        state, before = _start(model, optimizer, config, saved, batches, weights, grow)
        _check_same(settings, store, batches, state)
        Trainer(model, optimizer, schedule, config, workdir, saved, batches, validate).train(state, loss, before)


class Trainer:
    """The loop of one run: step, watch, log, validate, save."""

    def __init__(self, model, optimizer, schedule, config, workdir, saved, batches, validator):
        self._config, self._settings = config, config.to_dict()
        self._saved, self._batches, self._validate = saved, batches, validator
        self._step = make_step(model, optimizer, config.seed)
        self._schedule, self._workdir = schedule, workdir
        self._last_saved = None
        self._best = _best_so_far(saved)

    def train(
        self, state: TrainState, loss: losses.Loss | losses.BlendLoss, before: dict[str, Any] | None = None
    ) -> None:
        """Runs from the state's step to the config's last; `before` is the log's state at that step."""
        train, first = self._config.train, int(state.step)
        self._last_saved = first if before is not None else None
        log = Log(self._workdir, first, self._schedule, self._config, before)
        if first >= train.steps and not (before or {}).get('validation_due'):
            log.say(f'nothing to do: {self._workdir} has finished its {train.steps} steps')
        state, loss = parallel.replicate(state), parallel.replicate(loss)
        with signals.postponed() as asked:
            if (before or {}).get('validation_due'):
                self._keep_best(first, state, log, asked)
                if first == train.steps:
                    self._last_saved = None
                    self._save(first, state, log)
            for step in range(first + 1, train.steps + 1):
                stop = parallel.on_devices(int(asked.number is not None))
                state, metrics = self._step(state, parallel.shard(next(self._batches)), loss, stop)
                log.add(step, metrics)
                self._after(step, state, log, asked)
            self._saved.wait()
        log.close()

    def _after(self, step: int, state: TrainState, log: Log, asked: signals.Asked) -> None:
        """What is due after a step."""
        train, last = self._config.train, step == self._config.train.steps
        self._saved.check()
        if last or step % train.log_every == 0:
            log.write(step)
        if self._validate and (last or step % self._config.validation.every == 0):
            self._save(step, state, log, validation_due=True)  # a validation can take longer than there is time to end
            self._keep_best(step, state, log, asked)
            if last:
                self._last_saved = None  # the same step again: its validation is done
        if last or step % train.checkpoint_every == 0:
            self._save(step, state, log)
        if not last and (log.stop or (asked.number is not None and parallel.process_count() == 1)):
            self._end(step, state, log, asked)

    def _end(self, step: int, state: TrainState, log: Log, asked: signals.Asked, validation_due: bool = False) -> None:
        """Saves, and leaves by `signals.Interrupted`. All processes are at the same step."""
        self._save(step, state, log, validation_due)
        self._saved.wait()
        log.close()
        parallel.barrier('interrupted')
        raise signals.Interrupted(
            asked.number or signals.DEFAULT,
            f'stopped after step {step} of {self._config.train.steps}, which is saved in {self._workdir}; '
            'the same command goes on from there',
        )

    def _save(self, step: int, state: TrainState, log: Log, validation_due: bool = False) -> None:
        log.drain()  # nothing that is not finite is ever saved
        log.sync()
        if parallel.is_main() and step != self._last_saved:
            host = parallel.unreplicate(state)
            about = {**self._about(), 'log': log.get_state(validation_due)}
            self._saved.save(step, host.params, host.opt_state, about)
        self._last_saved = step

    def _keep_best(self, step: int, state: TrainState, log: Log, asked: signals.Asked) -> None:
        log.drain()
        params = parallel.unreplicate(state.params)
        scores = self._validate(params, asked)
        if scores is None:
            self._end(step, state, log, asked, validation_due=True)
        log.validation(step, scores)
        if scores['psnr_mu'] > self._best:
            self._best = scores['psnr_mu']
            if parallel.is_main():
                self._saved.save_best(step, params, {**self._about(), 'validation': scores})

    def _about(self) -> dict[str, Any]:
        return {'config': self._settings, 'data_position': self._batches.get_state()}


def _leave_to_another(workdir: pathlib.Path) -> None:
    """A new run that has ended before its first checkpoint does not bind the next one to its configuration."""
    if not any(path.name.isdecimal() for path in (workdir / checkpoints.LATEST).glob('*')):
        for name in (checkpoints.CONFIG_FILE, record.NAME):
            (workdir / name).unlink(missing_ok=True)


def _check_same(settings: dict[str, Any], store: Any, batches: Any, state: TrainState) -> None:
    """Several processes that begin with different things would train on without a word."""
    if parallel.process_count() > 1:
        flat = checkpoints.flat(settings)
        fixed = {key: value for key, value in flat.items() if not checkpoints.is_free(key, OF_A_HOST)}
        leaves = jax.tree.leaves((state.params, state.opt_state))
        parallel.check_same({
            'configuration': repr(sorted(fixed.items())).encode(), 'set of training data': store.digest(),
            'step to go on from': str(int(state.step)).encode(),
            'place in the data': repr(batches.get_state()).encode(),
            'state of parameters and optimizer': b''.join(np.asarray(leaf).tobytes() for leaf in leaves),
        })  # fmt: skip


def _best_so_far(saved: checkpoints.Checkpoints) -> float:
    about = saved.best_about()
    if about is None:
        return -math.inf
    try:
        return float(about['validation']['psnr_mu'])
    except LookupError as error:
        raise CheckpointError(
            f'the best parameters of this workdir have no PSNR-mu, by which they were chosen ({error} is missing); '
            f'move its folder {checkpoints.BEST}/ away, or use a new --workdir'
        ) from error


class Validator:
    """Mean scores of the scenes held back, shared out over the processes. False if there are none."""

    def __init__(self, model: nn.Module, config: Any, scenes: list):
        self._scenes = list(scenes)
        if not scenes:
            return
        settings = config.eval
        evaluation.check_align(settings.align)
        self._network = evaluation.Network(model, {}, settings.pad_to, settings.small_images, settings.memory_limit)
        for scene in scenes:  # what cannot be validated is known before the first step
            self._network.padded_size(*scene.ldrs.shape[1:3], f'scene {scene.name}, held back for validation')
        left = []
        for i in range(parallel.process_index(), len(scenes), parallel.process_count()):  # once, not in each validation
            self._scenes[i], matched = align.align_scene(scenes[i], settings.align)
            left += [] if matched else [scenes[i].name]
        evaluation.tell_unmatched(left, settings.align, 'validation: ')

    def __bool__(self) -> bool:
        return bool(self._scenes)

    def __call__(self, params: Any, asked: signals.Asked) -> dict[str, float] | None:
        """The scores; None if a process was asked to end before all scenes were done."""
        self._network.set_params(params)
        own = self._scenes[parallel.process_index() :: parallel.process_count()]
        with sizes.kept():  # to let go of them would cost the training step its program
            rows = evaluation.evaluate({evaluation.NETWORK: self._network}, _until_asked(own, asked))
        names = evaluation.PSNR_AND_SSIM
        sums = np.array([[row[name] for name in names] for row in rows]).reshape(-1, len(names)).sum(0)
        *total, done = parallel.sum_over_processes(np.array([*sums, len(rows)], np.float64))
        if done < len(self._scenes):
            return None
        return dict(zip(names, (float(value) for value in np.array(total) / len(self._scenes))))


def _until_asked(scenes: list, asked: signals.Asked) -> Iterator[Any]:
    for scene in scenes:
        if asked.number is not None:
            return
        yield scene


def _check_config(config: Any) -> None:
    """Rules that concern training and no other part; each before anything is read or written."""
    parallel.check_batch_size(config.train.batch_size)
    if config.train.non_finite not in NON_FINITE:
        raise ConfigError(f'config.train.non_finite is one of {", ".join(NON_FINITE)}, not {config.train.non_finite!r}')
    if not math.isfinite(config.loss.weight):
        raise ConfigError(f'config.loss.weight is {config.loss.weight}, but must be a finite number')
    if config.train.threads < 0:
        raise ConfigError(f'config.train.threads is {config.train.threads}, but must be at least 0')
    if config.train.non_finite_limit < 0:
        raise ConfigError(f'config.train.non_finite_limit is {config.train.non_finite_limit}, but must be at least 0')
    for section, key in (
        ('train', 'steps'), ('train', 'log_every'), ('train', 'checkpoint_every'),
        ('train', 'keep_checkpoints'), ('validation', 'every'),
    ):  # fmt: skip
        if config[section][key] < 1:
            raise ConfigError(f'config.{section}.{key} is {config[section][key]}, but must be at least 1')


def _loss(config: Any) -> losses.Loss | losses.BlendLoss:
    """Of the network, or of the head behind it; the settings of both are checked."""
    of_network = losses.make_loss(config.loss.name, _vgg_params(config.loss), config.loss.weight)
    of_head = losses.make_blend_loss(config.loss.blend)
    return of_head if config.model.head == 'blend' else of_network


def _vgg_params(config: Any) -> Any:
    if config.vgg_weights and config.name != 'paper':
        raise ConfigError(f'loss.vgg_weights is for loss.name=paper, but the loss is {config.name}; leave one out')
    return vgg.load(config.vgg_weights) if config.name == 'paper' else None


def _read_in_turn(config: Any) -> tuple[batches_lib.SceneStore, list]:
    """Every process reads the data: the main one first, because it prepares them, then all others at once."""
    if not parallel.is_main():
        parallel.barrier('prepared')
    found = datasets.training_scenes(config.data, config.validation.scenes)
    if parallel.is_main():
        parallel.barrier('prepared')
    return found


def _batches(store: batches_lib.SceneStore, config: Any) -> batches_lib.TrainBatches:
    train = config.train
    return batches_lib.train_batches(
        store, batch_size=train.batch_size, crop_size=train.crop_size, crops_per_scene=train.crops_per_scene,
        augmentation=train.augmentation, seed=config.seed, num_threads=train.threads,
        prefetch_batches=max(batches_lib.PREFETCH_BATCHES, train.threads),
        process_index=parallel.process_index(), process_count=parallel.process_count(),
    )  # fmt: skip


def _start(model, optimizer, config, saved, batches, weights, grow) -> tuple[TrainState, dict[str, Any] | None]:
    """The newest whole checkpoint's state with that of the log, or a new one and None."""
    params = afunet.init_params(model, config.seed)
    new = initial_state(params, optimizer)
    found = _restore_in_turn(saved, params, new.opt_state)
    if found is None:
        if weights:
            new = new.replace(params=_initial_weights(weights, grow, config, params))
        elif config.model.head == 'blend':
            raise ConfigError(
                'a blending head learns behind a trained network: train that with config.model.head=sigmoid first, and '
                'name its workdir, or a .pth, with --weights='
            )
        return new, None
    step, params, opt_state, about = found
    batches.set_state(about['data_position'])
    return TrainState(np.int32(step), params, opt_state), about.get('log', {})


def _initial_weights(weights: str, grow: bool, config: Any, drawn: dict[str, Any]) -> dict[str, Any]:
    """The parameters in `weights`, fitted to the config's network, whose own were `drawn`; says what was fitted.

    A head that is missing begins as it was drawn, to predict errors; one that is not wanted is left out; `grow` adds
    stages.
    """
    settings, params = checkpoints.load_weights(weights)
    said, stages, wanted = [], settings['num_stages'], config.model
    if wanted.head == 'blend' and 'blend' not in params:
        if config.loss.blend == 'mixture':
            raise ConfigError(
                f'config.loss.blend=mixture makes a head better that predicts errors, but {weights} has no blending '
                'head (model.head=blend): train one with config.loss.blend=errors first, and name its workdir'
            )
        settings, params = {**settings, 'head': wanted.head}, {**params, 'blend': drawn['blend']}
        said.append('has no blending head: its parameters start with initial values')
    if wanted.head == 'sigmoid' and 'blend' in params:
        settings = {**settings, 'head': wanted.head}
        params = {name: params[name] for name in params if name != 'blend'}
        said.append('has a blending head, which config.model.head=sigmoid leaves out')
    if grow and stages < wanted.num_stages:
        settings = {**settings, 'num_stages': wanted.num_stages}
        said.append(f'has {stages} of {wanted.num_stages} stages: the others leave the output as it is, at first')
    checkpoints.check_architecture(settings, wanted, weights)
    for line in said:
        print(f'{weights} {line}', file=sys.stderr)
    return afunet.grown(params, drawn) if stages < wanted.num_stages else params


def _restore_in_turn(saved: checkpoints.Checkpoints, params: Any, opt_state: Any) -> Any:
    """The main process first: it sets damaged checkpoints aside, so that all find the same one."""
    found = saved.restore_newest(params, opt_state) if parallel.is_main() else None
    parallel.barrier('restored')
    return found if parallel.is_main() else saved.restore_newest(params, opt_state)
