"""Paired comparison of two evaluations: is A better than B, scene by scene?

    python -m afunet_jax.comparison A/results.json B/results.json

Reads the files that `reports.write_results` writes. Per metric: the mean of A - B over the scenes, its 95%
interval by bootstrap over scenes, and in how many scenes A and B won. An interval that holds 0 means that
these scenes do not tell which is better.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afunet_jax import cli, files, reports
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics.registry import METRICS

RESULTS = 'results.json'
RESAMPLES = 10_000
LEVEL = 0.95  # of the interval
SEED = 0
CHUNK = 1_000  # resamples drawn at once: 1000 x 1000 scenes are 8 MB
SECONDS = 'seconds'  # less is better, and it belongs to a machine
NOT_SCORES = ('scene', 'method', 'height', 'width', SECONDS)
# Settings that change no figure of a scene: they may differ.
FREE_SETTINGS = {
    'data': ('dir', 'prepared_dir', 'follow_links', 'max_pixels'),
    'eval': ('baselines', 'memory_limit', 'metrics', 'pictures', 'report', 'report_inline', 'scenes'),
}


@dataclasses.dataclass(frozen=True)
class Results:
    """One method of one evaluation.

    Attributes:
        path: the file.
        method: name of the method.
        settings: what was evaluated and how, 'section.key' to value.
        sizes: scene to (height, width).
        scores: scene to metric to figure; None without ground truth, infinite for equal images.
    """

    path: pathlib.Path
    method: str
    settings: Mapping[str, Any]
    sizes: Mapping[str, tuple[int, int]]
    scores: Mapping[str, Mapping[str, float | None]]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A metric of A less that of B over the same scenes; figures are None where a scene has no finite one.

    Attributes:
        metric: name in `METRICS`.
        mean_a: mean of A.
        mean_b: mean of B.
        mean: of A - B.
        low: lower end of the interval of `mean`; None for a single scene.
        high: upper end.
        won: scenes where A is better.
        lost: scenes where B is better.
        tied: scenes where both are equal.
        without: scenes without a finite figure in both, which forbid the mean.
    """

    metric: str
    mean_a: float | None
    mean_b: float | None
    mean: float | None
    low: float | None
    high: float | None
    won: int
    lost: int
    tied: int
    without: tuple[str, ...]


def read_results(path: str | pathlib.Path, method: str | None = None) -> Results:
    """Reads one method of a file of results.

    Args:
        path: `results.json`, or the folder that holds it.
        method: its name; None takes the first, which is the network.

    Raises:
        DataError: no such file, not a file of results, or no such method.
    """
    path = pathlib.Path(path)
    path = path / RESULTS if path.is_dir() else path
    content = _read(path)
    try:
        found = list(dict.fromkeys(row['method'] for row in content['scenes']))
        if not found:
            raise DataError(f'{path} holds no scenes. Evaluate again.')
        method = found[0] if method is None else method
        if method not in found:
            raise DataError(
                f'{path} has no method {method!r}, only {", ".join(found)}. Choose by --method or --method_b.'
            )
        return _results(path, method, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f'{path} is not a file of results of eval.py: {error!r}. Evaluate again.') from error


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise DataError(
            f'{path} cannot be read ({error.strerror}). Name a {RESULTS} of eval.py or its folder.'
        ) from error
    except ValueError as error:
        raise DataError(f'{path} is not JSON: {error}. Name a {RESULTS} of eval.py.') from error


def _results(path: pathlib.Path, method: str, content: Mapping[str, Any]) -> Results:
    mine = [row for row in content['scenes'] if row['method'] == method]
    names = [row['scene'] for row in mine]
    if len(set(names)) != len(names):
        raise DataError(f'{path} has the same scene twice for {method!r}. Evaluate again.')
    settings = {
        f'{section}.{key}': value
        for section, free in FREE_SETTINGS.items()
        for key, value in content[section].items()
        if key not in free
    }
    scores = {row['scene']: {k: _number(v) for k, v in row.items() if k not in NOT_SCORES} for row in mine}
    return Results(
        path, method, settings, {row['scene']: (row['height'], row['width']) for row in mine}, scores
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)  # 'inf' as a string too: JSON has no infinity


