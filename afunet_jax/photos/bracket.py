"""Brackets: photos of one scene at several exposures, to the three frames that the network takes."""

import dataclasses
import itertools
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np

from afunet_jax.data.scenes import EXPOSURES, Scene
from afunet_jax.errors import DataError
from afunet_jax.files import natural_key
from afunet_jax.outputs import marks
from afunet_jax.photos import align as aligning
from afunet_jax.photos import exposures as exposure
from afunet_jax.photos import response
from afunet_jax.photos.decoders import FLOAT_SUFFIXES, PHOTO_SUFFIXES, RAW_SUFFIXES
from afunet_jax.photos.exif import PhotoWarning
from afunet_jax.photos.frames import FULL_SCALE, MAX_PIXELS, Frame, PathLike, read_frame

# EV between neighbouring frames, least and most, to choose by. The weights saw 0.7 to 4, equal or not; within 1 to 3
# they are best, at 4 they lose 1.5 to 3.1 dB (docs/model_card.md).
TRAINED_STEPS = (1.0, 3.0)
SMALLEST_STEP = 0.25  # EV; frames closer than this count as one exposure
STEP_BIN = 1 / 3  # EV; brackets whose steps miss the trained ones by as much count as equally near
COVERED_BIN = 0.01  # share of pixels
COVERED_DARK = 0.005  # linear share of full scale: darker is too noisy to count as exposed
FAR_STEP = 1.25  # EV above the trained steps, from which the user is warned
SHOWN = 5  # names in a message
CLIPPED_SHARE = 0.01  # of the short frame, above which the user is told


@dataclasses.dataclass(frozen=True)
class BracketFiles:
    """A bracket on disk; nothing is opened yet.

    Attributes:
        name: of its folder.
        paths: its photos in natural order.
        notes: which files of the folder were passed over.
    """

    name: str
    paths: tuple[pathlib.Path, ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Bracket:
    """Three frames as the network takes them.

    Radiance: the network's value 1 is the full scale of the short frame, because `scene` gives it as EV 0. Times
    `radiance_scale` it is in a unit that all brackets share whose exposures have one source: 1 is then the full
    scale of a frame of EV 0. For EXIF, EV 0 is 1 s at f/1 and ISO 100; for given seconds it is 1 s; for given EV it is
    what was given as 0.

    Attributes:
        name: of the scene.
        paths: the files, short to long.
        ldrs: `[3, H, W, 3]` uint16, gamma 2.2, full scale 65535.
        evs: `[3]` float64 stops, ascending, as their source has them.
        source: of the exposures: 'given', 'exposure.txt', 'EXIF' or 'pixels'.
        curves: name of each file's tone curve.
        measured: `[2]` float64: the steps in EV as the pixels have them; NaN where they cannot be measured.
        alignment: what was moved; None if nothing was to be aligned.
        notes: what was chosen and changed, for the user.
    """

    name: str
    paths: tuple[pathlib.Path, ...]
    ldrs: np.ndarray
    evs: np.ndarray
    source: str
    curves: tuple[str, ...]
    measured: np.ndarray
    alignment: aligning.Alignment | None = None
    notes: tuple[str, ...] = ()

    def scene(self) -> Scene:
        """For `evaluation.Network`: the short frame is EV 0. The pixels are not copied."""
        return Scene(self.name, self.ldrs, (self.evs - self.evs[0]).astype(np.float32), None)

    @property
    def radiance_scale(self) -> float:
        """What to multiply the network's output by: `scale_to(0)`."""
        return self.scale_to(0.0)

    def scale_to(self, reference_ev: float) -> float:
        """The factor to radiance in which 1 is the full scale of a frame of `reference_ev`."""
        return float(2.0 ** (reference_ev - self.evs[0]))

    def report(self) -> str:
        """Lines for the user: files, exposures, curves, and all notes."""
        rows = [f'{path.name}: {ev - self.evs[0]:+.2f} EV ({self.source}), {curve}'
                for path, ev, curve in zip(self.paths, self.evs, self.curves)]  # fmt: skip
        seen = ', '.join('not measurable' if np.isnan(step) else f'{step:+.2f}' for step in self.measured)
        aligned = [str(self.alignment)] if self.alignment else []
        return '\n'.join([*rows, f'steps measured from the pixels: {seen} EV', *aligned, *self.notes])


# ---- finding ----------------------------------------------------------------------------------------


def find_brackets(folder: PathLike, leave_out: PathLike | None = None) -> list[BracketFiles]:
    """The brackets of a folder: itself, if there are photos in it, or else its subfolders that have some.

    Of a raw file and a photo of the same name the raw file counts. `.hdr` and `.exr` count only in a folder without
    photos: beside photos they are results. Files that we wrote ourselves (`marks`), hidden files and all others are
    passed over.

    Args:
        folder: to search.
        leave_out: a folder inside it that is not looked into: that of the results.

    Returns:
        At least one bracket, in natural order.

    Raises:
        DataError: no folder, or no photos in it.
    """
    folder = pathlib.Path(folder)
    try:
        own = _photos_in(folder)
        if own.paths:
            return [own]
        results = None if leave_out is None else os.path.realpath(leave_out)
        inside = sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.')
                         and os.path.realpath(p) != results), key=_natural)  # fmt: skip
        found = [files for files in map(_photos_in, inside) if files.paths]
    except OSError as error:
        raise DataError(f'{folder}: the folder cannot be read ({error.strerror}). '
                        'Check the path and its rights.') from error
    if not found:
        raise DataError(f'{folder}: no photos in it, nor in its folders{"".join(f" ({note})" for note in own.notes)}. '
                        f'Endings that are looked for: {" ".join(sorted(PHOTO_SUFFIXES | FLOAT_SUFFIXES))}.')
    return found


