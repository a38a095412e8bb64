"""Trains and evaluates a list of configs in turn, and prints their table: the paper's ablations, or any list.

    python -m afunet_jax.study --table=4 --out=runs/table4 --config.data.dir=DIR
    python -m afunet_jax.study --configs=configs/variants.py:M1,wide=my_configs/wide.py --out=runs/widths

Each config gets a folder `OUT/NAME`, where `train.py` and `eval.py` run as processes of their own: the
working directory of the training, its evaluation in `eval`, what both printed in `train.log` and `eval.log`,
and `record.json`, by which a study that is started again knows what is finished. The same command goes on
where a study stopped. `OUT/study.txt`, `study.csv` and `study.json` hold the table, and are kept current on
the way.
"""

import argparse
import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import math
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import jax

from afunet_jax import checkpoints, cli, files, reports, training
from afunet_jax.data.progress import format_duration
from afunet_jax.errors import AFUNetError, ConfigError, DataError
from afunet_jax.metrics.registry import METRICS
from afunet_jax.models import afunet

OK, FAILED = 0, 1  # exit statuses; cli.EXIT_ERROR is the third, and 128 + N after signal N
PROGRAMS = pathlib.Path(__file__).parent.parent  # folder of train.py, eval.py and configs/
TRAIN, EVAL = 'train.py', 'eval.py'
VARIANTS = 'configs/variants.py'  # in the folder of the programs
TABLES = {  # of the paper: name in our table to variant
    '4': {name: name for name in ('M1', 'M2', 'M3', 'M4')},
    '5': {'AF': 'T4', 'FA': 'FA'},
    '6': {name: name for name in ('T2', 'T3', 'T4', 'T5', 'T6')},
}
RECORD, LOCK, TABLE = 'record.json', 'study.lock', 'study'
EVALUATION, RESULTS = 'eval', 'results.json'
FREE_IN_RESULTS = (  # change no figure of an evaluation, nor of its training
    *(key for key in training.FREE_SETTINGS if key not in ('data.dir', 'eval')), 'eval.memory_limit',
)  # fmt: skip
FREE_IN_TABLE = (  # may differ between rows whose figures are compared
    'data.prepared_dir', 'eval.baselines', 'eval.memory_limit', 'eval.metrics', 'eval.pictures',
)  # fmt: skip
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_SECONDS = 0.2  # between looks at a program that runs
SAVE_SECONDS = 60.0  # between records of the time spent
SAY_SECONDS = 30.0  # between lines of progress, where the stream is a file
LOG_TAIL = 12  # lines of a failed program's log that are shown
STEP_TAIL = 8192  # bytes at the end of the training's log that hold a whole line
OTHER_DIGITS = 5  # behind the point, of figures that METRICS does not have
SECONDS = 'seconds'  # of a scene's inference; stands among the means
SECONDS_TITLE, SECONDS_DIGITS = 'seconds/scene', 2
RESOLVE = """
import json, sys
from absl import flags
from ml_collections import config_flags
sys.path[0] = sys.argv.pop(1)
values = flags.FlagValues()
config_flags.DEFINE_config_file('config', lock_config=True, flag_values=values)
try:
    values(sys.argv)
    settings = values.config.to_dict()
except Exception as error:
    reason = error.args[0] if isinstance(error, (AttributeError, KeyError)) else error
    sys.exit(f'{type(error).__name__}: {reason}')
sys.stdout.write('\\n' + json.dumps(settings))
"""  # in a process of its own, as the programs read their flags; settings are the last line


@dataclasses.dataclass(frozen=True)
class Entry:
    """A config of the study.

    Attributes:
        name: of its folder and row.
        config: path, or path:argument, as `--config` of the programs takes it.
        folder: of the training; the evaluation goes to `EVALUATION` in it.
        settings: the whole config with the overrides.
        parameters: number of the network's.
    """

    name: str
    config: str
    folder: pathlib.Path
    settings: Mapping[str, Any]
    parameters: int

    @property
    def results(self) -> pathlib.Path:
        """The file of results."""
        return self.folder / EVALUATION / RESULTS

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.settings['train']['steps']

    @property
    def work(self) -> float:
        """Of the whole training, in proportion to its operations: pixels times parameters."""
        train = self.settings['train']
        return float(train['steps'] * train['batch_size'] * train['crop_size'] ** 2 * self.parameters)


