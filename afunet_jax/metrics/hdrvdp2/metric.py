"""HDR-VDP-2.2.1 of a pair of images: the stages in their order."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax import sizes
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics.hdrvdp2 import csf, display, masking, optics, pooling, pyramid, receptors
from afunet_jax.metrics.hdrvdp2.checks import checked_pair
from afunet_jax.metrics.hdrvdp2.resizing import AxisWeights, resize, resize_weights
from afunet_jax.metrics.hdrvdp2.viewing import Viewing, find_viewing

Array = Any  # np.ndarray or jax.Array

PRECISIONS = ('float64', 'float32')
SIZES_KEPT = 8  # image sizes whose resize weights stay in memory


@dataclasses.dataclass(frozen=True)
class HdrVdp2:
    """What HDR-VDP-2.2.1 says of one pair, and under which settings.

    Attributes:
        q: quality; 100 for equal images, smaller is worse, without a lower bound.
        p_det: probability that the difference is detected anywhere, the map's maximum, in [0, 1].
        p_map: `[H, W]`, probability of detection at each pixel.
        c_max: largest visible contrast, in multiples of the detection threshold.
        preset: name of the settings, 'custom' if they are no preset.
        viewing: the settings.
        pixels_per_degree: at which the images were seen.
        precision: 'float64' or 'float32'.
    """

    q: float
    p_det: float
    p_map: np.ndarray
    c_max: float
    preset: str
    viewing: Viewing
    pixels_per_degree: float
    precision: str


def hdrvdp2(
    prediction: Array, ground_truth: Array, preset: str | Viewing = 'sctnet', precision: str | None = None
) -> HdrVdp2:
    """HDR-VDP-2.2.1 (Mantiuk et al., SIGGRAPH 2011; Q of Narwaria et al., JEI 2015).

    Numbers of different presets, image sizes or crops cannot be compared with each other. Compiles once
    an image size, encoding and precision.

    Args:
        prediction: linear RGB, `[H, W, 3]`, at least 17x17; in [0, 1] for the presets of sRGB displays.
        ground_truth: the same.
        preset: 'sctnet' (what most papers report), 'safnet', 'selfhdr', 'bt709-1000', or free settings.
        precision: 'float64', 'float32' (Q within 2e-3), or None: float64 on a CPU, float32 elsewhere.

    Returns:
        The quality, the probabilities and the settings.

    Raises:
        DataError: shapes differ or are not `[H, W, 3]`; too small; integers; values that are not finite
            or far out of the display's range; a ground truth with negative values or zero everywhere.
        ConfigError: unknown preset or precision.
    """
    name, viewing = find_viewing(preset)
    precision = _checked_precision(precision)
    prediction, ground_truth = checked_pair(prediction, ground_truth, viewing)
    scale = viewing.scale if viewing.peak is None else viewing.peak / float(ground_truth.max())
    test, reference = (ground_truth, prediction) if viewing.swapped else (prediction, ground_truth)
    ppd = viewing.pixels_per_degree_of(*test.shape[:2])
    sizes.note(test.shape)
    # The context holds for this thread and this call alone; everything that leaves it is NumPy.
    with jax.enable_x64(precision == 'float64'):
        dtype = np.dtype(precision)
        errors, p_map, c_max = _compare(test, reference, viewing.encoding, scale, ppd, dtype)
    return HdrVdp2(
        q=pooling.quality(errors, pyramid.band_frequencies(len(errors), ppd)),
        p_det=float(p_map.max()),
        p_map=p_map,
        c_max=float(c_max),
        preset=name,
        viewing=viewing,
        pixels_per_degree=ppd,
        precision=precision,
    )


def hdrvdp2_batch(
    predictions: Iterable[Array],
    ground_truths: Iterable[Array],
    preset: str | Viewing = 'sctnet',
    precision: str | None = None,
    workers: int = 1,
) -> list[HdrVdp2]:
    """`hdrvdp2` of many pairs: arrays `[B, H, W, 3]`, or iterables of images of any sizes, read as needed.

    Every result is to the bit what `hdrvdp2` gives, whatever the number of pairs and of workers.

    Args:
        predictions: linear RGB images.
        ground_truths: as many.
        preset: as of `hdrvdp2`.
        precision: as of `hdrvdp2`.
        workers: pairs that are compared at the same time. One keeps two cores busy; memory grows with it.

    Raises:
        DataError: as `hdrvdp2`, with the pair's index; or the numbers of images differ.
        ConfigError: as `hdrvdp2`; or `workers` is not positive.
    """
    if workers < 1:
        raise ConfigError(f'workers is the number of pairs compared at a time, at least 1, not {workers}')

    def compare(index: int, prediction: Array, ground_truth: Array) -> HdrVdp2:
        try:
            return hdrvdp2(prediction, ground_truth, preset, precision)
        except DataError as error:
            raise DataError(f'Pair {index}: {error}') from error

    results, pairs = [], _pairs(predictions, ground_truths)
    while chunk := list(itertools.islice(pairs, workers)):
        results += _at_once(compare, range(len(results), len(results) + len(chunk)), *zip(*chunk))
    return results


def _pairs(predictions: Iterable[Array], ground_truths: Iterable[Array]) -> Iterator[tuple[Array, Array]]:
    for index, pair in enumerate(itertools.zip_longest(predictions, ground_truths)):
        if any(image is None for image in pair):
            raise DataError(
                f'As many predictions as ground truths are needed, but one of the two ends after {index}. '
                'Pass both of every scene.'
            )
        yield pair


def _checked_precision(precision: str | None) -> str:
    if precision is None:
        return 'float64' if jax.default_backend() == 'cpu' else 'float32'
    if precision not in PRECISIONS:
        raise ConfigError(f'precision is one of {", ".join(PRECISIONS)}, or None, not {precision!r}')
    return precision


def _cast(tree: Any, dtype: np.dtype) -> Any:
    """Floating-point arrays of a tree in `dtype`; indices stay."""
    return jax.tree.map(lambda array: array.astype(dtype) if array.dtype.kind == 'f' else array, tree)


@functools.lru_cache(maxsize=SIZES_KEPT)
def _sizes(height: int, width: int, dtype: np.dtype) -> tuple[Sequence[Sequence[AxisWeights]], masking.Sizes]:
    """The resize weights of an image size: from full size to each band, and between neighbours."""
    shapes = pyramid.band_sizes(height, width)
    pairs = list(zip(shapes[:-1], shapes[1:]))
    neighbours = masking.Sizes(
        to_coarser=tuple(resize_weights(fine, coarse) for fine, coarse in pairs),
        to_finer=tuple(resize_weights(coarse, fine) for fine, coarse in pairs),
    )
    return _cast((tuple(resize_weights(shapes[0], shape) for shape in shapes), neighbours), dtype)


def _compare(
    test: np.ndarray, reference: np.ndarray, encoding: str, scale: float, ppd: float, dtype: np.dtype
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Errors of the bands, map and largest contrast, by the stages below; every array has `dtype`.

    Scattering and pyramid are linear, so they work on the reference and on the difference. That keeps the
    difference's digits in float32, and equal images exactly equal.
    """
    height, width = test.shape[:2]
    band_frequency = pyramid.band_frequencies(len(pyramid.band_sizes(height, width)), ppd)
    tables = csf.sensitivity_tables(band_frequency).astype(dtype)
    (to_band, sizes), filters = _sizes(height, width, dtype), _cast(pyramid.pyramid_filters(), dtype)
    vision = _cast((receptors.receptor_matrix(encoding), receptors.response_tables()), dtype)

    light, difference, mask = _displayed(*(np.asarray(x, dtype) for x in (test, reference, scale)), encoding)
    response, test_response, *luminances = _responses(light, difference, dtype.type(ppd), vision)
    del light, difference
    bands = _at_once(lambda image: _decomposed(image, filters), (test_response - response, response))
    del test_response, response
    base = _seen_base(*(band[-1] for band in bands), *luminances, dtype.type(band_frequency[-1]))
    sensitivities, masks = _per_band(*luminances, mask, tables, to_band)
    units = _threshold_units(*([*band[:-1], seen] for band, seen in zip(bands, base)), sensitivities, sizes)
    del bands, luminances, sensitivities
    errors = _band_errors(units, masks)
    p_map, c_max = _detection_map(_detection_units(units), filters)
    return [np.asarray(error) for error in errors], np.asarray(p_map), np.asarray(c_max)


