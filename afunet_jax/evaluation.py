"""Merging scenes with a network or a baseline, and scoring the results."""

import collections
import dataclasses
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax import checkpoints, hdr, html_report, memory, parallel, published, reports, sizes
from afunet_jax.baselines import BASELINES
from afunet_jax.data import datasets
from afunet_jax.data.layouts import get_layout
from afunet_jax.data.progress import ProgressLine
from afunet_jax.data.scenes import Scene
from afunet_jax.errors import ConfigError, DataError, WeightsError, some
from afunet_jax.metrics import registry
from afunet_jax.models import execution
from afunet_jax.photos import align as aligning

SMALL_IMAGES = ('error', 'pad_to_window')
NETWORK = 'AFUNet'
PSNR_AND_SSIM = ('psnr_l', 'psnr_mu', 'ssim_l', 'ssim_mu')
FEWER_WINDOWS = (4096, 512, 64, 8)  # computed at once, tried in turn where an image does not fit into memory
MOST_NAMED = 10  # scenes in a message
KEPT_PROGRAMS = sizes.KEPT  # compiled for the image sizes that were used last; older ones are dropped
GB = 1e9  # bytes
HOST_BYTES = 220  # a pixel, that were measured beside what XLA plans: the input while it is made, and libraries


@dataclasses.dataclass(frozen=True)
class Merged:
    """A merged scene: linear image float32 `[H, W, 3]`, and the seconds that it took, without compilation."""

    image: np.ndarray
    seconds: float


Method = Callable[[Scene], Merged]
Scored = Mapping[str, registry.Measured]  # by names of metrics
OnScene = Callable[[Scene, Mapping[str, Merged], Mapping[str, Scored]], None]


