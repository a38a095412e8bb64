"""What a study says on the way."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from afunet_jax.data.progress import format_duration
from afunet_jax.study.entries import TRAIN, Entry, is_finished, last_step, log_file, read_record

SAY_SECONDS = 30.0  # between lines of progress, where the stream is a file


class Progress:
    """What runs, how far it is, and the time left for the whole study, on stderr.

    The time left is that of the trainings: operations left over operations done since the start.
    """

    def __init__(self, entries: Sequence[Entry], stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._entries = list(entries)
        self._waiting = [entry for entry in entries if not is_finished(entry)]
        self._start = self._started = self._written = time.monotonic()
        self._at_start = self._left()
        self._width = 0

    def begin(self, entry: Entry, finished: bool) -> None:
        """Says what comes."""
        self._started = time.monotonic()
        if finished:
            self.say(f'{self._title(entry)}: finished, skipped')
        else:
            step = last_step(entry)
            where = (
                f'goes on from about step {step}'
                if 0 < step < entry.steps
                else f'step {step} of {entry.steps}'
            )
            self.say(f'{self._title(entry)}: {where}, {entry.parameters:,} parameters; {log_file(entry, TRAIN)}')

    def end(self, entry: Entry, failure: str) -> None:
        """Says how it ended, and no longer counts its work."""
        self._at_start -= _work_left(entry)
        self._waiting.remove(entry)
        took = format_duration(time.monotonic() - self._started)
        self.say(f'{self._title(entry)}: {failure or "finished"} after {took}; {self._eta()}')

    def training(self, entry: Entry) -> None:
        """A line from time to time."""
        self._now_and_then(lambda: f'training, step {last_step(entry)}/{entry.steps}', entry)

    def evaluating(self, entry: Entry) -> None:
        """A line from time to time."""
        self._now_and_then(lambda: 'evaluating', entry)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._stream.write(('\r' + ' ' * self._width + '\r' if self._width else '') + text + '\n')
        self._stream.flush()
        self._width = 0

    def _now_and_then(self, text: Callable[[], str], entry: Entry) -> None:
        now = time.monotonic()
        if now - self._written < (1 if self._terminal else SAY_SECONDS):
            return
        self._written = now
        line = f'{self._title(entry)}: {text()}, {format_duration(now - self._started)} so far; {self._eta()}'
        if not self._terminal:
            self.say(line)
            return
        self._stream.write(f'\r{line:{self._width}}')
        self._stream.flush()
        self._width = len(line)

    def _title(self, entry: Entry) -> str:
        return f'{entry.name} ({self._entries.index(entry) + 1} of {len(self._entries)})'

    def _left(self) -> float:
        return sum(map(_work_left, self._waiting))

    def _eta(self) -> str:
        left = self._left()
        done = self._at_start - left
        if left == 0:
            return 'no training left'
        if done <= 0:
            return 'ETA of the study not known yet'
        return f'ETA of the study {format_duration((time.monotonic() - self._start) * left / done)}'


def _work_left(entry: Entry) -> float:
    return 0.0 if read_record(entry).trained else entry.work * max(0.0, 1 - last_step(entry) / entry.steps)
