"""Results on the screen and on disk: tables, JSON, CSV, pictures."""

import csv
import dataclasses
import io
import math
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np

from afunet_jax import files, hdr, image_io
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics.registry import METRICS

TRAINING_LOG = 'metrics.jsonl'  # in a run's folder: training writes it, the HTML report draws it
RESULTS = ('results.json', 'results.csv', 'results.txt')
PICTURES, OVERVIEW = 'pictures', 'overview.png'  # a folder in that of an evaluation, and a picture in it
SECONDS = 'seconds'
SECONDS_DIGITS = 2
GROUND_TRUTH = 'ground truth'
LONGEST_NAME = 255  # bytes of a folder's name
OVERVIEW_ROWS, OVERVIEW_WIDTH, OVERVIEW_GAP = 6, 384, 4  # scenes, pixels of a picture, pixels between


PUBLISHED, MEASURED = 'published', 'measured'  # where a line's figures come from
SOURCES_BETWEEN = ' | '  # sources of one line in a CSV file


@dataclasses.dataclass(frozen=True)
class SourcedLine:
    """A method in a `SourcedTable`.

    Attributes:
        method: its name.
        figures: column to figure as printed; columns without a figure are left out.
        sources: numbers, from 1, of the sources that published it; none where it was measured here.
    """

    method: str
    figures: Mapping[str, str]
    sources: tuple[int, ...] = ()

    @property
    def origin(self) -> str:
        """'published' or 'measured'."""
        return PUBLISHED if self.sources else MEASURED


@dataclasses.dataclass(frozen=True)
class SourcedTable:
    """Published and measured figures of a data set, each with its source.

    Attributes:
        dataset: its name.
        titles: column to title, in order; a column holds figures of one definition only.
        lines: a method each.
        sources: texts that the lines name by number.
    """

    dataset: str
    titles: Mapping[str, str]
    lines: tuple[SourcedLine, ...]
    sources: tuple[str, ...]

    def text(self) -> str:
        """For a screen: the table, then the sources."""
        lines = [
            [line.method, f'{line.origin} {"".join(f"[{number}]" for number in line.sources)}'.rstrip()]
            + [line.figures.get(name, '-') for name in self.titles]
            for line in self.lines
        ]
        notes = [f'[{number}] {source}' for number, source in enumerate(self.sources, start=1)]
        return '\n'.join([table(['method', 'from', *self.titles.values()], lines), '', *notes])

    def csv(self) -> str:
        """For programs: method, from, a column a metric by its name, and the sources' texts."""
        lines = [
            {
                'method': line.method, 'from': line.origin, **line.figures,
                'sources': SOURCES_BETWEEN.join(self.sources[number - 1] for number in line.sources),
            }
            for line in self.lines
        ]  # fmt: skip
        return _csv(['method', 'from', *self.titles, 'sources'], lines)


def write_sourced(folder: pathlib.Path, found: SourcedTable) -> None:
    """Writes `published.txt` and `published.csv`."""
    files.write_text(folder / f'{PUBLISHED}.txt', found.text() + '\n')
    files.write_text(folder / f'{PUBLISHED}.csv', found.csv())


def _csv(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text columns: the first aligned left, the others right."""
    widths = [max(len(line[i]) for line in (titles, *rows)) for i in range(len(titles))]
    lines = [
        '  '.join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:]))]).rstrip()
        for line in (titles, *rows)
    ]
    return '\n'.join([lines[0], '-' * max(map(len, lines)), *lines[1:]])


def metrics_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that rows of results hold, in the registry's order."""
    return [name for name in METRICS if name in rows[0]]


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Per method the plain mean over its scenes of every metric and of the seconds."""
    return _over_scenes(rows, np.mean)


def deviations(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Per method the standard deviation over its scenes (of a sample: n - 1) of every metric and of the seconds.

    None for a single scene, and where a figure is infinite.
    """
    finite = lambda values: len(values) > 1 and np.isfinite(values).all()  # noqa: E731
    return _over_scenes(rows, lambda values: np.std(values, ddof=1) if finite(values) else None)


def _over_scenes(
    rows: Sequence[Mapping[str, Any]], f: Callable[[Sequence[float]], float | None]
) -> dict[str, dict[str, float | None]]:
    result = {}
    for method in dict.fromkeys(row['method'] for row in rows):
        mine = [row for row in rows if row['method'] == method]
        result[method] = {
            key: None if any(row[key] is None for row in mine) else _float(f([row[key] for row in mine]))
            for key in (*metrics_of(rows), SECONDS)
        }
    return result


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def scores_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The scores per scene and method, the means and the standard deviations over scenes."""
    metrics = metrics_of(rows)

    def line(scene: str, method: str, values: Mapping[str, Any]) -> list[str]:
        figures = [_number(values[name], METRICS[name].digits) for name in metrics]
        return [scene, method, *figures, _number(values[SECONDS], SECONDS_DIGITS)]

    lines = [line(row['scene'], row['method'], row) for row in rows]
    lines += [line('mean', method, values) for method, values in means(rows).items()]
    lines += [line('deviation', method, values) for method, values in deviations(rows).items()]
    return table(['scene', 'method', *(METRICS[name].title for name in metrics), SECONDS], lines)


def make_folder(folder: pathlib.Path) -> None:
    """Makes the folder of an evaluation.

    Raises:
        ConfigError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f'--out={folder}: cannot be made or written ({error.strerror}); name a folder') from error


