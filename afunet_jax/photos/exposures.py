"""The stops of a bracket's frames: given, from `exposure.txt`, from EXIF, or measured; and whether they agree.

Exposure in stops: log2 of the light that a frame collects, up to one constant for the bracket. Where the time is
known it is log2(seconds * ISO / 100 / aperture ** 2).
"""

import dataclasses
import math
import pathlib
import re
import warnings
from collections.abc import Sequence

import numpy as np

from afunet_jax.data.scenes import MAX_EXPOSURE_BYTES
from afunet_jax.errors import DataError
from afunet_jax.photos import response
from afunet_jax.photos.exif import LARGEST_EV, PhotoWarning
from afunet_jax.photos.frames import Frame

EXPOSURE_FILE = 'exposure.txt'
GIVEN, FILE, EXIF, PIXELS = 'given', EXPOSURE_FILE, 'EXIF', 'pixels'

TOLERANCE = 0.7  # EV between two neighbours by which a source may differ from the pixels
# A camera's picture style is steeper than sRGB by up to a third: so measured, 3 EV seem to be 4.
STYLE_TOLERANCE = 0.35  # of the step, for 8-bit frames of an assumed sRGB curve, if all steps are measured larger
OFF_SRGB = 0.05  # share by which measured steps differ from the real ones, all alike: the assumed curve is wrong
SAME = 0.01  # EV; frames closer than this have one exposure
LONGEST = 60  # characters of an exposure
FEWEST = 100  # pixels of the previews, well exposed in both
SMALLEST_SHARE = 0.002  # of them

_SECONDS = re.compile(r'(?:(\d+(?:\.\d*)?)/(\d+(?:\.\d*)?)\s*s?|(\d*\.?\d+)\s*s)', re.IGNORECASE)
_CURES = ('give them (exposures=[0, 2, 4] in EV, or [\'1/250\', \'1/60\', \'1/15\'] in seconds; --ev=0,2,4), '
          f'write them into {EXPOSURE_FILE} beside the photos, or let them be estimated from the pixels '
          '(estimate=True; --estimate)')


@dataclasses.dataclass(frozen=True)
class Exposures:
    """Stops of frames.

    Attributes:
        evs: `[n]` float64, in the order of the frames; absolute (see the module) for EXIF and seconds.
        source: 'given', 'exposure.txt', 'EXIF' or 'pixels'.
    """

    evs: np.ndarray
    source: str


def parse_exposures(words: Sequence[str | float], where: str = 'exposures') -> np.ndarray:
    """Numbers are EV; '1/250', '1/250s' and '0.004s' are seconds.

    Returns:
        `[n]` float64 stops, log2 of seconds.

    Raises:
        DataError: not numbers, not finite, more than `LARGEST_EV`, seconds of 0, or EV mixed with seconds.
    """
    cure = 'Write EV (0, 2, 4) or seconds (1/250, 1/60, 0.07s).'
    evs, kinds = [], set()
    for word in words:
        text = str(word).strip()
        if len(text) > LONGEST:
            raise DataError(f'{where}: {text[:LONGEST]!r}... is no exposure. {cure}')
        match = _SECONDS.fullmatch(text)
        try:
            if match is None:
                value = float(text)
            else:
                seconds = float(match[1]) / float(match[2]) if match[1] else float(match[3])
                value = math.log2(seconds)
        except (ValueError, ZeroDivisionError) as error:
            raise DataError(f'{where}: {text!r} is no exposure. {cure}') from error
        if not math.isfinite(value):
            raise DataError(f'{where}: exposures must be finite, one is {text!r}. {cure}')
        if abs(value) > LARGEST_EV:
            meant = f' Is 1/{text} s meant? Write it so.' if match is None and value > 0 else ''
            raise DataError(f'{where}: {text!r} is {value:.4g} EV, beyond -{LARGEST_EV} to {LARGEST_EV}.{meant} {cure}')
        evs.append(value)
        kinds.add(match is None)
    if len(kinds) > 1:
        raise DataError(f'{where}: EV and seconds are mixed ({", ".join(map(str, words))}). {cure}')
    return np.array(evs, np.float64)


