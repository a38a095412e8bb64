"""What moves in the scene, found by optical flow between two frames that are aligned otherwise.

Dense inverse search (Kroeger and others 2016, through OpenCV) finds for every pixel of the reference where the frame
shows it. Flow is wrong where things are covered and where there is nothing to see, and it fits noise. So it is taken
only in regions that it moves without a worse match, much of which match much better by it.
Pixels that are clipped in both match whatever the flow says: what moves takes those along that it encloses.
"""

import cv2
import numpy as np

LEAST_SIDE = 32  # pixels of the smallest images in which flow is looked for
FINEST_SCALE = 0  # of the pyramid: the images as they are
NOISE_BLUR = 1.0  # pixels, before flow is looked for
MISFIT_BLUR = 1.5  # pixels, before two images are compared: interpolation alone makes noise differ less
MISFIT_MOST = 64.0  # of 255: a difference that is larger counts as much
NEIGHBOURHOOD = 6.0  # pixels, standard deviation: over it misfits are averaged
LEAST_MOTION = 0.5  # pixels; what moves less stays: interpolation would cost more than it mends
BETTER = 0.7, 0.25  # much better: a misfit of at most this share of the one before, less so much of 255
BEYOND_NOISE = 0.5  # of what the images differ by pixel by pixel once moved: noise alone misfits by 0.25 of it
BETTER_LEAST = 0.1  # share of a region that must match much better: noise does so here and there


def find(reference: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the frame shows what the reference has.

    Args:
        reference: `[H, W]` uint8.
        frame: the same size, at the same exposure.

    Returns:
        Motion `[H, W, 2]` float32 in pixels, x and y: pixel p of the reference is at p + motion of the frame. And
        `[H, W]` bool, where it is to be trusted; nowhere in images smaller than `LEAST_SIDE`.
    """
    if min(reference.shape) < LEAST_SIDE:
        return np.zeros((*reference.shape, 2), np.float32), np.zeros(reference.shape, bool)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(FINEST_SCALE)
    motion = search.calc(_blurred(reference, NOISE_BLUR), _blurred(frame, NOISE_BLUR), None)
    places = positions(reference.shape) + motion
    moved = sampled(frame, places, cv2.INTER_LINEAR)
    before, after = (_misfit(reference, image) for image in (frame, moved))
    share, least = BETTER
    moving = inside(places, frame.shape) & (np.hypot(motion[..., 0], motion[..., 1]) > LEAST_MOTION)
    better = moving & (after <= share * before - least) & (before >= BEYOND_NOISE * _noise(reference, moved))
    regions = cv2.connectedComponents((moving & (after <= before)).astype(np.uint8), connectivity=4)[1]
    pixels = np.bincount(regions.ravel())
    better_pixels = np.bincount(regions[better], minlength=len(pixels))
    taken = (better_pixels > 0) & (better_pixels >= BETTER_LEAST * pixels)
    taken[0] = False  # what is in no region
    return motion, taken[regions]


def positions(size: tuple[int, int]) -> np.ndarray:
    """`[H, W, 2]` float32: x and y of every pixel of an image (height, width)."""
    height, width = size
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack([x, y], axis=-1)


def inside(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[H, W]` bool: which of the places `[H, W, 2]` an image (height, width) covers."""
    last = np.array(size[::-1], np.float32) - 1
    return ((places >= 0) & (places <= last)).all(axis=-1)


def sampled(image: np.ndarray, places: np.ndarray, how: int) -> np.ndarray:
    """The image at places `[H, W, 2]` float32, interpolated by one of OpenCV's ways."""
    return cv2.remap(image, places, None, how, borderMode=cv2.BORDER_REPLICATE)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def _misfit(reference: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """`[H, W]` float32: the mean difference around every pixel, of 255."""
    small, large = (_blurred(image.astype(np.float32), MISFIT_BLUR) for image in (reference, frame))
    return _blurred(np.minimum(cv2.absdiff(small, large), np.float32(MISFIT_MOST)), NEIGHBOURHOOD)


def _noise(reference: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """`[H, W]` float32: the mean difference around every pixel in the finest detail, of 255."""
    difference = reference.astype(np.float32) - frame
    return _blurred(np.abs(difference - _blurred(difference, NOISE_BLUR)), NEIGHBOURHOOD)
