"""Global alignment of hand-held brackets: the short and the long frame are moved onto the middle one.

Both frames of a pair are brought to the exposure of the brighter one, where they clip at the same places. Then:

- 'translation': median threshold bitmaps (Ward 2003) through OpenCV's AlignMTB; whole pixels, nothing is interpolated.
- 'homography': from there on, the enhanced correlation coefficient (Evangelidis and Psarakis 2008) from coarse to
  fine, once more without the pixels that do not fit; cubic interpolation, of the gamma-encoded values. Shifts below
  half a pixel are left alone.

It is for the shake of a hand. What moves in the scene, and parallax, is the network's part. Off by default, and for
benchmark data.
"""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.photos import response

OFF, TRANSLATION, HOMOGRAPHY = 'off', 'translation', 'homography'
METHODS = OFF, TRANSLATION, HOMOGRAPHY
REFERENCE = 1  # of the three frames

LARGEST_SHIFT = 0.1  # of the width: more is no shake of a hand
SEARCH_SIDE = 1536  # longest side of the images that ECC works on
COARSER = (4, 2, 1)  # its levels
ECC_STEPS, ECC_CHANGE, ECC_BLUR = 60, 1e-6, 5
LEAST_SIDE = 2  # of a bitmap
BITMAP_EXCLUDED = 4  # of 255; values this near to the median are not counted
LEAST_GAIN = 1e-4  # in the correlation; a warp that gains less is not applied
LEAST_SHIFT = 0.5  # pixels; nor one that moves less: interpolation would cost more than it mends
LEAST_CORRELATION = 0.3  # of frames that show the same scene
OUTLIER, OUTLIER_FLOOR = 4.0, 6.0  # of the median difference, and of 255: such pixels have moved in the scene
OUTLIER_SIDE = 9  # pixels around them that are left out too


_UNLIKE = ('The frames cannot be aligned: they have too little in common ({}). Check that they show one scene, or '
           'choose align=off.')


@dataclasses.dataclass(frozen=True)
class Alignment:
    """What was done to the three frames.

    Attributes:
        method: 'translation' or 'homography'.
        shifts: the largest shift of a corner of each frame, in pixels; 0 for the reference.
        warps: `[3, 3, 3]` float64, from a pixel (x, y, 1) of the reference to one of the frame.
        filled: share of each frame that no pixel of it covers; there stands the reference at the frame's exposure.
    """

    method: str
    shifts: tuple[float, ...]
    warps: np.ndarray
    filled: tuple[float, ...]

    def __str__(self) -> str:
        moved = ', '.join(f'{shift:.1f}' for shift in self.shifts)
        filled = ', '.join(f'{100 * share:.2f}' for share in self.filled)
        return (f'aligned by {self.method}: corners moved by {moved} pixels; borders filled from the middle frame: '
                f'{filled} %')  # fmt: skip


def align(ldrs: np.ndarray, evs: Sequence[float], method: str = HOMOGRAPHY) -> tuple[np.ndarray, Alignment]:
    """Moves the first and the last frame onto the middle one.

    Args:
        ldrs: `[3, H, W, 3]` uint16, gamma 2.2, as `Scene` has them.
        evs: their exposures in stops.
        method: 'translation' or 'homography'.

    Returns:
        The frames, and what was done. Pixels that a moved frame does not cover are the reference's, exposed as the
        frame is. What was clipped stays clipped.

    Raises:
        DataError: another method; a frame that cannot be matched, or only by a shift of over 10 % of the width; frames
            that are too narrow.
    """
    if method not in METHODS[1:]:
        raise DataError(f'The alignment is one of {", ".join(METHODS)}, not {method!r}.')
    out, warps, filled = np.empty_like(ldrs), [], []
    for i, frame in enumerate(ldrs):
        warp = np.eye(3) if i == REFERENCE else find_warp(ldrs[REFERENCE], frame, evs[i] - evs[REFERENCE], method)
        shift = corner_shift(warp, frame.shape[:2])
        if not shift <= LARGEST_SHIFT * frame.shape[1]:
            raise DataError(f'Frame {i + 1} of 3 would have to be moved by {shift:.0f} pixels to match the middle one, '
                            f'more than {LARGEST_SHIFT:.0%} of the width of {frame.shape[1]}: this is no shake of a '
                            'hand, or too much has changed. Align the frames in another program, or choose align=off.')
        warps.append(warp)
        out[i], share = _moved(frame, warp, ldrs[REFERENCE], evs[i] - evs[REFERENCE])
        filled.append(share)
    shifts = tuple(corner_shift(warp, ldrs.shape[1:3]) for warp in warps)
    return out, Alignment(method, shifts, np.stack(warps), tuple(filled))


