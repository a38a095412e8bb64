"""Damaged files of every format are read rightly, or refused with an error of ours: soon, and without much memory.

`server` says what soon and much are. Repeat a case with `python tests/fuzz`, which says how.
"""

import pytest
from fuzz import driver

QUICK, ALL = 100, 2000  # files a format
FEWER = {'whole run': 16, 'HEIC': 50, 'DNG': 50, '.npz': 50, 'checkpoint': 50, '.pth': 50}  # in the quick test: each takes long
SLOW_SEED = 1  # the slow test reads others than the quick one


@pytest.mark.parametrize('name', driver.FORMATS)
def test_damaged_files(fuzz, name):
    check(fuzz, name, FEWER.get(name, QUICK), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize('name', driver.FORMATS)
def test_many_damaged_files(fuzz, name):
    check(fuzz, name, ALL, seed=SLOW_SEED)


def check(fuzz, name, files, seed):
    if name in driver.OPTIONAL:
        pytest.importorskip(driver.OPTIONAL[name])
    found = fuzz(name, files, seed)
    assert not found.faults, '\n'.join(found.faults)
    assert (found.files, found.read + found.refused) == (files, files) and found.refused


def test_the_server_names_crashes_hangs_and_traces(tmp_path, monkeypatch):
    """Readers that fail in each way are found out: the fuzzing itself is no test that cannot fail."""
    import ctypes
    import time

    from fuzz import formats, server

    monkeypatch.setattr(server, 'trim', lambda: server.pathlib.Path('/proc/self/clear_refs').write_text('5'))
    readers = {
        'kills the process: SIGSEGV': lambda path: ctypes.string_at(0),
        'hangs': lambda path: time.sleep(60),
        'ZeroDivisionError': lambda path: 1 // 0,
        r'takes \d+ MiB, 64 are allowed': lambda path: len(b'1' * 200_000_000),
        r'takes \d\.\d\d s': lambda path: [None for _ in iter(lambda start=time.process_time(): time.process_time() < start + 1.2, False)],
        'wrong': lambda path: 'wrong',
    }  # fmt: skip

    def check(reader, mutant, result, original):
        if result == 'wrong':
            raise formats.Wrong('wrong')

    for expected, reader in readers.items():
        # Little where something hangs; else so much that a loaded machine does not pass for hanging.
        monkeypatch.setattr(server, 'HANG_SECONDS', 2 if expected == 'hangs' else 60)
        def build(folder):
            (folder / 'a.txt').write_bytes(b'0 2 4')

        def once(path, reader=reader):
            return reader(path) if path.read_bytes() != b'0 2 4' else None

        form = formats.Format(build, '*.txt', (), {'reader': once}, check=check, generic=1.0)
        monkeypatch.setitem(formats.IMAGES, 'fake', form)
        build(tmp_path)
        (record,) = server.batch('fake', 0, [3], tmp_path)
        assert pytest.approx(1) == len(record['faults']), (expected, record)
        assert __import__('re').search(expected, record['faults'][0]), record['faults']
