"""Training batches from scenes in memory: crop, flip, rotate, shard by process, batch.

A Grain pipeline of three steps. First an infinite stream of draws, one per crop: which scene, where,
how flipped and turned. Element g of it depends on the seed and on g alone. Then the draws are grouped,
and each process keeps its rows of every global batch. Only then are pixels touched: a batch is cut
straight into its final arrays. So any step is reached at once, without replaying those before it, and
neither the number of processes nor that of threads changes a single value.

One epoch is `crops_per_scene` crops of every scene in random order, in another order each epoch. Batches
run across the ends of epochs: what is left of one is the beginning of the next.
"""

import functools
import hashlib
import operator
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grain
import numpy as np

from afunet_jax import hdr, image_io
from afunet_jax.data.scenes import Scene
from afunet_jax.errors import ConfigError, DataError

Batch = dict[str, np.ndarray]

STORED_VALUES = 2**16  # an LDR image holds 16-bit values
PREFETCH_BATCHES = 4  # ready or in work ahead of the caller, unless there are more threads
EPOCHS_IN_USE = 4  # shuffled orders that are kept: threads work near each other
UNFLIPPED, VERTICAL, HORIZONTAL = 0, 1, 2  # upside down, and left to right
_SHUFFLE, _DRAW = 0, 1  # tell the generator of an epoch's order from that of a crop

# Equally likely flips, and equally likely numbers of quarter turns that follow.
_HALF_FLIPPED = (UNFLIPPED, UNFLIPPED, VERTICAL, HORIZONTAL)
AUGMENTATIONS = {
    'none': ((UNFLIPPED,), (0,)),
    'flips': (_HALF_FLIPPED, (0,)),  # the release
    'flips_and_rotations': (_HALF_FLIPPED, (0, 1, 2, 3)),  # the paper
}


@functools.lru_cache(maxsize=1024)
def _radiance_table(time: float) -> np.ndarray:
    """The radiance of each of the 65536 stored values at a relative exposure time, float32."""
    stored = np.arange(STORED_VALUES, dtype=np.uint16)
    return hdr.to_radiance(hdr.decode_ldr(stored), np.float32(time))


def _undo(image: np.ndarray, flip: int, turns: int) -> np.ndarray:
    """A view of `image` `[s, s, C]`; what is written to it appears in `image` flipped, then turned.

    Writing through the view costs the same as writing straight, so augmentation is free.
    """
    view = np.rot90(image, -turns)
    if flip == UNFLIPPED:
        return view
    return view[::-1] if flip == VERTICAL else view[:, ::-1]


