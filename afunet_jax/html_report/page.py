"""The page: tables, rows that open, curves and settings, filled into the template."""

import base64
import hashlib
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from flax import traverse_util

from afunet_jax import files, hdr, reports
from afunet_jax.errors import DataError
from afunet_jax.html_report import curves, encoding, scenes, sourced
from afunet_jax.html_report.markup import Markup, element, escape, join, name, script_json
from afunet_jax.metrics.registry import METRICS

PAGE, CURVES_PNG = 'report.html', 'training_curves.png'
NOT_METRICS = ('scene', 'method', 'height', 'width')
SECONDS, SECONDS_DIGITS = 'seconds', 2
FIRST_METRIC = 'psnr_mu'  # shown beside the scenes' names at first
DIGITS = 3  # of a number that the registry of metrics does not know
FACTS = ('weights', 'device')  # settings that stand at the top

_HERE = pathlib.Path(__file__).parent


def write_report(
    folder: str | pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    pictures: Iterable[scenes.ScenePictures | scenes.WrittenScene],
    settings: Mapping[str, Any],
    training_log: str | pathlib.Path | None = None,
    inline: bool = False,
    title: str = 'AFUNet evaluation',
    published: reports.SourcedTable | None = None,
) -> pathlib.Path:
    """Writes `folder/report.html`: one page, without network, for a browser from 2024 on.

    Args:
        folder: of the results; made if absent. Pictures go to `folder/report_files`, a file a scene, and
            are loaded when their row is opened.
        rows: as of `evaluation.evaluate`: `scene`, `method`, `height`, `width`, and metrics, which are
            numbers or None. Other values, such as a preset's name, are shown as text.
        pictures: of all scenes, of some, or of none. `write_scene` writes them as they are made;
            a generator of `ScenePictures` does as well.
        settings: what was evaluated and how; nested dicts are fine.
        training_log: a run's `metrics.jsonl` or its folder; its curves are shown, and written as
            `training_curves.png`.
        inline: puts everything into the page, and removes the files of `report_files` that it has put there.
        title: of the page.
        published: figures of papers beside those measured here, as of `published.table`.

    Returns:
        The page's path.

    Raises:
        DataError: no rows; pictures of a scene that has no rows, or twice; pictures or a log that break the
            rules of `write_scene` and `curves.read_log`.
    """
    folder = pathlib.Path(folder)
    if not rows:
        raise DataError(
            f'{folder}: a report needs one row of results or more, and there are none. Evaluate a scene.'
        )
    written = _write_pictures(folder, rows, pictures)
    drawn = _read_curves(training_log)
    columns = metrics_of(rows)
    parts = {
        'title': escape(title),
        'facts': _facts(settings),
        'means': means_table(rows, columns),
        'published': Markup('') if published is None else sourced.section(published),
        'scenes': _scenes_part(rows, columns, written, inline),
        'curves': _curves_part(drawn),
        'settings': _settings_part(settings),
        'data': script_json(_page_data(rows, columns)),
        'inlined': join(_inlined(written) if inline else ()),
    }
    files.write_text(folder / PAGE, _fill(parts))
    if drawn:
        curves.write_png(folder / CURVES_PNG, drawn)
    if inline:
        _remove(folder, written)
    return folder / PAGE


# ---- pictures and curves ---------------------------------------------------------------------------


def _write_pictures(
    folder: pathlib.Path, rows: Sequence[Mapping], pictures: Iterable
) -> dict[str, scenes.WrittenScene]:
    known, written = {row['scene'] for row in rows}, {}
    for item in pictures:
        if item.scene not in known:
            raise DataError(
                f'scene {item.scene}: there are pictures of it, but no row of results. Give both.'
            )
        if item.scene in written:
            raise DataError(f'scene {item.scene}: its pictures are given twice. Give each scene once.')
        is_written = isinstance(item, scenes.WrittenScene)
        written[item.scene] = item if is_written else scenes.write_scene(folder, item)
    return written


