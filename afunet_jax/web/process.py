"""The server's hold on the process that merges: started once, ended to stop a merge, started again."""

import multiprocessing
import pathlib
import threading
from typing import Any

from afunet_jax.errors import AFUNetError, DataError, WeightsError
from afunet_jax.web import worker


class MergingProcess:
    """One process that merges one bracket at a time.

    Args:
        weights: as `merging.Merger` takes them.
        memory_limit: GB for one image; 0: what is free.
        root: folder of all jobs, removed by the process if the server ends without doing so.
    """

    def __init__(self, weights: str, memory_limit: float, root: pathlib.Path):
        self._arguments = weights, memory_limit, root
        self._process = self._connection = None
        self._lock = threading.Lock()  # of starting and killing
        self._closed = False

    def start(self) -> str:
        """Starts the process, which reads the weights.

        Returns:
            What the weights are.

        Raises:
            AFUNetError: the weights cannot be read.
        """
        context = multiprocessing.get_context('spawn')
        with self._lock:
            if self._closed:
                raise WeightsError('the server is ending')
            try:
                self._connection, theirs = context.Pipe()
                self._process = context.Process(target=worker.serve, args=(theirs, *self._arguments), daemon=True)
                self._process.start()
            except OSError as error:
                self._process = None
                raise WeightsError(f'the process that merges cannot be started ({error}); close other programs, and '
                                   'try again') from error  # fmt: skip
            theirs.close()
        try:
            kind, text = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WeightsError(f'the process that merges did not start ({self._ending()}); see the terminal') from error
        if kind == worker.UNUSABLE:
            raise WeightsError(text)
        return text

    def merge(self, order: worker.Order, say: worker.Say) -> dict[str, Any]:
        """Merges a bracket, with the process started anew if it has ended.

        Args:
            order: what to merge.
            say: called with every stage that begins.

        Returns:
            As `worker.BracketMerger`.

        Raises:
            AFUNetError: in the worker's words; or the process has ended, by `kill` or for want of memory.
        """
        if self._process is None or not self._process.is_alive():
            self.start()
        try:
            self._connection.send(order)
            while True:
                kind, *content = self._connection.recv()
                if kind == worker.STAGE:
                    say(*content)
                elif kind == worker.DONE:
                    return content[0]
                else:
                    raise AFUNetError(content[0])
        except (EOFError, OSError) as error:
            raise DataError(f'the process that merges has ended ({self._ending()}), most likely for want of memory; '
                            'choose a smaller size, or close other programs') from error

    def _ending(self) -> str:
        self._process.join(1)
        code = self._process.exitcode
        return f'signal {-code}' if code is not None and code < 0 else f'status {code}'

    def kill(self) -> None:
        """Ends the process at once; the merge that runs in it fails."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()

    def close(self) -> None:
        """Ends the process for good."""
        self._closed = True
        self.kill()