@dataclasses.dataclass
class Record:
    """What a study remembers of a config, in `OUT/NAME/record.json`.

    Attributes:
        train_seconds: wall time of train.py, over all its starts.
        starts: of train.py.
        trained: whether it has ended well.
        fingerprint: of the evaluated settings and the file of results; empty until there are results.
    """

    train_seconds: float = 0.0
    starts: int = 0
    trained: bool = False
    fingerprint: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table; see `rows_of`.

    Attributes:
        entry: the config.
        status: 'finished', or what happened instead.
        record: of the training.
        means: metric to mean over the scenes, None without ground truth; empty if there are no results.
        differences: metric to the mean less that of the first row, None where they cannot be compared.
        notes: what a reader of the row must know.
    """

    entry: Entry
    status: str
    record: Record
    means: Mapping[str, float | None]
    differences: Mapping[str, float | None]
    notes: tuple[str, ...]


class Interrupted(Exception):
    """A signal has ended the study; its number is the argument."""


def parse_configs(text: str) -> list[tuple[str, str]]:
    """Names and configs of a list `[NAME=]PATH[:ARGUMENT],...`.

    The name is the argument, or the file's name without suffix, unless it is given.

    Raises:
        ConfigError: no list, a name that is no folder's name, the same name twice, or no such file.
    """
    found = [_parse_config(part.strip()) for part in text.split(',') if part.strip()]
    if not found:
        raise ConfigError(f'--configs={text} names no config; write --configs=PATH:ARGUMENT,PATH,...')
    names = [name for name, _ in found]
    for name, config in found:
        if names.count(name) > 1:
            same = ', '.join(other for other_name, other in found if other_name == name)
            raise ConfigError(
                f'every config of a study has a name of its own, but {same} are all called {name!r}; '
                f'name them: --configs=ONE={config},...'
            )
    return found


def _parse_config(text: str) -> tuple[str, str]:
    name, path, argument = re.fullmatch(r'(?:([^/=:]*)=)?([^:]*)(?::(.*))?', text, re.DOTALL).groups()
    if not pathlib.Path(path).is_file():
        raise ConfigError(
            f'{path}: no such config file; --configs takes [NAME=]PATH[:ARGUMENT], as in {VARIANTS}:M1'
        )
    name = name if name is not None else argument or pathlib.Path(path).stem
    if not re.fullmatch(r'\w[\w+-]*', name):
        raise ConfigError(
            f'{text}: {name!r} is no name for a folder; use letters, digits, _, + and -: '
            f'--configs=NAME={path}...'
        )
    return name, path if argument is None else f'{path}:{argument}'


def table_configs(table: str, programs: pathlib.Path = PROGRAMS) -> list[tuple[str, str]]:
    """Names and configs of a table of the paper.

    Raises:
        ConfigError: unknown table, or the file of variants is missing.
    """
    if table not in TABLES:
        raise ConfigError(
            f"--table is one of the paper's ablations, {', '.join(TABLES)}, not {table!r}; "
            'other lists are given by --configs'
        )
    path = programs / VARIANTS
    return parse_configs(','.join(f'{name}={path}:{variant}' for name, variant in TABLES[table].items()))


def resolve(
    configs: Sequence[tuple[str, str]],
    overrides: Sequence[str],
    out: pathlib.Path,
    programs: pathlib.Path = PROGRAMS,
) -> list[Entry]:
    """The configs with all their settings: a mistake in the last is found before the first is trained.

    Args:
        configs: names and configs.
        overrides: `--config.KEY=VALUE` for all of them.
        out: folder of the study.
        programs: folder of `train.py` and `eval.py`.

    Raises:
        ConfigError: a config cannot be read, a key or value is wrong, or the network cannot be built.
    """
    for program in (TRAIN, EVAL):
        if not (programs / program).is_file():
            raise ConfigError(
                f'{programs / program}: no such program; --programs is the folder that holds it'
            )
    entries = []
    for name, config in configs:
        settings = _settings(config, overrides, programs)
        try:
            parameters = afunet.count_parameters(afunet.parameter_shapes(afunet.build(settings['model'])))
        except ConfigError as error:
            raise ConfigError(f'{config}: {error}') from error
        entries.append(Entry(name, config, out / name, settings, parameters))
    return entries


def _settings(config: str, overrides: Sequence[str], programs: pathlib.Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, '-c', RESOLVE, str(programs), f'--config={config}', *overrides],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        reason = ' '.join(done.stderr.strip().splitlines()[-1:]) or f'status {done.returncode}'
        given = ' '.join([f'--config={config}', *overrides])
        raise ConfigError(f'{given}: {reason}. configs/default.py has every key of a config, with its type')
    return json.loads(done.stdout.splitlines()[-1])


def check_folder(entry: Entry) -> None:
    """Raises CheckpointError if the folder belongs to a training with other settings, and lists them."""
    try:
        checkpoints.check_workdir(entry.folder, entry.settings, training.FREE_SETTINGS)
    except AFUNetError as error:
        raise type(error)(f'{error}\nIn a study, a new --out gives every config a new folder') from error


def fingerprint(entry: Entry) -> str:
    """Of the settings that change figures, and of the file of results, in hexadecimal."""
    settings = {key: value for key, value in _flat(entry.settings) if not _is_free(key, FREE_IN_RESULTS)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(entry.results.read_bytes())
    return digest.hexdigest()


def is_finished(entry: Entry) -> bool:
    """Whether there are results, made with these settings, as the evaluation left them."""
    return entry.results.is_file() and read_record(entry).fingerprint == fingerprint(entry)


def _flat(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _is_free(key: str, free: Sequence[str]) -> bool:
    return any(key == f or key.startswith(f'{f}.') for f in free)


def read_record(entry: Entry) -> Record:
    """The record of a config, or a new one.

    Raises:
        DataError: the file is damaged.
    """
    path = entry.folder / RECORD
    if not path.exists():
        return Record()
    try:
        return Record(**json.loads(path.read_text(encoding='utf-8')))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f'{path} is no record of a study ({error}); remove it: the training goes on from its checkpoint, '
            'only the time spent so far is forgotten'
        ) from error


def _write_record(entry: Entry, record: Record) -> None:
    files.write_json(entry.folder / RECORD, dataclasses.asdict(record))


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
        _write_record(entry, record)

        def tick() -> None:
            nonlocal saved
            record.train_seconds = before + time.monotonic() - start
            self._progress.training(entry)
            if record.train_seconds - before - saved >= SAVE_SECONDS:
                saved = record.train_seconds - before
                _write_record(entry, record)

        status = self._program(TRAIN, entry, [f'--workdir={entry.folder}'], tick)
        tick()
        record.trained = status == 0
        _write_record(entry, record)
        return self._ended(TRAIN, entry, status)

    def _evaluate(self, entry: Entry, record: Record) -> str:
        """Runs eval.py to its end; returns what went wrong, or nothing."""
        record.fingerprint = ''  # results may be replaced from now on
        _write_record(entry, record)
        flags = [f'--weights={entry.folder}', f'--out={entry.folder / EVALUATION}']
        status = self._program(EVAL, entry, flags, lambda: self._progress.evaluating(entry))
        failure = self._ended(EVAL, entry, status)
        if failure:
            return failure
        if not entry.results.is_file():
            return f'{EVAL} has written no {entry.results}'
        record.fingerprint = fingerprint(entry)
        _write_record(entry, record)
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
        with open(_log(entry, program), 'ab') as log:
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
                self._progress.say(f'{_signal_name(number)}: {title} ends; a second signal kills it')
            try:
                return child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                tick()

    def _ended(self, program: str, entry: Entry, status: int) -> str:
        if self._signals.received:
            raise Interrupted(self._signals.received[0])
        if status == 0:
            return ''
        reason = f'ended with status {status}' if status > 0 else f'was killed by {_signal_name(-status)}'
        if status == -signal.SIGKILL:
            reason += ' (memory may have run out)'
        path = _log(entry, program)
        tail = path.read_text(encoding='utf-8', errors='replace').splitlines()[-LOG_TAIL:]
        title = f'{entry.name}: {program} {reason}; the end of {path}:'
        self._progress.say('\n'.join([title, *(f'  {line}' for line in tail)]))
        return f'{program} {reason}'


def _log(entry: Entry, program: str) -> pathlib.Path:
    return entry.folder / f'{pathlib.Path(program).stem}.log'


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'


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
    lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f'{out}: another study works here, or a program that a killed one left behind; '
                'wait for it, end it, or use another --out'
            ) from error
        except OSError as error:
            print(f'{out}: cannot be locked ({error.strerror}); start no second study here', file=sys.stderr)
        yield lock
    finally:
        os.close(lock)


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
            self.say(f'{self._title(entry)}: {where}, {entry.parameters:,} parameters; {_log(entry, TRAIN)}')

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


def last_step(entry: Entry) -> int:
    """The last step that the training has logged, 0 if none."""
    path = entry.folder / training.LOG_FILE
    if not path.exists():
        return 0
    with path.open('rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - STEP_TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that is being written
            return int(json.loads(line)['step'])
    return 0


def rows_of(entries: Sequence[Entry], failures: Mapping[str, str] | None = None) -> list[Row]:
    """The table's rows, from the records and the files of results.

    Differences are from the first entry. They are None where its figure or ours is missing, and where data or
    evaluation were set differently; a note says so.

    Args:
        entries: of the study.
        failures: name to what went wrong.

    Raises:
        DataError: a file of results is damaged.
    """
    first = _means(entries[0])
    rows = []
    for entry in entries:
        record, means = read_record(entry), _means(entry)
        status = (failures or {}).get(entry.name) or ('finished' if means else 'not finished')
        differing = _differing(entry, entries[0])
        differences = {
            key: None if differing else _difference(value, first.get(key)) for key, value in means.items()
        }
        rows.append(
            Row(entry, status, record, means, differences, _notes(status, record, differing, entries[0]))
        )
    return rows


def _means(entry: Entry) -> dict[str, float | None]:
    """Of the first method, which is the network; empty if it is not finished."""
    if not is_finished(entry):
        return {}
    try:
        means = next(iter(json.loads(entry.results.read_text(encoding='utf-8'))['means'].values()))
        return {key: None if value is None else float(value) for key, value in means.items()}
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise DataError(
            f'{entry.results} is not a file of results of eval.py: {error!r}. Remove it, and start again.'
        ) from error


def _difference(value: float | None, first: float | None) -> float | None:
    known = value is not None and first is not None and math.isfinite(value) and math.isfinite(first)
    return value - first if known else None


def _differing(entry: Entry, first: Entry) -> list[str]:
    """The settings of data and evaluation in which an entry differs from the first."""
    ours, theirs = (
        dict(_flat({'data': e.settings['data'], 'eval': e.settings['eval']})) for e in (entry, first)
    )
    return [
        f'{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here'
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key) and not _is_free(key, FREE_IN_TABLE)
    ]


def _notes(status: str, record: Record, differing: Sequence[str], first: Entry) -> tuple[str, ...]:
    notes = [] if status == 'finished' else [status]
    if record.starts > 1:
        notes.append(f'trained in {record.starts} starts; steps that were lost in between are in its time')
    if differing:
        notes.append(f'measured in another way than {first.name}, so not compared: {"; ".join(differing)}')
    return tuple(notes)


def format_table(rows: Sequence[Row]) -> str:
    """Parameters, time of training, the metrics' means and differences from the first row; notes below."""
    metrics = _metrics(rows)
    titles = ['config', 'parameters', 'training']
    for metric in metrics:
        titles += [_title(metric), '+/-']
    lines = [
        [row.entry.name, f'{row.entry.parameters:,}', format_duration(row.record.train_seconds)]
        + [cell for metric in metrics for cell in _cells(row, metric, row is rows[0])]
        for row in rows
    ]
    notes = [f'{row.entry.name}: {note}' for row in rows for note in row.notes]
    below = [f'+/-: less {rows[0].entry.name}'] if metrics else []
    return '\n'.join([reports.table(titles, lines), *below, *notes])