def read_exposure_file(path: pathlib.Path, names: Sequence[str], all_names: Sequence[str]) -> np.ndarray:
    """Reads `exposure.txt`: one exposure for each image of its folder, in the order of their sorted names.

    Args:
        path: the file.
        names: the images that are wanted.
        all_names: the images of the folder, in natural order.

    Returns:
        The stops of `names`.

    Raises:
        DataError: not readable, not numbers, or not as many as images.
    """
    try:
        if path.stat().st_size > MAX_EXPOSURE_BYTES or not path.is_file():
            raise DataError(f'{path}: the file of exposures is no file, or longer than {MAX_EXPOSURE_BYTES} bytes.')
        words = path.read_text(encoding='utf-8-sig').replace(',', ' ').split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: the file of exposures cannot be read ({error}).') from error
    if len(words) != len(all_names):
        raise DataError(f'{path}: {len(words)} exposures for the {len(all_names)} images of its folder '
                        f'({", ".join(all_names)}). Write one for each, in this order.')
    return parse_exposures(words, str(path))[[all_names.index(name) for name in names]]


def resolve(
    frames: Sequence[Frame],
    given: np.ndarray | None = None,
    from_file: np.ndarray | None = None,
    estimate: bool = False,
    trust: bool = False,
) -> Exposures:
    """Finds the exposures of frames, and holds them against the pixels.

    A step may differ from the measured one by `TOLERANCE`. A camera's own curve, taken for sRGB, makes all steps seem
    larger than they are: only where all do, in 8-bit frames, `STYLE_TOLERANCE` of the step is allowed.

    Args:
        frames: in any order.
        given: stops, which come first.
        from_file: stops of `exposure.txt`, which come second; EXIF is third.
        estimate: measure them from the pixels, if there is no other source.
        trust: go on where EXIF contradicts the pixels, with a warning.

    Raises:
        DataError: no source; EXIF contradicts the pixels; exposures that cannot be measured.
    """
    if given is not None:
        return _checked(frames, Exposures(given, GIVEN), trust=True)
    if from_file is not None:
        return _checked(frames, Exposures(from_file, FILE), trust=True)
    if (found := exif_evs(frames)) is not None:
        return _checked(frames, Exposures(found, EXIF), trust)
    if estimate:
        return Exposures(estimated_evs(frames), PIXELS)
    raise DataError(_no_source(frames))


def exif_evs(frames: Sequence[Frame]) -> np.ndarray | None:
    """Stops from EXIF, `[n]`; None unless every frame has a time, and all or none an aperture and a sensitivity."""
    exifs = [frame.exif for frame in frames]
    if any(exif.seconds is None for exif in exifs):
        return None
    if any(len({getattr(exif, name) is None for exif in exifs}) > 1 for name in ('aperture', 'iso')):
        return None
    return np.array([exif.ev for exif in exifs])


def measured_steps(frames: Sequence[Frame]) -> np.ndarray:
    """The exposure of each frame over the one before it, from the pixels.

    The median of log2(ratio) over the blocks of small previews that are well exposed in both frames: what moves is
    outvoted. It is as right as the frames' tone curves are.

    Returns:
        `[n - 1]` float64 in EV; NaN where too few blocks are well exposed in both.
    """
    return np.array([_step(one, other) for one, other in zip(frames, frames[1:])])


def _step(one: Frame, other: Frame) -> float:
    a, b = one.preview, other.preview
    if a.luminance.shape != b.luminance.shape:
        return math.nan
    both = a.exposed() & b.exposed()
    if both.sum() < max(FEWEST, SMALLEST_SHARE * both.size):
        return math.nan
    return float(np.median(np.log2(b.luminance[both] / a.luminance[both])))


def estimated_evs(frames: Sequence[Frame]) -> np.ndarray:
    """Stops measured from the pixels, `[n]`, 0 for the darkest frame.

    Raises:
        DataError: two neighbours share too few well exposed pixels.
    """
    order = np.argsort([frame.preview.luminance.mean() for frame in frames], kind='stable')
    steps = measured_steps([frames[i] for i in order])
    if np.isnan(steps).any():
        at = int(np.flatnonzero(np.isnan(steps))[0])
        raise DataError(f'The exposures cannot be measured: {frames[order[at]].path} and {frames[order[at + 1]].path} '
                        'have too few pixels that are well exposed in both. Give the exposures, or add a frame '
                        'between them.')
    evs = np.empty(len(frames))
    evs[order] = np.concatenate([[0.0], np.cumsum(steps)])
    return evs - evs.min()


