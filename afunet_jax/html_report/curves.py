"""Training curves from a run's log: in the page as SVG, beside it as PNG."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from afunet_jax import image_io, reports
from afunet_jax.errors import DataError
from afunet_jax.html_report.markup import Markup, element, join

WIDTH, HEIGHT = 480, 220  # of a chart, in units: pixels of the SVG
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 10, 26  # margins
MOST_DECADES = 8  # marks of a logarithmic axis
BUCKETS = 400  # points of a curve: more are averaged, with a band from the smallest to the largest
TICKS = 5  # about so many on an axis
SCALE = 3  # pixels of the PNG to a unit
SHIFT = 4  # fractional bits of OpenCV's coordinates
INK, FAINT, GRID, ACCENT, PAPER = (
    (28, 24, 22),
    (107, 97, 90),
    (226, 221, 217),
    (176, 87, 11),
    (255, 255, 255),
)  # BGR


@dataclasses.dataclass(frozen=True)
class Curve:
    """A quantity over the steps of a run.

    Attributes:
        title: with the unit.
        steps: `[N]`, rising.
        values: `[N]`, finite.
        logarithmic: how the value axis goes; only for positive values.
    """

    title: str
    steps: np.ndarray
    values: np.ndarray
    logarithmic: bool


CURVES = (  # title, key, whether in a validation's line, logarithmic
    ('Loss', 'loss', False, True),
    ('Validation PSNR-mu (dB)', 'psnr_mu', True, False),
    ('Learning rate', 'learning_rate', False, False),
)


def read_log(path: str | pathlib.Path) -> list[Curve]:
    """The curves in a training log (JSON lines, as `afunet_jax.training.Log` writes them).

    A last line without its end, where a run was killed, is left out. Of steps that a resumed run has written
    again, the last line counts. Curves of which the log has no values are left out.

    Raises:
        DataError: no such file, or a line that is no entry of such a log.
    """
    path = pathlib.Path(path)
    try:
        lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f'{path}: the training log cannot be read ({error}). Give the {reports.TRAINING_LOG} of a run.'
        ) from error
    if lines and not lines[-1].endswith('\n'):
        lines.pop()
    entries = [_entry(path, number, line) for number, line in enumerate(lines, 1)]
    return [curve for row in CURVES if (curve := _curve(entries, *row)) is not None]


def _entry(path: pathlib.Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
        if isinstance(entry['step'], int):
            return entry
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f'{path}, line {number}: an entry is a JSON object with a whole number as "step", this is '
        f'{line[:60]!r}. Give the {reports.TRAINING_LOG} of a run.'
    )


def _curve(
    entries: Sequence[Mapping], title: str, key: str, validation: bool, logarithmic: bool
) -> Curve | None:
    points = {}
    for entry in entries:
        holder = entry.get('validation', {}) if validation else entry
        value = holder.get(key) if isinstance(holder, Mapping) else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            points[entry['step']] = float(value)
    if not points:
        return None
    steps = np.array(sorted(points))
    values = np.array([points[step] for step in steps])
    return Curve(title, steps, values, logarithmic and bool((values > 0).all()))


# ---- layout, the same for both pictures ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Chart:
    """A curve laid out, in units: ticks as (place, text), the line and the band as points `[N, 2]`."""

    title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    line: np.ndarray
    band: np.ndarray | None


def lay_out(curve: Curve) -> Chart:
    """Where everything of a curve stands in a chart of `WIDTH` x `HEIGHT` units."""
    steps, middle, lowest, highest = _buckets(curve)
    x_axis = _axis(min(0, steps[0]), steps[-1], False)
    y_axis = _axis(lowest.min(), highest.max(), curve.logarithmic)
    along = _placer(x_axis, curve_log=False, start=LEFT, end=WIDTH - RIGHT)
    up = _placer(y_axis, curve_log=curve.logarithmic, start=HEIGHT - BOTTOM, end=TOP)
    band = None
    if len(curve.steps) > len(steps):
        there, back = np.stack([along(steps), up(highest)], 1), np.stack([along(steps), up(lowest)], 1)
        band = np.concatenate([there, back[::-1]])
    x_ticks, y_ticks = (
        [(float(placer(tick)), text) for tick, text in zip(axis, _texts(axis))]
        for placer, axis in ((along, x_axis), (up, y_axis))
    )
    return Chart(curve.title, x_ticks, y_ticks, np.stack([along(steps), up(middle)], 1), band)


def _buckets(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At most `BUCKETS` points: step, mean, smallest and largest value."""
    parts = np.array_split(np.arange(len(curve.steps)), min(BUCKETS, len(curve.steps)))
    steps = np.array([curve.steps[part].mean() for part in parts])
    steps[-1] = curve.steps[-1]
    return steps, *(np.array([f(curve.values[part]) for part in parts]) for f in (np.mean, np.min, np.max))


