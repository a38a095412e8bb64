"""Writing a set of brackets in Kalantari's layout, whole or not at all, in parallel processes if asked."""

import concurrent.futures.process
import dataclasses
import json
import math
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator

import cv2

from afunet_jax.data.brackets.compose import Shares, make_bracket
from afunet_jax.data.brackets.sources import SPLITS, PathLike, Source, read_sources
from afunet_jax.data.progress import ProgressLine
from afunet_jax.data.scenes import MAX_EV
from afunet_jax.data.synthetic.folders import SMALLEST, check_evs, write_scene, write_whole
from afunet_jax.errors import DataError

Progress = Callable[[int, int, str], None]
MANIFEST = 'brackets.json'
GENERATOR = 'afunet_jax.data.brackets'
VERSION = 1  # raise it when the same seed gives other pixels
LEAST_STEP = 0.1  # EV: less is no bracket
LARGEST_COUNT = 1_000_000  # of scenes of a split: then procedural scenes of two splits are never the same


@dataclasses.dataclass(frozen=True)
class Request:
    """What a set is made of.

    Attributes:
        train, validation, test: number of scenes.
        height, width: pixels.
        seed: 0 or more.
        shares: how many scenes are what.
        evs: exposures of every scene in stops, from 0, rising; None draws them.
        steps: least and most stops between two exposures, to be drawn from; None: 1, 2 and 3 EV. Not beside `evs`.
    """

    train: int
    validation: int
    test: int
    height: int = 256
    width: int = 384
    seed: int = 0
    shares: Shares = Shares()
    evs: tuple[float, float, float] | None = None
    steps: tuple[float, float] | None = None

    def check(self) -> None:
        """Raises a `DataError` that names the value that breaks a rule."""
        counts = self.train, self.validation, self.test
        if min(counts) < 0 or sum(counts) == 0 or max(counts) > LARGEST_COUNT:
            raise DataError('Brackets: the numbers of scenes must be 0 to '
                            f'{LARGEST_COUNT} and not all 0, they are {", ".join(map(str, counts))}.')
        if min(self.height, self.width) < SMALLEST:
            raise DataError(f'Brackets must be at least {SMALLEST} pixels high and wide, '
                            f'not {self.height}x{self.width}.')
        if self.seed < 0:
            raise DataError(f'Brackets: the seed must be 0 or more, it is {self.seed}.')
        check_evs('Brackets', self.evs)
        self._check_steps()
        for name, share in dataclasses.asdict(self.shares).items():
            if not (math.isfinite(share) and 0 <= share <= 1):
                raise DataError(f'Brackets: the share {name} must be 0 to 1, it is {share}.')

    def _check_steps(self) -> None:
        if self.steps is None:
            return
        if self.evs is not None:
            raise DataError('Brackets: give either the exposures (evs) or the range of their steps, not both.')
        least, most = self.steps
        if not LEAST_STEP <= least <= most <= MAX_EV / 2:
            raise DataError(f'Brackets: the steps must be two rising numbers from {LEAST_STEP:g} to '
                            f'{MAX_EV / 2:g} EV, such as 0.7 3.5, not {list(self.steps)}.')


@dataclasses.dataclass(frozen=True)
class Job:
    """One scene to make: `index` of `split`, written into `place` below the set's folder."""

    split: str
    index: int
    place: str


def jobs_of(request: Request) -> list[Job]:
    """The scenes of a set: training, then validation in `Training` (last by name), test in `Test/Test-set`."""
    digits = max(3, len(str(request.train + request.validation)))
    jobs = [Job('train', k, f'Training/{k + 1:0{digits}d}') for k in range(request.train)]
    jobs += [Job('validation', k, f'Training/{request.train + k + 1:0{digits}d}')
             for k in range(request.validation)]
    return jobs + [Job('test', k, f'Test/Test-set/{k + 1:03d}') for k in range(request.test)]


def _write_one(whole: pathlib.Path, request: Request, job: Job, sources: tuple[Source, ...]) -> dict:
    """Makes and writes one scene; its record."""
    scene, record = make_bracket(
        request.seed, job.split, job.index, request.height, request.width, sources, request.shares, evs=request.evs,
        steps=request.steps)
    write_scene(whole / job.place, scene)
    return {'folder': job.place, **record}


def _records(whole, request: Request, sources: dict, workers: int) -> Iterator[dict]:
    """The records of all scenes in order, each scene written by then."""
    tasks = [(whole, request, job, sources.get(job.split, ())) for job in jobs_of(request)]
    if workers == 1:
        yield from (_write_one(*task) for task in tasks)
        return
    # Not fork: JAX, which the pixel mathematics import, may have threads.
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        try:
            yield from pool.map(_write_one, *zip(*tasks))
        except concurrent.futures.process.BrokenProcessPool as error:
            raise DataError(f'Brackets: one of the {workers} processes was ended, most likely for want of memory (each '
                            'takes up to 3 GB). Ask for fewer workers.') from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_brackets(
    folder: PathLike,
    hdr_folder: PathLike | None,
    request: Request,
    table: PathLike | None = None,
    workers: int = 1,
    progress: Progress | str | None = 'stderr',
) -> list[dict]:
    """Writes a set of brackets in Kalantari's layout, and `brackets.json`, which says what each scene is.

    Training scenes come first in `Training` and validation scenes last, so that the config's
    `validation.scenes` takes the latter. The folder appears complete or not at all. A scene's bits depend on
    the seed, its split and its index alone.

    Args:
        folder: must not exist, or be empty.
        hdr_folder: of the HDR images; None if all scenes are procedural.
        request: what to make.
        table: CSV of the images; None: the one of the package.
        workers: processes.
        progress: called with (done, total, folder of the scene); 'stderr': a line there; None: silent.

    Returns:
        The records of the scenes.

    Raises:
        DataError: the folder holds something, the request breaks a rule, an image is missing or another one
            than the table names, or a file cannot be written.
    """
    request.check()
    if not 1 <= workers <= 4 * (os.cpu_count() or 1):
        raise DataError(f'Brackets: workers must be 1 to {4 * (os.cpu_count() or 1)}, it is {workers}.')
    needed = tuple(split for split in SPLITS if getattr(request, split))
    sources: dict[str, tuple[Source, ...]] = {}
    if request.shares.procedural < 1:
        if hdr_folder is None:
            raise DataError('Brackets of real images need the folder of these images (--hdr=FOLDER). '
                            'Without one, ask for procedural scenes alone.')
        sources = read_sources(hdr_folder, table, needed)
    line = ProgressLine('Making brackets') if progress == 'stderr' else progress
    records: list[dict] = []

    def fill(whole: pathlib.Path) -> None:
        total = len(jobs_of(request))
        for record in _records(whole, request, sources, workers):
            records.append(record)
            if line is not None:
                line(len(records), total, record['folder'])
        (whole / MANIFEST).write_text(json.dumps(_manifest(request, sources, records), indent=1) + '\n', 'utf-8')

    write_whole(folder, fill)
    return records


def _manifest(request: Request, sources: dict, records: list[dict]) -> dict:
    """What a set is made of; two equal manifests mean the same files."""
    told = {split: [{'file': s.file, 'sha256': s.sha256, 'licence': s.licence, 'credit': s.credit} for s in each]
            for split, each in sources.items()}
    return {'generator': GENERATOR, 'version': VERSION, **dataclasses.asdict(request), 'sources': told,
            'scenes': records}
