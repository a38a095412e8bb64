"""Uploads, the queue and the results: each a job with a folder of its own, and everything within limits.

A job is made with the list of its photos, which are then sent one by one; when the last is there, it waits its turn.
Its result stays until it is removed, replaced by newer ones, or not asked for any more.
"""

import contextlib
import dataclasses
import pathlib
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from afunet_jax import photos
from afunet_jax.errors import AFUNetError
from afunet_jax.photos import align, decoders, exposures, response
from afunet_jax.web import messages, worker
from afunet_jax.web.process import MergingProcess

UPLOADING, WAITING, RUNNING, FINISHED, FAILED = 'uploading', 'waiting', 'running', 'finished', 'failed'
MB = 1_000_000
GIVEN = 'photos', 'exposures', 'curve', 'align', 'max_side', 'estimate', 'trust_exposures'
ENDINGS = decoders.PHOTO_SUFFIXES | decoders.FLOAT_SUFFIXES
LARGEST_SIDE = 100_000  # of max_side


class Refused(AFUNetError):
    """What the page asks for breaks a limit or a rule. `status` is HTTP's."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one page may ask for.

    Attributes:
        max_upload: bytes of all photos of a bracket.
        max_pixels: of a photo.
        max_photos: of a bracket.
        unfinished: jobs that are sent, wait, or are merged.
        results: that are kept, the newest.
        keep_seconds: that a job stays without being asked for.
        upload_seconds: that an upload may stand still.
    """

    max_upload: int = 600 * MB
    max_pixels: int = photos.MAX_PIXELS
    max_photos: int = 12
    unfinished: int = 4
    results: int = 4
    keep_seconds: float = 1800.0
    upload_seconds: float = 60.0


@dataclasses.dataclass(eq=False)
class Job:
    """One bracket, from its list of photos to its result. `Jobs` alone changes it, under its lock."""

    id: str
    folder: pathlib.Path
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    order: worker.Order
    state: str = UPLOADING
    touched: float = dataclasses.field(default_factory=time.monotonic)
    arriving: set[int] = dataclasses.field(default_factory=set)
    arrived: set[int] = dataclasses.field(default_factory=set)
    stage: str = ''
    since: float = 0.0
    expected: float | None = None
    result: dict[str, Any] | None = None
    error: str = ''


