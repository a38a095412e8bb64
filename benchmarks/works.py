"""What is measured: a table of works, and the arrays they run on. NumPy alone: both sides import it."""

import dataclasses

import numpy as np

CROP = 128  # pixels, side of a training crop
DATA_BATCHES = 100  # of the data pipeline in one run: far more than are prepared ahead


@dataclasses.dataclass(frozen=True)
class Work:
    """One thing to measure.

    Attributes:
        kind: 'inference', 'train', 'data' or 'start'.
        batch: examples.
        height, width: of the image, pixels; for 'data' of a scene.
        repeats: measured runs per side, after one to warm up.
        tolerance: how far the two sides' results may differ, absolute.
    """

    kind: str
    batch: int
    height: int
    width: int
    repeats: int
    tolerance: float


WORKS = {
    'inference_128': Work('inference', 1, 128, 128, 10, 5e-6),
    'inference_256': Work('inference', 1, 256, 256, 5, 5e-6),
    'inference_512': Work('inference', 1, 512, 512, 3, 5e-6),
    'inference_1024': Work('inference', 1, 1024, 1024, 2, 5e-6),
    'inference_1000x1500': Work('inference', 1, 1024, 1536, 2, 5e-6),  # padded to multiples of 128
    'train_1': Work('train', 1, CROP, CROP, 5, 1e-4),
    'train_4': Work('train', 4, CROP, CROP, 3, 1e-4),
    'train_6': Work('train', 6, CROP, CROP, 3, 1e-4),
    'data': Work('data', 4, 1000, 1500, 5, 1e-5),  # DATA_BATCHES: 400 crops
    'start': Work('start', 1, CROP, CROP, 2, 1e-4),
}


def inputs(work: Work) -> np.ndarray:
    """The network's input, float32 `[B, H, W, 18]` in [0, 1]."""
    return np.random.default_rng(0).random((work.batch, work.height, work.width, 18), np.float32)


def labels(work: Work) -> np.ndarray:
    """A label for training, float32 `[B, H, W, 3]` in [0, 1]."""
    return np.random.default_rng(1).random((work.batch, work.height, work.width, 3), np.float32)


def scenes(work: Work, count: int = 3) -> list[dict[str, np.ndarray]]:
    """Scenes in their storage types: `ldrs` uint16 `[3, H, W, 3]`, `evs` `[3]`, `label` float32 `[H, W, 3]`."""
    rng = np.random.default_rng(2)
    return [
        {
            'ldrs': rng.integers(0, 65536, (3, work.height, work.width, 3), np.uint16),
            'evs': np.float32([0, 2, 4]),
            'label': np.exp2(rng.integers(-12, 0, (work.height, work.width, 3))).astype(np.float32),
        }
        for _ in range(count)
    ]
