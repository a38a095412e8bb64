"""Checks a data folder: `python -m afunet_jax.data.check --dir=DIR --layout=kalantari [--json=FILE]`.

Reads every file of every scene and reports the scenes found against those expected, sizes, exposures as
read, how much of each exposure is saturated, and everything that is wrong, not only the first. The
report goes to stdout, progress to stderr. Exit status: 0 all is well, 1 something is wrong, 2 the
command line is.

A pixel is saturated where the largest of its three channels is above `hdr.SATURATED`.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from afunet_jax import cli, hdr, image_io
from afunet_jax.data import scenes
from afunet_jax.data.layouts import LAYOUTS, SPLITS, Layout, get_layout
from afunet_jax.errors import ConfigError, DataError

OK, WRONG, USAGE = 0, 1, 2
PROGRESS_SECONDS = 1.0  # between two lines of progress on a terminal
PROGRESS_SECONDS_LOG = 15.0  # and in a file


@dataclasses.dataclass(frozen=True)
class SceneReport:
    """What the check found in one scene.

    Attributes:
        split: 'train' or 'test'.
        name: of the scene.
        size: height and width of the middle exposure, or of the first that can be read; None if none can.
        evs: exposures in stops as read; None if they cannot be.
        saturated: share of saturated pixels, 0 to 1, per exposure; None for one that cannot be read.
        label_max: the largest value of the label; None without a label.
        problems: everything that is wrong, with file and cure.
        warnings: what is worth knowing but can be read, such as images of 8 bits.
    """

    split: str
    name: str
    size: tuple[int, int] | None
    evs: tuple[float, ...] | None
    saturated: tuple[float | None, ...]
    label_max: float | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """Scenes found and expected in one split; `problems` are those of the folder, not of a scene."""

    split: str
    found: int
    expected: int | None
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """The whole check, ready for JSON."""

    folder: str
    layout: str
    splits: tuple[SplitReport, ...]
    scenes: tuple[SceneReport, ...]

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, in the order of splits and scenes."""
        return [problem for part in (*self.splits, *self.scenes) for problem in part.problems]

    @property
    def warnings(self) -> list[str]:
        """What is worth knowing, in the order of the scenes."""
        return [warning for scene in self.scenes for warning in scene.warnings]


def saturated_share(ldr: np.ndarray) -> float:
    """Share of the pixels whose largest channel is above `hdr.SATURATED`; `[H, W, 3]` uint16, 0 to 1."""
    return float((ldr.max(axis=-1) > hdr.SATURATED).mean())


