"""The process in which damaged files are read: it forks, so that a crash, a hang or a leak ends a child alone.

Reads requests, a JSON a line, from stdin: `{format, seed, start, stop}`. Answers with a JSON a line for each case.
"""

import contextlib
import ctypes
import faulthandler
import functools
import gc
import json
import os
import pathlib
import select
import signal
import sys
import tempfile
import time
import traceback

BATCH = 50  # cases of one child
HANG_SECONDS = 30  # of the clock, without an answer
SECONDS = 1.0  # of the processor, for one reader on one file
ALLOWANCE = 64 * 2**20  # bytes of memory that any file may take
TIMES_DECLARED = 10  # and times the image that it declares


def memory(field: str) -> int:
    """Bytes: `VmRSS` now, `VmHWM` at most since the last reset."""
    for line in pathlib.Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'/proc/self/status has no {field}')


@functools.cache
def libc():
    return ctypes.CDLL('libc.so.6')


def trim() -> None:
    """Gives freed memory back, and starts the measurement of the peak anew."""
    gc.collect()  # what was loaded before the fork is frozen: this is quick
    with contextlib.suppress(OSError, AttributeError):
        libc().malloc_trim(0)
    pathlib.Path('/proc/self/clear_refs').write_text('5')


def attempt(reader, path):
    """What a reader does: 'read', 'refused' or a fault; its result or reason; seconds of the processor; bytes."""
    from afunet_jax.errors import AFUNetError

    trim()
    before, start = memory('VmRSS'), time.process_time()
    try:
        outcome, result = 'read', reader(path)
    except AFUNetError as error:
        outcome, result = 'refused', str(error)
    except SystemExit as error:  # a command line's message
        outcome, result = ('refused', '') if error.code in (1, 2) else ('fault', f'exit status {error.code!r}')
    except BaseException:
        outcome, result = 'fault', traceback.format_exc(limit=-6)
    seconds = time.process_time() - start
    return outcome, result, seconds, max(0, memory('VmHWM') - before)


def judge(name, form, mutant, path, originals):
    """The record of one case."""
    from fuzz import formats

    record = {'seed': os.path.basename(mutant.seed), 'kind': mutant.kind, 'outcome': 'refused', 'seconds': 0.0, 'bytes': 0, 'faults': []}
    limit = ALLOWANCE + TIMES_DECLARED * form.declared(mutant.data)
    for reader_name, reader in form.readers.items():
        outcome, result, seconds, taken = attempt(reader, path)
        record['seconds'], record['bytes'] = max(record['seconds'], seconds), max(record['bytes'], taken)
        if outcome == 'fault':
            record['faults'].append(f'{reader_name}: {result}')
        if seconds > SECONDS:
            record['faults'].append(f'{reader_name}: takes {seconds:.2f} s ({outcome})')
        if taken > limit:
            record['faults'].append(f'{reader_name}: takes {taken / 2**20:.0f} MiB, {limit / 2**20:.0f} are allowed ({outcome})')
        if outcome == 'read':
            record['outcome'] = 'read'
            try:
                form.check(reader_name, mutant, result, originals[reader_name, mutant.seed])
            except formats.Wrong as error:
                record['faults'].append(str(error))
        del result
    return record


def child(pipe, name, seed, cases, seeds):
    """Reads the files of some cases; writes a line before each and one after it."""
    faulthandler.disable()  # a crash is told by the parent
    from fuzz import formats

    form = formats.find(name)
    sys.stdout = sys.stderr = open(os.devnull, 'w')  # noqa: SIM115
    with tempfile.TemporaryDirectory(dir='/dev/shm' if os.path.isdir('/dev/shm') else None) as folder, os.fdopen(pipe, 'w') as out:
        folder, originals = pathlib.Path(folder), {}
        for path in set(formats.seeds_of(form, seeds)):  # and so what is loaded lazily does not count
            place = form.place(folder, str(path))
            form.put(place, path.read_bytes())
            for reader_name, reader in form.readers.items():
                originals[reader_name, str(path)] = attempt(reader, place)[1]
                print(json.dumps({'whole': str(path)}), file=out, flush=True)  # all of them may take longer than a hang
            if len(originals) > 40:
                break
        for case in cases:
            print(json.dumps({'begin': case}), file=out, flush=True)
            mutant = formats.mutant(name, seed, case, seeds)
            path = form.place(folder, mutant.seed)
            whole = path.read_bytes() if name == 'checkpoint' else b''
            form.put(path, mutant.data)
            originals.setdefault(('', ''), None)
            record = judge(name, form, mutant, path, Defaults(originals))
            if whole:
                path.write_bytes(whole)
            print(json.dumps({'end': case, **record}), file=out, flush=True)


class Defaults(dict):
    def __missing__(self, key):
        return ''


def batch(name, seed, cases, seeds):
    """Yields the records of cases; a child that dies is named, and another one goes on behind the case."""
    while cases:
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(receive)
                child(send, name, seed, cases, seeds)
                status = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(send)
        begun, hung = None, False
        for record in answers(receive, pid):
            hung = 'hung' in record
            if 'begin' in record:
                begun = record['begin']
            elif 'end' in record:
                cases, begun = cases[1:], None
                yield {'case': record.pop('end'), **record}
        os.close(receive)
        _, status = os.waitpid(pid, 0)
        if begun is not None:
            what = 'hangs' if hung else f'kills the process: {name_of(status)}'
            yield {'case': begun, 'seed': '?', 'kind': '?', 'outcome': 'fault', 'seconds': HANG_SECONDS * hung, 'bytes': 0, 'faults': [what]}
            cases = cases[1:]
        elif cases:
            raise RuntimeError(f'the child of {name}, cases {cases[0]} to {cases[-1]}, ended early ({name_of(status)})')


def answers(pipe: int, pid: int):
    """The child's lines; a child that says nothing for long is killed, and `{'hung': True}` comes last."""
    rest = b''
    while True:
        ready, _, _ = select.select([pipe], [], [], HANG_SECONDS)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            yield {'hung': True}
            return
        new = os.read(pipe, 65536)
        if not new:
            return
        *lines, rest = (rest + new).split(b'\n')
        yield from map(json.loads, lines)


def name_of(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f'exit status {os.WEXITSTATUS(status)}'


def main() -> None:
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no answer
    from fuzz import formats

    with tempfile.TemporaryDirectory() as seeds:
        built = set()
        for line in sys.stdin:
            request = json.loads(line)
            name, folder = request['format'], pathlib.Path(seeds) / request['format'].strip('.')
            if name not in built:
                build(formats.find(name), folder)
                built.add(name)
            gc.freeze()
            for first in range(request['start'], request['stop'], BATCH):
                cases = list(range(first, min(first + BATCH, request['stop'])))
                for record in batch(name, request['seed'], cases, folder):
                    print(json.dumps(record), file=answers, flush=True)
            print('{}', file=answers, flush=True)


def build(form, folder: pathlib.Path) -> None:
    """The undamaged files, in a child: JAX must not have started in the process that forks."""
    folder.mkdir()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            form.build(folder)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError('the undamaged files cannot be built')


if __name__ == '__main__':
    main()
