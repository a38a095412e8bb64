"""Alignment of brackets: the short and the long frame are moved onto the middle one.

Both frames of a pair are brought to the exposure of the brighter one, where they clip at the same places. Then:

- 'translation': median threshold bitmaps (Ward 2003) through OpenCV's AlignMTB; whole pixels, nothing is interpolated.
- 'homography': that, and what most matches of SIFT features agree on (Lowe 2004; RANSAC, MAGSAC), refined by the
  enhanced correlation coefficient (Evangelidis and Psarakis 2008) without the pixels that do not fit: a turn and a
  shift, then a homography. The one that fits best is taken, a simpler one where the gain is small; cubic interpolation,
  of the gamma-encoded values. Shifts below half a pixel are left alone.
- 'flow': that, for the shake of a hand, and then for what moves in the scene, and parallax, optical flow where frames
  match better by it (`flow`). What flow does not find, and what is covered in one of them, stays the network's part.

For photos it is done unless it is told not to; for data sets only where the config says so (`eval.align`): the
benchmarks' figures are of frames as they are.
"""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from afunet_jax.data.scenes import Scene
from afunet_jax.errors import DataError
from afunet_jax.photos import flow, response

OFF, TRANSLATION, HOMOGRAPHY, FLOW = 'off', 'translation', 'homography', 'flow'
METHODS = OFF, TRANSLATION, HOMOGRAPHY, FLOW
DEFAULT = FLOW  # for photos
REFERENCE = 1  # of the three frames

LARGEST_SHIFT = 0.1  # of the width: more is no shake of a hand
SEARCH_SIDE = 1536  # longest side of the images that ECC and flow work on
LEAST_FOLLOWED = 0.002  # of the frame; what moves over less of it stays
ECC_STEPS, ECC_CHANGE, ECC_BLUR = 60, 1e-6, 5
ECC_ROUNDS = 2  # each leaves out the pixels that do not fit the result of the one before
SIFT_FEATURES, SIFT_CONTRAST, SIFT_RATIO = 2000, 0.02, 0.8
SIFT_SIDE = 32  # of the smallest images in which features are looked for, pixels
LEAST_MATCHES = 8, 20  # that agree on a similarity, on a homography
MATCH_ERROR = 1.5  # pixels
MATCH_ROUNDS, MATCH_SURE = 5000, 0.999
MISFIT_MOST = 16.0  # of 255: a difference that is larger counts as much; it has moved in the scene
PRICE = 0.05  # share by which a step to a more general warp must lower the misfit
COVERED_LEAST = 0.5  # of the frame, by what a warp leaves of it
COMPARED_LEAST = 0.03  # share of pixels that are neither clipped nor black in both frames; with fewer a frame stays
COMPARED_RANGE = 5, 250  # of 255
LEAST_SIDE = 2  # of a bitmap
CLIPPED = 250 * 257  # of 65535: where the reference is as bright it does not tell what a shorter frame would show
BITMAP_EXCLUDED = 4  # of 255; values this near to the median are not counted
LEAST_SHIFT = 0.5  # pixels; a warp that moves less is not applied: interpolation would cost more than it mends
LEAST_CORRELATION = 0.3  # of frames that show the same scene
OUTLIER, OUTLIER_FLOOR = 4.0, 6.0  # of the median difference, and of 255: such pixels have moved in the scene
OUTLIER_SIDE = 9  # pixels around them that are left out too


_UNLIKE = ('The frames cannot be aligned: they have too little in common ({}). Check that they show one scene, or '
           'choose align=off.')


@dataclasses.dataclass(frozen=True)
class Alignment:
    """What was done to the three frames.

    Attributes:
        method: one of `METHODS`, not 'off'.
        shifts: the largest shift of a corner of each frame, in pixels; 0 for the reference.
        warps: `[3, 3, 3]` float64, from a pixel (x, y, 1) of the reference to one of the frame.
        filled: share of each frame that no pixel of it covers; see `align` for what stands there.
        followed: share of each frame that optical flow moved, because it moves in the scene; of 'flow' alone.
        left: numbers from 1 of the frames that stay where they are, because too little of them can be compared, or
            because they match nowhere (`keep_unmatched`).
    """

    method: str
    shifts: tuple[float, ...]
    warps: np.ndarray
    filled: tuple[float, ...]
    followed: tuple[float, ...] = (0.0, 0.0, 0.0)
    left: tuple[int, ...] = ()

    def __str__(self) -> str:
        moved = ', '.join(f'{shift:.1f}' for shift in self.shifts)
        if not any(self.shifts) and not any(self.followed) and not self.left:
            return f'aligned by {self.method}: the frames stood still, none was moved'
        filled, followed = (', '.join(f'{100 * share:.2f}' for share in each) for each in (self.filled, self.followed))
        moving = f'; moved with the scene: {followed} %' if any(self.followed) else ''
        left = ''.join(f'; frame {number} of 3 was left as it is: nearly all of it, or of the middle one, is clipped '
                       'or black, or it matches nowhere' for number in self.left)
        return (f'aligned by {self.method}: corners moved by {moved} pixels; borders filled from the middle frame: '
                f'{filled} %{moving}{left}')  # fmt: skip