def _responses(
    light: jax.Array, difference: jax.Array, ppd: np.floating, vision: Sequence[Any]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Achromatic response to the reference and to the test, then adapting luminance of test and reference."""
    transfer = _transfer(ppd, *light.shape[1:])
    light, difference = _at_once(
        lambda image, surround: _scattered(image, transfer, surround),
        (light, difference),
        (ppd.dtype.type(optics.SURROUND), ppd.dtype.type(0)),
    )
    response, luminance = _achromatic_response(light, vision)
    test_response, test_luminance = _achromatic_response(light + difference, vision)
    return response, test_response, test_luminance, luminance


def _at_once(function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
    """`function` mapped over the arguments, each call in its own thread with this thread's JAX settings."""
    precise, device = jax.config.jax_enable_x64, jax.config.jax_default_device

    def call(*values: Any) -> Any:
        with jax.enable_x64(precise), jax.default_device(device):
            return jax.block_until_ready(function(*values))

    with ThreadPoolExecutor(len(arguments[0])) as pool:
        return list(pool.map(call, *arguments))


# XLA's FFT on a CPU divides its rows among the threads that happen to be free, and rounds by the division.
# One thread a program makes results the same to the bit; `_at_once` keeps a second core busy.
_jit_fft = functools.partial(jax.jit, compiler_options={'xla_cpu_multi_thread_eigen': False})


@functools.partial(jax.jit, static_argnums=(1, 2))
def _transfer(ppd: jax.Array, height: int, width: int) -> jax.Array:
    return optics.mtf(optics.frequencies(height, width, ppd))


@functools.partial(jax.jit, static_argnames='encoding')
def _displayed(
    test: jax.Array, reference: jax.Array, scale: jax.Array, encoding: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The reference's light, the test's less the reference's, and the mask of pixels that differ."""
    test, reference = (display.displayed(image * scale, encoding) for image in (test, reference))
    return reference, test - reference, display.difference_mask(test, reference)


_scattered = _jit_fft(optics.scattered)
_decomposed = _jit_fft(pyramid.decompose)


@jax.jit
def _achromatic_response(light: jax.Array, vision: Sequence[Any]) -> tuple[jax.Array, jax.Array]:
    return receptors.achromatic_response(optics.retinal_image(light), *vision)


@_jit_fft
def _seen_base(
    difference: jax.Array,
    reference: jax.Array,
    test_luminance: jax.Array,
    reference_luminance: jax.Array,
    frequency: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Base bands `[1, h, w]` of the difference and the reference as vision passes them."""
    luminances = jnp.stack([test_luminance.mean(), reference_luminance.mean()])
    # One loop for both, so that equal images go through the very same instructions.
    test, reference = jax.lax.map(
        lambda band: csf.filter_base_band(*band, frequency, reference.mean()),
        (jnp.concatenate([reference + difference, reference]), luminances),
    )
    return (test - reference)[None], reference[None]


@jax.jit
def _per_band(
    test_luminance: jax.Array,
    reference_luminance: jax.Array,
    mask: jax.Array,
    tables: jax.Array,
    to_band: Sequence[Sequence[AxisWeights]],
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Sensitivity of each band but the base at the images' mean luminance; the mask at each band's size."""
    log_adaptation = receptors.log_luminance((test_luminance + reference_luminance) / 2)
    resized = [resize(jnp.stack([log_adaptation, mask]), weights) for weights in to_band]
    sensitivities = [receptors.look_up(table, both[0]) for table, both in zip(tables, resized[:-1])]
    return sensitivities, [both[1] for both in resized]


@jax.jit
def _threshold_units(
    differences: Sequence[jax.Array],
    references: Sequence[jax.Array],
    sensitivities: Sequence[jax.Array],
    sizes: masking.Sizes,
) -> list[jax.Array]:
    """Differences in units of their detection threshold."""
    masks = [masking.mutual_mask(r + d, r) for d, r in zip(differences, references)]
    return masking.threshold_units(differences, masks, sensitivities, sizes)


@_jit_fft
def _detection_map(units: Sequence[jax.Array], filters: pyramid.Filters) -> tuple[jax.Array, jax.Array]:
    return pooling.detection_map(pyramid.reconstruct(units, filters))


_detection_units = jax.jit(masking.detection_units)
_band_errors = jax.jit(pooling.band_errors)
