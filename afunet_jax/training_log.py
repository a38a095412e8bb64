"""What a training writes down: JSON lines, TensorBoard events, and a line of progress."""

import collections
import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from afunet_jax import files, parallel, reports
from afunet_jax.data.progress import format_duration
from afunet_jax.errors import TrainingError

STEPS_IN_FLIGHT = 2  # steps that may be under way before the host looks at a loss
SKIPPED, STOP = 'skipped', 'stop'  # of a step's metrics: its update was left out; a process was asked to end
NON_FINITE = STOP_RUN, SKIP_STEP = 'stop', 'skip'  # what happens after a step whose gradient is not finite
TENSORBOARD = 'tensorboard'


class Log:
    """Watches the losses; writes JSON lines, TensorBoard events and the progress line.

    The host looks at a step's metrics when `STEPS_IN_FLIGHT` more are under way, so that the devices
    never wait for it. Only the main process writes. `stop` tells whether a step has brought the news
    that some process was asked to end: all processes learn it at the same step.
    """

    def __init__(
        self, workdir: pathlib.Path, first: int, schedule: Callable, config: Any, state: Mapping[str, Any] | None = None
    ):
        """`first` steps were finished before, when `get_state` gave `state`."""
        self._schedule, self._train = schedule, config.train
        self._epochs = config.optimizer.epochs
        self._pending = collections.deque()
        state = state or {}
        self._sums, self._count = dict(state.get('sums', {})), state.get('count', 0)
        self._skipped, self._skipped_in_all = state.get('skipped', 0), state.get('skipped_in_all', 0)
        self._start = self._last = time.monotonic()
        self._first, self._last_step = first, first
        self._compiled = False
        self.stop = False
        self._main = parallel.is_main()
        if self._main:
            self._path = workdir / reports.TRAINING_LOG
            with written(self._path):
                forget_after(self._path, first, state.get('validation_due', False))
                self._file = open(self._path, 'a', encoding='utf-8')
            from afunet_jax import events  # here, because tensorboardX imports PyTorch where it finds it: 180 MB

            self._events = events.Events(workdir / TENSORBOARD, first + 1)
            self.say(
                f'{parallel.describe()}, global batch {self._train.batch_size}, '
                f'step {first} of {self._train.steps}'
            )

    def get_state(self, validation_due: bool = False) -> dict[str, Any]:
        """What the next line will be made of, JSON-able; and whether the line of a validation is still missing."""
        return {
            'sums': dict(self._sums), 'count': self._count, 'skipped': self._skipped,
            'skipped_in_all': self._skipped_in_all, 'validation_due': validation_due,
        }  # fmt: skip

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
        self.stop = bool(metrics.pop(STOP, 0.0)) or self.stop
        if metrics.pop(SKIPPED, 0.0) and self._train.non_finite == SKIP_STEP:
            self._skip(step, metrics)
            return
        bad = _not_finite(metrics)
        if bad:
            raise TrainingError(
                f'step {step}: {bad}; training stops here, and the last checkpoint was written before. Lower '
                'optimizer.learning_rate, check the labels of the data, or have such steps left out: '
                '--config.train.non_finite=skip'
            )
        self._sums = {key: self._sums.get(key, 0) + value for key, value in metrics.items()}
        self._count += 1

    def _skip(self, step: int, metrics: Mapping[str, float]) -> None:
        self._skipped += 1
        self._skipped_in_all += 1
        limit, bad = self._train.non_finite_limit, _not_finite(metrics)
        if self._skipped_in_all > limit:
            raise TrainingError(
                f'step {step}: {bad}; that is one more than the {limit} steps that train.non_finite_limit allows to be '
                'left out. Lower optimizer.learning_rate, check the labels of the data, or raise the limit'
            )
        self.say(f'step {step}: {bad}; left out, {self._skipped_in_all} of at most {limit} in this run')

    def write(self, step: int) -> None:
        """Logs the means since the last line."""
        self.drain()
        now = time.monotonic()
        rate = (step - self._last_step) * self._train.batch_size / (now - self._last)
        means = {key: value / self._count for key, value in self._sums.items()} if self._count else {}
        before = max(0, step - 1 - self._skipped_in_all)  # steps that the schedule has counted
        line = {
            'step': step,
            'epoch': before * self._epochs // self._train.steps,
            **means,
            **({SKIPPED: self._skipped} if self._skipped else {}),
            'learning_rate': float(self._schedule(before)),
            'images_per_second': round(rate, 3),
        }
        self._append(step, line)
        left = (now - self._start) / (step - self._first) * (self._train.steps - step)
        if not self._compiled:  # that took part of the first interval: leave it out from now on
            self._start, self._first, self._compiled = now, step, True
        shown = f'loss {means["loss"]:.5f}  gradient {means["gradient_norm"]:.3f}' if means else 'no step was finite'
        self.say(
            f'step {step}/{self._train.steps}  {shown}  '
            f'lr {line["learning_rate"]:.2e}  {rate:.1f} images/s  ETA {format_duration(left)}'
        )
        self._sums, self._count, self._skipped = {}, 0, 0
        self._last, self._last_step = now, step

    def validation(self, step: int, scores: dict[str, float]) -> None:
        """Logs the scores of a validation."""
        self._append(step, {'step': step, 'validation': scores})
        self.say(f'step {step}  validation: PSNR-mu {scores["psnr_mu"]:.3f} dB, PSNR-l {scores["psnr_l"]:.3f} dB')

    def _append(self, step: int, line: dict[str, Any]) -> None:
        if not self._main:
            return
        with written(self._path):
            self._file.write(json.dumps(line) + '\n')
            self._file.flush()
        values = {**line, **line.get('validation', {})}
        kind = 'validation' if 'validation' in line else 'train'
        self._events.add(
            step, {f'{kind}/{key}': value for key, value in values.items() if key not in ('step', 'validation')}
        )

    def sync(self) -> None:
        """Has everything written to the disk itself: a checkpoint that follows tells of no line that is lost."""
        if self._main:
            with written(self._path):
                os.fsync(self._file.fileno())
            self._events.sync()

    def close(self) -> None:
        """Finishes the files."""
        if self._main:
            with written(self._path):
                self._file.close()
            self._events.close()


def forget_after(path: pathlib.Path, step: int, validation_due: bool = False) -> None:
    """Drops the log's lines after a step: they are written again by the run that goes on from it.

    Also those after a line that cannot be read, at which a run was killed; and with `validation_due` the step's own
    validation.
    """
    if not path.exists():
        return
    lines = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True):
        try:
            entry = json.loads(line)
            number = entry['step'] + (validation_due and 'validation' in entry)
        except (ValueError, LookupError, TypeError):
            break
        if number <= step:
            lines.append(line)
    files.write_text(path, ''.join(lines))


def _not_finite(metrics: Mapping[str, float]) -> str:
    """`loss is nan, gradient_norm is inf`, or nothing."""
    return ', '.join(f'{key} is {value}' for key, value in metrics.items() if not math.isfinite(value))


@contextlib.contextmanager
def written(path: pathlib.Path) -> Iterator[None]:
    """Around writing to `path`: says what a full disk or the like means for the run, by `TrainingError`."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f'{path}: cannot be written ({error.strerror or error}). The checkpoints that are there are whole: make '
            'room, or mend what the message says; the same command then goes on from the last one'
        ) from error
