"""Merging scenes with a network or a baseline, and scoring the results."""

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

from afunet_jax import checkpoints, files, hdr, html_report, parallel, published, reports
from afunet_jax.data import datasets
from afunet_jax.data.progress import ProgressLine
from afunet_jax.data.scenes import Scene
from afunet_jax.errors import ConfigError, DataError, WeightsError
from afunet_jax.metrics import registry
from afunet_jax.models import afunet, execution

SMALL_IMAGES = ('error', 'pad_to_window')
NETWORK = 'AFUNet'
TRAINING_LOG = 'metrics.jsonl'  # in a working directory; its curves come into the report
PSNR_AND_SSIM = ('psnr_l', 'psnr_mu', 'ssim_l', 'ssim_mu')
FEWER_WINDOWS = (4096, 512, 64, 8)  # computed at once, tried in turn where an image does not fit into memory
GB = 1e9  # bytes


@dataclasses.dataclass(frozen=True)
class Merged:
    """A merged scene: linear image float32 `[H, W, 3]`, and the seconds that it took, without compilation."""

    image: np.ndarray
    seconds: float


Method = Callable[[Scene], Merged]


class Network:
    """A network that merges scenes of any size; compiles once a size.

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
    """

    def __init__(
        self, model: Any, params: Any, pad_to: int = 128, small_images: str = 'error', memory_limit: float = 0.0
    ):
        if small_images not in SMALL_IMAGES:
            raise ConfigError(f'small_images is one of {", ".join(SMALL_IMAGES)}, not {small_images!r}')
        if pad_to < 1 or pad_to % model.window_size:
            raise ConfigError(f'pad_to is a multiple of the window ({model.window_size} pixels), not {pad_to}')
        if memory_limit < 0:
            raise ConfigError(f'memory_limit is a number of GB, or 0 for what is free, not {memory_limit}')
        self._model, self._pad_to, self._small_images = model, pad_to, small_images
        self._params = jax.device_put(params)
        self._memory_limit = memory_limit * GB
        self._compiled = {}
        self.compiled_sizes = []

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
        x = hdr.network_input(hdr.decode_ldr(scene.ldrs), scene.evs)
        x = np.pad(x, ((0, padded_height - height), (0, padded_width - width), (0, 0)), mode='reflect')
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
            start = time.perf_counter()
            limit = self._memory_limit or parallel.free_memory() or math.inf
            for model in self._variants():
                x = jax.ShapeDtypeStruct((*size, 18), jnp.float32)
                apply = jax.jit(lambda params, x, model=model: model.apply({'params': params}, x))
                compiled = apply.lower(self._params, x).compile()
                needed = _memory(compiled)
                if needed <= limit:
                    break
            else:
                raise DataError(
                    f'an image of {size[1]}x{size[2]} pixels needs {needed / GB:.2f} GB, but {limit / GB:.2f} GB are '
                    'free or allowed by eval.memory_limit; use a smaller image, more memory, or model.dtype=bfloat16'
                )
            self._compiled[size] = compiled
            self.compiled_sizes.append({
                'height': size[1], 'width': size[2], 'seconds': time.perf_counter() - start, 'gb': needed / GB,
                'chunk_windows': getattr(model, 'chunk_windows', 0),
            })  # fmt: skip
        return self._compiled[size]

    def _variants(self) -> Iterator[Any]:
        """The network as configured, then with fewer windows at once."""
        yield self._model
        at_once = execution.Execution(getattr(self._model, 'chunk_windows', 0)).at_once or math.inf
        for windows in FEWER_WINDOWS:
            if windows < at_once and isinstance(self._model, afunet.AFUNet):
                yield self._model.clone(chunk_windows=windows)


def _memory(compiled: Any) -> int:
    """Bytes that a compiled program needs for arguments, results and all between; 0 if XLA does not say."""
    found = compiled.memory_analysis()
    return 0 if found is None else (
        found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - found.alias_size_in_bytes
    )


def middle_exposure(scene: Scene) -> Merged:
    """Baseline: the radiance of the middle exposure alone; what it clips stays clipped."""
    start = time.perf_counter()
    image = hdr.to_radiance(hdr.decode_ldr(scene.ldrs[1]), hdr.exposure_time(scene.evs[1]))
    return Merged(image, time.perf_counter() - start)


