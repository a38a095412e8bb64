"""TensorBoard's events."""

import os
import pathlib
import time
from collections.abc import Mapping

from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from afunet_jax.training_log import written


class Events:
    """TensorBoard's file of scalars.

    Not tensorboardX's SummaryWriter: that has a thread, which a full disk ends without a word; the program then waits
    for it for ever. And what it has not written yet, up to two minutes, is lost to SIGKILL.
    """

    def __init__(self, folder: pathlib.Path, next_step: int):
        """Events from `next_step` on that are there already are hidden by TensorBoard."""
        self._path = folder
        with written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # The process id, since a file of the same second would be overwritten.
            self._writer = event_file_writer.EventsWriter(str(folder / 'events'), f'.{os.getpid()}')
        started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=next_step, session_log=started))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars by name."""
        for name, value in values.items():
            self._write(event_pb2.Event(step=step, summary=summary.scalar(name, value)))
        self.sync()

    def _write(self, event: event_pb2.Event) -> None:
        event.wall_time = time.time()
        with written(self._path):
            self._writer.write_event(event)

    def sync(self) -> None:
        """Has everything written to the disk."""
        with written(self._path):
            self._writer.flush()

    def close(self) -> None:
        """Finishes the file."""
        with written(self._path):
            self._writer.close()
