"""How a stored image is turned to be seen."""

from collections.abc import Callable

import numpy as np


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation, 1..8 (Exif 2.32, tag 274); other numbers change nothing."""
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1), 6: lambda x: x.swapaxes(0, 1)[:, ::-1],
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: lambda x: x.swapaxes(0, 1)[::-1],
    }  # fmt: skip
    return np.ascontiguousarray(turns[orientation](image)) if orientation in turns else image