def remove_results(folder: pathlib.Path, report: str) -> None:
    """Removes what tells of a whole evaluation, the page `report` too; pictures stay until they are written anew."""
    for name in (*RESULTS, f'{PUBLISHED}.txt', f'{PUBLISHED}.csv', report, f'{PICTURES}/{OVERVIEW}'):
        (folder / name).unlink(missing_ok=True)


def write_results(folder: pathlib.Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Writes `results.json` (about, means, deviations, scenes), `results.csv` (scenes) and `results.txt` (the table).

    Figures that are not numbers in JSON (the PSNR of equal images is infinite) are written as strings.
    """
    content = {**about, 'means': means(rows), 'deviations': deviations(rows), 'scenes': list(rows)}
    as_json, as_csv, as_text = (folder / name for name in RESULTS)
    files.write_json(as_json, json_able(content))
    files.write_text(as_csv, _csv(list(rows[0]), rows))
    files.write_text(as_text, scores_table(rows) + '\n')


def write_pictures(
    folder: pathlib.Path, scene: str, images: Mapping[str, np.ndarray], label: np.ndarray | None
) -> None:
    """Writes every method's image as `.hdr` and as a mu-law PNG, and the ground truth as PNG, into `folder/SCENE`."""
    too_long = len(scene.encode('utf-8', 'surrogateescape')) > LONGEST_NAME
    if scene in ('', '.', '..') or too_long or set('/\\\0') & set(scene):
        raise DataError(f'scene {scene[:100]!r}: its pictures go into a folder of its name, a plain one of at '
                        f'most {LONGEST_NAME} bytes. Rename the scene.')
    (folder / scene).mkdir(parents=True, exist_ok=True)
    for method, image in images.items():
        name = _file_name(method)
        image_io.write_hdr(folder / scene / f'{name}.hdr', np.maximum(image, 0))
        image_io.write_ldr(folder / scene / f'{name}.png', mu_law_picture(image))
    truth = folder / scene / f'{_file_name(GROUND_TRUTH)}.png'
    if label is None:
        truth.unlink(missing_ok=True)  # of an earlier evaluation, of other data
    else:
        image_io.write_ldr(truth, mu_law_picture(label))


def write_overview(folder: pathlib.Path, scenes: Sequence[str], methods: Sequence[str]) -> None:
    """One picture of the first scenes, a row each: the methods' pictures and the ground truth side by side.

    Args:
        folder: where `write_pictures` has put them; the overview goes there as `overview.png`.
        scenes: names; the first `OVERVIEW_ROWS` are shown.
        methods: names, a column each.
    """
    columns = [*methods, GROUND_TRUTH]
    rows = []
    for scene in scenes[:OVERVIEW_ROWS]:
        paths = [folder / scene / f'{_file_name(column)}.png' for column in columns]
        rows.append(np.concatenate([_thumbnail(path) for path in paths if path.exists()], axis=1))
    widest = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, OVERVIEW_GAP), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    picture = np.concatenate([_caption(columns, widest), *rows])
    image_io.write_ldr(folder / OVERVIEW, picture)


def _thumbnail(path: pathlib.Path) -> np.ndarray:
    image = iio.imread(path)
    height = round(image.shape[0] * OVERVIEW_WIDTH / image.shape[1])
    small = cv2.resize(image, (OVERVIEW_WIDTH, height), interpolation=cv2.INTER_AREA)
    return np.pad(small, ((0, 0), (0, OVERVIEW_GAP), (0, 0)), constant_values=255)


def _caption(columns: Sequence[str], width: int) -> np.ndarray:
    bar = np.full((28, width, 3), 255, np.uint8)
    for i, column in enumerate(columns):
        place = (i * (OVERVIEW_WIDTH + OVERVIEW_GAP) + 4, 19)
        cv2.putText(bar, column, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return bar


def _file_name(title: str) -> str:
    return title.replace(' ', '_')


def mu_law_picture(image: np.ndarray) -> np.ndarray:
    """A linear image as the field shows it: mu-law, clipped to [0, 1], uint8 `[H, W, 3]`."""
    return np.round(255 * np.clip(hdr.mu_law(np.maximum(image, 0)), 0, 1)).astype(np.uint8)


def _number(value: float | None, digits: int) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def json_able(value: Any) -> Any:
    """A tree with figures that are not finite as strings, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {key: json_able(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_able(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