def _read_curves(log: str | pathlib.Path | None) -> list[curves.Curve]:
    if log is None:
        return []
    log = pathlib.Path(log)
    return curves.read_log(log / reports.TRAINING_LOG if log.is_dir() else log)


def _inlined(written: Mapping[str, scenes.WrittenScene]) -> Iterable[Markup]:
    for scene in written.values():
        yield element(
            'script', {'type': 'application/json', 'id': f'data-{scene.key}'}, scenes.read_scene_json(scene)
        )


def _remove(folder: pathlib.Path, written: Mapping[str, scenes.WrittenScene]) -> None:
    for scene in written.values():
        scene.path.unlink(missing_ok=True)
    place = folder / scenes.FOLDER
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()


# ---- tables ----------------------------------------------------------------------------------------


def metrics_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that hold numbers: in every row a number or None, and a number in one row at least."""
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in NOT_METRICS]
    found = [
        key
        for key in keys
        if all(_is_number(row.get(key)) for row in rows if row.get(key) is not None)
        and any(row.get(key) is not None for row in rows)
    ]
    return sorted(found, key=_lower_is_better)  # costs after merits


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _methods(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row['method'] for row in rows))


def _title(key: str) -> str:
    return METRICS[key].title if key in METRICS else key


def _digits(key: str) -> int:
    if key == SECONDS:
        return SECONDS_DIGITS
    return METRICS[key].digits if key in METRICS else DIGITS


def _lower_is_better(key: str) -> bool:
    return key == SECONDS or (key in METRICS and not METRICS[key].higher_is_better)


def _number(key: str, value: Any) -> str:
    if value is None or math.isnan(value):
        return '–'
    return f'{value:.{_digits(key)}f}' if math.isfinite(value) else '∞'


def _sortable(value: float | None) -> float | str | None:
    """For the script; JSON has no infinity, but JavaScript's `Number('Infinity')` is."""
    if value is None or math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else 'Infinity' if value > 0 else '-Infinity'


def _best(key: str, values: Sequence[Any]) -> float | None:
    """The best of several values; None where there is nothing to choose."""
    numbers = [value for value in values if value is not None and not math.isnan(value)]
    if len(numbers) < 2 or len(set(numbers)) < 2:
        return None
    return (min if _lower_is_better(key) else max)(numbers)