def _natural(path: pathlib.Path) -> tuple:
    """IMG_9 before img_10."""
    return natural_key(path.name.lower()), path.name


def _photos_in(folder: pathlib.Path) -> BracketFiles:
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith('.')),
                   key=_natural)  # fmt: skip
    images = [p for p in files if p.suffix.lower() in PHOTO_SUFFIXES | FLOAT_SUFFIXES]
    ours = [p.name for p in images if p.suffix.lower() not in RAW_SUFFIXES and marks.is_ours(p)]
    photos, floats = ([p for p in images if p.suffix.lower() in suffixes and p.name not in ours]
                      for suffixes in (PHOTO_SUFFIXES, FLOAT_SUFFIXES))  # fmt: skip
    raw = {p.stem for p in photos if p.suffix.lower() in RAW_SUFFIXES}
    kept = [p for p in photos if p.suffix.lower() in RAW_SUFFIXES or p.stem not in raw] or floats
    passed = [p.name for p in (*photos, *floats) if p not in kept]
    about = {'passed over, beside raw files or photos': passed, 'passed over, results of this program': ours}
    notes = tuple(f'{why}: {_shown(names)}' for why, names in about.items() if names)
    return BracketFiles(folder.resolve().name, tuple(kept), notes)


def _shown(names: Sequence[str]) -> str:
    return ', '.join(names[:SHOWN]) + (', ...' if len(names) > SHOWN else '')


def _files_of(source: PathLike | BracketFiles | Sequence[PathLike]) -> BracketFiles:
    if isinstance(source, BracketFiles):
        return source
    if not isinstance(source, (str, os.PathLike)):
        paths = tuple(map(pathlib.Path, source))
        return BracketFiles(paths[0].stem if paths else 'bracket', paths)
    path = pathlib.Path(source)
    if path.is_file():
        return BracketFiles(path.stem, (path,))
    found = find_brackets(path)
    if len(found) > 1 or found[0].paths[0].parent != path:
        names = _shown([bracket.name for bracket in found])
        raise DataError(f'{path}: a folder of brackets ({names}), one is wanted. Name one of them, or take them one by '
                        'one with find_brackets.')
    return found[0]


# ---- loading ----------------------------------------------------------------------------------------


