"""A line that says how far a long job is: count, time per item, time left."""

import sys
import time
from typing import TextIO

LOG_SECONDS = 10.0  # between lines, where the stream is a file


def format_duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class ProgressLine:
    """Call it with `(done, total, name)` after each item; `done` counts from 1.

    On a terminal the line is rewritten in place. Elsewhere a new one is written every `LOG_SECONDS`,
    and for the last item.
    """

    def __init__(self, title: str, stream: TextIO | None = None):
        self._title = title
        self._stream = stream or sys.stderr
        self._start = time.monotonic()
        self._written = self._start
        self._width = 0

    def __call__(self, done: int, total: int, name: str) -> None:
        now = time.monotonic()
        terminal = self._stream.isatty()
        if not (terminal or done == total or now - self._written >= LOG_SECONDS):
            return
        self._written = now
        each = (now - self._start) / done
        line = (f'{self._title}: {done} of {total} ({name}), {each:.2f} s each, '
                f'{format_duration(each * (total - done))} left')
        self._stream.write(f'\r{line:{self._width}}' if terminal else line)
        self._stream.write('\n' if done == total or not terminal else '')
        self._stream.flush()
        self._width = len(line)