def _axis(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round values that enclose low and high: steps of 1, 2 or 5, or the like within decades."""
    low, high = float(low), float(high)
    if logarithmic:
        return _log_axis(low, high)
    span = high - low or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit * TICKS >= span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _log_axis(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = -(-(last - first) // MOST_DECADES) or 1
    decades = range(first, last + stride, stride)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        marks = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [mark for mark in marks if low < mark < high]
        below = max((mark for mark in marks if mark <= low), default=marks[0])
        above = min((mark for mark in marks if mark >= high), default=marks[-1])
        if len(inside) >= TICKS - 2:
            break
    return [below, *inside, *([above] if above > below else [below * 10])]


def _placer(axis: Sequence[float], curve_log: bool, start: float, end: float) -> Callable[[Any], np.ndarray]:
    scale = np.log10 if curve_log else np.asarray
    low, high = scale(axis[0]), scale(axis[-1])
    return lambda value: start + (scale(value) - low) / (high - low) * (end - start)


def _texts(axis: Sequence[float]) -> list[str]:
    """The marks of an axis in as few digits as tell them apart."""
    for digits in range(3, 9):
        texts = [_text(value, digits) for value in axis]
        if len(set(texts)) == len(axis):
            break
    return texts


def _text(value: float, digits: int) -> str:
    for size, letter in ((1e6, 'M'), (1e3, 'k')):
        if abs(value) >= size:
            return f'{value / size:.{digits}g}{letter}'
    if value == 0 or abs(value) >= 1e-3:
        return f'{value:.{digits}g}'
    mantissa, exponent = f'{value:.{digits - 1}e}'.split('e')
    return f'{float(mantissa):g}e{int(exponent)}'


# ---- drawing ----------------------------------------------------------------------------------------


def svg(curve: Curve) -> Markup:
    """The chart as an SVG element, coloured by the page's style sheet."""
    chart = lay_out(curve)
    bottom, parts = HEIGHT - BOTTOM, []
    for y, text in chart.y_ticks:
        parts.append(
            element(
                'line', {'class': 'grid', 'x1': LEFT, 'x2': WIDTH - RIGHT, 'y1': f'{y:.1f}', 'y2': f'{y:.1f}'}
            )
        )
        parts.append(element('text', {'x': LEFT - 7, 'y': f'{y + 4:.1f}', 'text-anchor': 'end'}, text))
    for x, text in chart.x_ticks:
        parts.append(element('text', {'x': f'{x:.1f}', 'y': bottom + 18, 'text-anchor': 'middle'}, text))
    if chart.band is not None:
        parts.append(element('polygon', {'class': 'band', 'points': _points(chart.band)}))
    parts.append(element('polyline', {'class': 'line', 'points': _points(chart.line)}))
    x, y = chart.line[-1]
    parts.append(element('circle', {'class': 'dot', 'cx': f'{x:.1f}', 'cy': f'{y:.1f}', 'r': 2.5}))
    last = f'{curve.title}: {len(curve.steps)} entries, the last {curve.values[-1]:.4g} at {curve.steps[-1]}'
    return element(
        'svg', {'viewBox': f'0 0 {WIDTH} {HEIGHT}', 'role': 'img', 'aria-label': last}, join(parts)
    )


def _points(points: np.ndarray) -> str:
    return ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)


def write_png(path: str | pathlib.Path, curves: Sequence[Curve]) -> None:
    """Writes the charts below each other as a PNG of `WIDTH * SCALE` pixels."""
    image_io.write_ldr(path, np.concatenate([_draw(curve) for curve in curves]))


def _draw(curve: Curve) -> np.ndarray:
    """A chart with its title as `[H, W, 3]` uint8."""
    chart, head = lay_out(curve), 24
    image = np.full(((HEIGHT + head) * SCALE, WIDTH * SCALE, 3), PAPER, np.uint8)
    _write(image, curve.title, (LEFT, head - 6), INK, 0.0)
    for y, text in chart.y_ticks:
        ends = _fixed(np.array([[LEFT, y + head], [WIDTH - RIGHT, y + head]]))
        cv2.line(image, ends[0].tolist(), ends[1].tolist(), GRID, 1, cv2.LINE_AA, SHIFT)
        _write(image, text, (LEFT - 7, y + head + 4), FAINT, 1.0)
    for x, text in chart.x_ticks:
        _write(image, text, (x, HEIGHT - BOTTOM + head + 18), FAINT, 0.5)
    if chart.band is not None:
        tint = image.copy()
        cv2.fillPoly(tint, [_fixed(chart.band + [0, head])], ACCENT, cv2.LINE_AA, SHIFT)
        cv2.addWeighted(tint, 0.2, image, 0.8, 0, image)
    line = _fixed(chart.line + [0, head])
    cv2.polylines(image, [line], False, ACCENT, SCALE + 1, cv2.LINE_AA, SHIFT)
    cv2.circle(image, line[-1].tolist(), (3 * SCALE) << SHIFT, ACCENT, -1, cv2.LINE_AA, SHIFT)
    return np.ascontiguousarray(image[..., ::-1])


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(points * SCALE * (1 << SHIFT)).astype(np.int32)


def _write(image: np.ndarray, text: str, place: tuple[float, float], colour: tuple, anchor: float) -> None:
    """Text on its base line; anchor 0 starts there, 0.5 has its middle and 1 its end there."""
    font, size, thick = cv2.FONT_HERSHEY_SIMPLEX, 0.42 * SCALE, max(1, SCALE // 2)
    width = cv2.getTextSize(text, font, size, thick)[0][0]
    x, y = round(place[0] * SCALE - anchor * width), round(place[1] * SCALE)
    cv2.putText(image, text, (x, y), font, size, colour, thick, cv2.LINE_AA)
