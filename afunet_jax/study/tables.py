"""The table of a study: parameters, time of training, metrics, differences from the first row."""

import csv
import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

from afunet_jax import checkpoints, files, reports
from afunet_jax.data.progress import format_duration
from afunet_jax.errors import DataError
from afunet_jax.metrics.registry import METRICS
from afunet_jax.study.entries import Entry, Record, is_finished, read_record

TABLE = 'study'  # the files' name, before the suffix
FREE_IN_TABLE = (  # may differ between rows whose figures are compared
    'data.prepared_dir', 'data.follow_links', 'data.max_pixels',
    'eval.baselines', 'eval.memory_limit', 'eval.metrics', 'eval.pictures', 'eval.report', 'eval.report_inline',
)  # fmt: skip
OTHER_DIGITS = 5  # behind the point, of figures that METRICS does not have
SECONDS = 'seconds'  # of a scene's inference; stands among the means
SECONDS_TITLE, SECONDS_DIGITS = 'seconds/scene', 2


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table; see `rows_of`.

    Attributes:
        entry: the config.
        status: 'finished', or what happened instead.
        record: of the training.
        means: metric to mean over the scenes, None without ground truth; empty if there are no results.
        differences: metric to the mean less that of the first row, None where they cannot be compared.
        notes: what a reader of the row must know.
    """

    entry: Entry
    status: str
    record: Record
    means: Mapping[str, float | None]
    differences: Mapping[str, float | None]
    notes: tuple[str, ...]


def rows_of(entries: Sequence[Entry], failures: Mapping[str, str] | None = None) -> list[Row]:
    """The table's rows, from the records and the files of results.

    Differences are from the first entry. They are None where its figure or ours is missing, and where data or
    evaluation were set differently; a note says so.

    Args:
        entries: of the study.
        failures: name to what went wrong.

    Raises:
        DataError: a file of results is damaged.
    """
    first = _means(entries[0])
    rows = []
    for entry in entries:
        record, means = read_record(entry), _means(entry)
        status = (failures or {}).get(entry.name) or ('finished' if means else 'not finished')
        differing = _differing(entry, entries[0])
        differences = {
            key: None if differing else _difference(value, first.get(key)) for key, value in means.items()
        }
        rows.append(
            Row(entry, status, record, means, differences, _notes(status, record, differing, entries[0]))
        )
    return rows


def _means(entry: Entry) -> dict[str, float | None]:
    """Of the first method, which is the network; empty if it is not finished."""
    if not is_finished(entry):
        return {}
    try:
        means = next(iter(json.loads(entry.results.read_text(encoding='utf-8'))['means'].values()))
        return {key: None if value is None else float(value) for key, value in means.items()}
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise DataError(
            f'{entry.results} is not a file of results of eval.py: {error!r}. Remove it, and start again.'
        ) from error


def _difference(value: float | None, first: float | None) -> float | None:
    known = value is not None and first is not None and math.isfinite(value) and math.isfinite(first)
    return value - first if known else None


def _differing(entry: Entry, first: Entry) -> list[str]:
    """The settings of data and evaluation in which an entry differs from the first."""
    ours, theirs = (
        checkpoints.flat({'data': e.settings['data'], 'eval': e.settings['eval']}) for e in (entry, first)
    )
    return [
        f'{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here'
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key) and not checkpoints.is_free(key, FREE_IN_TABLE)
    ]


def _notes(status: str, record: Record, differing: Sequence[str], first: Entry) -> tuple[str, ...]:
    notes = [] if status == 'finished' else [status]
    if record.starts > 1:
        notes.append(f'trained in {record.starts} starts; steps that were lost in between are in its time')
    if differing:
        notes.append(f'measured in another way than {first.name}, so not compared: {"; ".join(differing)}')
    return tuple(notes)


def format_table(rows: Sequence[Row]) -> str:
    """Parameters, time of training, the metrics' means and differences from the first row; notes below."""
    metrics = _metrics(rows)
    titles = ['config', 'parameters', 'training']
    for metric in metrics:
        titles += [_title(metric), '+/-']
    lines = [
        [row.entry.name, f'{row.entry.parameters:,}', format_duration(row.record.train_seconds)]
        + [cell for metric in metrics for cell in _cells(row, metric, row is rows[0])]
        for row in rows
    ]
    notes = [f'{row.entry.name}: {note}' for row in rows for note in row.notes]
    below = [f'+/-: less {rows[0].entry.name}'] if metrics else []
    return '\n'.join([reports.table(titles, lines), *below, *notes])


def _metrics(rows: Sequence[Row]) -> list[str]:
    """All metrics of the rows: those of METRICS in its order, then others, then the seconds."""
    found = list(dict.fromkeys(key for row in rows for key in row.means))
    known = [name for name in METRICS if name in found]
    others = [name for name in found if name not in METRICS and name != SECONDS]
    return known + others + [name for name in found if name == SECONDS]


def _title(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else SECONDS_TITLE if metric == SECONDS else metric


def _cells(row: Row, metric: str, is_first: bool) -> list[str]:
    other = SECONDS_DIGITS if metric == SECONDS else OTHER_DIGITS
    digits = METRICS[metric].digits if metric in METRICS else other
    mean, difference = row.means.get(metric), row.differences.get(metric)
    return [
        '-' if mean is None else f'{mean:.{digits}f}',
        '' if is_first else '-' if difference is None else f'{difference:+.{digits}f}',
    ]


def write_tables(out: pathlib.Path, rows: Sequence[Row]) -> None:
    """Writes `study.txt`, `study.csv` and `study.json` into `out`."""
    files.write_text(out / f'{TABLE}.txt', format_table(rows) + '\n')
    files.write_json(out / f'{TABLE}.json', reports.json_able({'first': rows[0].entry.name, 'rows': [
        {
            'name': row.entry.name, 'config': row.entry.config, 'status': row.status,
            'parameters': row.entry.parameters, 'train_seconds': row.record.train_seconds,
            'starts': row.record.starts, 'means': row.means, 'differences': row.differences,
            'notes': row.notes, 'settings': row.entry.settings,
        }
        for row in rows
    ]}))  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    metrics = _metrics(rows)
    pairs = [name for metric in metrics for name in (metric, f'{metric}_difference')]
    writer.writerow(['name', 'config', 'status', 'parameters', 'train_seconds', 'starts', *pairs])
    for row in rows:
        entry, record = row.entry, row.record
        figures = [figures.get(metric) for metric in metrics for figures in (row.means, row.differences)]
        about = [entry.name, entry.config, row.status, entry.parameters, record.train_seconds, record.starts]
        writer.writerow(about + figures)
    files.write_text(out / f'{TABLE}.csv', text.getvalue())
