"""Kills a small training again and again at random moments, and compares its end with an undisturbed one.

    python tests/kill_training.py --out=DIR [--kills=100] [--seed=0] [--signals=KILL] [--steps=30] [--seconds=S]

A trial is one run in a new working directory, killed several times and started again until it ends. Half of the kills
fall anywhere, the others while a checkpoint is being written. At its end, parameters, optimizer state, place in the data,
log and best parameters are compared with the reference, bit by bit. Prints the figures, and keeps them in
DIR/kills.json; with --seconds it stops early, and the same command goes on. Exit status 1 if anything differs.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')  # every start loads what the first compiled
# One device, and programs that are made quickly: what is looked at here is not their speed.
os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'

import jax
import numpy as np
import orbax.checkpoint as ocp
import small

from afunet_jax import checkpoints, signals, training
from afunet_jax.models import afunet

SAVE_EVERY, LOG_EVERY, VALIDATE_EVERY = 2, 3, 5  # no log line ends where a checkpoint does
KILLS_IN_TRIAL = (3, 6)
POLL_SECONDS = 0.0005
LONGEST_END = 30.0  # seconds from a signal to the end
TOO_LATE = 1000  # no exit status
SAVES_PASSED = 5  # at most, before the one at which a kill is aimed
LONGEST_SAVE = 0.2  # seconds in which such a kill falls, after the save's folder has appeared


@dataclasses.dataclass
class Figures:
    """What was seen so far; `kept_steps` are those that restarted runs did not have to do again."""

    kills: int = 0
    in_a_save: int = 0
    before_a_checkpoint: int = 0
    trials: int = 0
    kept_steps: int = 0
    differences: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def config(out: pathlib.Path, steps: int):
    """A network of one stage without alignment: the survival is that of any."""
    config = small.config(out / 'data', out / 'prepared')
    config.model.update(sfm_depth=1, ablation='M1', drop_path=0.5)
    config.train.update(
        steps=steps, checkpoint_every=SAVE_EVERY, log_every=LOG_EVERY, batch_size=2, crop_size=8, threads=1
    )
    config.validation.every = VALIDATE_EVERY
    return config


def train(out: pathlib.Path, workdir: pathlib.Path, steps: int) -> None:
    """Runs, or goes on with, one training in this process."""
    settings = config(out, steps)
    with signals.handled():
        training.run(afunet.build(settings.model), settings, workdir)


def fork(function: Callable, *arguments, log: pathlib.Path) -> int:
    """Calls the function in a process of its own, which has all modules; jax has not started in this one."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        function(*arguments)
        status = 0
    except signals.Interrupted as error:
        print(error, file=sys.stderr, flush=True)
        status = error.status
    except BaseException as error:
        print(f'{type(error).__name__}: {error}', file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def saving(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(any((workdir / kind).glob('.saving*')) for kind in (checkpoints.LATEST, checkpoints.BEST))


def newest(workdir: pathlib.Path) -> int:
    """Step of the newest checkpoint, 0 if there is none."""
    found = [int(p.name) for p in (workdir / checkpoints.LATEST).glob('*') if p.name.isdigit()]
    return max(found, default=0)


def wait_for_end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_random(child: int, number: int, workdir: pathlib.Path, usual: float, draw: random.Random) -> int | None:
    """Signals the child at some moment of its `usual` seconds, or in some save; its status, None if it had ended."""
    end = time.monotonic() + draw.uniform(0, usual)
    a_save = newest(workdir) + SAVE_EVERY * draw.randint(0, SAVES_PASSED) if draw.random() < 0.5 else None
    while a_save is not None or time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        if a_save is not None and newest(workdir) >= a_save and saving(workdir):
            time.sleep(draw.uniform(0, LONGEST_SAVE))
            break
        time.sleep(POLL_SECONDS)
    os.kill(child, number)  # it may have ended, but was not waited for
    asked = time.monotonic()
    status = wait_for_end(child)
    if time.monotonic() - asked > LONGEST_END:
        return TOO_LATE
    return None if status == 0 else status


def contents(workdir: pathlib.Path) -> dict:
    """All that a run leaves behind, times and speed left out."""
    found = {}
    for kind in (checkpoints.LATEST, checkpoints.BEST):
        for step in sorted((workdir / kind).iterdir()):
            for item in ('params', 'state'):
                if (step / item).is_dir():
                    with ocp.PyTreeCheckpointer() as reader:
                        tree = reader.restore((step / item).absolute())
                    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                        name = f'{kind}/{step.name}/{item}{jax.tree_util.keystr(path)}'
                        found[name] = np.asarray(leaf).tobytes()
            about = json.loads((step / 'about' / 'metadata').read_text())
            found[f'{kind}/{step.name}/about'] = {key: about[key] for key in about if key != 'config'}
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    found['log'] = [{key: line[key] for key in line if key != 'images_per_second'} for line in lines]
    return found


def compare(one: pathlib.Path, other: pathlib.Path) -> None:
    """Fails with the names of what differs."""
    ours, theirs = contents(one), contents(other)
    assert any('/state' in key for key in ours)
    differing = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    if differing:
        raise AssertionError(f'{len(differing)} differ: {", ".join(differing[:5])}')


def trial(out: pathlib.Path, figures: Figures, flags: argparse.Namespace, usual: float) -> None:
    """One run, killed some times, compared at its end."""
    draw = random.Random(f'{flags.seed} {figures.trials}')
    most = min(draw.randint(*KILLS_IN_TRIAL), flags.kills - figures.kills)
    workdir, log = out / 'killed', out / 'killed.log'
    shutil.rmtree(workdir, ignore_errors=True)
    problem = ''
    for kill in range(most + 1):
        figures.kept_steps += newest(workdir)
        child = fork(train, out, workdir, flags.steps, log=log)
        if kill == most:
            status = wait_for_end(child)
            problem = f'a restarted run ended with status {status}' if status else ''
            break
        number = signal.Signals[f'SIG{flags.signals[figures.kills % len(flags.signals)]}']
        status = kill_at_random(child, number, workdir, usual, draw)
        if status is None:
            break
        expected = -number if number == signal.SIGKILL else signals.STATUS + number
        if status != expected:
            problem = f'{number.name} ended it with {status}, not {expected}'
            break
        figures.kills += 1
        figures.in_a_save += saving(workdir)
        figures.before_a_checkpoint += newest(workdir) == 0
    if not problem and wait_for_end(fork(compare, workdir, out / 'reference', log=log)):
        problem = log.read_text().splitlines()[-1]
    if problem:
        figures.differences.append(f'trial {figures.trials}: {problem}')
        shutil.move(workdir, out / f'differs-{figures.trials}')
    figures.trials += 1


def reference(out: pathlib.Path, steps: int, usual_seconds: float | None) -> float:
    """The undisturbed run; the seconds that one takes which need not compile, by a second run if they are not given."""
    usual = out / 'usual.json'
    if not usual.exists():
        small.write_data_set(out / 'data', train=3, test=0)
        for name in ('reference', 'timed') if usual_seconds is None else ('reference',):
            shutil.rmtree(out / name, ignore_errors=True)
            start = time.monotonic()
            if wait_for_end(fork(train, out, out / name, steps, log=out / 'reference.log')):
                raise SystemExit((out / 'reference.log').read_text())
        usual.write_text(json.dumps(usual_seconds or time.monotonic() - start))
    return json.loads(usual.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=pathlib.Path, required=True)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--signals', type=lambda text: text.split(','), default=['KILL'], help='in turn: KILL,TERM,...')
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--usual', type=float, help='seconds of a run that need not compile; measured by default')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='begin no trial after these')
    flags = parser.parse_args()
    small.heed_signals()
    out = flags.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update('jax_compilation_cache_dir', str(out / 'compiled'))
    start, before = time.monotonic(), out / 'kills.json'
    figures = Figures(**json.loads(before.read_text())) if before.exists() else Figures()
    usual = reference(out, flags.steps, flags.usual)
    while figures.kills < flags.kills and time.monotonic() - start < flags.seconds:
        begun = time.monotonic()
        trial(out, figures, flags, usual)
        figures.seconds += time.monotonic() - begun
        before.write_text(json.dumps(dataclasses.asdict(figures)))
    for name, value in dataclasses.asdict(figures).items():
        print(f'{name.replace("_", " "):20} {value if name != "differences" else len(value)}')
    print(*figures.differences, sep='\n')
    return 1 if figures.differences else 0


if __name__ == '__main__':
    sys.exit(main())
