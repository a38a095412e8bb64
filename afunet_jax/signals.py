"""Signals that ask a program to end, and ends that leave nothing half-written.

SIGINT is Ctrl-C. SIGTERM comes from `kill`, from SLURM at preemption and at the time limit, and from other schedulers.
SIGUSR1 is what `sbatch --signal=USR1@60` sends ahead of those. SIGHUP comes from a terminal that is closed. All four
mean the same here: come to an end, soon, with exit status 128 + number.

Every file of the project is written under a temporary name and renamed when it is whole, so a program may end anywhere.
What ends better in its own way (training saves first) asks for it with `postponed`.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
GRACE_SECONDS = 25.0  # from a signal to the end of the process at the latest; SLURM kills after 30
DEFAULT = signal.SIGTERM  # where another process got the signal
STATUS = 128  # exit status without the signal's number, as shells have it


class Interrupted(KeyboardInterrupt):
    """A signal has ended the program's work. Like Ctrl-C, it is no `Exception`: nothing catches it by mistake."""

    def __init__(self, number: int, done: str = ''):
        """`number` of the signal, and what was `done` about it, for the user."""
        super().__init__(number, done)
        self.number, self.done = number, done

    @property
    def status(self) -> int:
        """The exit status: 128 + number of the signal."""
        return STATUS + self.number

    def __str__(self) -> str:
        done = self.done or 'ended before its work was done; nothing is half-written'
        return f'{signal_name(self.number)}: {done}'


def signal_name(number: int) -> str:
    """`SIGTERM` for 15."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'


class Asked:
    """Whether the program was asked to end: `number` of the first signal, None before."""

    def __init__(self):
        self.number: int | None = None


class _Handlers:
    """The handlers of `handled`, and the clock that ends a process which cannot look at a signal."""

    def __init__(self):
        self._asked = Asked()
        self._postponed = 0
        self._timer: threading.Timer | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> '_Handlers':
        # Python looks at a signal between two bytecodes, which a long computation in XLA delays. This
        # pipe is written to at once, and a thread reads it.
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                self._before[number] = signal.signal(number, self._on_signal)
        self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name='signals', daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.put_back(self._wakeup)
        if self._timer:
            self._timer.cancel()
        self._writing.close()

    def put_back(self, wakeup: int = -1) -> None:
        """The handlers as they were before."""
        signal.set_wakeup_fd(wakeup)
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)

    @contextlib.contextmanager
    def postponed(self) -> Iterator[Asked]:
        self._postponed += 1
        try:
            yield self._asked
        finally:
            self._postponed -= 1

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        first = self._asked.number is None
        if not first:
            if number == signal.SIGINT:  # Ctrl-C again: the user does not want to wait
                self._end_now(number, 'again')
            return
        self._asked.number = number
        self._arm(number)
        if not self._postponed:
            raise Interrupted(number)

    def _listen(self) -> None:
        with self._reading:
            while data := self._reading.recv(1):
                if data[0] in self._before and signal.getsignal(data[0]) == self._on_signal:
                    self._arm(data[0])

    def _arm(self, number: int) -> None:
        if self._timer is None:
            self._timer = threading.Timer(
                GRACE_SECONDS, self._end_now, (number, f'no end was reached in {GRACE_SECONDS:.0f} s')
            )
            self._timer.daemon = True
            self._timer.start()

    def _end_now(self, number: int, reason: str) -> None:
        print(
            f'{signal_name(number)}: {reason}; ends at once. Files that are in place are whole; '
            'training goes on from its last checkpoint',
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(STATUS + number)


_current: _Handlers | None = None


def _in_forked_process() -> None:
    # A pool ends its workers by SIGTERM; they must not write into our pipe.
    global _current
    if _current is not None:
        _current.put_back()
        _current = None


os.register_at_fork(after_in_child=_in_forked_process)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Turns `SIGNALS` into `Interrupted` in the main thread; ends the process `GRACE_SECONDS` after one.

    A second SIGINT ends it at once. Signals that were ignored before stay ignored. Nested, or in another thread
    than the main one, it does nothing.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _Handlers() as _current:
        try:
            yield
        finally:
            _current = None


@contextlib.contextmanager
def postponed() -> Iterator[Asked]:
    """Within it a signal raises nothing: the block looks at `Asked.number`, and ends in its own way."""
    with handled():
        if _current is None:
            yield Asked()
        else:
            with _current.postponed() as asked:
                yield asked
