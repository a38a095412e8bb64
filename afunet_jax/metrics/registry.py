"""Every metric by name: the names of config, tables and files of results.

A name says all that changes the number: values, definition, display peak, preset of HDR-VDP-2.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from afunet_jax import hdr
from afunet_jax.errors import ConfigError
from afunet_jax.metrics.checks import checked_unit_pair
from afunet_jax.metrics.hdrvdp2 import PRESETS, HdrVdp2, hdrvdp2
from afunet_jax.metrics.psnr import psnr
from afunet_jax.metrics.pu21 import pu21_psnr, pu21_ssim
from afunet_jax.metrics.ssim import ssim, training_ssim
from afunet_jax.metrics.ssim_variants import matlab_ssim, skimage_default_ssim, skimage_ssim

Array = Any  # np.ndarray or jax.Array

LINEAR, MU_LAW, ABSOLUTE = 'linear', 'mu-law', 'absolute'
DISPLAY_PEAKS = (
    1000,
    4000,
)  # cd/m2 of the linear value 1 in the PU21 metrics: today's displays, PU21's example
DECIBEL_RANGE, SSIM_RANGE, Q_RANGE = (-math.inf, math.inf), (-1.0, 1.0), (-math.inf, 100.0)
_DECIBEL = {'unit': 'dB', 'range': DECIBEL_RANGE, 'digits': 3}
_SSIM = {'unit': '', 'range': SSIM_RANGE, 'digits': 5}


class Measured(NamedTuple):
    """What a metric says of a pair.

    Attributes:
        figure: the number.
        detection_map: `[H, W]` in [0, 1], HDR-VDP-2's probability that the difference is seen there; None of
            other metrics.
    """

    figure: float
    detection_map: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric, called with a linear prediction and its linear label, both `[H, W, 3]` near [0, 1].

    Calling it checks both images (`checks.checked_unit_pair`), converts them and returns the figure.

    Attributes:
        name: key of `METRICS`, of config and of results.
        title: of a column.
        unit: 'dB', or '' for a number without one.
        range: smallest and largest figure.
        values: what it judges: 'linear' or 'mu-law' values, or 'absolute', the light of a display.
        function: of prediction and label, mu-law values if it judges those and linear ones otherwise; gives
            the figure, or all that HDR-VDP-2 says.
        digits: behind the point in tables.
        clips: negative values of the prediction become 0 first, as in a `.hdr` file; of mu-law always.
        higher_is_better: or lower.
    """

    name: str
    title: str
    unit: str
    range: tuple[float, float]
    values: str
    function: Callable[[Array, Array], float | HdrVdp2]
    digits: int
    clips: bool = True
    higher_is_better: bool = True

    def __call__(self, prediction: Array, label: Array) -> float:
        return self.measure(prediction, label).figure

    def measure(self, prediction: Array, label: Array) -> Measured:
        """The figure, and the map of metrics that have one, computed once."""
        prediction, label = checked_unit_pair(prediction, label)
        if self.clips or self.values == MU_LAW:
            prediction = np.maximum(prediction, 0)
        if self.values == MU_LAW:
            prediction, label = hdr.mu_law(prediction), hdr.mu_law(label)
        found = self.function(prediction, label)
        return Measured(found.q, found.p_map) if isinstance(found, HdrVdp2) else Measured(found)


def _linear_and_mu_law(
    name: str, title: str, function: Callable[[Array, Array], float], **rest: Any
) -> list[Metric]:
    return [
        Metric(f'{name}_{short}', f'{title}-{short}', values=values, function=function, **rest)
        for short, values in (('l', LINEAR), ('mu', MU_LAW))
    ]


def _pu21(peak: int) -> list[Metric]:
    return [
        Metric(f'{name}_{peak}', f'{title} ({peak} cd/m2)', values=ABSOLUTE, function=function, **rest)
        for name, title, function, rest in (
            ('pu21_psnr', 'PU21-PSNR', functools.partial(pu21_psnr, display_peak=peak), _DECIBEL),
            ('pu21_ssim', 'PU21-SSIM', functools.partial(pu21_ssim, display_peak=peak), _SSIM),
        )
    ]


def _hdrvdp2(preset: str) -> Metric:
    values = LINEAR if PRESETS[preset].encoding == 'sRGB-display' else ABSOLUTE
    function = functools.partial(hdrvdp2, preset=preset)
    title = f'HDR-VDP-2 ({preset})'
    return Metric(hdrvdp2_name(preset), title, '', Q_RANGE, values, function, digits=2, clips=False)


def hdrvdp2_name(preset: str) -> str:
    """The name of HDR-VDP-2's Q under a preset."""
    return f'hdrvdp2_{preset}'


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_linear_and_mu_law('psnr', 'PSNR', psnr, clips=False, **_DECIBEL),
        *_linear_and_mu_law('ssim', 'SSIM', ssim, **_SSIM),
        *_linear_and_mu_law('training_ssim', 'training SSIM', training_ssim, clips=False, **_SSIM),
        *_linear_and_mu_law('skimage_ssim', 'scikit-image SSIM', skimage_ssim, **_SSIM),
        *_linear_and_mu_law(
            'skimage_default_ssim', 'scikit-image default SSIM', skimage_default_ssim, **_SSIM
        ),
        *_linear_and_mu_law('matlab_ssim', 'MATLAB SSIM', matlab_ssim, **_SSIM),
        *(metric for peak in DISPLAY_PEAKS for metric in _pu21(peak)),
        *map(_hdrvdp2, PRESETS),
    )
}


def find_metrics(names: Iterable[str]) -> list[Metric]:
    """The metrics of these names, in their order.

    Raises:
        ConfigError: a name is unknown or named twice.
    """
    names = list(names)
    for name in names:
        if name not in METRICS:
            raise ConfigError(f'no metric is called {name!r}: choose among {", ".join(METRICS)}')
        if names.count(name) > 1:
            raise ConfigError(f'the metric {name!r} is named twice; name it once')
    return [METRICS[name] for name in names]
