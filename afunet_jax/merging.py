"""A photographer's bracket in, one HDR image out.

    bracket = merging.load(['short.jpg', 'middle.jpg', 'long.jpg'])   # or a folder
    merged = merging.merge(bracket)                                   # with the weights that come with the package
    merging.save('result.exr', merged)                                # .hdr, .exr, .png, .jpg

`afunet_jax.load`, `merge` and `save` are these.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from afunet_jax import checkpoints, evaluation, safetensors_weights
from afunet_jax.data.progress import format_duration
from afunet_jax.errors import AFUNetError, ConfigError, DataError
from afunet_jax.models import afunet
from afunet_jax.outputs import display_hdr, tonemapping
from afunet_jax.outputs.save import (
    HALF_LARGEST,
    HDR_ENDINGS,
    PICTURE_ENDINGS,
    check_picture_size,
    save_hdr,
    save_picture,
)
from afunet_jax.photos import Bracket, BracketFiles, find_brackets, load_bracket, response

LARGE = 1_500_000  # pixels, above which the time is foretold
SAMPLE = 256  # side of the image by which it is foretold, pixels
SAY_SECONDS = 5.0  # between lines of progress
NETWORKS_KEPT = 2
ENDINGS = (*HDR_ENDINGS, *PICTURE_ENDINGS, '.avif')
TOO_LARGE = 'Use a smaller image (max_side), or more memory (memory_limit).'

load = load_bracket


@dataclasses.dataclass(frozen=True)
class Merged:
    """A merged bracket.

    Attributes:
        image: `[H, W, 3]` float32, linear RGB with BT.709 primaries; 1 is the full scale of the short frame.
        radiance_scale: times which the image is in the unit that all brackets share (see `photos.Bracket`).
        seconds: that the network took.
        report: lines on files, exposures, alignment, and the weights.
    """

    image: np.ndarray
    radiance_scale: float
    seconds: float
    report: str

    def scaled_to(self, factor: float) -> 'Merged':
        """The same radiance with pixels times `factor`: for images of one shoot on one scale."""
        return dataclasses.replace(
            self, image=self.image * np.float32(factor), radiance_scale=self.radiance_scale / factor
        )


def load_network(weights: str | pathlib.Path = '', memory_limit: float = 0.0) -> tuple[evaluation.Network, str]:
    """The network for photos, and a line that says which weights it has. Arguments as for `Merger`.

    Raises:
        AFUNetError: the weights cannot be read.
    """
    path = weights or safetensors_weights.packaged()
    settings, params = checkpoints.load_weights(path)
    model = afunet.build(settings)
    network = evaluation.Network(model, params, model.window_size, 'pad_to_window', memory_limit, TOO_LARGE)
    name = path if weights else 'of the package'
    return network, f'weights: {name}, {afunet.count_parameters(params):,} parameters'


def seconds_per_pixel(network: evaluation.Network) -> float:
    """How long a pixel takes, by a small image that is merged twice: the first time it is compiled."""
    x = np.zeros((1, SAMPLE, SAMPLE, afunet.INPUT_CHANNELS), np.float32)
    network.merge(x)
    start = time.perf_counter()
    network.merge(x)
    return (time.perf_counter() - start) / SAMPLE**2


class Merger:
    """A network that merges brackets; loaded once, compiled once a size.

    Args:
        weights: a `.safetensors`, a `.pth`, a checkpoint or a workdir; none: those that come with the package.
        memory_limit: GB for one image, see `evaluation.Network`.
        max_side: larger brackets are reduced to so many pixels on their longer side first; 0: never.
        progress: whether lines with the time left are written to stderr for large images.

    Raises:
        AFUNetError: the weights cannot be read.
    """

    def __init__(
        self, weights: str | pathlib.Path = '', memory_limit: float = 0.0, max_side: int = 0, progress: bool = True
    ):
        if max_side < 0:
            raise ConfigError(f'max_side is a number of pixels, or 0 for any size, not {max_side}')
        self._network, self._weights = load_network(weights, memory_limit)
        self._max_side, self._progress = max_side, progress

    def __call__(self, bracket: Bracket) -> Merged:
        """Merges a bracket.

        Raises:
            DataError: the image does not fit into memory, or is too small.
        """
        bracket, note = reduced(bracket, self._max_side)
        scene = bracket.scene()
        with _told(self._seconds_for(scene.ldrs.shape[1:3]), bracket.name):
            merged = self._network(scene)
        report = '\n'.join([bracket.report(), *note, self._weights])
        return Merged(merged.image, bracket.radiance_scale, merged.seconds, report)

    def size_of(self, bracket: Bracket) -> tuple[int, int]:
        """Height and width of what a bracket becomes."""
        width, height = _reduced_size(bracket, self._max_side)
        return height, width

    def _seconds_for(self, size: tuple[int, int]) -> float | None:
        """How long an image will take, by a small one; None if it is not large."""
        if not self._progress or size[0] * size[1] < LARGE:
            return None
        return seconds_per_pixel(self._network) * size[0] * size[1]


@functools.lru_cache(NETWORKS_KEPT)
def _merger(weights: str) -> Merger:
    return Merger(weights)


def merge(bracket: Bracket, weights: str | pathlib.Path = '') -> Merged:
    """Merges a bracket with weights that stay loaded; see `Merger`."""
    return _merger(str(weights))(bracket)


def save(
    path: str | pathlib.Path, merged: Merged, operator: str = tonemapping.DEFAULT, precision: str = 'half',
    for_hdr_screens: bool = False,
) -> None:
    """Writes a merged bracket, by the name's ending.

    Args:
        path: `.hdr` and `.exr`: linear, with the exposure in the header (pixels divided by it are in the unit that
            brackets share); `.png`, `.jpg`: tone-mapped. `.avif`, or `for_hdr_screens`: for a screen that shows HDR.
        merged: of `merge`.
        operator: of tone mapping.
        precision: of `.exr`: 'half' or 'float'.
        for_hdr_screens: writes `.png` with PQ, `.jpg` with a gain map.

    Raises:
        AFUNetError: another ending, a value that cannot be, or the file cannot be written.
    """
    ending = _ending(path)
    if ending in HDR_ENDINGS:
        save_hdr(path, merged.image, exposure=1 / merged.radiance_scale, precision=precision)
    elif _is_for_hdr_screens(ending, for_hdr_screens):
        display_hdr.save_display_hdr(path, merged.image)
    else:
        save_picture(path, tonemapping.tone_map(merged.image, operator))


def _ending(path: str | pathlib.Path) -> str:
    ending = pathlib.Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f'{path}: results are written as {", ".join(ENDINGS)}, not as {ending or "this"}; choose one '
                          'of these endings, or name a folder that is there')  # fmt: skip
    return ending


def _is_for_hdr_screens(ending: str, asked: bool) -> bool:
    return ending == '.avif' or (asked and ending not in HDR_ENDINGS)


def check_output(path: pathlib.Path, for_hdr_screens: bool = False) -> None:
    """Refuses what `save` could not write, whatever the image.

    Raises:
        ConfigError: the ending, a package that is missing, or the folder.
    """
    ending = _ending(path)
    if _is_for_hdr_screens(ending, for_hdr_screens):
        display_hdr.codecs_for(path)
    if os.path.isdir(path):
        raise ConfigError(f'{path}: a folder; name a file that is none')
    if not os.path.isdir(path.parent):
        raise ConfigError(f'{path}: there is no folder {path.parent}; make it first, or name another')
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f'{path}: the folder {path.parent} cannot be written; mend its rights, or name another')


def _check_image(paths: Sequence[pathlib.Path], bracket: Bracket, size: tuple[int, int], factor: float,
                 saving: dict[str, Any]) -> None:  # fmt: skip
    """Refuses what could not be written of a bracket, before the network takes its time."""
    for path in paths:
        ending = _ending(path)
        if _is_for_hdr_screens(ending, saving.get('for_hdr_screens', False)):
            display_hdr.check_size(path, *size)
        elif ending in PICTURE_ENDINGS:
            check_picture_size(path, *size)
        elif ending == '.exr' and saving.get('precision', 'half') == 'half' and factor > 1:
            brightest = factor * float(response.decode_16(bracket.ldrs[0].max(keepdims=True)).max())
            if brightest > HALF_LARGEST:
                raise DataError(f'{path}: half floats end at {HALF_LARGEST:.0f}, the image will have values up to '
                                f'about {brightest:.6g}. Write it with precision float.')  # fmt: skip


def find(sources: Sequence[str | pathlib.Path], leave_out: str | pathlib.Path | None = None) -> list[Any]:
    """What the command line names: photos, a folder, or a folder of folders. Returns sources for `load`.

    Args:
        sources: paths.
        leave_out: the folder of the results, which is not searched; unless it is named itself, and has photos.

    Raises:
        DataError: photos and folders mixed, or nothing there.
    """
    paths = [pathlib.Path(source) for source in sources]
    for path in paths:
        if not path.exists():
            raise DataError(f'{path}: no such file or folder; name the photos of a bracket, or their folder')
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        return [paths]
    if len(folders) < len(paths):
        raise DataError(f'name either photos of one bracket or folders, not both: {folders[0]} is a folder')
    found = []
    for folder in folders:
        try:
            found += find_brackets(folder, leave_out)
        except DataError:
            if len(folders) == 1 or leave_out is None or os.path.realpath(folder) != os.path.realpath(leave_out):
                raise
    return found


def merge_all(
    brackets: Sequence[Any], merger: Merger, outputs: Sequence[Sequence[pathlib.Path]], settings: dict[str, Any],
    saving: dict[str, Any], reference_ev: float | None = None,
) -> list[str]:
    """Merges brackets in turn; one that fails is told and left out.

    Args:
        brackets: of `find`.
        merger: merges.
        outputs: the files to write, for each bracket.
        settings: of `load`.
        saving: of `save`.
        reference_ev: 1 becomes the full scale of a frame of this EV, in all of them; None: of each short frame.

    Returns:
        What went wrong, a line each.
    """
    problems, start = [], time.monotonic()
    for done, (source, paths) in enumerate(zip(brackets, outputs), 1):
        name = source.name if isinstance(source, BracketFiles) else ', '.join(map(str, source))
        try:
            merged = _merge_and_save(load(source, **settings), merger, paths, saving, reference_ev)
        except Exception as error:
            told = str(error)
            if not isinstance(error, AFUNetError):
                traceback.print_exc()
                told = f'an error of this program, to be reported with these lines: {type(error).__name__}: {error}'
            problems.append(f'{name}: {told}' if len(brackets) > 1 else told)
            print(f'error: {problems[-1]}', file=sys.stderr, flush=True)
            continue
        left = (time.monotonic() - start) / done * (len(brackets) - done)
        print(f'{name}\n  ' + merged.report.replace('\n', '\n  '))
        print(f'  merged in {merged.seconds:.1f} s: {", ".join(map(str, paths))}', flush=True)
        if len(brackets) > 1:
            print(f'{done} of {len(brackets)} brackets, {format_duration(left)} left', file=sys.stderr, flush=True)
    return problems


def _merge_and_save(
    bracket: Bracket, merger: Merger, paths: Sequence[pathlib.Path], saving: dict[str, Any], reference_ev: float | None
) -> Merged:
    factor = 1.0 if reference_ev is None else bracket.radiance_scale * 2.0**reference_ev
    _check_image(paths, bracket, merger.size_of(bracket), factor, saving)
    merged = merger(bracket)
    if reference_ev is not None:
        merged = merged.scaled_to(factor)
    for path in paths:
        save(path, merged, **saving)
    return merged


def _reduced_size(bracket: Bracket, max_side: int) -> tuple[int, int]:
    """Width and height."""
    height, width = bracket.ldrs.shape[1:3]
    if not max_side or max(height, width) <= max_side:
        return width, height
    return tuple(max(1, round(side * max_side / max(height, width))) for side in (width, height))


def reduced(bracket: Bracket, max_side: int) -> tuple[Bracket, list[str]]:
    """The bracket at a smaller size, averaged in linear light, if it is larger."""
    height, width = bracket.ldrs.shape[1:3]
    size = _reduced_size(bracket, max_side)
    if size == (width, height):
        return bracket, []
    small = (cv2.resize(response.decode_16(frame), size, interpolation=cv2.INTER_AREA) for frame in bracket.ldrs)
    ldrs = np.stack([response.encode_linear(frame) for frame in small])
    return dataclasses.replace(bracket, ldrs=ldrs), [f'reduced from {width}x{height} to {size[0]}x{size[1]} pixels']


@contextlib.contextmanager
def _told(seconds: float | None, name: str) -> Iterator[None]:
    """Writes the time left from time to time, while the block runs."""
    if seconds is None:
        yield
        return
    done, start = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(SAY_SECONDS):
            spent = time.monotonic() - start
            left = f'about {format_duration(seconds - spent)} left' if spent < seconds else 'longer than foretold'
            print(f'{name}: merging for {format_duration(spent)}, {left}', file=sys.stderr, flush=True)

    print(f'{name}: a large image, about {format_duration(seconds)} and a compilation', file=sys.stderr, flush=True)
    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