def weighted_merge(scene: Scene) -> Merged:
    """Baseline: weighted mean of the three radiances, without alignment.

    Triangle weights on the LDR values, zero at 0 and 1 (after Debevec and Malik 1997); the short exposure
    keeps weight 1 in the lights and the long one in the shades, so that the weights never vanish together.
    """
    start = time.perf_counter()
    ldrs = hdr.decode_ldr(scene.ldrs)
    weights = 1 - np.abs(2 * ldrs - 1)
    weights[0][ldrs[0] > 0.5] = 1
    weights[2][ldrs[2] < 0.5] = 1
    radiance = np.stack([hdr.to_radiance(ldr, t) for ldr, t in zip(ldrs, hdr.exposure_time(scene.evs))])
    image = (weights * radiance).sum(0) / np.maximum(weights.sum(0), 1e-6)
    return Merged(image.astype(np.float32), time.perf_counter() - start)


BASELINES: dict[str, Method] = {'middle exposure': middle_exposure, 'weighted merge': weighted_merge}


def score(
    prediction: np.ndarray, label: np.ndarray, metrics: Sequence[str] = PSNR_AND_SSIM
) -> dict[str, float]:
    """Figures of a linear image `[H, W, 3]`, by names of `metrics.registry.METRICS`."""
    return {metric.name: metric(prediction, label) for metric in registry.find_metrics(metrics)}


def evaluate(
    methods: Mapping[str, Method],
    scenes: Iterable[Scene],
    on_scene: Callable[[Scene, Mapping[str, Merged]], None] = lambda scene, merged: None,
    metrics: Sequence[str] = PSNR_AND_SSIM,
) -> list[dict[str, Any]]:
    """Merges every scene with every method and scores the result where there is a ground truth.

    Args:
        methods: name to function.
        scenes: read one at a time; a generator keeps one in memory.
        on_scene: called after each scene, for progress and pictures.
        metrics: names of `metrics.registry.METRICS`.

    Returns:
        A row per scene and method: `scene`, `method`, `height`, `width`, `seconds`, and the metrics (None without
        ground truth).
    """
    rows = []
    for scene in scenes:
        merged = {name: method(scene) for name, method in methods.items()}
        for name, result in merged.items():
            scores = dict.fromkeys(metrics) if scene.label is None else score(result.image, scene.label, metrics)
            height, width = result.image.shape[:2]
            rows.append({'scene': scene.name, 'method': name, 'height': height, 'width': width,
                         'seconds': result.seconds, **scores})  # fmt: skip
        on_scene(scene, merged)
    return rows


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
    network = Network(model, params, settings.pad_to, settings.small_images, settings.memory_limit)
    found_scenes, scenes = datasets.evaluation_scenes(config.data, settings.split, settings.scenes)
    progress, done, written = ProgressLine('scenes'), 0, []

    def on_scene(scene: Scene, merged: Mapping[str, Merged]) -> None:
        nonlocal done
        done += 1
        if settings.pictures:
            reports.write_pictures(out / 'pictures', scene.name, {k: m.image for k, m in merged.items()}, scene.label)
        if settings.report:
            images = {name: result.image for name, result in merged.items()}
            pictures = html_report.ScenePictures(scene.name, images, scene.label, scene.ldrs[1])
            written.append(html_report.write_scene(out, pictures))
        progress(done, len(found_scenes), scene.name)

    methods = {NETWORK: network, **(BASELINES if settings.baselines else {})}
    rows = evaluate(methods, scenes, on_scene, tuple(settings.metrics))
    about = {
        'weights': str(weights), 'model': config.model.to_dict(),
        'data': config.data.to_dict(), 'eval': settings.to_dict(),
        'device': parallel.describe(), 'compile_seconds': round(network.compile_seconds, 2),
        'compiled_sizes': network.compiled_sizes,
    }  # fmt: skip
    reports.write_results(out, rows, about)
    if settings.pictures:
        reports.write_overview(out / 'pictures', [scene.name for scene in found_scenes], list(methods))
    print(reports.scores_table(rows))
    if settings.split == 'test' and config.data.layout in published.DATASETS:
        beside = published.table(config.data.layout, reports.means(rows))
        files.write_text(out / 'published.txt', beside + '\n')
        print(f'\n{beside}')
    if settings.report:
        log = pathlib.Path(weights) / TRAINING_LOG
        html_report.write_report(out, rows, written, about, log if log.exists() else None, settings.report_inline)
    sizes, seconds = len(network.compiled_sizes), network.compile_seconds
    print(f'tables and pictures are in {out}; compiling {sizes} image sizes took {seconds:.1f} s', file=sys.stderr)
    return rows