class SceneStore:
    """Labelled scenes in memory, in their storage types.

    Per scene: three LDR images as uint16, and the label as RGBE bytes where that is exact (it is for
    every label that was read from a Radiance file), else as float32. 22 bytes a pixel: 74 scenes of
    1000x1500 take 2.4 GB, as float32 they would take 8.9.
    """

    def __init__(self, scenes: Iterable[Scene]):
        """Takes the scenes one at a time: give it a generator, and no two are held as float32.

        Raises:
            DataError: a scene has no label, or there is no scene.
        """
        self.names: list[str] = []
        self._ldrs: list[np.ndarray] = []  # uint16 [3, H, W, 3]
        self._times: list[tuple[float, ...]] = []
        self._labels: list[np.ndarray] = []  # uint8 [H, W, 4] or float32 [H, W, 3]
        for scene in scenes:
            self._add(scene)
        if not self.names:
            raise DataError('Training needs at least one scene; none was given. Check the data folder, the '
                            'split, and how many scenes are held back for validation.')

    def _add(self, scene: Scene) -> None:
        if scene.label is None:
            raise DataError(f'Scene {scene.name} has no ground truth; training needs it. '
                            'Sets without ground truth can only be evaluated.')
        self.names.append(scene.name)
        self._ldrs.append(np.ascontiguousarray(scene.ldrs))
        self._times.append(tuple(float(t) for t in hdr.exposure_time(scene.evs)))
        self._labels.append(_compact(scene.label))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """Bytes that the pixels take."""
        return sum(array.nbytes for array in self._ldrs + self._labels)

    def digest(self) -> bytes:
        """Of names, exposures and pixels; a second for each GB."""
        found = hashlib.blake2b(repr((self.names, self._times)).encode())
        for array in self._ldrs + self._labels:
            found.update(repr((array.shape, array.dtype)).encode())
            found.update(array)
        return found.digest()

    def size(self, scene: int) -> tuple[int, int]:
        """Height and width of scene number `scene` in pixels."""
        return self._ldrs[scene].shape[1:3]

    def cut(self, draws: Mapping[str, np.ndarray], crop_size: int) -> Batch:
        """Cuts a batch of square crops.

        Args:
            draws: int arrays `[b]`: `scene`, `top`, `left` (of the crop in its scene), `flip`, `turns`.
            crop_size: s, the side of a crop in pixels.

        Returns:
            `input` `[b, s, s, 18]` and `label` `[b, s, s, 3]`, float32. The values are those of
            `hdr.network_input` on the whole scene, to the last bit.
        """
        count = len(draws['scene'])
        inputs = np.empty((count, crop_size, crop_size, 18), np.float32)
        labels = np.empty((count, crop_size, crop_size, 3), np.float32)
        for row in range(count):
            scene, top, left, flip, turns = (
                int(draws[key][row]) for key in ('scene', 'top', 'left', 'flip', 'turns'))
            window = (slice(top, top + crop_size), slice(left, left + crop_size))
            self._cut_input(scene, window, _undo(inputs[row], flip, turns))
            self._cut_label(scene, window, _undo(labels[row], flip, turns))
        return {'input': inputs, 'label': labels}

    def _cut_input(self, scene: int, window: tuple[slice, slice], out: np.ndarray) -> None:
        for i, time in enumerate(self._times[scene]):
            stored = np.ascontiguousarray(self._ldrs[scene][i][window])
            _write(np.take(_radiance_table(time), stored), out[..., 6 * i : 6 * i + 3])
            _write(hdr.decode_ldr(stored), out[..., 6 * i + 3 : 6 * i + 6])

    def _cut_label(self, scene: int, window: tuple[slice, slice], out: np.ndarray) -> None:
        label = self._labels[scene][window]
        _write(image_io.from_rgbe(label) if label.dtype == np.uint8 else label, out)


def _write(image: np.ndarray, out: np.ndarray) -> None:
    """`out[...] = image` for `[s, s, 3]`, one channel at a time: NumPy is slow along an axis of 3."""
    for channel in range(3):
        out[..., channel] = image[..., channel]


def _compact(label: np.ndarray) -> np.ndarray:
    """RGBE bytes `[H, W, 4]` if they hold a float32 label exactly, else the label."""
    if label.max() > image_io.RGBE_LARGEST:
        return np.ascontiguousarray(label)
    rgbe = image_io.to_rgbe(label)
    return rgbe if np.array_equal(image_io.from_rgbe(rgbe), label) else np.ascontiguousarray(label)


