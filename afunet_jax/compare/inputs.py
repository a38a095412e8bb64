"""What the networks are given: one scene, or random images."""

import dataclasses
import os
import pathlib

import numpy as np

from afunet_jax import hdr
from afunet_jax.data import scenes
from afunet_jax.data.layouts import get_layout
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.models import afunet


def random_batch(size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One random image and its label: `[1, H, W, 18]` and `[1, H, W, 3]`, float32 in [0, 1)."""
    random = np.random.default_rng(seed)
    return tuple(random.random((1, *size, channels), np.float32) for channels in (afunet.INPUT_CHANNELS, 3))


def read_scene(folder: str | pathlib.Path, layout: str = 'kalantari') -> tuple[np.ndarray, np.ndarray | None]:
    """Reads one scene as the network gets it.

    Args:
        folder: of the scene; for layouts with a folder per exposure, its path without the exposure's number.
        layout: name of the layout of its files.

    Returns:
        Input `[H, W, 18]` and label `[H, W, 3]`, None if there is no ground truth.

    Raises:
        ConfigError, DataError: the layout is unknown, or the scene is missing or damaged.
    """
    folder = pathlib.Path(os.path.abspath(folder))
    here = dataclasses.replace(get_layout(layout), test=(('.',),))
    found = [files for files in scenes.find_scenes(folder.parent, here, 'test') if files.name == folder.name]
    if not found:
        raise DataError(f'{folder}: no scene of layout {layout}; name one scene, or another --layout')
    scene = scenes.read_scene(found[0])
    return hdr.network_input(hdr.decode_ldr(scene.ldrs), scene.evs), scene.label


def centre(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle `size` pixels of `[H, W, C]`."""
    height, width = image.shape[:2]
    if size[0] > height or size[1] > width:
        raise ConfigError(f'--size={size[0]}x{size[1]} does not fit into a scene of {height}x{width} pixels')
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]
