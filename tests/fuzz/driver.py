"""Starts the fuzzing process, asks it for cases, and sums up what it finds."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
FORMATS = (
    'exposure.txt', 'TIFF', 'PNG', 'JPEG', '.hdr', '.exr', 'HEIC', 'DNG', '.pth', '.npz', '.safetensors', 'options', 'checkpoint', 'whole run',
)  # fmt: skip
OPTIONAL = {'HEIC': 'pillow_heif', 'DNG': 'rawpy'}  # format: the package that reads it


@dataclasses.dataclass
class Summary:
    """What became of the files of one format."""

    format: str
    seed: int
    files: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    largest: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)

    def add(self, record: dict) -> None:
        self.files += 1
        self.read += record['outcome'] == 'read'
        self.refused += record['outcome'] == 'refused'
        self.slowest, self.largest = max(self.slowest, record['seconds']), max(self.largest, record['bytes'])
        where = f'{self.format}, seed {self.seed}, case {record["case"]} ({record["seed"]}, {record["kind"]})'
        self.faults += [f'{where}: {fault}' for fault in record['faults']]


class Server:
    """The process; `close` ends it."""

    def __init__(self):
        path = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'fuzz.server'], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '', 'OMP_NUM_THREADS': '1'},
        )  # fmt: skip

    def run(self, name: str, seed: int, start: int, stop: int) -> Summary:
        """Reads the cases `start` to `stop`, exclusive, of a format."""
        summary = Summary(name, seed)
        request = {'format': name, 'seed': seed, 'start': start, 'stop': stop}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            record = json.loads(line)
            if not record:
                return summary
            summary.add(record)
        raise RuntimeError(f'the fuzzing process ended (status {self._process.wait()}) at {request}; its trace is above')

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def table(summaries: list[Summary]) -> str:
    """A row a format: files, what became of them, the slowest in seconds of the processor, the largest in MiB."""
    rows = [('format', 'files', 'read', 'refused', 'faults', 'slowest s', 'most MiB')]
    rows += [
        (s.format, s.files, s.read, s.refused, len(s.faults), f'{s.slowest:.2f}', f'{s.largest / 2**20:.1f}') for s in summaries
    ]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join('  '.join(str(cell).rjust(width) if i else str(cell).ljust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))) for row in rows)  # fmt: skip