def corner_shift(warp: np.ndarray, size: tuple[int, int]) -> float:
    """The largest distance by which a warp moves a corner of an image (height, width), in pixels."""
    height, width = size
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)])
    moved = corners @ warp.T
    return float(np.linalg.norm(moved[:, :2] / moved[:, 2:] - corners[:, :2], axis=1).max())


def find_warp(reference: np.ndarray, frame: np.ndarray, stops: float, method: str = HOMOGRAPHY) -> np.ndarray:
    """The warp from the reference's pixels to the frame's, `[3, 3]`.

    Args:
        reference: `[H, W, 3]` uint16, gamma 2.2.
        frame: the same size; its exposure is `stops` above the reference's.
        stops: may be negative.
        method: as in `align`.

    Raises:
        DataError: the search finds no match.
    """
    # The darker one is brought to the exposure of the brighter one.
    greys = _grey(reference, max(stops, 0)), _grey(frame, max(-stops, 0))
    scale = min(1.0, SEARCH_SIDE / max(frame.shape[:2]))
    small = [_resized(grey, scale) for grey in greys]
    if min(small[0].shape) < LEAST_SIDE:
        raise DataError(f'Frames of {frame.shape[1]}x{frame.shape[0]} pixels are too narrow to be aligned; choose '
                        'align=off.')
    warp, unmoved = _translation(*small), _correlation(*small, np.eye(3))
    if method == HOMOGRAPHY:
        warp = _refined(*small, warp)
    found = _correlation(*small, warp)
    if max(found, unmoved) < LEAST_CORRELATION:
        raise DataError(_UNLIKE.format(f'their correlation is {max(found, unmoved):.2f}'))
    warp = _rescaled(warp, 1 / scale)
    if method == TRANSLATION and scale < 1:
        warp = _whole_pixels(*greys, warp)
    worth = found - unmoved > LEAST_GAIN and corner_shift(warp, frame.shape[:2]) > LEAST_SHIFT
    return warp if worth else np.eye(3)


def _grey(encoded: np.ndarray, stops: float) -> np.ndarray:
    """`[H, W]` uint8: the mean of the channels, gamma 2.2, made brighter by stops and clipped."""
    linear = response.tone_curve(response.GAMMA, 16).table[:, 0]
    table = (response.encode_linear(linear * 2.0**stops) >> 8).astype(np.uint8)
    return np.rint(table[encoded].mean(-1, dtype=np.float32)).astype(np.uint8)