def compare(a: Results, b: Results, common_scenes: bool = False, seed: int = SEED) -> list[Difference]:
    """The differences of all metrics that both have, in the order of A; the same resamples for all.

    Args:
        a: one result.
        b: the other.
        common_scenes: compare the scenes that both have, instead of refusing different ones.
        seed: of the resamples.

    Raises:
        DataError: scenes, their sizes or settings differ, there is no common scene or metric, or a metric
            is not in `METRICS`.
    """
    _check_settings(a, b)
    scenes = _scenes(a, b, common_scenes)
    metrics = _metrics(a, b, scenes)
    return [_difference(metric, scenes, a, b, seed) for metric in metrics]


def _check_settings(a: Results, b: Results) -> None:
    missing = object()
    keys = sorted(
        key
        for key in {*a.settings, *b.settings}
        if a.settings.get(key, missing) != b.settings.get(key, missing)
    )
    if keys:
        differ = '; '.join(f'{key}: {_shown(a, key)} and {_shown(b, key)}' for key in keys)
        raise DataError(
            f'{a.path} and {b.path} were evaluated under different settings, so their figures cannot be '
            f'compared: {differ}. Evaluate both in the same way.'
        )


def _shown(results: Results, key: str) -> str:
    return repr(results.settings[key]) if key in results.settings else 'not set'


def _scenes(a: Results, b: Results, common_scenes: bool) -> list[str]:
    common = [scene for scene in a.scores if scene in b.scores]
    alone = [[scene for scene in x.scores if scene not in y.scores] for x, y in ((a, b), (b, a))]
    if any(alone) and not common_scenes:
        lists = ' and '.join(
            f'{len(names)} only in {x.path} ({_some(names)})' for x, names in zip((a, b), alone)
        )
        raise DataError(f'the scenes differ: {lists}. Evaluate the same ones, or pass --common_scenes.')
    if not common:
        raise DataError(
            f'{a.path} and {b.path} have no scene in common. Compare results of the same data set.'
        )
    for scene in common:
        if a.sizes[scene] != b.sizes[scene]:
            raise DataError(
                f'scene {scene} has {a.sizes[scene]} pixels in {a.path}, but {b.sizes[scene]} in {b.path}: '
                'these are not the same images. Compare results of the same data set.'
            )
    return common


def _some(names: Sequence[str], shown: int = 3) -> str:
    return ', '.join([*names[:shown], *(['...'] if len(names) > shown else [])]) or 'none'


def _metrics(a: Results, b: Results, scenes: Sequence[str]) -> list[str]:
    mine, theirs = ({key for scene in scenes for key in x.scores[scene]} for x in (a, b))
    strange = (mine | theirs) - set(METRICS)
    if strange:
        raise DataError(
            f'{a.path} or {b.path} holds {", ".join(sorted(strange))}, which is no metric of this version; '
            'see METRICS in afunet_jax/metrics/registry.py. Evaluate again.'
        )
    common = [key for key in a.scores[scenes[0]] if key in mine & theirs]
    if not common:
        raise DataError(f'{a.path} and {b.path} have no metric in common. Evaluate with the same metrics.')
    return common


