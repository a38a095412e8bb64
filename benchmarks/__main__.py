"""Compares speed and memory with the PyTorch twin, side by side on this machine.

    python -m benchmarks --work=inference_128,train_1 --json=results.json

Every side of every work has a process of its own, so that peak memory is its own; the processes live at the
same time and run in turn, so that both meet the same machine. The first run of each is for compiling and
warming up, and its results must agree. Ratios are the twin's median time over ours: above 1 we are faster.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from afunet_jax import cli, files, reports
from afunet_jax.errors import ConfigError
from benchmarks.works import WORKS, Work

ROOT = pathlib.Path(__file__).parent.parent


class Side:
    """A process that runs one work on request."""

    def __init__(self, side: str, name: str, folder: pathlib.Path):
        self.name, self.result = side, folder / f'{side}.npy'
        self.times, self.peak_mb = [], 0.0
        self._started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'benchmarks.sides', side, name, str(folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},  # a GPU's memory is for both sides
        )  # fmt: skip
        self._answer()
        self.first_seconds = self.run()
        self.start_seconds = time.perf_counter() - self._started
        self.times.clear()

    def run(self) -> float:
        """Runs the work once; seconds as the process itself took them."""
        self._process.stdin.write('run\n')
        self._process.stdin.flush()
        answer = self._answer()
        self.times.append(answer['seconds'])
        self.peak_mb = answer['peak_mb']
        return answer['seconds']

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        while line and not line.startswith('{'):  # libraries print too
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f'{self.name} ended with status {self._process.wait()}; its error stands above')
        return json.loads(line)


def measure(name: str, rivals: Sequence[str], repeats: int = 0) -> dict[str, Any]:
    """Runs one work on our side and on its rivals, in turn."""
    work = WORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        sides = {side: Side(side, name, pathlib.Path(folder)) for side in ('ours', *rivals)}
        difference = {side: _difference(sides['ours'], sides[side], work) for side in rivals}
        for _ in range(repeats or work.repeats):
            for side in sides.values():
                side.run()
        for side in sides.values():
            side.close()
    row = {'name': name, 'repeats': repeats or work.repeats}
    for label, side in sides.items():
        times = [side.start_seconds] if work.kind == 'start' else side.times
        row |= {
            f'{label}_s': statistics.median(times), f'{label}_min_s': min(times), f'{label}_max_s': max(times),
            f'{label}_first_s': side.first_seconds, f'{label}_start_s': side.start_seconds,
            f'{label}_peak_mb': side.peak_mb,
        }  # fmt: skip
    for side in rivals:
        prefix = '' if side == 'twin' else f'{side}_'
        row[f'{prefix}ratio'] = row[f'{side}_s'] / row['ours_s']
        row[f'{prefix}memory_ratio'] = row[f'{side}_peak_mb'] / row['ours_peak_mb']
        row[f'{prefix}difference'] = difference[side]
    return row


def _difference(ours: Side, theirs: Side, work: Work) -> float:
    a, b = np.load(ours.result), np.load(theirs.result)
    difference = float(np.abs(a.astype(np.float64) - b).max())
    if not difference <= work.tolerance:
        raise RuntimeError(f'ours and {theirs.name} differ by {difference}, above {work.tolerance}: nothing to compare')
    return difference


def format_rows(rows: Sequence[dict[str, Any]], rivals: Sequence[str]) -> str:
    """The table of ratios."""
    titles = ['work', 'ours', *(f'{side}' for side in rivals), *(f'{side}/ours' for side in rivals), 'memory', *rivals,
              'first run']  # fmt: skip
    lines = []
    for row in rows:
        def seconds(side: str) -> str:
            if f'{side}_s' not in row:
                return '-'
            return f'{row[f"{side}_s"]:.3f} s ({row[f"{side}_min_s"]:.3f}-{row[f"{side}_max_s"]:.3f})'

        ratios = [row.get('ratio' if side == 'twin' else f'{side}_ratio') for side in rivals]
        peaks = [row.get(f'{side}_peak_mb') for side in ('ours', *rivals)]
        lines.append([
            row['name'], seconds('ours'), *map(seconds, rivals), *(_shown(ratio, '.2f', 'x') for ratio in ratios),
            *(_shown(peak, '.0f', ' MB') for peak in peaks), f'{row["ours_first_s"]:.1f} s',
        ])  # fmt: skip
    return reports.table(titles, lines)


def _shown(value: float | None, digits: str, unit: str) -> str:
    return '-' if value is None else f'{value:{digits}}{unit}'


def about() -> dict[str, Any]:
    """The machine and the versions, asked in a process of its own so that this one holds no device."""
    code = (
        'import json, jax, torch; print(json.dumps({"device": jax.devices()[0].device_kind, "jax": jax.__version__, '
        '"torch": torch.__version__, "torch_threads": torch.get_num_threads()}))'
    )
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    if found.returncode:
        reason = ' '.join(found.stderr.strip().splitlines()[-1:])
        raise ConfigError(f'jax and PyTorch cannot be used side by side here ({reason}); run: pip install -r '
                          'requirements-dev.txt')  # fmt: skip
    return {**json.loads(found.stdout.splitlines()[-1]), 'cpu': processor(), 'cores': os.cpu_count(),
            'python': platform.python_version()}  # fmt: skip


def processor(cpuinfo: str = '/proc/cpuinfo') -> str:
    """Name, generation and widest vectors of the processor: ratios depend on them."""
    try:
        text = pathlib.Path(cpuinfo).read_text().split('\n\n')[0]
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(':') for line in text.splitlines())}
    flags = facts.get('flags', '').split()
    vectors = next((name for name in ('avx512f', 'avx2', 'avx') if name in flags), 'no avx')
    generation = [f'{key} {facts[key]}' for key in ('cpu family', 'model') if key in facts]
    parts = (facts.get('model name'), *generation, vectors)
    return ', '.join(part for part in parts if part)


@cli.errors_as_messages
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__.split('\n')[0])
    parser.add_argument('--work', default='inference_128,inference_256,train_1', help=f'of {", ".join(WORKS)}, or all')
    parser.add_argument('--compile', action='store_true', help='also against torch.compile')
    parser.add_argument('--repeats', type=cli.natural, default=0,
                        help='measured runs per side; 0: the default of each work')  # fmt: skip
    parser.add_argument('--json', help='file for the results')
    flags = parser.parse_args()
    names = list(WORKS) if flags.work == 'all' else flags.work.split(',')
    if unknown := set(names) - set(WORKS):
        parser.error(f'no work is called {", ".join(sorted(unknown))}; known: {", ".join(WORKS)}, all')
    rivals = ('twin', 'compiled') if flags.compile else ('twin',)
    rows, machine = [], about()
    for name in names:
        print(f'{name} ({len(rows) + 1} of {len(names)})', file=sys.stderr, flush=True)
        rows.append(measure(name, rivals if WORKS[name].kind != 'data' else ('twin',), flags.repeats))
        if flags.json:
            files.write_json(flags.json, {'about': machine, 'works': rows})
    print(', '.join(f'{key} {value}' for key, value in machine.items()))
    print(format_rows(rows, rivals))


if __name__ == '__main__':
    main()