def check_scene(files: scenes.SceneFiles, split: str) -> SceneReport:
    """Reads one scene and reports on it; never raises on what is in the files."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        found = scenes.inspect_scene(files)
    images = [image for image in (*found.ldrs[1:], *found.ldrs[:1]) if image is not None]
    return SceneReport(
        split=split,
        name=files.name,
        size=images[0].shape[:2] if images else None,
        evs=None if found.evs is None else tuple(map(float, found.evs)),
        saturated=tuple(None if image is None else saturated_share(image) for image in found.ldrs),
        label_max=None if found.label is None else _finite_max(found.label),
        problems=tuple(found.problems),
        warnings=tuple(str(w.message) for w in caught if issubclass(w.category, image_io.EightBitWarning)),
    )


def _finite_max(label: np.ndarray) -> float | None:
    # JSON knows neither NaN nor infinity.
    largest = float(np.max(label, where=np.isfinite(label), initial=-np.inf))
    return largest if np.isfinite(largest) else None


def check_folder(
    folder: image_io.PathLike, layout: Layout, progress: bool = False, follow_links: bool = False
) -> Report:
    """Checks all splits that the layout has.

    Args:
        folder: the data set's folder.
        layout: of the data set.
        progress: whether to write the rate and the time left to stderr.
        follow_links: whether symbolic links may lead out of the folder.
    """
    splits, files = [], []
    for split in SPLITS:
        if not layout.folders(split):
            continue
        try:
            found, problems = scenes.find_scenes(folder, layout, split, follow_links), []
        except DataError as error:
            found, problems = [], [str(error)]
        expected = layout.expected[split]
        if found and expected not in (None, len(found)):
            problems = [_count_problem(folder, layout, split, len(found))]
        splits.append(SplitReport(split, len(found), expected, tuple(problems)))
        files += [(split, scene) for scene in found]
    counted = _with_progress(files) if progress else files
    reports = tuple(check_scene(scene, split) for split, scene in counted)
    return Report(str(folder), layout.name, tuple(splits), reports)


def _count_problem(folder: image_io.PathLike, layout: Layout, split: str, found: int) -> str:
    places = ', '.join(map(str, scenes.split_folders(folder, layout, split)))
    return (f'{places}: {found} {split} scenes, the complete data set {layout.name} has '
            f'{layout.expected[split]}. Copy what is missing, remove what does not belong.')


def _with_progress(files: Sequence[tuple[str, scenes.SceneFiles]]) -> Iterator[tuple[str, scenes.SceneFiles]]:
    start = shown = time.monotonic()
    wait = PROGRESS_SECONDS if sys.stderr.isatty() else PROGRESS_SECONDS_LOG
    for done, item in enumerate(files, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= wait:
            shown, rate = now, done / (now - start)
            print(f'{done}/{len(files)} scenes, {rate:.1f} a second, {(len(files) - done) / rate:.0f} s left',
                  file=sys.stderr)


# ---- the report -------------------------------------------------------------------------------------

_ROW = '{:<6} {:<20} {:>11} {:>22} {:>24} {:>10}  {}'


def format_report(report: Report) -> str:
    """The report as text: a table of scenes, the counts, then warnings and problems in full."""
    lines = [_ROW.format('split', 'scene', 'size', 'EV', 'saturated %', 'label max', 'state')]
    lines += [_scene_row(scene) for scene in report.scenes]
    lines.append('')
    for split in report.splits:
        expected = 'unknown' if split.expected is None else split.expected
        lines.append(f'{report.layout} {split.split}: {split.found} scenes found, {expected} expected')
    for title, messages in (('Warnings', report.warnings), ('Problems', report.problems)):
        if messages:
            lines += ['', f'{title} ({len(messages)}):', *(f'  {message}' for message in messages)]
    if not report.problems:
        lines += ['', 'Nothing is wrong.']
    return '\n'.join(lines)


def _scene_row(scene: SceneReport) -> str:
    shares = ['?' if share is None else f'{100 * share:.2f}' for share in scene.saturated]
    return _ROW.format(
        scene.split,
        scene.name,
        '?' if scene.size is None else f'{scene.size[1]}x{scene.size[0]}',
        '?' if scene.evs is None else ' '.join(f'{ev:g}' for ev in scene.evs),
        ' '.join(shares) or '?',
        '-' if scene.label_max is None else f'{scene.label_max:.4g}',
        'wrong' if scene.problems else 'ok',
    )


def to_json(report: Report) -> str:
    """The report as JSON: the fields of `Report`, and `ok`."""
    fields = {'ok': not report.problems, **dataclasses.asdict(report)}
    return json.dumps(fields, indent=2, allow_nan=False) + '\n'


@cli.errors_as_messages
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog='python -m afunet_jax.data.check',
                                     description='Checks a folder of HDR scenes, all of it.')
    parser.add_argument('--dir', required=True, type=pathlib.Path, help='folder of the data set')
    parser.add_argument('--layout', required=True, help=f'one of {", ".join(LAYOUTS)}')
    parser.add_argument('--json', type=pathlib.Path, help='also write the report here, as JSON')
    parser.add_argument('--follow_links', action='store_true', help='symbolic links out of the folder are read too')
    flags = parser.parse_args(arguments)
    try:
        layout = get_layout(flags.layout)
        if flags.json and not flags.json.absolute().parent.is_dir():
            raise ConfigError(f'--json={flags.json}: the folder {flags.json.parent} does not exist. '
                              'Make it first.')
    except ConfigError as error:
        parser.error(str(error))  # exits with USAGE
    report = check_folder(flags.dir, layout, progress=True, follow_links=flags.follow_links)
    print(format_report(report))
    if flags.json:
        image_io.write_atomically(flags.json, to_json(report).encode())
    return WRONG if report.problems else OK


if __name__ == '__main__':
    sys.exit(main())