def load_bracket(
    source: PathLike | BracketFiles | Sequence[PathLike],
    exposures: Sequence[str | float] | None = None,
    curve: str = response.AUTO,
    estimate: bool = False,
    trust_exposures: bool = False,
    align: str = aligning.DEFAULT,
    trained_steps: tuple[float, float] = TRAINED_STEPS,
    max_pixels: int = MAX_PIXELS,
    full_scale: float = FULL_SCALE,
    name: str | None = None,
) -> Bracket:
    """Reads a bracket of three or more photos and makes of it what the network takes.

    Args:
        source: photos in any order, or their folder.
        exposures: one for each photo, in the order of `source` (natural order for a folder): EV, or seconds as
            '1/250'. None: `exposure.txt` beside the photos, else EXIF.
        curve: 'auto', 'linear', 'gamma2.2', 'srgb' (see `response`), or 'estimate' from the bracket (8 bit). 'auto'
            estimates where 8-bit frames have no curve of a known name and their steps do not fit sRGB.
        estimate: measure exposures from the pixels, if there is no other source.
        trust_exposures: go on where EXIF contradicts the pixels.
        align: one of `align.METHODS`; frames that stood still stay as they are.
        trained_steps: least and most EV between neighbouring frames that suit the weights; of more than three frames
            those are taken that expose most within them (see `choose_three`).
        max_pixels: larger photos are refused.
        full_scale: of `.hdr`, `.exr` and TIFFs of floats: the value at which they are clipped.
        name: of the scene; by default that of the folder, or of the first photo.

    Raises:
        DataError: everything that `read_frame`, `exposures.resolve` and `align` refuse; fewer than three frames; one
            frame twice; different sizes; fewer than three exposures.
    """
    response.check_choice(curve)
    if align not in aligning.METHODS:
        raise DataError(f'The alignment is one of {", ".join(aligning.METHODS)}, not {align!r}.')
    files = _files_of(source)
    _check_count(files.paths)
    given, from_file = _known_exposures(files.paths, exposures)
    settings = {'curve': response.AUTO if curve == response.ESTIMATE else curve, 'max_pixels': max_pixels,
                'full_scale': full_scale}  # fmt: skip
    frames = _read_all(files.paths, settings)
    found = exposure.resolve(frames, given, from_file, estimate, trust_exposures)
    chosen, notes = choose_three(frames, found.evs, trained_steps)
    if len(frames) > EXPOSURES:
        frames = [read_frame(frames[i].path, **settings, white_balance=frames[i].white_balance) for i in chosen]
    else:
        frames = [frames[i] for i in chosen]
    evs = found.evs[list(chosen)]
    frames, curve_notes = _with_camera_curve(frames, evs, found.source, curve)
    ldrs = np.stack([frame.encoded() for frame in frames])
    moved = None
    if align != aligning.OFF:
        ldrs, moved = aligning.align(ldrs, evs, align)
    return Bracket(
        name or files.name, tuple(frame.path for frame in frames), ldrs, evs, found.source,
        tuple(response.LINEAR if frame.curve is None else frame.curve.name for frame in frames),
        exposure.measured_steps(frames), moved,
        (*files.notes, *notes, *_frame_notes(frames), *curve_notes),
    )  # fmt: skip


def _check_count(paths: Sequence[pathlib.Path]) -> None:
    if not paths:
        raise DataError('No photos were given. Name three photos of one scene at different exposures, or their folder.')
    where = ', '.join(path.name for path in paths)
    if len(paths) == 1:
        raise DataError(f'{paths[0]}: one image alone cannot be merged. Give three photos of the scene at different '
                        'exposures, 1 to 3 EV apart: short, middle and long, or their folder.')
    if len(paths) == 2:
        raise DataError(f'{paths[0].parent}: two frames ({where}); the network takes three: short, middle and long. A '
                        'third one, 1 to 3 EV below, between or above these, would do; most cameras take three '
                        'with exposure bracketing (AEB). A copy of one frame adds nothing.')
    resolved = [os.path.realpath(path) for path in paths]
    for i, path in enumerate(resolved):
        if path in resolved[:i]:
            raise DataError(f'{paths[i]}: given twice. Each frame counts once.')