def align(
    ldrs: np.ndarray, evs: Sequence[float], method: str = DEFAULT, keep_unmatched: bool = False
) -> tuple[np.ndarray, Alignment]:
    """Moves the first and the last frame onto the middle one.

    Args:
        ldrs: `[3, H, W, 3]` uint16, gamma 2.2, as `Scene` has them.
        evs: their exposures in stops.
        method: one of `METHODS`, not 'off'.
        keep_unmatched: a frame that cannot be matched stays as it is, instead of raising: for data sets, where one
            scene of many must not stop the others.

    Returns:
        The frames, and what was done. Pixels that a moved frame does not cover are the reference's, exposed as the
        frame is; in a short frame, where the reference is clipped, the frame's edge goes on. What is clipped stays so
        where it comes to be.

    Raises:
        DataError: another method; a frame that cannot be matched, or only by a shift of over 10 % of the width; frames
            that are too narrow.
    """
    if method not in METHODS[1:]:
        raise DataError(f'The alignment is one of {", ".join(METHODS)}, not {method!r}.')
    evs = [float(ev) for ev in evs]  # float32 and float64 ones round differently
    out, warps, filled, followed, left = np.empty_like(ldrs), [], [], [0.0] * len(ldrs), []
    for i, frame in enumerate(ldrs):
        try:
            warp = np.eye(3) if i == REFERENCE else _warp_of(i, ldrs, evs, method)
        except DataError:
            if not keep_unmatched:
                raise
            warp = None
        if warp is None:
            left.append(i + 1)
            warp = np.eye(3)
        warps.append(warp)
        stops = evs[i] - evs[REFERENCE]
        out[i], share = _moved(frame, warp, ldrs[REFERENCE], stops)
        filled.append(share)
        if method == FLOW and i != REFERENCE and i + 1 not in left:
            out[i], followed[i] = _followed(frame, warp, out[i], ldrs[REFERENCE], stops)
    shifts = tuple(corner_shift(warp, ldrs.shape[1:3]) for warp in warps)
    return out, Alignment(method, shifts, np.stack(warps), tuple(filled), tuple(followed), tuple(left))


def _warp_of(i: int, ldrs: np.ndarray, evs: Sequence[float], method: str) -> np.ndarray | None:
    """`find_warp` for a frame of a bracket; refuses what is too large for the shake of a hand."""
    warp = find_warp(ldrs[REFERENCE], ldrs[i], evs[i] - evs[REFERENCE], method)
    shift, width = 0.0 if warp is None else corner_shift(warp, ldrs.shape[1:3]), ldrs.shape[2]
    if not shift <= LARGEST_SHIFT * width:
        raise DataError(f'Frame {i + 1} of 3 would have to be moved by {shift:.0f} pixels to match the middle one, '
                        f'more than {LARGEST_SHIFT:.0%} of the width of {width}: this is no shake of a hand, or too '
                        'much has changed. Align the frames in another program, or choose align=off.')
    return warp


def align_scene(scene: Scene, method: str = DEFAULT) -> tuple[Scene, bool]:
    """A scene of a data set with its frames aligned, and whether all could be matched; the others stay as they are.

    Args:
        scene: as it was read.
        method: one of `METHODS`.
    """
    if method == OFF:
        return scene, True
    ldrs, found = align(scene.ldrs, scene.evs, method, keep_unmatched=True)
    return dataclasses.replace(scene, ldrs=ldrs), not found.left


def corner_shift(warp: np.ndarray, size: tuple[int, int]) -> float:
    """The largest distance by which a warp moves a corner of an image (height, width), in pixels."""
    height, width = size
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)])
    moved = corners @ warp.T
    return float(np.linalg.norm(moved[:, :2] / moved[:, 2:] - corners[:, :2], axis=1).max())


