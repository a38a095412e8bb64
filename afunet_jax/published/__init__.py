"""Figures that papers have published, beside ours.

The CSV files here, one a data set, hold a row per method and table, copied from the source that the row
names under `read_in`; a figure that was not found in a source is empty. Papers compute SSIM in different
ways and HDR-VDP-2 under different presets; what is not known to be equal has its own column.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from afunet_jax import reports
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics.registry import METRICS, hdrvdp2_name

FOLDER = pathlib.Path(__file__).parent
DATASETS = tuple(sorted(path.stem for path in FOLDER.glob('*.csv')))
FIGURES = (
    'psnr_mu',
    'psnr_l',
    'ssim_mu',
    'ssim_l',
    'matlab_ssim_l',
)  # columns of the files, names of METRICS
UNKNOWN = hdrvdp2_name('unknown')  # HDR-VDP-2 of papers that do not say their preset
UNKNOWN_TITLE = 'HDR-VDP-2 (unknown preset)'
SECONDS = 'seconds'  # `reports.means` has it beside the metrics; it belongs to a machine and is not shown


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """What one table says of one method.

    Attributes:
        method: its name in the table.
        dataset: name of the layout, as in `data.layouts`.
        figures: metric to figure as printed (so many digits), keys of `METRICS` or `UNKNOWN`.
        paper: that holds the table; not always the method's own.
        table: which one.
        year: of the paper.
        arxiv: its number, or empty.
        read_in: the source from which the figures were copied.
        note: anything else, or empty.
    """

    method: str
    dataset: str
    figures: Mapping[str, str]
    paper: str
    table: str
    year: int
    arxiv: str
    read_in: str
    note: str

    @property
    def source(self) -> str:
        """Paper, table and provenance in a line."""
        where = f'arXiv {self.arxiv}' if self.arxiv else 'no arXiv number'
        note = f'; {self.note}' if self.note else ''
        return f'{self.paper}, {where}, {self.table}; read in: {self.read_in}{note}'


def rows(dataset: str) -> list[PublishedRow]:
    """The published rows of a data set, in the order of the file.

    Raises:
        ConfigError: nothing is published for this data set here.
        DataError: a row of the file is damaged.
    """
    if dataset not in DATASETS:
        raise ConfigError(
            f'there are no published figures of the data set {dataset!r}, only of {", ".join(DATASETS)}'
        )
    path = FOLDER / f'{dataset}.csv'
    with path.open(newline='', encoding='utf-8') as file:
        return [
            _row(dataset, record, f'{path}:{line}')
            for line, record in enumerate(csv.DictReader(file), start=2)
        ]


def _row(dataset: str, record: Mapping[str, str], where: str) -> PublishedRow:
    try:
        figures = {name: record[name] for name in FIGURES}
        preset = record['preset']
        figures[hdrvdp2_name(preset) if preset else UNKNOWN] = record['hdrvdp2']
        figures = {name: figure for name, figure in figures.items() if figure}
        for name, figure in figures.items():
            float(figure)
            if name != UNKNOWN and name not in METRICS:
                raise ValueError(f'unknown metric {name}')
        rest = {name: record[name] for name in ('method', 'paper', 'table', 'arxiv', 'read_in', 'note')}
        return PublishedRow(dataset=dataset, figures=figures, year=int(record['year']), **rest)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f'{where} is no row of published figures: {error!r}. Restore the file.') from error


def table(dataset: str, measured: Mapping[str, Mapping[str, float | None]]) -> reports.SourcedTable:
    """Published and measured rows in one table, with their sources.

    A column holds figures of one definition only: each preset of HDR-VDP-2 has its own, and so have papers
    that do not say theirs. A published row whose figures all stand in another row of the same method is
    shown there, with both sources.

    Args:
        dataset: one of `DATASETS`.
        measured: method to metrics, as `reports.means` gives them; keys of `METRICS` (and 'seconds', which
            is left out). None is a figure that there is not.

    Raises:
        ConfigError: no published figures of the data set, or a metric without a name in `METRICS`.
    """
    published = rows(dataset)
    names = _columns(published, measured)
    sources = list(dict.fromkeys(row.source for row in published))
    lines = [
        reports.SourcedLine(row.method, row.figures, tuple(sources.index(source) + 1 for source in found))
        for row, found in _folded(published)
    ]
    lines += [reports.SourcedLine(method, _printed(figures)) for method, figures in measured.items()]
    titles = {name: _title(name) for name in names}
    return reports.SourcedTable(dataset, titles, tuple(lines), tuple(sources))


def _columns(
    published: Sequence[PublishedRow], measured: Mapping[str, Mapping[str, float | None]]
) -> list[str]:
    found = {name for row in published for name in row.figures}
    for method, figures in measured.items():
        strange = set(figures) - set(METRICS) - {SECONDS}
        if strange:
            raise ConfigError(
                f'{method}: no metric is called {", ".join(sorted(strange))}. A name says its definition and '
                'preset, as hdrvdp2_sctnet does; see METRICS in afunet_jax/metrics/registry.py'
            )
        found |= set(figures) - {SECONDS}
    return [name for name in (*METRICS, UNKNOWN) if name in found]


def _folded(published: Sequence[PublishedRow]) -> list[tuple[PublishedRow, list[str]]]:
    """The rows that say more than others of their method, each with its sources."""
    kept = []
    for i, row in enumerate(published):
        more = any(_says(other, row) and not _says(row, other) for other in published)
        if not more and not any(_says(other, row) for other in published[:i]):
            kept.append((row, [other.source for other in published if _says(row, other)]))
    return kept


def _says(row: PublishedRow, other: PublishedRow) -> bool:
    return row.method == other.method and other.figures.items() <= row.figures.items()


def _title(name: str) -> str:
    return UNKNOWN_TITLE if name == UNKNOWN else METRICS[name].title


def _printed(figures: Mapping[str, float | None]) -> dict[str, str]:
    return {
        name: f'{value:.{METRICS[name].digits}f}'
        for name, value in figures.items()
        if name in METRICS and value is not None
    }
