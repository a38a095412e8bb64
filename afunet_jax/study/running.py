"""The loop over the configs: programs in processes of their own, signals passed on, one study in a folder."""

import contextlib
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from afunet_jax import files
from afunet_jax.errors import ConfigError
from afunet_jax.signals import SIGNALS, signal_name
from afunet_jax.study.entries import (
    EVAL,
    EVALUATION,
    PROGRAMS,
    TRAIN,
    Entry,
    Record,
    check_folder,
    fingerprint,
    is_finished,
    log_file,
    read_record,
    write_record,
)
from afunet_jax.study.progress import Progress
from afunet_jax.study.tables import Row, rows_of, write_tables

LOCK = 'study.lock'
POLL_SECONDS = 0.2  # between looks at a program that runs
SAVE_SECONDS = 60.0  # between records of the time spent
LOG_TAIL = 12  # lines of a failed program's log that are shown


class Interrupted(Exception):
    """A signal has ended the study; its number is the argument."""


def run(
    entries: Sequence[Entry],
    overrides: Sequence[str],
    out: pathlib.Path,
    programs: pathlib.Path = PROGRAMS,
    stop_on_failure: bool = False,
) -> list[Row]:
    """Trains and evaluates what is not finished, in turn.

    Args:
        entries: of `resolve`.
        overrides: `--config.KEY=VALUE`, the same as there.
        out: folder of the study; its tables are written after every config.
        programs: folder of `train.py` and `eval.py`.
        stop_on_failure: leaves out what comes after a config whose training or evaluation failed.

    Returns:
        The rows of the table.

    Raises:
        AFUNetError: a folder belongs to other settings, or another study works in `out`.
        Interrupted: by a signal, after the program that ran then has ended.
    """
    for entry in entries:
        check_folder(entry)
        read_record(entry)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out) as lock, Signals() as signals:
        return Study(entries, overrides, out, programs, signals, lock).run(stop_on_failure)


class Study:
    """The loop of `run`."""

    def __init__(self, entries, overrides, out, programs, signals, lock):
        self._entries, self._overrides, self._out = entries, overrides, out
        self._programs, self._signals, self._lock = programs, signals, lock
        self._failures = {}
        self._progress = Progress(entries)

    def run(self, stop_on_failure: bool) -> list[Row]:
        """Every config in turn; returns the rows."""
        for entry in self._entries:
            self._one(entry)
            self._write()
            if self._failures and stop_on_failure:
                break
        return self._write()

    def _write(self) -> list[Row]:
        rows = rows_of(self._entries, self._failures)
        write_tables(self._out, rows)
        return rows

    def _one(self, entry: Entry) -> None:
        finished = is_finished(entry)
        self._progress.begin(entry, finished)
        if finished:
            return
        record = read_record(entry)
        failure = '' if record.trained else self._train(entry, record)
        failure = failure or self._evaluate(entry, record)
        if failure:
            self._failures[entry.name] = failure
        self._progress.end(entry, failure)

    def _train(self, entry: Entry, record: Record) -> str:
        """Runs train.py to its end; returns what went wrong, or nothing."""
        start, before, saved = time.monotonic(), record.train_seconds, 0.0
        record.starts += 1
        write_record(entry, record)

        def tick() -> None:
            nonlocal saved
            record.train_seconds = before + time.monotonic() - start
            self._progress.training(entry)
            if record.train_seconds - before - saved >= SAVE_SECONDS:
                saved = record.train_seconds - before
                write_record(entry, record)

        status = self._program(TRAIN, entry, [f'--workdir={entry.folder}'], tick)
        tick()
        record.trained = status == 0
        write_record(entry, record)
        return self._ended(TRAIN, entry, status)

    def _evaluate(self, entry: Entry, record: Record) -> str:
        """Runs eval.py to its end; returns what went wrong, or nothing."""
        record.fingerprint = ''  # results may be replaced from now on
        write_record(entry, record)
        flags = [f'--weights={entry.folder}', f'--out={entry.folder / EVALUATION}']
        status = self._program(EVAL, entry, flags, lambda: self._progress.evaluating(entry))
        failure = self._ended(EVAL, entry, status)
        if failure:
            return failure
        if not entry.results.is_file():
            return f'{EVAL} has written no {entry.results}'
        record.fingerprint = fingerprint(entry)
        write_record(entry, record)
        return ''

    def _program(self, program: str, entry: Entry, flags: Sequence[str], tick: Callable[[], None]) -> int:
        """Runs a program in a session of its own, so that a terminal's Ctrl-C reaches it once, through us."""
        if self._signals.received:
            raise Interrupted(self._signals.received[0])
        command = [
            sys.executable,
            str(self._programs / program),
            f'--config={entry.config}',
            *self._overrides,
            *flags,
        ]
        with open(log_file(entry, program), 'ab') as log:
            log.write(f'$ {shlex.join(command)}\n'.encode())
            log.flush()
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, pass_fds=(self._lock,),
            )  # fmt: skip
        try:
            return self._watch(child, f'{program} of {entry.name}', tick)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()

    def _watch(self, child: subprocess.Popen, title: str, tick: Callable[[], None]) -> int:
        """Waits for a program; the first signal is passed on to it, the second kills it."""
        passed = 0
        while True:
            for number in self._signals.received[passed:]:
                passed += 1
                child.send_signal(number if passed == 1 else signal.SIGKILL)
                self._progress.say(f'{signal_name(number)}: {title} ends; a second signal kills it')
            try:
                return child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                tick()

    def _ended(self, program: str, entry: Entry, status: int) -> str:
        if self._signals.received:
            raise Interrupted(self._signals.received[0])
        if status == 0:
            return ''
        reason = f'ended with status {status}' if status > 0 else f'was killed by {signal_name(-status)}'
        if status == -signal.SIGKILL:
            reason += ' (memory may have run out)'
        path = log_file(entry, program)
        tail = path.read_text(encoding='utf-8', errors='replace').splitlines()[-LOG_TAIL:]
        title = f'{entry.name}: {program} {reason}; the end of {path}:'
        self._progress.say('\n'.join([title, *(f'  {line}' for line in tail)]))
        return f'{program} {reason}'


class Signals:
    """Collects `SIGNALS` while it is entered; those that were ignored before stay ignored (nohup)."""

    def __init__(self):
        self.received: list[int] = []
        self._before = {}

    def __enter__(self) -> 'Signals':
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(
                    number, lambda received, _: self.received.append(received)
                )
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[int]:
    """Holds the folder; the programs inherit the lock: one that outlives a killed study holds it on."""
    try:
        with files.locked(out / LOCK) as lock:
            yield lock
    except files.LockedError as error:
        raise ConfigError(
            f'{out}: another study works here, or a program that a killed one left behind ({error}); '
            'wait for it, end it, or use another --out'
        ) from error