def _metrics(rows: Sequence[Row]) -> list[str]:
    """All metrics of the rows: those of METRICS in its order, then others, then the seconds."""
    found = list(dict.fromkeys(key for row in rows for key in row.means))
    known = [name for name in METRICS if name in found]
    others = [name for name in found if name not in METRICS and name != SECONDS]
    return known + others + [name for name in found if name == SECONDS]


def _title(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else SECONDS_TITLE if metric == SECONDS else metric


def _cells(row: Row, metric: str, is_first: bool) -> list[str]:
    other = SECONDS_DIGITS if metric == SECONDS else OTHER_DIGITS
    digits = METRICS[metric].digits if metric in METRICS else other
    mean, difference = row.means.get(metric), row.differences.get(metric)
    return [
        '-' if mean is None else f'{mean:.{digits}f}',
        '' if is_first else '-' if difference is None else f'{difference:+.{digits}f}',
    ]


def write_tables(out: pathlib.Path, rows: Sequence[Row]) -> None:
    """Writes `study.txt`, `study.csv` and `study.json` into `out`."""
    files.write_text(out / f'{TABLE}.txt', format_table(rows) + '\n')
    files.write_json(out / f'{TABLE}.json', reports.json_able({'first': rows[0].entry.name, 'rows': [
        {
            'name': row.entry.name, 'config': row.entry.config, 'status': row.status,
            'parameters': row.entry.parameters, 'train_seconds': row.record.train_seconds,
            'starts': row.record.starts, 'means': row.means, 'differences': row.differences,
            'notes': row.notes, 'settings': row.entry.settings,
        }
        for row in rows
    ]}))  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    metrics = _metrics(rows)
    pairs = [name for metric in metrics for name in (metric, f'{metric}_difference')]
    writer.writerow(['name', 'config', 'status', 'parameters', 'train_seconds', 'starts', *pairs])
    for row in rows:
        entry, record = row.entry, row.record
        figures = [figures.get(metric) for metric in metrics for figures in (row.means, row.differences)]
        about = [entry.name, entry.config, row.status, entry.parameters, record.train_seconds, record.starts]
        writer.writerow(about + figures)
    files.write_text(out / f'{TABLE}.csv', text.getvalue())


@cli.errors_as_messages
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    flags, overrides = parser.parse_known_args(arguments)
    for override in overrides:
        if not re.match(r'--config\.[^=]+=', override):
            parser.error(
                f'unknown argument {override}; settings for all configs are --config.KEY=VALUE in one word'
            )
    jax.config.update(
        'jax_platforms', 'cpu'
    )  # counting parameters must not take the accelerator from the programs
    configs = table_configs(flags.table, flags.programs) if flags.table else parse_configs(flags.configs)
    entries = resolve(configs, overrides, flags.out, flags.programs)
    try:
        rows = run(entries, overrides, flags.out, flags.programs, flags.stop_on_failure)
    except Interrupted as interruption:
        number = interruption.args[0]
        again = shlex.join(['python', '-m', 'afunet_jax.study', *arguments])
        reason = f'interrupted by {_signal_name(number)}'
        print(f'{reason}; this goes on from the last checkpoint:\n  {again}', file=sys.stderr)
        return 128 + number
    print(format_table(rows))
    print(f'tables are in {flags.out}', file=sys.stderr)
    return OK if all(row.status == 'finished' for row in rows) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m afunet_jax.study', allow_abbrev=False, description=__doc__.splitlines()[0],
        epilog='--config.KEY=VALUE changes a setting of all configs.',
    )  # fmt: skip
    choice = parser.add_mutually_exclusive_group(required=True).add_argument
    choice('--configs', metavar='LIST', help='[NAME=]PATH[:ARGUMENT],... in the order of the table')
    choice('--table', metavar='N', help=f'the list of a table of the paper: {", ".join(TABLES)}')
    add = parser.add_argument
    add(
        '--out',
        type=pathlib.Path,
        required=True,
        metavar='DIR',
        help='of the study; a folder in it for each config',
    )
    add('--stop_on_failure', action='store_true', help='leave out what comes after a config that failed')
    add('--programs', type=pathlib.Path, default=PROGRAMS, metavar='DIR', help='of train.py and eval.py')
    return parser


if __name__ == '__main__':
    sys.exit(main())
