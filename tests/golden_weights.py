"""The weights and inputs behind the golden numbers, in NumPy alone.

The release's state dict for four stages is listed in `golden/state_dict.json`. Every parameter is
drawn from a seed that is the CRC-32 of its key, so that any program in any order makes the same.
"""

import functools
import json
import math
import pathlib
import zlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / 'golden'
# Keys of these modules carry the stage after the first dot; `conv1.0` and `out.0` do not.
STAGE_MODULES = (
    'beta1', 'beta2', 'A1', 'A3', 'a_12', 'a_32', 'SFM',
    'f_12', 'f_32', 'A2_T', 'inv', 'mlps_end',
)


@functools.cache
def _four_stages() -> dict[str, dict]:
    return json.loads((GOLDEN / 'state_dict.json').read_text())


def state_dict_entries(num_stages: int = 4) -> dict[str, tuple[tuple[int, ...], str]]:
    """Every key of the released state dict: its shape, and 'parameter' or 'buffer'."""
    entries = {}
    for key, entry in _four_stages().items():
        module, _, rest = key.partition('.')
        stage, dot, tail = rest.partition('.')
        names = [key]
        if module in STAGE_MODULES:
            # Stage 0 stands for all: the stages have the same names and shapes.
            names = [f'{module}.{t}{dot}{tail}' for t in range(num_stages)] if stage == '0' else []
        for name in names:
            entries[name] = (tuple(entry['shape']), entry['kind'])
    return entries


def _golden_value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    r = np.random.RandomState(zlib.crc32(key.encode()) % 2**32).standard_normal(shape)
    if 'relative_position_bias_table' in key:
        value = 0.5 * r
    elif 'temperature' in key:
        value = 1 + 0.2 * r
    elif key.startswith('beta'):
        value = 0.5 + 0.1 * r
    elif key.endswith('.bias'):
        value = 0.1 * r
    elif len(shape) == 1:
        value = 1 + 0.1 * r
    else:
        gain = 0.25 if key == 'out.0.weight' else 0.6
        value = gain * r / math.sqrt(math.prod(shape[1:]))
    return np.asarray(value, np.float32)


def golden_parameters(num_stages: int = 4) -> dict[str, np.ndarray]:
    """The parameters (no buffers) that made the golden numbers, float32, in PyTorch's names and layout."""
    return {
        key: _golden_value(key, shape)
        for key, (shape, kind) in state_dict_entries(num_stages).items()
        if kind == 'parameter'
    }


def golden_input(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float32 values in [0, 1); the golden shapes are PyTorch's `[B, C, H, W]`."""
    return np.random.RandomState(seed).random_sample(shape).astype(np.float32)


# Name -> seed, `[C, H, W]`, standard deviation of the noise.
METRIC_PAIRS = {
    'a': (11, (3, 48, 64), 0.02),
    'b': (12, (3, 91, 57), 0.002),
    'c': (13, (3, 64, 64), 0.2),
}


def golden_metric_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and label of pair 'a', 'b' or 'c' of `golden/metrics.npz`, linear `[H, W, 3]` float32."""
    seed, shape, deviation = METRIC_PAIRS[name]
    random = np.random.RandomState(seed)
    label = random.beta(0.5, 3, shape).astype(np.float32)
    noisy = label + deviation * random.standard_normal(shape)
    prediction = np.clip(noisy, 1e-6, 1).astype(np.float32)
    return prediction.transpose(1, 2, 0), label.transpose(1, 2, 0)