def _known_exposures(paths: Sequence[pathlib.Path], given: Sequence[str | float] | None):
    """Stops given by the user, and of exposure.txt; None where there are none."""
    if given is not None:
        if len(given) != len(paths):
            raise DataError(f'{len(given)} exposures were given for {len(paths)} photos '
                            f'({", ".join(path.name for path in paths)}). Give one for each, in this order.')
        return exposure.parse_exposures(given), None
    folders = {path.parent for path in paths}
    if len(folders) == 1 and (file := paths[0].parent / exposure.EXPOSURE_FILE).is_file():
        everything = [path.name for path in _photos_in(paths[0].parent).paths]
        names = [path.name for path in paths]
        if set(names) <= set(everything):
            return None, exposure.read_exposure_file(file, names, everything)
        raise DataError(f'{file}: it lists the images {", ".join(everything)}, and others were given '
                        f'({", ".join(names)}). Give their exposures yourself.')
    return None, None


def _read_all(paths: Sequence[pathlib.Path], settings: dict) -> list[Frame]:
    """All frames, of one size and no two alike; of more than three only what measuring needs is kept."""
    frames: list[Frame] = []
    balance = None
    for path in paths:
        frame = read_frame(path, **settings, white_balance=balance)
        balance = balance or frame.white_balance  # one for all: a camera may choose another for each frame
        for other in frames:
            if frame.digest == other.digest and frame.size == other.size:
                raise DataError(f'{path}: the same pixels as {other.path}. Each frame counts once; take the photo that '
                                'belongs here.')
        frames.append(_without_pixels(frame) if len(paths) > EXPOSURES else frame)
    if len({frame.size for frame in frames}) > 1:
        sizes = ', '.join(f'{frame.path.name} {frame.size[1]}x{frame.size[0]}' for frame in frames)
        raise DataError(f'{paths[0].parent}: the frames have different sizes ({sizes}). They must be photos of one '
                        'scene from one place: crop or export them alike.')
    return frames


def _without_pixels(frame: Frame) -> Frame:
    """The same shape, preview and digest, without the memory."""
    empty = np.broadcast_to(np.zeros(1, frame.values.dtype), frame.values.shape)
    light = dataclasses.replace(frame, values=empty)
    light.__dict__.update(preview=frame.preview, digest=frame.digest)  # cached properties
    return light