class CropDraws:
    """The infinite sequence of draws that `SceneStore.cut` takes: `draws[g]` is crop g of the stream.

    Each is a dict of ints. The position is uniform over the scene. One draw serves the three exposures
    and the label.
    """

    def __init__(
        self, store: SceneStore, *, crop_size: int, crops_per_scene: int, augmentation: str, seed: int
    ):
        """Makes the sequence; nothing is drawn yet.

        Args:
            store: the scenes.
            crop_size: side of the square crops in pixels.
            crops_per_scene: how many crops of every scene make an epoch.
            augmentation: a key of `AUGMENTATIONS`. `flips`: with probability 1/2 one flip, vertical or
                horizontal with equal chance. `flips_and_rotations`: then 0 to 3 quarter turns.
            seed: from 0 up.

        Raises:
            ConfigError: an argument is out of range.
            DataError: a scene is smaller than the crop.
        """
        _check_draws(store, crop_size, crops_per_scene, augmentation, seed)
        self._sizes = [store.size(scene) for scene in range(len(store))]
        self._crop_size = crop_size
        self._epoch_length = len(store) * crops_per_scene
        self._flips, self._turns = AUGMENTATIONS[augmentation]
        self._seed = seed
        self._order = functools.lru_cache(maxsize=EPOCHS_IN_USE)(self._shuffle)

    def __len__(self) -> int:
        return sys.maxsize // 2  # Grain adds to it

    def __getitem__(self, index: int) -> dict[str, int]:
        epoch, place = divmod(index, self._epoch_length)
        scene = int(self._order(epoch)[place]) % len(self._sizes)
        height, width = self._sizes[scene]
        rng = np.random.default_rng((self._seed, _DRAW, index))
        return {
            'scene': scene,
            'top': int(rng.integers(height - self._crop_size + 1)),
            'left': int(rng.integers(width - self._crop_size + 1)),
            'flip': self._flips[rng.integers(len(self._flips))],
            'turns': self._turns[rng.integers(len(self._turns))],
        }

    def _shuffle(self, epoch: int) -> np.ndarray:
        # Not Grain's shuffle: it takes milliseconds per element where an epoch has few.
        return np.random.default_rng((self._seed, _SHUFFLE, epoch)).permutation(self._epoch_length)


def _check_draws(
    store: SceneStore, crop_size: int, crops_per_scene: int, augmentation: str, seed: int
) -> None:
    if augmentation not in AUGMENTATIONS:
        raise ConfigError(f'augmentation is {augmentation!r}; choose one of {", ".join(AUGMENTATIONS)}.')
    for name, value, least in (
        ('crop_size', crop_size, 1), ('crops_per_scene', crops_per_scene, 1), ('seed', seed, 0)):
        if value < least:
            raise ConfigError(f'{name} is {value}; it must be at least {least}.')
    small = [f'{name} ({height}x{width})' for i, name in enumerate(store.names)
             for height, width in [store.size(i)] if min(height, width) < crop_size]
    if small:
        raise DataError(f'A scene must be at least as large as a crop, {crop_size}x{crop_size}; too small '
                        f'(height x width): {", ".join(small)}. Lower the crop size or remove them.')


class TrainBatches(Iterator[Batch]):
    """The infinite batches of one process, from `train_batches`. Each is what `SceneStore.cut` returns.

    Not thread-safe: one consumer. The position is the number of batches delivered, nothing else.
    """

    def __init__(self, batches: grain.MapDataset, options: grain.ReadOptions,
                 stream: Mapping[str, int | str], start_step: int):
        self._batches = batches
        self._options = options
        self._stream = dict(stream)
        self._iterator = None
        self._go_to(start_step)

    def _go_to(self, step: int) -> None:
        if step < 0:
            raise ConfigError(f'The step to start from is {step}; it must be at least 0.')
        self.close()
        self._step = step
        self._iterator = iter(self._batches[step:].to_iter_dataset(self._options))

    def __next__(self) -> Batch:
        if self._iterator is None:
            raise ValueError('These batches were closed; set_state opens them again.')
        batch = next(self._iterator)
        self._step += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position, for `json.dumps`: `step`, the batches delivered, and what defines the stream."""
        return {'step': self._step, 'stream': dict(self._stream)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to the position of a `get_state`, also of one by another number of processes.

        Raises:
            ConfigError: the state is of another stream: other scenes, seed, batch or crop size, and so on; or is none.
        """
        try:
            theirs, step = dict(state['stream']), operator.index(state['step'])
        except (LookupError, TypeError, ValueError) as error:
            raise ConfigError(f'The saved data position is none that this project writes ({error!r:.100}). '
                              'Start in a new workdir.') from error
        changed = [f'{key} was {theirs.get(key)!r} and is {self._stream.get(key)!r}'
                   for key in sorted(theirs.keys() | self._stream.keys())
                   if theirs.get(key) != self._stream.get(key)]
        if changed:
            raise ConfigError('The saved data position belongs to other training data: '
                              f'{"; ".join(changed)}. Restore these values, or start in a new workdir.')
        self._go_to(step)

    def close(self) -> None:
        """Ends the prefetching threads. Safe to call twice; `set_state` opens the iterator again."""
        self._iterator = None  # its threads end with it


