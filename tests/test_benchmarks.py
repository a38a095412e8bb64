"""The benchmark itself: its table, its refusals, and one real run. No time is judged."""

import json
import subprocess
import sys

import numpy as np
import pytest
import small

import benchmarks.__main__ as program
from afunet_jax.errors import ConfigError
from benchmarks import works

KEYS = {'name', 'ours_s', 'twin_s', 'ratio', 'ours_peak_mb', 'twin_peak_mb', 'ours_first_s', 'difference'}


class Recorded:
    """Stands for a side that has run."""

    def __init__(self, path, result):
        self.name, self.result = path.stem, path
        np.save(path, result)


def test_sides_that_compute_different_things_are_not_compared(tmp_path):
    work = works.WORKS['inference_128']
    ours, theirs = np.zeros(4, np.float32), np.full(4, work.tolerance / 2, np.float32)
    pair = Recorded(tmp_path / 'ours.npy', ours), Recorded(tmp_path / 'twin.npy', theirs)
    assert program._difference(*pair, work) == pytest.approx(work.tolerance / 2)
    for wrong in (theirs * 4, theirs * np.nan):
        with pytest.raises(RuntimeError, match='differ'):
            program._difference(pair[0], Recorded(tmp_path / 'twin.npy', wrong), work)


def test_every_work_says_what_it_is():
    assert {work.kind for work in works.WORKS.values()} == {'inference', 'train', 'data', 'start'}
    for name, work in works.WORKS.items():
        assert work.repeats >= 1 and work.tolerance > 0, name
        if work.kind == 'inference':
            assert works.inputs(work).shape == (1, work.height, work.width, 18)
            assert work.height % 128 == work.width % 128 == 0


def test_a_rival_that_did_not_run_leaves_a_gap_in_the_table():
    row = {'name': 'data', 'ours_first_s': 1.0, 'ratio': 3.0}
    row |= {f'{side}_{key}': 1.0 for side in ('ours', 'twin') for key in ('s', 'min_s', 'max_s', 'peak_mb')}
    *_, line = program.format_rows([row], ('twin', 'compiled')).splitlines()
    assert line.split().count('-') == 3 and '3.00x' in line


def test_the_processor_is_named_with_its_generation_and_vectors(tmp_path):
    one = 'processor\t: {}\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx avx2 avx512f\n'
    (tmp_path / 'cpuinfo').write_text('\n'.join(one.format(i) for i in range(2)))
    assert program.processor(str(tmp_path / 'cpuinfo')) == 'AMD EPYC, cpu family 26, model 2, avx512f'
    assert program.processor(str(tmp_path / 'none')) != ''


def test_without_pytorch_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(program.sys, 'executable', '/bin/false')
    with pytest.raises(ConfigError, match='requirements-dev.txt'):
        program.about()


def test_an_unknown_work_is_refused():
    command = [sys.executable, '-m', 'benchmarks', '--work=sleep']
    run = subprocess.run(command, cwd=small.ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and 'inference_128' in run.stderr


@pytest.mark.slow
def test_a_run_gives_the_ratios_as_a_table_and_as_json(tmp_path):
    path = tmp_path / 'results.json'
    command = [sys.executable, '-m', 'benchmarks', '--work=inference_128', '--repeats=2', f'--json={path}']
    run = subprocess.run(command, cwd=small.ROOT, capture_output=True, text=True, check=True)
    assert 'inference_128' in run.stdout
    (row,) = json.loads(path.read_text())['works']
    assert KEYS <= set(row)
    assert row['ratio'] == pytest.approx(row['twin_s'] / row['ours_s'])
    assert row['ours_min_s'] <= row['ours_s'] <= row['ours_max_s'] and row['ours_peak_mb'] > 100