def choose_three(
    frames: Sequence[Frame], evs: np.ndarray, trained_steps: tuple[float, float] = TRAINED_STEPS
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The three frames that expose most of the scene, with steps that suit the weights.

    First come those whose steps are least outside of `trained_steps` (to a third of a stop), among these the three that
    expose most pixels well in one of them (to a percent), then those with the widest range, those with the most equal
    steps, those with fewer dark pixels, and the darker ones.

    Args:
        frames: three or more.
        evs: their stops, `[n]`.
        trained_steps: least and most EV between neighbouring frames.

    Returns:
        Their indices, short to long, and notes for the user.

    Raises:
        DataError: fewer than three exposures that differ by a quarter of a stop.
    """
    order = [int(i) for i in np.argsort(evs, kind='stable')]
    usable = [frame.preview.exposed(COVERED_DARK) for frame in frames]
    bright = [frame.preview.exposed() for frame in frames]
    best = None
    for three in itertools.combinations(order, EXPOSURES):
        steps = np.diff(evs[list(three)])
        if steps.min() < SMALLEST_STEP:
            continue
        missed = max(trained_steps[0] - steps.min(), steps.max() - trained_steps[1], 0.0)
        covered = float(np.mean(usable[three[0]] | usable[three[1]] | usable[three[2]]))
        well = float(np.mean(bright[three[0]] | bright[three[1]] | bright[three[2]]))
        rank = (round(missed / STEP_BIN), -round(covered / COVERED_BIN), -round(steps.sum() / STEP_BIN),
                round(abs(steps[1] - steps[0]) / STEP_BIN), -round(well / COVERED_BIN))  # fmt: skip
        if best is None or rank < best[0]:
            best = rank, three, covered, steps
    if best is None:
        listed = ', '.join(f'{frames[i].path.name} {evs[i] - evs[order[0]]:+.2f}' for i in order)
        raise DataError(f'{frames[0].path.parent}: three exposures at least {SMALLEST_STEP} EV apart are needed, the '
                        f'frames have {listed} EV. Take the photos with exposure bracketing.')
    _, three, covered, steps = best
    return three, _choice_notes(frames, three, trained_steps, covered, steps)


def _choice_notes(
    frames: Sequence[Frame], three: tuple[int, ...], trained_steps: tuple[float, float], covered: float,
    steps: np.ndarray,
) -> tuple[str, ...]:
    notes = []
    least, most = trained_steps
    suitable = f'{least:g} to {most:g} EV that suit the weights'
    listed = ' and '.join(f'{step:.2f}' for step in steps)
    if len(frames) > EXPOSURES:
        names = ', '.join(frames[i].path.name for i in three)
        notes.append(f'of {len(frames)} frames these were chosen: {names}. Their steps are {listed} EV ({suitable}), '
                     f'and {covered:.0%} of the pixels are well exposed in one of them.')
    if steps.max() - most > FAR_STEP:
        warnings.warn(f'{frames[three[0]].path.parent}: the steps between the frames are {listed} EV, far from the '
                      f'{suitable}: expect errors. Choose frames {least:g} to {most:g} EV apart.',
                      PhotoWarning, stacklevel=4)  # fmt: skip
    clipped = 1 - float(frames[three[0]].preview.unclipped.mean())
    if clipped > CLIPPED_SHARE:
        notes.append(f'{clipped:.0%} of the shortest frame {frames[three[0]].path.name} is clipped: what is brighter '
                     'has no detail in any frame.')
    return tuple(notes)


def _with_camera_curve(
    frames: list[Frame], evs: np.ndarray, source: str, curve: str
) -> tuple[list[Frame], tuple[str, ...]]:
    """The frames with the camera's own curve, where it is asked for or sRGB does not fit; and notes for the user."""
    if curve == response.ESTIMATE:
        return _with_estimated_curve(frames, evs, source), ()
    if source == exposure.PIXELS:
        return frames, ('the exposures were measured from the pixels, and are as right as the tone curve: the contrast '
                        'that cameras add to JPEGs makes them up to a third too large',)  # fmt: skip
    ratio = exposure.style_ratio(frames, evs)
    if ratio is None:
        return frames, ()
    seems = (f'under the sRGB curve the steps seem to be {ratio:.2f} times as large as they are: the camera has a '
             'curve of its own')
    if curve != response.AUTO:
        return frames, (f'{seems}; curve=estimate measures it',)
    try:
        return _with_estimated_curve(frames, evs, source), (
            f'{seems}, which was measured from the frames; curve=srgb leaves it out',)  # fmt: skip
    except DataError as error:
        return frames, (f'{seems}, and sRGB is taken all the same. {error}',)


def _with_estimated_curve(frames: list[Frame], evs: np.ndarray, source: str) -> list[Frame]:
    if source == exposure.PIXELS:
        raise DataError('The tone curve and the exposures cannot both be estimated from the pixels: each needs the '
                        'other. Give the exposures, or choose a curve.')
    if any(frame.values.dtype != np.uint8 for frame in frames):
        raise DataError(f'{frames[0].path.parent}: a tone curve is estimated from 8-bit frames only; 16-bit and raw '
                        'frames have a known one. Choose curve=auto.')
    curve = response.estimate_response([frame.values for frame in frames], evs)
    return [dataclasses.replace(frame, curve=curve) for frame in frames]


def _frame_notes(frames: Sequence[Frame]) -> list[str]:
    notes = [f'{frame.path.name}: {note}' for frame in frames for note in frame.notes]
    if len({(frame.kind, frame.bits) for frame in frames}) > 1:
        notes.append('the frames are of different types of file: their colours and curves may differ')
    if len(cameras := {frame.exif.camera for frame in frames}) > 1:
        notes.append(f'the frames are of different cameras: {", ".join(sorted(map(str, cameras)))}')
    return notes
