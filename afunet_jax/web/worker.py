"""The process that reads and merges brackets, one at a time; see `process` for its other side."""

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import shutil
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np

from afunet_jax import evaluation, html_report, image_io, merging, parallel, photos
from afunet_jax.data.scenes import Scene
from afunet_jax.errors import AFUNetError
from afunet_jax.outputs import save, tonemapping
from afunet_jax.photos import Bracket, response

READING, COMPILING, MERGING, WRITING = 'reading', 'compiling', 'merging', 'writing'  # stages, in this order
READY, UNUSABLE, STAGE, DONE, FAILED = 'ready', 'unusable', 'stage', 'done', 'failed'  # messages to the server
ROLES = 'short', 'middle', 'long'

FILES = {  # of a result, by their names on the page
    'hdr': 'result.hdr', 'exr': 'result.exr', 'png': 'result.png', 'hdr_png': 'result_pq.png', 'picture': 'picture.jpg',
    'view': 'view.js',
}  # fmt: skip
TOLD = photos.PhotoWarning, image_io.ExrWarning  # warnings for the page
VIEW_SIDE = 1600  # pixels, the longer side, of what the page shows
LOOK_SECONDS = 0.1  # between looks at whether the network is compiled

Say = Callable[[str, float | None], None]  # a stage begins; seconds that it will take, if known


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be merged.

    Attributes:
        photos: the files.
        titles: what the user calls them.
        folder: gets `FILES`.
        exposures: one for each photo, or None: of EXIF.
        max_side: larger brackets are reduced to so many pixels; 0: never.
        settings: more arguments of `photos.load_bracket`.
    """

    photos: tuple[pathlib.Path, ...]
    titles: tuple[str, ...]
    folder: pathlib.Path
    exposures: tuple[str, ...] | None
    max_side: int
    settings: dict[str, Any]


def serve(connection: Connection, weights: str, memory_limit: float, root: pathlib.Path) -> None:
    """Takes orders until the server ends; then the folder `root` is removed, whatever happened to the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the server decides
    watch = threading.Thread(target=_end_with_parent, args=(root,), daemon=True)
    watch.start()
    parallel.use_compilation_cache()
    try:
        merger = BracketMerger(weights, memory_limit)
    except AFUNetError as error:
        connection.send((UNUSABLE, str(error)))
        return
    connection.send((READY, merger.about))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            connection.send(_answer(merger, connection.recv(), lambda *stage: connection.send((STAGE, *stage))))
    watch.join()  # the server is gone: this process ends when the folder is removed, not before


def _end_with_parent(root: pathlib.Path) -> None:
    multiprocessing.parent_process().join()
    shutil.rmtree(root, ignore_errors=True)
    os._exit(1)


def _answer(merger: 'BracketMerger', order: Order, say: Say) -> tuple[str, Any]:
    try:
        return DONE, merger(order, say)
    except AFUNetError as error:
        return FAILED, str(error)
    except MemoryError:
        return FAILED, 'there is not enough memory for photos of this size; make them smaller, or close other programs'
    except Exception as error:  # a bug of ours ends neither the server nor the other jobs
        return FAILED, our_fault(error)


def our_fault(error: Exception) -> str:
    """What the page says of a bug that was just caught; the terminal shows the trace."""
    traceback.print_exc()
    return (f'an error of this program, not of the photos: {type(error).__name__}: {error}. '
            'The terminal of the server shows where; please report it.')


class BracketMerger:
    """Reads, merges and writes brackets with one network.

    Args:
        weights: as `merging.Merger` takes them.
        memory_limit: GB, see `evaluation.Network`.

    Raises:
        AFUNetError: the weights cannot be read.
    """

    def __init__(self, weights: str, memory_limit: float):
        self._network, self.about = merging.load_network(weights, memory_limit)
        self._pixel_seconds = None  # of the last image

    def __call__(self, order: Order, say: Say) -> dict[str, Any]:
        """Writes the files of a result, and says what was done.

        Returns:
            `report`, `warnings` (lines), `height`, `width`, `seconds`, `key` (of the viewer's scene), `names`.

        Raises:
            AFUNetError: everything that `photos.load_bracket` and the network refuse.
        """
        say(READING, None)
        with warnings.catch_warnings(record=True) as caught:
            for category in TOLD:
                warnings.simplefilter('always', category)
            bracket = photos.load_bracket(order.photos, order.exposures, name='bracket', **order.settings)
        told = list(dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, TOLD)))
        bracket, notes = merging.reduced(bracket, order.max_side)
        merged = self._merge(bracket.scene(), say)
        say(WRITING, None)
        report = '\n'.join([bracket.report(), *notes, self.about])
        result = merging.Merged(merged.image, bracket.radiance_scale, merged.seconds, report)
        titles = [order.titles[order.photos.index(path)] for path in bracket.paths]
        key = write_files(order.folder, result, bracket, titles)
        height, width = result.image.shape[:2]
        return {'report': report, 'warnings': told, 'height': height, 'width': width, 'seconds': result.seconds,
                'key': key, 'names': titles}  # fmt: skip

    def _merge(self, scene: Scene, say: Say) -> evaluation.Merged:
        size = scene.ldrs.shape[1:3]
        padded = self._network.padded_size(*size, 'the photos')
        with self._stages(padded, size[0] * size[1], say):
            merged = self._network(scene)
        self._pixel_seconds = merged.seconds / (size[0] * size[1])
        return merged

    def _is_compiled(self, size: tuple[int, int]) -> bool:
        return any((known['height'], known['width']) == size for known in tuple(self._network.compiled_sizes))

    @contextlib.contextmanager
    def _stages(self, size: tuple[int, int], pixels: int, say: Say) -> Iterator[None]:
        """Says when the network is compiled, while the block runs it."""
        done = threading.Event()
        if not self._is_compiled(size):
            say(COMPILING, None)
            if self._pixel_seconds is None and pixels >= merging.LARGE:
                self._pixel_seconds = merging.seconds_per_pixel(self._network)

        def look() -> None:
            while not self._is_compiled(size):
                if done.wait(LOOK_SECONDS):
                    return
            say(MERGING, None if self._pixel_seconds is None else self._pixel_seconds * pixels)

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        try:
            yield
        finally:
            done.set()
            looking.join()


def write_files(folder: pathlib.Path, merged: merging.Merged, bracket: Bracket, titles: Sequence[str]) -> str:
    """Writes all of `FILES`; returns the key by which the viewer knows the scene."""
    for name in ('hdr', 'exr'):
        merging.save(folder / FILES[name], merged)
    merging.save(folder / FILES['hdr_png'], merged, for_hdr_screens=True)
    picture = tonemapping.tone_map(merged.image)
    save.save_picture(folder / FILES['png'], picture)
    save.save_picture(folder / FILES['picture'], _small(picture))
    shown = {'HDR': _small(merged.image)}
    for role, title, ldr, ev in zip(ROLES, titles, bracket.ldrs, bracket.evs - bracket.evs[0]):
        shown[f'{role}, {ev:+.2f} EV: {title}'] = _small(response.decode_16(ldr)) * np.float32(2.0**-ev)
    written = html_report.write_scene(folder, html_report.ScenePictures('bracket', shown))
    os.replace(written.path, folder / FILES['view'])
    return written.key


def _small(image: np.ndarray) -> np.ndarray:
    """An image of at most `VIEW_SIDE` pixels; linear light is averaged."""
    height, width = image.shape[:2]
    scale = VIEW_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