class Network:
    """A network that merges scenes of any size; compiles once a size, and keeps the last `KEPT_PROGRAMS`.

    Args:
        model: an AFUNet.
        params: its parameters.
        pad_to: images are padded by reflection, bottom and right, to multiples of it in pixels, and the
            output is cropped back; nothing is clipped. 128 is what published figures use, and it changes
            them, because CFM sees the padding.
        small_images: 'error' refuses images too small to be padded so; 'pad_to_window' pads those to
            multiples of the attention window instead.
        memory_limit: GB that one image may take, as XLA plans it; fewer windows are computed at once until it
            fits. 0: what is free on the device.
        too_large: what an error about an image that does not fit advises.
        align: one of `photos.align.METHODS`: how a scene's short and long frame are moved onto the middle one before
            they are merged; a frame that cannot be matched stays as it is.

    Raises:
        ConfigError: one of these settings is not possible.
    """

    def __init__(
        self, model: Any, params: Any, pad_to: int = 128, small_images: str = 'error', memory_limit: float = 0.0,
        too_large: str = 'Use a smaller image, more memory (eval.memory_limit), or model.dtype=bfloat16.',
        align: str = aligning.OFF,
    ):
        if small_images not in SMALL_IMAGES:
            raise ConfigError(f'small_images is one of {", ".join(SMALL_IMAGES)}, not {small_images!r}')
        if pad_to < 1 or pad_to % model.window_size:
            fitting = max(1, round(pad_to / model.window_size)) * model.window_size
            raise ConfigError(
                f'eval.pad_to is a multiple of the window ({model.window_size} pixels), {fitting} for one, not {pad_to}'
            )
        if memory_limit < 0:
            raise ConfigError(f'memory_limit is a number of GB, or 0 for what is free, not {memory_limit}')
        check_align(align)
        self._align = align
        self._model, self._pad_to, self._small_images = model, pad_to, small_images
        self._params = jax.device_put(params)
        self._memory_limit, self._too_large = memory_limit * GB, too_large
        self._compiled = collections.OrderedDict()
        self.compiled_sizes = []
        self.unmatched = []  # scenes with a frame that was to be aligned and stayed as it is

    @property
    def compile_seconds(self) -> float:
        """Spent compiling so far."""
        return sum(size['seconds'] for size in self.compiled_sizes)

    def set_params(self, params: Any) -> None:
        """Other parameters of the same network; what is compiled stays."""
        self._params = jax.device_put(params)

    def __call__(self, scene: Scene) -> Merged:
        """Merges the scene.

        Raises:
            DataError: the image is too small to be padded.
            WeightsError: the network's output is not finite.
        """
        height, width = scene.ldrs.shape[1:3]
        padded_height, padded_width = self.padded_size(height, width, scene.name)
        self._compile(1, padded_height, padded_width)
        start = time.perf_counter()
        scene, matched = aligning.align_scene(scene, self._align)
        self.unmatched += [] if matched else [scene.name]
        # Padded before it becomes the input, which is four times as large.
        added = (0, padded_height - height), (0, padded_width - width)
        x = hdr.network_input(hdr.decode_ldr(np.pad(scene.ldrs, ((0, 0), *added, (0, 0)), mode='reflect')), scene.evs)
        image = self.merge(x[None])[0, :height, :width]
        seconds = time.perf_counter() - start
        if not np.isfinite(image).all():
            raise WeightsError(f'scene {scene.name}: the network\'s output is not finite; these weights are unusable')
        return Merged(image, seconds)

    def padded_size(self, height: int, width: int, name: str = 'image') -> tuple[int, int]:
        """The size at which an image goes through the network."""
        for multiple in (self._pad_to, self._model.window_size):
            padded = tuple(-(-side // multiple) * multiple for side in (height, width))
            if all(p - side < side for p, side in zip(padded, (height, width))):
                return padded
            if self._small_images == 'error':
                break
        raise DataError(
            f'{name}: {height}x{width} pixels cannot be padded by reflection to multiples of {multiple}: a side '
            f'must be longer than what is added; use larger images'
            + (', or set eval.small_images to pad_to_window' if self._small_images == 'error' else '')
        )

    def merge(self, x: np.ndarray) -> np.ndarray:
        """The network itself: `[B, H, W, 18]` to `[B, H, W, 3]`, without padding."""
        return np.asarray(self._compile(*x.shape[:3])(self._params, x))

    def _compile(self, *size: int) -> Callable[..., jax.Array]:
        """The network for images of one size; `compiled_sizes` gets seconds, GB, and the windows at once."""
        if size not in self._compiled:
            sizes.note(('network', *size))
            start = time.perf_counter()
            limit = self._memory_limit or parallel.free_memory()
            limit = math.inf if limit is None else limit  # nothing may be free, or it is not known
            for model in self._variants():
                x = jax.ShapeDtypeStruct((*size, 18), jnp.float32)
                apply = jax.jit(lambda params, x, model=model: model.apply({'params': params}, x))
                compiled = apply.lower(self._params, x).compile()
                needed = _memory(compiled) + (HOST_BYTES * math.prod(size) if execution.on_cpu() else 0)
                memory.give_back()
                if needed <= limit:
                    break
            else:
                raise DataError(
                    f'an image of {size[1]}x{size[2]} pixels needs {needed / GB:.2f} GB, but {limit / GB:.2f} GB are '
                    f'free or allowed. {self._too_large}'
                )
            self._compiled[size] = compiled
            if len(self._compiled) > KEPT_PROGRAMS:
                self._compiled.popitem(last=False)
            self.compiled_sizes.append({
                'height': size[1], 'width': size[2], 'seconds': time.perf_counter() - start, 'gb': needed / GB,
                'chunk_windows': model.chunk_windows,
            })  # fmt: skip
        self._compiled.move_to_end(size)
        return self._compiled[size]

    def _variants(self) -> Iterator[Any]:
        """The network as configured, then with fewer windows at once."""
        yield self._model
        at_once = execution.Execution(self._model.chunk_windows).at_once or math.inf
        for windows in FEWER_WINDOWS:
            if windows < at_once:
                yield self._model.clone(chunk_windows=windows)


def _memory(compiled: Any) -> int:
    """Bytes that a compiled program needs for arguments, results and all between; 0 if XLA does not say."""
    found = compiled.memory_analysis()
    return 0 if found is None else (
        found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - found.alias_size_in_bytes
    )


def check_align(method: str) -> None:
    """Raises a ConfigError unless it is one of `photos.align.METHODS`."""
    if method not in aligning.METHODS:
        raise ConfigError(f'eval.align is one of {", ".join(aligning.METHODS)}, not {method!r}')


def tell_unmatched(names: Sequence[str], method: str, where: str = '') -> None:
    """Names on stderr the scenes in which `eval.align` left a frame as it is, if there are any."""
    if names:
        print(f'{where}scenes with a frame that was not aligned, because it matches nowhere or is nearly all clipped or '
              f'black: {some(names, MOST_NAMED)} (eval.align={method})', file=sys.stderr)  # fmt: skip


def timed(merge: Callable[[Scene], np.ndarray]) -> Method:
    """A method of a function that only returns the image."""

    def method(scene: Scene) -> Merged:
        start = time.perf_counter()
        image = merge(scene)
        return Merged(image, time.perf_counter() - start)

    return method


def measure(
    prediction: np.ndarray, label: np.ndarray, metrics: Sequence[str] = PSNR_AND_SSIM
) -> dict[str, registry.Measured]:
    """Figures and maps of a linear image `[H, W, 3]`, by names of `metrics.registry.METRICS`."""
    return {metric.name: metric.measure(prediction, label) for metric in registry.find_metrics(metrics)}


def score(
    prediction: np.ndarray, label: np.ndarray, metrics: Sequence[str] = PSNR_AND_SSIM
) -> dict[str, float]:
    """The figures of `measure`."""
    return {name: found.figure for name, found in measure(prediction, label, metrics).items()}


def evaluate(
    methods: Mapping[str, Method],
    scenes: Iterable[Scene],
    on_scene: OnScene = lambda scene, merged, scored: None,
    metrics: Sequence[str] = PSNR_AND_SSIM,
) -> list[dict[str, Any]]:
    """Merges every scene with every method and scores the result where there is a ground truth.

    Args:
        methods: name to function.
        scenes: read one at a time; a generator keeps one in memory.
        on_scene: called after each scene, for progress and pictures, with what the methods made of it and how
            that was scored (nothing without ground truth).
        metrics: names of `metrics.registry.METRICS`.

    Returns:
        A row per scene and method: `scene`, `method`, `height`, `width`, `seconds`, and the metrics (None without
        ground truth).
    """
    rows = []
    for scene in scenes:
        merged = {name: method(scene) for name, method in methods.items()}
        scored = {} if scene.label is None else {
            name: _measure(scene, name, result.image, metrics) for name, result in merged.items()
        }  # fmt: skip
        for name, result in merged.items():
            height, width = result.image.shape[:2]
            figures = {key: found.figure for key, found in scored.get(name, {}).items()}
            rows.append({'scene': scene.name, 'method': name, 'height': height, 'width': width,
                         'seconds': result.seconds, **dict.fromkeys(metrics), **figures})  # fmt: skip
        on_scene(scene, merged, scored)
    return rows


def _measure(scene: Scene, method: str, image: np.ndarray, metrics: Sequence[str]) -> Scored:
    try:
        return measure(image, scene.label, metrics)
    except DataError as error:
        told = f'scene {scene.name}, {method}: {error}'
        if method in BASELINES:
            told += ' eval.baselines=False leaves the baselines out.'
        if scene.evs[0]:
            told += f' The exposures begin at EV {scene.evs[0]:g}; data.subtract_min_ev=True shifts them to 0.'
        raise DataError(told) from error


def run(model: Any, config: Any, weights: str, out: str | pathlib.Path) -> list[dict[str, Any]]:
    """Evaluates weights on a data set: table on the screen, tables and pictures in `out`.

    Args:
        model: the network of `config.model`.
        config: see `configs/default.py`; its sections data and eval are used.
        weights: a `.pth`, a checkpoint, or a working directory of training.
        out: folder of the results; made if absent.

    Raises:
        AFUNetError: the config, the data or the weights are not usable, or do not fit each other.
    """
    out, settings = pathlib.Path(out), config.eval
    registry.find_metrics(settings.metrics)
    found, params = checkpoints.load_weights(weights)
    checkpoints.check_architecture(found, config.model, weights)
    network = Network(
        model, params, settings.pad_to, settings.small_images, settings.memory_limit, align=settings.align
    )
    found_scenes, scenes = datasets.evaluation_scenes(config.data, settings.split, settings.scenes)
    reports.make_folder(out)
    progress, done, written = ProgressLine('scenes'), 0, []

    def on_scene(scene: Scene, merged: Mapping[str, Merged], scored: Mapping[str, Scored]) -> None:
        nonlocal done
        if not done:  # from here on an earlier evaluation's tables would stand beside pictures that are not theirs
            reports.remove_results(out, html_report.PAGE)
        done += 1
        images = {name: result.image for name, result in merged.items()}
        if settings.pictures:
            reports.write_pictures(out / reports.PICTURES, scene.name, images, scene.label)
        if settings.report:
            maps = _detection_maps(scored)
            pictures = html_report.ScenePictures(scene.name, images, scene.label, scene.ldrs[1], maps)
            written.append(html_report.write_scene(out, pictures))
        progress(done, len(found_scenes), scene.name)

    others = {name: timed(merge) for name, merge in BASELINES.items()} if settings.baselines else {}
    methods = {NETWORK: network, **others}
    rows = evaluate(methods, scenes, on_scene, tuple(settings.metrics))
    about = _about(config, weights, network)
    reports.write_results(out, rows, about)
    if settings.pictures:
        reports.write_overview(out / reports.PICTURES, [scene.name for scene in found_scenes], list(methods))
    print(reports.scores_table(rows))
    beside = _beside_published(config, rows)
    if beside is not None:
        reports.write_sourced(out, beside)
        print(f'\n{beside.text()}')
    if settings.report:
        log = pathlib.Path(weights) / reports.TRAINING_LOG
        html_report.write_report(
            out, rows, written, about, log if log.exists() else None, settings.report_inline, published=beside
        )
    tell_unmatched(network.unmatched, settings.align)
    compiled, seconds = len(network.compiled_sizes), network.compile_seconds
    print(f'tables and pictures are in {out}; compiling {compiled} image sizes took {seconds:.1f} s', file=sys.stderr)
    return rows


def _about(config: Any, weights: str, network: Network) -> dict[str, Any]:
    """How an evaluation was made, for results.json."""
    return {
        'weights': str(weights), 'model': config.model.to_dict(),
        'data': config.data.to_dict(), 'eval': config.eval.to_dict(),
        'device': parallel.describe(), 'compile_seconds': round(network.compile_seconds, 2),
        'compiled_sizes': network.compiled_sizes, 'unmatched': network.unmatched,
    }  # fmt: skip


def _detection_maps(scored: Mapping[str, Scored]) -> dict[str, dict[str, np.ndarray]]:
    """Title of the metric, to method, to its map, of all metrics that have maps."""
    maps = {}
    for method, found in scored.items():
        for name, measured in found.items():
            if measured.detection_map is not None:
                maps.setdefault(registry.METRICS[name].title, {})[method] = measured.detection_map
    return maps


def _beside_published(config: Any, rows: Sequence[Mapping[str, Any]]) -> reports.SourcedTable | None:
    """What papers publish of this data set's test scenes, beside ours."""
    if config.eval.split != 'test' or config.data.layout not in published.DATASETS:
        return None
    expected = get_layout(config.data.layout).expected['test']
    scenes = len({row['scene'] for row in rows})
    part = '' if scenes == expected else f' ({scenes} of {expected} scenes)'
    return published.table(
        config.data.layout, {f'{method}{part}': figures for method, figures in reports.means(rows).items()}
    )