class Jobs:
    """All jobs, and the thread that merges them in turn.

    Args:
        merging: merges; it is closed with this.
        root: an empty folder, removed by `close`.
        limits: see there.
    """

    def __init__(self, merging: MergingProcess, root: pathlib.Path, limits: Limits = Limits()):
        self.limits = limits
        self._merging, self._root = merging, root
        self._jobs: dict[str, Job] = {}  # in the order in which they were made
        self._queue: list[Job] = []
        self._running: Job | None = None
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    # ---- what the page asks for

    def create(self, asked: Mapping[str, Any]) -> str:
        """A new job; its photos are to be sent.

        Args:
            asked: `photos`, a list of `name` and `bytes`; `exposures`, a list of texts, all of them empty or none;
                `curve`, `align`, `max_side`, `estimate`, `trust_exposures`.

        Returns:
            The job's name, which cannot be guessed.

        Raises:
            Refused: too many, too large, not what is read, or the queue is full.
            DataError: exposures that cannot be read.
        """
        names, sizes = self._check_photos(asked)
        order = self._order(asked, names)
        with self._changed:
            unfinished = sum(job.state in (UPLOADING, WAITING, RUNNING) for job in self._jobs.values())
            if unfinished >= self.limits.unfinished:
                raise Refused(503, f'{unfinished} brackets wait or are merged already; wait for one of them')
            name = secrets.token_urlsafe(16)
            folder = self._root / name
            folder.mkdir()
            paths = tuple(folder / path for path in order.photos)
            order = dataclasses.replace(order, folder=folder, photos=paths)
            self._jobs[name] = Job(name, folder, names, sizes, order)
        return name

    @contextlib.contextmanager
    def receiving(self, name: str, index: int) -> Iterator[Callable[[bytes], None]]:
        """A function that takes a photo's bytes; the last photo of a job puts it into the queue.

        Raises:
            Refused: no such job or photo, sent already, or not of the size that was told.
        """
        job = self._find(name)
        with self._changed:
            if job.state != UPLOADING or not 0 <= index < len(job.names) or index in job.arriving | job.arrived:
                raise Refused(409, 'this photo is not expected; load the page anew')
            job.arriving.add(index)
        left = job.sizes[index]

        def write(data: bytes) -> None:
            nonlocal left
            left -= len(data)
            if left < 0:
                raise Refused(413, f'{job.names[index]}: more bytes than were told; load the page anew')
            job.touched = time.monotonic()
            file.write(data)

        path = job.order.photos[index]
        try:
            with path.open('xb') as file:
                yield write
            if left:
                raise Refused(400, f'{job.names[index]}: did not arrive whole, {left} bytes are missing; send it again')
            self._arrived(job, index)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            with self._changed:
                job.arriving.discard(index)

    def status(self, name: str) -> dict[str, Any]:
        """How far a job is: `state`, and what belongs to it. Asking keeps the job from being forgotten."""
        with self._changed:
            job = self._find(name)
            job.touched = time.monotonic()
            told: dict[str, Any] = {'state': job.state}
            if job.state == WAITING:
                told['ahead'] = self._queue.index(job) + (self._running is not None)
            elif job.state == RUNNING:
                spent = time.monotonic() - job.since
                left = None if job.expected is None else max(0.0, job.expected - spent)
                told.update(stage=job.stage, spent=spent, left=left)
            elif job.state == FINISHED:
                told['result'] = job.result
            elif job.state == FAILED:
                told.update(error=job.error, cures=messages.cures(job.error))
        return told

    def file(self, name: str, kind: str) -> pathlib.Path:
        """A file of a result, by a name of `worker.FILES`."""
        with self._changed:
            job = self._find(name)
            if job.state != FINISHED or kind not in worker.FILES:
                raise Refused(404, 'there is no such file; load the page anew')
            job.touched = time.monotonic()
            return job.folder / worker.FILES[kind]

    def remove(self, name: str) -> None:
        """Forgets a job and removes its files; a merge that runs is ended."""
        with self._changed:
            self._forget(self._find(name))

    # ---- limits

    def _check_photos(self, asked: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        if set(asked) != set(GIVEN) or not isinstance(asked['photos'], list):
            raise Refused(400, 'this is not what the page sends; load the page anew')
        limits = self.limits
        if not 1 <= len(asked['photos']) <= limits.max_photos:
            raise Refused(413, f'{len(asked["photos"])} photos; a bracket has 3 to {limits.max_photos} of one scene')
        try:
            names = tuple(messages.clean(str(photo['name'])) for photo in asked['photos'])
            sizes = tuple(int(photo['bytes']) for photo in asked['photos'])
        except (KeyError, TypeError, ValueError, OverflowError) as error:  # the last: 1e999
            raise Refused(400, 'the list of photos cannot be read; load the page anew') from error
        for name, size in zip(names, sizes):
            if size <= 0:
                raise Refused(422, f'{name}: the file is empty; copy or download it again')
            if pathlib.PurePath(name).suffix.lower() not in ENDINGS:
                listed = ' '.join(sorted(ENDINGS))
                raise Refused(422, f'{name}: not a photo by its ending; these are read: {listed}')
        if sum(sizes) > limits.max_upload:
            raise Refused(413, f'{sum(sizes) / MB:.0f} MB of photos; at most {limits.max_upload / MB:.0f} MB are taken. '
                               'Export them smaller, or start the server with a larger --max_upload')
        if shutil.disk_usage(self._root).free < 2 * sum(sizes):
            raise Refused(507, f'the disk of {self._root} is full; make room, or name another with the variable '
                               'TMPDIR')
        return names, sizes

    def _order(self, asked: Mapping[str, Any], names: tuple[str, ...]) -> worker.Order:
        """What is to be merged; paths are still without their folder, and have nothing of the user's but an ending."""
        words = asked['exposures']
        if not isinstance(words, list) or len(words) != len(names) or not all(isinstance(w, str) for w in words):
            raise Refused(400, 'the exposures are not those of the photos; load the page anew')
        words = [word.strip() for word in words]
        if any(words) and not all(words):
            missing = ', '.join(name for name, word in zip(names, words) if not word)
            raise Refused(422, f'no exposure was given for {missing}; give one for every photo, or for none (--ev)')
        if any(words):
            exposures.parse_exposures(words)
        side = asked['max_side']
        if not isinstance(side, int) or not 0 <= side <= LARGEST_SIDE:
            raise Refused(422, f'the size is a number of pixels, or 0 for all, not {side!r}')
        for key, choices in (('curve', response.CHOICES), ('align', align.METHODS)):
            if asked[key] not in choices:
                raise Refused(422, f'{key} is one of {", ".join(choices)}, not {asked[key]!r}')
        settings = {
            'curve': asked['curve'], 'align': asked['align'], 'max_pixels': self.limits.max_pixels,
            'estimate': asked['estimate'] is True, 'trust_exposures': asked['trust_exposures'] is True,
        }  # fmt: skip
        endings = (pathlib.PurePath(name).suffix.lower() for name in names)
        paths = tuple(pathlib.Path(messages.PHOTO.format(i) + ending) for i, ending in enumerate(endings, 1))
        given = tuple(words) if any(words) else None
        return worker.Order(paths, names, self._root, given, side, settings)

    # ---- inside

    def _find(self, name: str) -> Job:
        with self._changed:
            if name not in self._jobs:
                raise Refused(404, 'this bracket is not here any more: results are removed when newer ones take their '
                                   'place, or after a while; merge it again')
            return self._jobs[name]

    def _arrived(self, job: Job, index: int) -> None:
        with self._changed:
            if job.id not in self._jobs:
                raise Refused(404, 'this bracket was removed')
            job.arrived.add(index)
            if len(job.arrived) == len(job.names):
                job.state = WAITING
                self._queue.append(job)
                self._changed.notify_all()

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id]
        if job in self._queue:
            self._queue.remove(job)
        if job is self._running:
            self._merging.kill()  # its folder is removed by the thread that waits for it
        else:
            shutil.rmtree(job.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Forgets what nobody asks for any more; call it every few seconds."""
        now, limits = time.monotonic(), self.limits
        with self._changed:
            for job in list(self._jobs.values()):
                stale = limits.upload_seconds if job.state == UPLOADING else limits.keep_seconds
                if now - job.touched > stale:
                    self._forget(job)

    def close(self) -> None:
        """Ends the merge that runs, and removes every file."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._merging.close()
        self._thread.join()
        shutil.rmtree(self._root, ignore_errors=True)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                job = self._running = self._queue.pop(0)
                job.state = RUNNING
                self._say(job, worker.READING, None)
            try:
                found, error = self._merging.merge(job.order, lambda *stage, job=job: self._say(job, *stage)), ''
            except AFUNetError as raised:
                found, error = None, str(raised)
            except Exception as raised:  # a bug of ours: the next job is merged all the same
                self._merging.kill()  # it may still be at this job
                found, error = None, worker.our_fault(raised)
            self._finish(job, found, error)

    def _say(self, job: Job, stage: str, seconds: float | None) -> None:
        with self._changed:
            job.stage, job.since, job.expected = stage, time.monotonic(), seconds

    def _finish(self, job: Job, found: dict[str, Any] | None, error: str) -> None:
        for path in job.order.photos:
            path.unlink(missing_ok=True)
        with self._changed:
            self._running = None
            if job.id not in self._jobs:
                shutil.rmtree(job.folder, ignore_errors=True)
                return
            job.touched = time.monotonic()
            if found is None:
                job.state, job.error = FAILED, messages.with_names(error, job.folder, job.names)
                shutil.rmtree(job.folder, ignore_errors=True)
                return
            report, *told = (messages.with_names(text, job.folder, job.names)
                             for text in (found['report'], *found['warnings']))  # fmt: skip
            job.state, job.result = FINISHED, {**found, 'report': report, 'warnings': told}
            finished = [other for other in self._jobs.values() if other.state == FINISHED]
            for old in finished[: -self.limits.results]:
                self._forget(old)