def train_batches(
    store: SceneStore,
    *,
    batch_size: int,
    crop_size: int,
    crops_per_scene: int,
    augmentation: str,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    start_step: int = 0,
    num_threads: int = 2,
    prefetch_batches: int = PREFETCH_BATCHES,
) -> TrainBatches:
    """The training batches of one process, without end.

    Process p of P gets rows `p * B / P` to `(p + 1) * B / P` of every global batch: the shards of all
    processes, concatenated, are the batches of a single one, bit for bit.

    Args:
        store: the scenes; every process holds them all.
        batch_size: B, crops in a global batch, over all processes.
        crop_size, crops_per_scene, augmentation, seed: as in `CropDraws`.
        process_index: p, from 0 to P - 1.
        process_count: P; must divide `batch_size`.
        start_step: the batch to begin with; those before it are skipped at no cost.
        num_threads: threads that cut batches ahead; 0 cuts in the caller's thread.
        prefetch_batches: batches ready or in work ahead of the caller; at least `num_threads`.

    Returns:
        An iterator over `{'input': float32 [B/P, s, s, 18], 'label': float32 [B/P, s, s, 3]}`.

    Raises:
        ConfigError: an argument is out of range, or `process_count` does not divide `batch_size`.
        DataError: a scene is smaller than the crop.
    """
    _check_sharding(batch_size, process_index, process_count)
    _check_threads(num_threads, prefetch_batches)
    recipe = {'crop_size': crop_size, 'crops_per_scene': crops_per_scene,
              'augmentation': augmentation, 'seed': seed}
    draws = grain.MapDataset.source(CropDraws(store, **recipe))
    shards = draws.batch(batch_size // process_count)[process_index::process_count]
    batches = shards.map(functools.partial(store.cut, crop_size=crop_size))
    options = grain.ReadOptions(num_threads=num_threads,
                                prefetch_buffer_size=prefetch_batches if num_threads else 0)
    stream = {'batch_size': batch_size, 'scenes': _fingerprint(store), **recipe}
    return TrainBatches(batches, options, stream, start_step)


def _fingerprint(store: SceneStore) -> str:
    """Names the scenes, their order and their sizes: the stream is another when one of them changes."""
    listing = repr([(name, *store.size(i)) for i, name in enumerate(store.names)])
    return f'{len(store)} scenes, {hashlib.sha256(listing.encode()).hexdigest()[:12]}'


def _check_sharding(batch_size: int, process_index: int, process_count: int) -> None:
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ConfigError(f'process_index is {process_index} of {process_count} processes; '
                          'it must lie between 0 and process_count - 1.')
    if batch_size < 1:
        raise ConfigError(f'batch_size is {batch_size}; it must be at least 1.')
    if batch_size % process_count:
        below = batch_size // process_count * process_count
        sizes = ' or '.join(str(size) for size in (below, below + process_count) if size)
        counts = ', '.join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
        raise ConfigError(f'The global batch size must be a multiple of the number of processes; it is '
                          f'{batch_size} for {process_count} processes. Use a batch of {sizes}, or one of '
                          f'these numbers of processes: {counts}.')


def _check_threads(num_threads: int, prefetch_batches: int) -> None:
    if num_threads < 0 or prefetch_batches < num_threads:
        raise ConfigError(f'num_threads is {num_threads} and prefetch_batches {prefetch_batches}; the first '
                          'must be at least 0, the second at least the first.')
