"""A contact sheet: for each scene its three exposures and its label."""

import cv2
import numpy as np

from afunet_jax import hdr
from afunet_jax.data.scenes import Scene
from afunet_jax.errors import DataError

GAP = 6  # pixels between pictures
PAPER = 255


def picture_row(scene: Scene, width: int) -> np.ndarray:
    """Short, middle and long exposure, and the mu-law label, side by side, uint8 `[h, 4 width + gaps, 3]`."""
    pictures = [ldr.astype(np.float32) / 65535 for ldr in scene.ldrs] + [hdr.mu_law(scene.label)]
    height = round(width * scene.label.shape[0] / scene.label.shape[1])
    small = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures]
    gap = np.ones((height, GAP // 3, 3), np.float32)
    row = np.concatenate([small[0], gap, small[1], gap, small[2], gap, small[3]], 1)
    return np.round(np.clip(row, 0, 1) * PAPER).astype(np.uint8)


def contact_sheet(scenes: list[Scene], width: int = 1600, columns: int = 2) -> np.ndarray:
    """The rows of `scenes` in columns, uint8 `[H, about width, 3]`, RGB. DataError if `width` leaves them no pixel."""
    each = (width - (columns + 1) * GAP) // columns
    height, across = scenes[0].label.shape[:2]
    least = -(-across // height)  # of a picture, for it to have a row
    if (each - GAP) // 4 < least:
        raise DataError(f'A contact sheet of such scenes is at least {columns * (4 * least + 2 * GAP) + GAP} pixels '
                        f'wide, not {width}. Give a larger --sheet_width.')
    rows = [picture_row(scene, (each - GAP) // 4) for scene in scenes]
    height, across = rows[0].shape[:2]
    lines = -(-len(rows) // columns)
    sheet = np.full((lines * (height + GAP) + GAP, columns * (across + GAP) + GAP, 3), PAPER, np.uint8)
    for k, row in enumerate(rows):
        y, x = GAP + (k // columns) * (height + GAP), GAP + (k % columns) * (across + GAP)
        sheet[y : y + height, x : x + across] = row
    return sheet
