"""The configs of a study, what is remembered of each, and what its folder tells."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from afunet_jax import checkpoints, files, reports, training
from afunet_jax.errors import AFUNetError, ConfigError, DataError
from afunet_jax.models import afunet

PROGRAMS = pathlib.Path(__file__).parents[2]  # folder of train.py, eval.py and configs/
TRAIN, EVAL = 'train.py', 'eval.py'
VARIANTS = 'configs/variants.py'  # in the folder of the programs
TABLES = {  # of the paper: name in our table to variant
    '4': {name: name for name in ('M1', 'M2', 'M3', 'M4')},
    '5': {'AF': 'T4', 'FA': 'FA'},
    '6': {name: name for name in ('T2', 'T3', 'T4', 'T5', 'T6')},
}
RECORD = 'record.json'
EVALUATION, RESULTS = 'eval', 'results.json'
# They change no figure of an evaluation, nor of its training.
FREE_IN_RESULTS = tuple(key for key in training.FREE_IN_STEPS if key != 'data.dir')
STEP_TAIL = 8192  # bytes at the end of the training's log that hold a whole line
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
    if not path.is_file():
        raise ConfigError(f'{path}: no such config file; --programs is the folder that holds {VARIANTS}')
    return [(name, f'{path}:{variant}') for name, variant in TABLES[table].items()]


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
        if settings['train']['steps'] < 1:
            raise ConfigError(f'{config}: train.steps is at least 1, not {settings["train"]["steps"]}')
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
        checkpoints.check_workdir(entry.folder, entry.settings, (*training.FREE_SETTINGS, 'eval'))
    except AFUNetError as error:
        raise type(error)(f'{error}\nIn a study, a new --out gives every config a new folder') from error


def fingerprint(entry: Entry) -> str:
    """Of the settings that change figures, and of the file of results, in hexadecimal."""
    flat = checkpoints.flat(entry.settings)
    settings = {key: value for key, value in flat.items() if not checkpoints.is_free(key, FREE_IN_RESULTS)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(entry.results.read_bytes())
    return digest.hexdigest()


def is_finished(entry: Entry) -> bool:
    """Whether there are results, made with these settings, as the evaluation left them."""
    return entry.results.is_file() and read_record(entry).fingerprint == fingerprint(entry)


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


def write_record(entry: Entry, record: Record) -> None:
    files.write_json(entry.folder / RECORD, dataclasses.asdict(record))


def log_file(entry: Entry, program: str) -> pathlib.Path:
    """Where a program's output goes."""
    return entry.folder / f'{pathlib.Path(program).stem}.log'


def last_step(entry: Entry) -> int:
    """The last step that the training has logged, 0 if none."""
    path = entry.folder / reports.TRAINING_LOG
    if not path.exists():
        return 0
    with path.open('rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - STEP_TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that is being written
            return int(json.loads(line)['step'])
    return 0