def summary(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (of the sample, n - 1) over scenes; None where a scene has no value or, of
    the deviation, where there is one scene or an infinite value."""
    if any(value is None for value in values):
        return None, None
    spread = len(values) > 1 and np.isfinite(values).all()
    return float(np.mean(values)), float(np.std(values, ddof=1)) if spread else None


def means_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Markup:
    """A line a method: the mean of each metric and its standard deviation over the scenes."""
    methods = _methods(rows)
    cells = {
        (m, key): summary([row.get(key) for row in rows if row['method'] == m])
        for m in methods
        for key in columns
    }
    lines = []
    for method in methods:
        count = sum(row['method'] == method for row in rows)
        line = [element('th', {'scope': 'row'}, name(method)), element('td', None, count)]
        for key in columns:
            mean, deviation = cells[method, key]
            best = mean is not None and mean == _best(key, [cells[m, key][0] for m in methods])
            spread = (
                ''
                if deviation is None
                else element('span', {'class': 'std'}, f' ± {_number(key, deviation)}')
            )
            line.append(element('td', {'class': 'best' if best else None}, _number(key, mean), spread))
        lines.append(element('tr', None, *line))
    head = _head(['method', 'scenes', *map(_title, columns)])
    table = element(
        'div',
        {'class': 'scroll', 'tabindex': 0, 'role': 'region', 'aria-label': 'Means'},
        element('table', None, head, element('tbody', None, *lines)),
    )
    note = element(
        'p', {'class': 'note'}, 'Mean ± standard deviation over scenes. The best mean of a column is marked.'
    )
    return element('section', None, element('h2', None, 'Means'), table, note)


def _head(titles: Sequence[str]) -> Markup:
    return element(
        'thead', None, element('tr', None, *(element('th', {'scope': 'col'}, title) for title in titles))
    )


def _scenes_part(
    rows: Sequence[Mapping], columns: Sequence[str], written: Mapping[str, scenes.WrittenScene], inline: bool
) -> Markup:
    first = _first_metric(columns)
    options = [
        element('option', {'value': key, 'selected': '' if key == first else None}, _title(key))
        for key in columns
    ]
    orders = (('given', 'as evaluated'), ('low', 'lowest first'), ('high', 'highest first'))
    choices = (
        element(
            'div',
            {'class': 'choices'},
            element('label', None, 'Metric ', element('select', {'id': 'metric'}, *options)),
            element(
                'label',
                None,
                'Order ',
                element(
                    'select',
                    {'id': 'order'},
                    *(element('option', {'value': value}, text) for value, text in orders),
                ),
            ),
        )
        if columns
        else Markup('')
    )
    methods = _methods(rows)
    head = element(
        'div',
        {'class': 'row-head', 'aria-hidden': 'true'},
        element('span', {'class': 'name'}, 'scene'),
        *(element('span', {'class': 'value'}, name(method)) for method in methods),
    )
    lines = [
        _scene_row(i, scene, rows, columns, written.get(scene), inline)
        for i, scene in enumerate(_scene_names(rows))
    ]
    bar = element('div', {'class': 'bar'}, element('h2', None, 'Scenes'), choices)
    return element('section', None, bar, head, element('div', {'class': 'rows'}, *lines))


def _scene_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row['scene'] for row in rows))


def _first_metric(columns: Sequence[str]) -> str | None:
    return FIRST_METRIC if FIRST_METRIC in columns else next(iter(columns), None)


def _scene_row(
    index: int,
    scene: str,
    rows: Sequence[Mapping],
    columns: Sequence[str],
    written: scenes.WrittenScene | None,
    inline: bool,
) -> Markup:
    """A scene that opens to its table and its viewer."""
    mine = {row['method']: row for row in rows if row['scene'] == scene}
    shown = _shown(_first_metric(columns), [mine.get(method) for method in _methods(rows)])
    values = [
        element(
            'span',
            {'class': 'value best' if cell['best'] else 'value'},
            element('span', {'class': 'method'}, name(method), ' '),
            element('span', None, cell['text']),
        )
        for method, cell in zip(_methods(rows), shown)
    ]
    place = (
        element('div', {'class': 'pictures'})
        if written
        else element('p', {'class': 'note'}, 'No pictures were written of this scene.')
    )
    source = None if written is None or inline else f'{scenes.FOLDER}/{written.path.name}'
    return element(
        'details',
        {
            'class': 'scene',
            'data-row': index,
            'data-scene': written.key if written else None,
            'data-source': source,
        },
        element('summary', None, element('span', {'class': 'name'}, name(scene)), *values),
        element('div', {'class': 'body'}, _scene_table(scene, list(mine.values()), columns), place),
    )


def _scene_table(scene: str, mine: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Markup:
    """All that the rows say of a scene: a line a method, numbers and then text."""
    texts = [
        key
        for key in dict.fromkeys(key for row in mine for key in row)
        if key not in (*columns, *NOT_METRICS) and any(row.get(key) is not None for row in mine)
    ]
    best = {key: _best(key, [row.get(key) for row in mine]) for key in columns}
    lines = []
    for row in mine:
        line = [element('th', {'scope': 'row'}, name(row['method']))]
        line += [
            element(
                'td',
                {'class': 'best' if best[key] is not None and row.get(key) == best[key] else None},
                _number(key, row.get(key)),
            )
            for key in columns
        ]
        line += [element('td', {'class': 'text'}, name(row.get(key, ''))) for key in texts]
        line.append(element('td', None, f'{row["width"]} × {row["height"]}'))
        lines.append(element('tr', None, *line))
    head = _head(['method', *map(_title, columns), *texts, 'pixels'])
    return element(
        'div',
        {'class': 'scroll', 'tabindex': 0, 'role': 'region', 'aria-label': f'Scores of {scene}'},
        element('table', None, head, element('tbody', None, *lines)),
    )


def _shown(key: str | None, mine: Sequence[Mapping | None]) -> list[dict[str, Any]]:
    """The cells of a scene for one metric, a method each: text, sortable value, whether it is the best."""
    values = [row.get(key) if row else None for row in mine]
    best = _best(key, values)
    return [
        {
            'text': _number(key, value),
            'best': best is not None and value == best,
            'value': _sortable(value),
        }
        for value in values
    ]


def _page_data(rows: Sequence[Mapping], columns: Sequence[str]) -> dict[str, Any]:
    """What the script needs to know of encodings, scales, and every metric of every scene."""
    by_scene = {scene: {} for scene in _scene_names(rows)}
    for row in rows:
        by_scene[row['scene']][row['method']] = row
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    return {
        'cell': encoding.CELL,
        'power': encoding.BASE_POWER,
        'gainCodes': encoding.GAIN_CODES,
        'gamma': hdr.GAMMA,
        'mu': hdr.MU,
        'colours': colours.tobytes().hex(),
        'scales': {
            'error': {
                'title': 'Error: largest of the channels, mu-law',
                'limit': encoding.ERROR_LIMIT,
                'power': encoding.ERROR_POWER,
                'over': True,
            },
            'probability': {
                'title': 'HDR-VDP-2: probability of detection',
                'limit': 1,
                'power': 1,
                'over': False,
            },
        },
        'values': [
            {key: _shown(key, [mine.get(method) for method in _methods(rows)]) for key in columns}
            for mine in by_scene.values()
        ],
    }


# ---- the rest of the page --------------------------------------------------------------------------


def _facts(settings: Mapping[str, Any]) -> Markup:
    found = [(key, settings[key]) for key in FACTS if key in settings]
    return element(
        'dl',
        {'class': 'facts'},
        *(
            element('div', None, element('dt', None, key), element('dd', None, name(value)))
            for key, value in found
        ),
    )


def _curves_part(drawn: Sequence[curves.Curve]) -> Markup:
    if not drawn:
        return Markup('')
    figures = [
        element('figure', None, element('figcaption', None, curve.title), curves.svg(curve))
        for curve in drawn
    ]
    note = element(
        'p',
        {'class': 'note'},
        'Over training steps. Where several entries fall into one point, the line is '
        'their mean and the band goes from the smallest to the largest.',
    )
    return element(
        'section', None, element('h2', None, 'Training'), element('div', {'class': 'charts'}, *figures), note
    )


def _settings_part(settings: Mapping[str, Any]) -> Markup:
    lines = [
        element('tr', None, element('th', {'scope': 'row'}, name(key)), element('td', None, name(value)))
        for key, value in traverse_util.flatten_dict(dict(settings), sep='.').items()
    ]
    table = element('div', {'class': 'scroll'}, element('table', None, element('tbody', None, *lines)))
    head = element('summary', None, element('span', {'class': 'name'}, 'Settings'))
    return element('details', {'class': 'settings'}, head, table)


def _fill(parts: Mapping[str, Markup]) -> str:
    """The template with its fields; what is filled in is not searched for fields again."""
    script = (_HERE / 'report.js').read_text(encoding='utf-8')
    style = (_HERE / 'report.css').read_text(encoding='utf-8')
    every = {**parts, 'script': script, 'style': style, 'policy': _policy(script, style)}
    template = (_HERE / 'template.html').read_text(encoding='utf-8')
    return re.sub(r'{{(\w+)}}', lambda field: every[field[1]], template)


def _policy(script: str, style: str) -> str:
    """Only the page's own script runs, and the files that it loads; nothing is fetched from elsewhere."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {digest(script)} 'strict-dynamic'; style-src {digest(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