def _no_source(frames: Sequence[Frame]) -> str:
    lacking = [f'{frame.path.name} ({frame.exif})' for frame in frames]
    try:
        evs = ', '.join(f'{ev:.1f}' for ev in estimated_evs(frames))
        seems = f' From the pixels they seem to be {evs} EV.'
    except DataError:
        seems = ''
    return (f'{frames[0].path.parent}: the exposures are not known: EXIF gives {", ".join(lacking)}; times are needed '
            f'in every frame, and aperture and ISO in all or none.{seems} Cure: {_CURES}.')


def _checked(frames: Sequence[Frame], found: Exposures, trust: bool) -> Exposures:
    order = np.argsort(found.evs, kind='stable')
    ranked = [frames[i] for i in order]
    steps, measured = np.diff(found.evs[order]), measured_steps(ranked)
    if not _differ(ranked, steps, measured):
        return found
    message = _contradiction(ranked, found.evs[order], measured, found.source)
    if found.source == EXIF and not trust:
        raise DataError(f'{message} Give the exposures (exposures=; --ev), or pass trust_exposures=True '
                        '(--trust_exposures) to go on with EXIF.')
    warnings.warn(f'{message} The exposures of the source "{found.source}" are used.', PhotoWarning, stacklevel=4)
    return found


def _differ(ranked: Sequence[Frame], steps: np.ndarray, measured: np.ndarray) -> bool:
    """Whether a step differs from the measured one by more than a camera's contrast explains; NaN was not measured."""
    steeper = _is_styled(ranked) and not (measured <= steps).any()
    tolerances = np.maximum(TOLERANCE, STYLE_TOLERANCE * steps if steeper else 0)
    return bool((np.abs(measured - steps) > tolerances).any())


def _is_styled(frames: Sequence[Frame]) -> bool:
    """The curve is a guess: 8 bits, taken for sRGB."""
    return all(frame.bits == 8 and frame.curve is not None and frame.curve.name == response.SRGB for frame in frames)


def style_ratio(frames: Sequence[Frame], evs: np.ndarray) -> float | None:
    """How many times as large as they are the steps seem under an assumed sRGB curve.

    Args:
        frames: short to long.
        evs: their stops, not measured from the pixels.

    Returns:
        The mean ratio; None where sRGB fits, was not assumed, or the exposures contradict the pixels.
    """
    if not _is_styled(frames):
        return None
    steps, measured = np.diff(evs), measured_steps(frames)
    if _differ(frames, steps, measured):
        return None
    ratios = measured / steps
    other = (np.abs(ratios - 1) > OFF_SRGB).all() and np.ptp(np.sign(ratios - 1)) == 0
    return float(ratios.mean()) if other else None


def _contradiction(ranked: Sequence[Frame], evs: np.ndarray, measured: np.ndarray, source: str) -> str:
    rows = [f'  {ranked[0].path.name}: {source} {0.0:+.2f} EV, pixels +0.00 EV' + _taken(ranked[0], source)]
    for i, frame in enumerate(ranked[1:]):
        pixels = 'not measurable' if math.isnan(measured[i]) else f'{measured[i]:+.2f} EV'
        rows.append(f'  {frame.path.name}: {source} {evs[i + 1] - evs[i]:+.2f} EV over the frame before, '
                    f'pixels {pixels}{_taken(frame, source)}')
    same = np.ptp(evs) < SAME
    what = 'says that all frames have one exposure, but the pixels differ' if same else 'contradicts the pixels'
    falling = ' A frame of more exposure is darker: are the exposures in the order of the files?'
    hint = falling if (measured < -TOLERANCE).any() else ''
    return f'{ranked[0].path.parent}: {source} {what}:\n' + '\n'.join(rows) + f'\n{hint}'


def _taken(frame: Frame, source: str) -> str:
    return f' ({frame.exif})' if source == EXIF else ''