def _difference(metric: str, scenes: Sequence[str], a: Results, b: Results, seed: int) -> Difference:
    pairs = {scene: (a.scores[scene].get(metric), b.scores[scene].get(metric)) for scene in scenes}
    known = [pair for pair in pairs.values() if None not in pair]
    sign = 1 if METRICS[metric].higher_is_better else -1
    won, lost, tied = (sum((x > y) - (x < y) == sign * want for x, y in known) for want in (1, -1, 0))
    without = tuple(
        s for s, pair in pairs.items() if not all(v is not None and math.isfinite(v) for v in pair)
    )
    if without:
        return Difference(metric, None, None, None, None, None, won, lost, tied, without)
    values = np.array(known, np.float64)
    differences = values[:, 0] - values[:, 1]
    low, high = bootstrap_interval(differences, seed)
    mean_a, mean_b = map(float, values.mean(axis=0))
    return Difference(metric, mean_a, mean_b, float(differences.mean()), low, high, won, lost, tied, ())


def bootstrap_interval(
    values: np.ndarray, seed: int = SEED, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float | None, float | None]:
    """The percentile interval of the mean of `values` `[N]`, by drawing N of them with replacement.

    Returns:
        Its ends, or (None, None) for fewer than two values, of which nothing can be said.
    """
    if len(values) < 2:
        return None, None
    rng = np.random.default_rng(seed)
    means = [
        values[rng.integers(len(values), size=(min(CHUNK, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, CHUNK)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def format_comparison(a: Results, b: Results, found: Sequence[Difference]) -> str:
    """The differences as a table, with what A and B are above it and what is missing below."""
    lines = [_line(difference) for difference in found]
    titles = ['metric', 'A', 'B', 'A - B', f'{LEVEL:.0%} interval', 'A wins', 'B wins', 'ties']
    text = [f'A: {a.method} of {a.path}', f'B: {b.method} of {b.path}', '', reports.table(titles, lines)]
    text += [
        f'{METRICS[d.metric].title}: no mean, because these scenes have no finite figure in both: '
        f'{_some(d.without)}'
        for d in found
        if d.without
    ]
    return '\n'.join(text)


def _line(found: Difference) -> list[str]:
    metric = METRICS[found.metric]
    digits = metric.digits
    plain = ['-' if value is None else f'{value:.{digits}f}' for value in (found.mean_a, found.mean_b)]
    mean, low, high = ('-' if v is None else f'{v:+.{digits}f}' for v in (found.mean, found.low, found.high))
    interval = '-' if found.low is None else f'{low} to {high}'
    return [metric.title, *plain, mean, interval, str(found.won), str(found.lost), str(found.tied)]


def to_json(a: Results, b: Results, found: Sequence[Difference], seed: int = SEED) -> dict[str, Any]:
    """The comparison as a tree for `files.write_json`."""
    return {
        **{key: {'path': str(x.path), 'method': x.method} for key, x in (('a', a), ('b', b))},
        'settings': dict(a.settings),
        'scenes': [scene for scene in a.scores if scene in b.scores],
        'bootstrap': {'resamples': RESAMPLES, 'level': LEVEL, 'seed': seed},
        'metrics': [dataclasses.asdict(difference) for difference in found],
    }


@cli.errors_as_messages
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    flags = _parser().parse_args(arguments)
    if flags.json and flags.json.is_dir():
        raise ConfigError(f'--json={flags.json} is a folder; name a file')
    a = read_results(flags.a, flags.method)
    b = read_results(flags.b, flags.method if flags.method_b is None else flags.method_b)
    found = compare(a, b, flags.common_scenes, flags.seed)
    print(format_comparison(a, b, found))
    if flags.json:
        files.write_json(flags.json, reports.json_able(to_json(a, b, found, flags.seed)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m afunet_jax.comparison', description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add('a', type=pathlib.Path, metavar='A', help='results.json of eval.py, or its folder')
    add('b', type=pathlib.Path, metavar='B', help='the other one')
    add('--method', help='of both (default: the first in each file, the network)')
    add('--method_b', help='of B, if it is another one')
    add('--common_scenes', action='store_true', help='compare the scenes that both have')
    add('--seed', type=cli.natural, default=SEED, help='of the resamples')
    add('--json', type=pathlib.Path, metavar='FILE', help='write the comparison there too')
    return parser


if __name__ == '__main__':
    sys.exit(main())