def find_warp(reference: np.ndarray, frame: np.ndarray, stops: float, method: str = DEFAULT) -> np.ndarray | None:
    """The warp from the reference's pixels to the frame's, `[3, 3]`; None where too little can be compared.

    Args:
        reference: `[H, W, 3]` uint16, gamma 2.2.
        frame: the same size; its exposure is `stops` above the reference's.
        stops: may be negative.
        method: as in `align`.

    Raises:
        DataError: the search finds no match.
    """
    greys = _greys(reference, frame, stops)
    scale = min(1.0, SEARCH_SIDE / max(frame.shape[:2]))
    small = [_resized(grey, scale) for grey in greys]
    if min(small[0].shape) < LEAST_SIDE:
        raise DataError(f'Frames of {frame.shape[1]}x{frame.shape[0]} pixels are too narrow to be aligned; choose '
                        'align=off.')
    if _compared(*small) < COMPARED_LEAST:
        return None
    warps = _by_bitmaps(*small)
    if method != TRANSLATION:
        warps += _by_features(*small)
    fits = [(_misfit(*small, warp), price, warp) for price, warp in warps]
    if method != TRANSLATION:
        fits = _refined(*small, fits)
    warp = min(fits, key=lambda fit: fit[0] * (1 + PRICE * fit[1]))[2]
    alike = max(_correlation(*small, warp), _correlation(*small, np.eye(3)))
    if alike < LEAST_CORRELATION:
        raise DataError(_UNLIKE.format(f'their correlation is {alike:.2f}'))
    warp = _rescaled(warp, 1 / scale)
    if method == TRANSLATION and scale < 1:
        warp = _whole_pixels(*greys, warp)
    return warp if corner_shift(warp, frame.shape[:2]) > LEAST_SHIFT else np.eye(3)


def _greys(reference: np.ndarray, frame: np.ndarray, stops: float) -> tuple[np.ndarray, np.ndarray]:
    """Both in grey, the darker one brought to the exposure of the brighter one."""
    return _grey(reference, max(stops, 0)), _grey(frame, max(-stops, 0))


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


