"""One side of a comparison, in a process of its own: `python -m benchmarks.sides SIDE WORK FOLDER`.

The process sets a work up, then runs it once for each line it is sent, and answers with one line of JSON. The first
run's result goes to FOLDER/SIDE.npy. Sides: 'ours', which leaves the weights in FOLDER for the others, 'twin'
(PyTorch, eager), 'compiled' (PyTorch, torch.compile). These two run the network without importing JAX, so that
memory and start are PyTorch's own.
"""

import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks import works

Run = Callable[[], np.ndarray]  # runs the work once and returns numbers to compare
SEED = 0
WEIGHTS = 'weights.npz'  # a PyTorch state dict


def ours(work: works.Work, folder: pathlib.Path) -> Run:
    """Sets a work up in JAX."""
    from afunet_jax import evaluation, losses, parallel, torch_weights, training
    from afunet_jax.models import afunet
    from configs import default

    config = default.get_config()
    config.model.drop_path = 0.0  # so that both sides compute the same
    model = afunet.build(config.model)
    params = afunet.init_params(model, SEED)
    np.savez(folder / WEIGHTS, **torch_weights.to_state_dict(params))
    x = works.inputs(work)
    if work.kind == 'inference':
        network = evaluation.Network(model, params)
        return lambda: network.merge(x)
    optimizer, _ = training.make_optimizer(config.optimizer, config.train.steps)
    step = training.make_step(model, optimizer, SEED)
    state = parallel.replicate(training.initial_state(params, optimizer))
    loss = parallel.replicate(losses.make_loss('release'))
    batch, stop = parallel.shard({'input': x, 'label': works.labels(work)}), parallel.on_devices(0)

    def run() -> np.ndarray:
        nonlocal state
        state, metrics = step(state, batch, loss, stop)
        return parallel.unreplicate(metrics)['loss']

    return run


def ours_data(work: works.Work) -> Run:
    """Our training batches, from scenes in memory."""
    from afunet_jax.data import batches
    from afunet_jax.data.scenes import Scene

    store = batches.SceneStore(Scene(str(i), s['ldrs'], s['evs'], s['label']) for i, s in enumerate(works.scenes(work)))
    stream = batches.train_batches(
        store, batch_size=work.batch, crop_size=works.CROP, crops_per_scene=100, augmentation='flips', seed=SEED
    )
    return lambda: [next(stream)['input'].shape for _ in range(works.DATA_BATCHES)]


def twin(work: works.Work, folder: pathlib.Path, compiled: bool = False) -> Run:
    """Sets a work up in PyTorch."""
    import torch

    from afunet_jax import torch_twin

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32, as ours
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = torch_twin.AFUNetTwin(drop_path=0.0)
    with np.load(folder / WEIGHTS) as weights:
        model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
    model = model.to(device)
    x = torch.from_numpy(works.inputs(work).transpose(0, 3, 1, 2).copy()).to(device)
    call = torch.compile(model) if compiled else model
    if work.kind == 'inference':
        model.eval()

        def infer() -> np.ndarray:
            with torch.no_grad():
                return call(x).permute(0, 2, 3, 1).cpu().numpy()

        return infer
    y = torch.from_numpy(works.labels(work).transpose(0, 3, 1, 2).copy()).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)

    def train() -> np.ndarray:
        optimizer.zero_grad(set_to_none=True)
        loss = torch_twin.release_loss(call(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach().cpu().numpy()

    return train


def twin_data(work: works.Work) -> Run:
    """What a PyTorch data set over scenes in memory does: cut, compute the radiance, flip, collate."""
    import torch

    from afunet_jax import hdr

    scenes = works.scenes(work)

    class Crops(torch.utils.data.Dataset):
        def __len__(self):
            return 10**6

        def __getitem__(self, index):
            rng = np.random.default_rng(index)
            scene = scenes[rng.integers(len(scenes))]
            top, left = rng.integers(work.height - works.CROP), rng.integers(work.width - works.CROP)
            window = (slice(top, top + works.CROP), slice(left, left + works.CROP))
            x = hdr.network_input(hdr.decode_ldr(scene['ldrs'][(slice(None), *window)]), scene['evs'])
            y = scene['label'][window]
            if rng.integers(2):
                axis = rng.integers(2)
                x, y = np.flip(x, axis), np.flip(y, axis)
            return torch.from_numpy(x.transpose(2, 0, 1).copy()), torch.from_numpy(y.transpose(2, 0, 1).copy())

    stream = iter(torch.utils.data.DataLoader(Crops(), work.batch, num_workers=2, prefetch_factor=4))
    return lambda: [tuple(next(stream)[0].permute(0, 2, 3, 1).shape) for _ in range(works.DATA_BATCHES)]


def set_up(side: str, work: works.Work, folder: pathlib.Path) -> Run:
    """The function that runs a work once."""
    if work.kind == 'data':
        return (ours_data if side == 'ours' else twin_data)(work)
    return ours(work, folder) if side == 'ours' else twin(work, folder, compiled=side == 'compiled')


def peak_mb(side: str) -> float:
    """Peak memory so far: of the accelerator if there is one, else resident memory of this process. In MB."""
    if side == 'ours':
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        if 'peak_bytes_in_use' in stats:
            return stats['peak_bytes_in_use'] / 1e6
    else:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    side, name, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    run = set_up(side, works.WORKS[name], folder)
    print(json.dumps({'ready': True}), flush=True)
    for i, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        if i == 0:
            np.save(folder / f'{side}.npy', np.asarray(result))
        print(json.dumps({'seconds': seconds, 'peak_mb': peak_mb(side)}), flush=True)


if __name__ == '__main__':
    main()
