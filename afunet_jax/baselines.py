"""Ways to merge a bracket that need no training: what a network has to beat.

Each takes a scene and returns linear RGB float32 `[H, W, 3]` at the middle exposure's moment, in the units of
its ground truth (1: full scale of the exposure of EV 0).
"""

from collections.abc import Callable

import cv2
import numpy as np

from afunet_jax import hdr, image_io
from afunet_jax.data.scenes import Scene
from afunet_jax.photos import align

MTB_BITS = 6  # OpenCV's default: shifts of up to 2 ** 6 pixels


def middle_exposure(scene: Scene) -> np.ndarray:
    """The radiance of the middle exposure alone; what it clips stays clipped."""
    return hdr.to_radiance(hdr.decode_ldr(scene.ldrs[1]), hdr.exposure_time(scene.evs[1]))


def weighted_merge(scene: Scene) -> np.ndarray:
    """`hdr.weighted_merge` of the three exposures."""
    ldrs = hdr.decode_ldr(scene.ldrs)
    times = hdr.exposure_time(scene.evs)
    return hdr.weighted_merge([hdr.to_radiance(ldr, time) for ldr, time in zip(ldrs, times)], ldrs)


def aligned_merge(scene: Scene) -> np.ndarray:
    """`weighted_merge` of frames that are aligned as photos are (`photos.align`): what that alone does."""
    return weighted_merge(align.align_scene(scene)[0])


def aligned_debevec(scene: Scene) -> np.ndarray:
    """What OpenCV offers: shifts by median threshold bitmaps (Ward 2003), then Debevec and Malik's merge.

    The shift is one for the whole image. OpenCV does both on 8 bits. The response is the known one, gamma 2.2.
    """
    frames = [np.rint(frame / image_io.EIGHT_TO_SIXTEEN_BITS).astype(np.uint8) for frame in scene.ldrs]
    bits = min(MTB_BITS, align.most_bits(frames[0][..., 0]))
    cv2.createAlignMTB(max_bits=bits).process(frames, frames)  # onto the middle one
    values = np.maximum(np.arange(256), 0.5) / 255  # the merge takes logarithms
    response = np.repeat(values[:, None, None] ** hdr.GAMMA, 3, 2).astype(np.float32)
    times = np.asarray(hdr.exposure_time(scene.evs), np.float32)
    merged = cv2.createMergeDebevec().process(frames, times, response)
    merged[frames[0] == 255] = 1 / times[0]  # OpenCV gives clipped values no weight: what clips in all would be 0 / 0
    return np.nan_to_num(merged, nan=0.0, posinf=float(1 / times[0]))


BASELINES: dict[str, Callable[[Scene], np.ndarray]] = {
    'middle exposure': middle_exposure,
    'weighted merge': weighted_merge,
    'aligned merge': aligned_merge,
    'MTB and Debevec': aligned_debevec,
}