def _by_bitmaps(reference: np.ndarray, frame: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """No warp, and the translations of several searches, with prices: from too coarse a level bitmaps go astray."""
    most = math.ceil(math.log2(max(LARGEST_SHIFT * max(reference.shape), 2))) + 1  # what is too large is to be seen too
    found = [_bitmap_shift(reference, frame, bits) for bits in range(1, min(most, most_bits(reference)) + 1)]
    return [(0, np.eye(3)), *((1, warp) for warp in found)]


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


def _refined(
    reference: np.ndarray, frame: np.ndarray, fits: list[tuple[float, int, np.ndarray]]
) -> list[tuple[float, int, np.ndarray]]:
    """Warps with misfit and price, and what ECC makes of the best one: a turn and a shift, then a homography."""
    fits = list(fits)
    for price, motion in ((2, cv2.MOTION_EUCLIDEAN), (3, cv2.MOTION_HOMOGRAPHY)):
        warp = min(fits, key=lambda fit: fit[0])[2]
        for _ in range(ECC_ROUNDS):
            warp = _ecc(reference, frame, warp, motion)
            if warp is None:
                break
            fits.append((_misfit(reference, frame, warp), price, warp))
    return fits


def _misfit(reference: np.ndarray, frame: np.ndarray, warp: np.ndarray) -> float:
    """The mean difference where the warped frame covers the reference, of 255; what differs much counts as moved."""
    covered = _warped(np.full(frame.shape, 255, np.uint8), warp, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0
    if covered.mean() < COVERED_LEAST:
        return math.inf
    blurred = [cv2.GaussianBlur(image, (ECC_BLUR, ECC_BLUR), 0)
               for image in (reference, _warped(frame, warp, cv2.INTER_LINEAR))]  # fmt: skip
    difference = np.minimum(cv2.absdiff(*blurred).astype(np.float32), MISFIT_MOST)
    return float(difference[covered].mean())


def _compared(*greys: np.ndarray) -> float:
    """The share of pixels that are neither clipped nor black in all images."""
    black, clipped = COMPARED_RANGE
    return float(np.logical_and.reduce([(black < grey) & (grey < clipped) for grey in greys]).mean())


def _by_features(reference: np.ndarray, frame: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Warps that many matches of features agree on, each with its price."""
    if min(reference.shape) < SIFT_SIDE:
        return []
    sift = cv2.SIFT_create(SIFT_FEATURES, contrastThreshold=SIFT_CONTRAST)
    (points, words), (others, theirs) = (sift.detectAndCompute(image, None) for image in (reference, frame))
    if min(len(points), len(others)) < LEAST_MATCHES[0]:
        return []
    pairs = [pair[0] for pair in cv2.BFMatcher(cv2.NORM_L2).knnMatch(words, theirs, k=2)
             if len(pair) == 2 and pair[0].distance < SIFT_RATIO * pair[1].distance]  # fmt: skip
    matches = np.array([(points[pair.queryIdx].pt, others[pair.trainIdx].pt) for pair in pairs]).reshape(-1, 2, 2)
    near = np.linalg.norm(matches[:, 1] - matches[:, 0], axis=1) < 2 * LARGEST_SHIFT * max(reference.shape)
    a, b = (np.ascontiguousarray(matches[near, side]) for side in (0, 1))
    found = []
    if len(a) >= LEAST_MATCHES[0]:
        similarity, agree = cv2.estimateAffinePartial2D(
            a, b, method=cv2.RANSAC, ransacReprojThreshold=MATCH_ERROR, maxIters=MATCH_ROUNDS, confidence=MATCH_SURE)
        if similarity is not None and agree.sum() >= LEAST_MATCHES[0]:
            found.append((2, np.vstack([similarity, [0, 0, 1]])))
    if len(a) >= LEAST_MATCHES[1]:
        homography, agree = cv2.findHomography(
            a, b, cv2.USAC_MAGSAC, MATCH_ERROR, maxIters=MATCH_ROUNDS, confidence=MATCH_SURE)
        if homography is not None and agree.sum() >= LEAST_MATCHES[1]:
            found.append((3, homography))
    return found


def _ecc(reference: np.ndarray, frame: np.ndarray, warp: np.ndarray, motion: int) -> np.ndarray | None:
    """The warp refined without the pixels that do not fit it; None where that does not converge."""
    start = warp if motion == cv2.MOTION_HOMOGRAPHY else _rigid(warp)[:2]
    criteria = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_STEPS, ECC_CHANGE
    mask = _fitting(reference, frame, warp)
    try:
        found = cv2.findTransformECC(reference, frame, start.astype(np.float32), motion, criteria, mask, ECC_BLUR)[1]
    except cv2.error:  # it does not converge, or nothing fits
        return None
    found = found.astype(np.float64)
    return found / found[2, 2] if len(found) == 3 else np.vstack([found, [0, 0, 1]])


def _rigid(warp: np.ndarray) -> np.ndarray:
    """A turn and a shift near a warp."""
    angle = math.atan2(warp[1, 0] - warp[0, 1], warp[0, 0] + warp[1, 1])
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, warp[0, 2]], [s, c, warp[1, 2]], [0, 0, 1]])


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
    told = bare & ((reference < CLIPPED).all(axis=-1) | (stops >= 0))
    moved[told] = response.encode_linear(response.decode_16(reference[told]) * 2.0**stops)
    return moved, float(bare.mean())


def _followed(
    frame: np.ndarray, warp: np.ndarray, moved: np.ndarray, reference: np.ndarray, stops: float
) -> tuple[np.ndarray, float]:
    """What moves in the scene is moved, too, and the share of the frame that is.

    Args:
        frame: of the bracket.
        warp: from the reference's pixels to the frame's.
        moved: what `_moved` made of the frame.
        reference, stops: as for `_moved`.
    """
    size = reference.shape[:2]
    scale = min(1.0, SEARCH_SIDE / max(size))
    motion, trusted = flow.find(*(_resized(grey, scale) for grey in _greys(reference, moved, stops)))
    if trusted.mean() < LEAST_FOLLOWED:
        return moved, 0.0
    if scale < 1:
        motion = cv2.resize(motion, size[::-1], interpolation=cv2.INTER_LINEAR) / np.float32(scale)
        trusted = cv2.resize(trusted.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    # Sampled once, through both.
    places = cv2.perspectiveTransform(flow.positions(size) + motion, warp)
    trusted &= flow.inside(places, size)
    sampled = flow.sampled(frame, places, cv2.INTER_CUBIC)
    return np.where(trusted[..., None], sampled, moved), float(trusted.mean())
