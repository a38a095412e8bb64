"""From a config's `data` section to scenes: built-in or on disk, for training, validation and evaluation."""

import pathlib
from collections.abc import Iterator
from typing import Any

from afunet_jax.data import synthetic, tfds_builders
from afunet_jax.data.batches import SceneStore
from afunet_jax.data.layouts import get_layout
from afunet_jax.data.scenes import Scene, SceneFiles, find_scenes, read_scene
from afunet_jax.errors import ConfigError


def ensure_folder(data: Any) -> pathlib.Path:
    """The data set's folder; built-in scenes are written into it on first use, with progress.

    Args:
        data: the config's `data` section.

    Raises:
        ConfigError: no folder is named.
        DataError: the folder holds something else than the built-in scenes that were asked for.
    """
    if not data.dir:
        raise ConfigError('config.data.dir is empty; name the folder of the data set: --config.data.dir=DIR')
    folder = pathlib.Path(data.dir)
    wanted = data.synthetic
    if wanted.train_scenes or wanted.test_scenes:
        if data.layout != 'synthetic':
            raise ConfigError(f'built-in scenes (data.synthetic) need data.layout=synthetic, not {data.layout}')
        synthetic.ensure_scenes(
            folder, train=wanted.train_scenes, test=wanted.test_scenes,
            height=wanted.height, width=wanted.width, seed=wanted.seed,
        )  # fmt: skip
    return folder


def split_names(names: list[str], held_back: int) -> tuple[list[str], list[str]]:
    """Names of the scenes to train on, and of the last `held_back`, to validate on.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    if not 0 <= held_back < len(names):
        raise ConfigError(
            f'validation.scenes={held_back} holds back that many of the {len(names)} training scenes; '
            f'choose 0 to {len(names) - 1}'
        )
    cut = len(names) - held_back
    return names[:cut], names[cut:]


def training_scenes(data: Any, held_back: int, progress: Any = 'stderr') -> tuple[SceneStore, list[Scene]]:
    """Prepares the data set on first use and reads its training split.

    Args:
        data: the config's `data` section.
        held_back: number of scenes kept for validation.
        progress: of the preparation, as `tfds_builders.prepare` takes it.

    Returns:
        The scenes to train on, in their storage types, and those to validate on.

    Raises:
        ConfigError, DataError: see the functions that are called.
    """
    builder = tfds_builders.prepare(
        ensure_folder(data), data.layout, data.prepared_dir, progress, data.follow_links, data.max_pixels
    )
    names, held = split_names(tfds_builders.scene_names(builder, 'train'), held_back)

    def read(chosen: list[str]) -> Iterator[Scene]:
        return tfds_builders.iter_scenes(builder, 'train', chosen, data.subtract_min_ev)

    return SceneStore(read(names)), list(read(held))


def evaluation_scenes(data: Any, split: str, most: int = 0) -> tuple[list[SceneFiles], Iterator[Scene]]:
    """Files of a split's scenes (at most `most`, 0: all), and an iterator that reads them one by one."""
    if most < 0:
        raise ConfigError(f'eval.scenes is a number of scenes, or 0 for all, not {most}')
    files = find_scenes(ensure_folder(data), get_layout(data.layout), split, data.follow_links)
    files = files[:most] if most else files
    return files, (read_scene(scene, data.subtract_min_ev, data.max_pixels) for scene in files)