def _resized(grey: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return grey
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _translation(reference: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The best of several searches: from too coarse a level, bitmaps go astray."""
    most = math.ceil(math.log2(max(LARGEST_SHIFT * max(reference.shape), 2))) + 1  # what is too large is to be seen too
    found = [_bitmap_shift(reference, frame, bits) for bits in range(1, min(most, most_bits(reference)) + 1)]
    return max(found, key=lambda warp: _correlation(reference, frame, warp))


def most_bits(grey: np.ndarray) -> int:
    """The smallest bitmap is 1 / 2 ** (bits - 1) as large, and OpenCV fails below `LEAST_SIDE` rows or columns."""
    return (min(grey.shape) // LEAST_SIDE).bit_length()


def _bitmap_shift(reference: np.ndarray, frame: np.ndarray, bits: int) -> np.ndarray:
    x, y = cv2.createAlignMTB(bits, BITMAP_EXCLUDED, False).calculateShift(reference, frame)
    return np.array([[1.0, 0, -x], [0, 1, -y], [0, 0, 1]])


def _whole_pixels(reference: np.ndarray, frame: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """A shift that was found on small images, to whole pixels of the large ones."""
    rough = np.array([[1.0, 0, round(warp[0, 2])], [0, 1, round(warp[1, 2])], [0, 0, 1]])
    bits = math.ceil(math.log2(max(reference.shape) / SEARCH_SIDE)) + 1
    moved = _warped(frame, rough, cv2.INTER_NEAREST)
    return rough @ _bitmap_shift(reference, moved, min(bits, most_bits(reference)))


def _refined(reference: np.ndarray, frame: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """ECC, from coarse to fine, and once more without what moved in the scene."""
    for factor in COARSER:
        small = [_resized(grey, 1 / factor) for grey in (reference, frame)]
        warp = _rescaled(_ecc(*small, _rescaled(warp, 1 / factor), None), factor)
    return _ecc(reference, frame, warp, _fitting(reference, frame, warp))


def _ecc(reference: np.ndarray, frame: np.ndarray, warp: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    criteria = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_STEPS, ECC_CHANGE
    start = warp.astype(np.float32)
    try:
        found = cv2.findTransformECC(reference, frame, start, cv2.MOTION_HOMOGRAPHY, criteria, mask, ECC_BLUR)[1]
    except cv2.error as error:
        raise DataError(_UNLIKE.format(error.err)) from error
    return found.astype(np.float64) / found[2, 2]


def _fitting(reference: np.ndarray, frame: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """255 where the frame fits the reference under the warp, on the frame's pixels."""
    size = frame.shape[::-1]
    back = [cv2.warpPerspective(image, warp, size) for image in (reference, np.full_like(reference, 255))]
    blurred = [cv2.GaussianBlur(image, (ECC_BLUR, ECC_BLUR), 0).astype(np.float32) for image in (back[0], frame)]
    difference = np.abs(blurred[0] - blurred[1])
    difference = np.abs(difference - np.median(difference))
    bad = (difference > OUTLIER * np.median(difference) + OUTLIER_FLOOR) | (back[1] < 255)
    return np.where(cv2.dilate(bad.astype(np.uint8), np.ones((OUTLIER_SIDE,) * 2, np.uint8)), 0, 255).astype(np.uint8)


def _rescaled(warp: np.ndarray, factor: float) -> np.ndarray:
    """The same warp for images larger by a factor; pixel centres are at whole numbers."""
    scale = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
    return scale @ warp @ np.linalg.inv(scale)


def _correlation(reference: np.ndarray, frame: np.ndarray, warp: np.ndarray) -> float:
    moved = _warped(frame, warp, cv2.INTER_LINEAR)
    covered = _warped(np.full(frame.shape, 255, np.uint8), warp, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    inside = covered > 0
    if not inside.any() or np.ptp(reference[inside]) == 0 or np.ptp(moved[inside]) == 0:
        return 0.0
    return float(np.corrcoef(reference[inside], moved[inside])[0, 1])


def _warped(image: np.ndarray, warp: np.ndarray, how: int, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    return cv2.warpPerspective(image, warp, image.shape[1::-1], flags=how | cv2.WARP_INVERSE_MAP, borderMode=border)


def _moved(frame: np.ndarray, warp: np.ndarray, reference: np.ndarray, stops: float) -> tuple[np.ndarray, float]:
    """The frame on the reference's pixels, and the share that was filled."""
    if np.array_equal(warp, np.eye(3)):
        return frame, 0.0
    shift_only = np.array_equal(warp[:2, :2], np.eye(2)) and np.array_equal(warp[:2, 2], np.rint(warp[:2, 2]))
    moved = _warped(frame, warp, cv2.INTER_NEAREST if shift_only else cv2.INTER_CUBIC)
    covered = _warped(np.full(frame.shape[:2], 255, np.uint8), warp, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    bare = covered < 255
    moved[bare] = response.encode_linear(response.decode_16(reference[bare]) * 2.0**stops)
    return moved, float(bare.mean())
