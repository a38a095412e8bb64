"""How programs end: errors and signals as messages with a status, soon, and without traces."""

import os
import signal
import subprocess
import sys
import time

import pytest
import small

from afunet_jax import cli, files, signals
from afunet_jax.errors import DataError


def ended(main):
    with pytest.raises(SystemExit) as caught:
        cli.errors_as_messages(main)()
    return caught.value.code


def test_an_error_of_ours_is_a_message_and_status_2(capsys):
    def main():
        raise DataError('no such scene')

    assert ended(main) == cli.EXIT_ERROR
    assert capsys.readouterr().err == 'error: no such scene\n'


def test_what_the_system_refuses_to_do_with_a_file_is_a_message(tmp_path, capsys):
    (tmp_path / 'file').write_text('x')
    for main in (lambda: files.write_json(tmp_path / 'file' / 'a.json', {}), lambda: open(tmp_path / 'none', 'rb')):
        assert ended(main) == cli.EXIT_ERROR
        told = capsys.readouterr().err
        assert told.startswith(f'error: {tmp_path}/') and 'Check the path, its rights and the space left' in told
    with pytest.raises(OSError, match='without a file'):
        cli.errors_as_messages(lambda: (_ for _ in ()).throw(OSError(5, 'without a file')))()


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path):
    code = (
        'import resource, signal, sys; from afunet_jax import cli, files\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n'
        'cli.errors_as_messages(lambda: files.write_text(sys.argv[1], "x" * 10**6))()'
    )
    run = subprocess.run([sys.executable, '-c', code, tmp_path / 'a.txt'], cwd=small.ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (
        cli.EXIT_ERROR, f'error: {tmp_path}/a.txt: File too large. Check the path, its rights and the space left\n'
    )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_names_that_the_screen_cannot_show_do_not_end_a_program():
    code = "from afunet_jax import cli; cli.errors_as_messages(lambda: print('caf\\udce9 stra\u00dfe'))()"
    environment = {**os.environ, 'PYTHONIOENCODING': 'ascii:strict'}
    run = subprocess.run([sys.executable, '-c', code], cwd=small.ROOT, env=environment, capture_output=True, text=True)
    assert run.stdout == 'caf\\udce9 stra\\xdfe\n', run.stderr


@pytest.mark.parametrize('number', signals.SIGNALS)
def test_a_signal_ends_a_program_with_a_message_and_its_status(number, capsys):
    def main():
        os.kill(os.getpid(), number)
        time.sleep(5)

    before = [signal.getsignal(n) for n in signals.SIGNALS]
    start = time.monotonic()
    assert ended(main) == 128 + number
    assert time.monotonic() - start < 2
    assert signal.Signals(number).name in capsys.readouterr().err
    assert [signal.getsignal(n) for n in signals.SIGNALS] == before


def test_no_except_exception_swallows_a_signal():
    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pass

    assert ended(main) == 143


def test_what_postpones_signals_ends_in_its_own_way():
    with signals.postponed() as asked:
        assert asked.number is None
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert asked.number == signal.SIGUSR1


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.handled():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def run_and_signal(code, *numbers, first_line='ready'):
    process = subprocess.Popen(
        [sys.executable, '-c', f'from afunet_jax import signals\n{code}'], cwd=small.ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().strip() == first_line
    time.sleep(0.3)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)
    start = time.monotonic()
    _, err = process.communicate(timeout=30)
    return process.returncode, err, time.monotonic() - start


def test_a_computation_that_cannot_look_at_signals_is_ended_after_the_grace():
    code = (
        'import hashlib\nsignals.GRACE_SECONDS = 0.5\nwith signals.handled():\n    print("ready", flush=True)\n'
        '    hashlib.pbkdf2_hmac("sha256", bytes(8), bytes(8), 100_000_000)'
    )
    status, err, seconds = run_and_signal(code, signal.SIGTERM)
    assert status == 143 and 'SIGTERM: no end was reached' in err and seconds < 5


def test_a_second_ctrl_c_ends_at_once():
    code = 'import time\nwith signals.postponed():\n    print("ready", flush=True)\n    time.sleep(20)'
    status, err, seconds = run_and_signal(code, signal.SIGINT, signal.SIGINT)
    assert status == 130 and 'again' in err and seconds < 5


def test_a_pool_that_ends_its_workers_by_sigterm_does_not_end_us():
    code = (
        'import os, signal, time\nsignals.GRACE_SECONDS = 0.2\nwith signals.handled():\n'
        '    child = os.fork()\n    if not child:\n        time.sleep(20)\n'
        '    time.sleep(0.1)\n    os.kill(child, signal.SIGTERM)\n'
        '    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM\n'
        '    time.sleep(0.6)\n    print("ready", flush=True)'
    )
    assert run_and_signal(code)[0] == 0
