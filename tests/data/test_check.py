"""The command that checks a data folder: counts, figures, all problems, exit status."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from afunet_jax import hdr, image_io
from afunet_jax.data import check
from afunet_jax.data.layouts import get_layout

SATURATED_ROWS = (0, 3, 7)  # of 10, per exposure


def write_scene(folder: pathlib.Path, bits: int = 16) -> None:
    folder.mkdir(parents=True)
    for i, rows in enumerate(SATURATED_ROWS):
        image = np.full((10, 12, 3), 1000, np.uint16)
        image[:rows, :, i] = 65535  # one channel suffices
        image_io.write_ldr(folder / f'{i}.tif', image if bits == 16 else (image >> 8).astype(np.uint8))
    (folder / 'exposure.txt').write_text('0\n3\n6\n')
    image_io.write_hdr(folder / 'HDRImg.hdr', np.full((10, 12, 3), 0.5, np.float32))


@pytest.fixture(scope='module')
def complete(tmp_path_factory) -> pathlib.Path:
    """A complete Kalantari folder: 74 + 10 + 5 scenes."""
    folder = tmp_path_factory.mktemp('kalantari')
    write_scene(folder / 'Training' / '001')
    places = [f'Training/{i:03d}' for i in range(2, 75)] + [f'Test/EXTRA/{i:03d}' for i in range(1, 11)]
    for place in places + [f'Test/PAPER/{name}' for name in 'abcde']:
        shutil.copytree(folder / 'Training' / '001', folder / place)
    return folder


@pytest.fixture
def damaged(tmp_path, complete) -> pathlib.Path:
    shutil.copytree(complete, tmp_path / 'data')
    (tmp_path / 'data/Training/003/1.tif').write_bytes(b'II*\0')
    (tmp_path / 'data/Training/003/exposure.txt').write_text('6\n3\n0\n')
    (tmp_path / 'data/Training/074/HDRImg.hdr').unlink()
    shutil.rmtree(tmp_path / 'data/Test/PAPER/e')
    return tmp_path / 'data'


def run(*arguments: str) -> int:
    return check.main(list(arguments))


def test_a_complete_folder(complete, tmp_path, capsys):
    status = run(f'--dir={complete}', '--layout=kalantari', f'--json={tmp_path}/report.json')
    text = capsys.readouterr().out
    report = json.loads((tmp_path / 'report.json').read_text())
    assert status == check.OK and report['ok'] is True
    assert 'train: 74 scenes found, 74 expected' in text and 'test: 15 scenes found, 15 expected' in text
    assert '12x10' in text and '0 3 6' in text and '0.00 30.00 70.00' in text and 'Nothing is wrong' in text
    assert len(report['scenes']) == 89
    assert report['scenes'][0] == {'split': 'train', 'name': '001', 'size': [10, 12], 'evs': [0, 3, 6],
                                   'saturated': [0, 0.3, 0.7], 'label_max': 0.5,
                                   'problems': [], 'warnings': []}


def test_everything_that_is_wrong_is_reported(damaged, tmp_path, capsys):
    status = run(f'--dir={damaged}', '--layout=kalantari', f'--json={tmp_path}/report.json')
    text = capsys.readouterr().out
    report = json.loads((tmp_path / 'report.json').read_text())
    assert status == check.WRONG and report['ok'] is False
    problems = [problem for part in report['splits'] + report['scenes'] for problem in part['problems']]
    assert len(problems) == 4
    expected = ('PAPER: 14 test scenes', '003/1.tif', '003/exposure.txt', '074/HDRImg.hdr')
    for problem, words in zip(problems, expected):
        assert words in problem and problem in text
    broken = next(scene for scene in report['scenes'] if scene['name'] == '003')
    assert broken['saturated'] == [0, None, 0.7] and broken['evs'] == [6, 3, 0] and broken['size'] == [10, 12]


def test_8_bit_images_are_a_warning_not_a_problem(tmp_path):
    write_scene(tmp_path / 'Test' / 'Cafe', bits=8)
    report = check.check_folder(tmp_path, get_layout('tursun'))
    assert len(report.warnings) == 3 and all('8 bits' in warning for warning in report.warnings)
    (problem,) = report.problems
    assert '1 test scenes, the complete data set tursun has 16' in problem
    assert 'Warnings (3)' in check.format_report(report)


def test_a_label_of_nan_is_still_json(tmp_path):
    write_scene(tmp_path / 'Training' / '001')
    label = np.full((10, 12, 3), np.nan, np.float32)
    tifffile.imwrite(tmp_path / 'Training/001/HDRImg.hdr', label, photometric='rgb')
    report = check.check_folder(tmp_path, get_layout('kalantari'))
    assert json.loads(check.to_json(report))['scenes'][0]['label_max'] is None
    assert any('NaN' in problem for problem in report.problems)


def test_a_folder_that_is_no_data_set(tmp_path, capsys):
    assert run(f'--dir={tmp_path}', '--layout=hu') == check.WRONG
    assert capsys.readouterr().out.count('not a data set of layout hu') == 2


@pytest.mark.parametrize('arguments', [
    [], ['--dir=x'], ['--dir=x', '--layout=kalantary'], ['--dir=x', '--layout=tel',
     '--json=no/such/folder/a.json'],
    ['--dir=x', '--layout=tel', '--surplus']], ids=str)
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        run(*arguments)
    assert raised.value.code == check.USAGE and 'usage:' in capsys.readouterr().err


def test_saturated_share_counts_pixels_by_their_largest_channel():
    image = np.zeros((2, 2, 3), np.uint16)
    image[0, 0] = int(hdr.SATURATED)  # at the limit: not above it
    image[0, 1, 2] = int(hdr.SATURATED) + 1
    image[1, 1] = 65535
    assert check.saturated_share(image) == 0.5


def test_progress_tells_rate_and_time_left(complete, capsys, monkeypatch):
    monkeypatch.setattr(check, 'PROGRESS_SECONDS_LOG', 0.0)
    check.check_folder(complete, get_layout('kalantari'), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 89 and lines[-1].startswith('89/89 scenes, ') and lines[-1].endswith(' 0 s left')


def test_the_command_itself(complete):
    command = [sys.executable, '-m', 'afunet_jax.data.check', f'--dir={complete}', '--layout=kalantari']
    root = pathlib.Path(check.__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == check.OK and 'Nothing is wrong' in done.stdout, done.stderr
