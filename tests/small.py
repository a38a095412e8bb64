"""The small things that tests train and evaluate: scenes on disk, a network, a configuration, and whole programs."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np

from afunet_jax import hdr, image_io, signals

ROOT = pathlib.Path(__file__).parent.parent
MODEL = {
    'num_stages': 1, 'width': 6, 'sfm_depth': 2, 'sfm_heads': 1, 'sam_heads': 1, 'cfm_heads': 1,
    'window_size': 8, 'mlp_ratio': 2, 'drop_path': 0.5,
}  # fmt: skip


def heed_signals():
    """Programs started from here end by signals, also where a shell has us ignore them: it does so for SIGINT behind `&`.

    What is ignored is inherited, and stays ignored in the programs, as it should.
    """
    for number in signals.SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def write_scene(folder, height=40, width=56, evs=(0, 2, 4), seed=0, label=True):
    """A scene in Kalantari's layout: a smooth gradient with squares on it, cut by the exposures, no motion."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-9, 0, width)[None, :, None] + np.linspace(-2, 0, height)[:, None, None]
    radiance = np.exp2(ramp + rng.normal(0, 0.3, 3))
    for _ in range(6):
        y, x = rng.integers(height - 8), rng.integers(width - 8)
        radiance[y : y + 8, x : x + 8] *= rng.uniform(0.2, 2, 3)
    radiance = np.clip(radiance, 0, 1).astype(np.float32)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for i, ev in enumerate(evs):
        stored = np.round(hdr.from_radiance(radiance, hdr.exposure_time(ev)) * 65535).astype(np.uint16)
        image_io.write_ldr(folder / f'{i + 1}.tif', stored)
    (folder / 'exposure.txt').write_text('\n'.join(map(str, evs)) + '\n')
    if label:
        image_io.write_hdr(folder / 'HDRImg.hdr', radiance)
    return folder


def write_data_set(folder, train=3, test=2, **options):
    """A data set in Kalantari's layout."""
    for i in range(train):
        write_scene(folder / 'Training' / f'{i + 1:03}', seed=i, **options)
    for i in range(test):
        write_scene(folder / 'Test' / 'Test-set' / f'{i + 1:03}', seed=100 + i, **options)
    return folder


def config(folder, prepared):
    """A configuration for `MODEL` and the scenes in `folder`."""
    from configs import default

    config = default.get_config()
    config.model.update(MODEL)
    config.data.update(dir=str(folder), prepared_dir=str(prepared))
    config.train.update(batch_size=4, steps=4, crop_size=16, crops_per_scene=4, log_every=2, checkpoint_every=2)
    config.optimizer.update(epochs=4, learning_rate=2e-3)
    config.validation.update(scenes=1, every=2)
    config.eval.update(pad_to=8)
    return config


def parameters(model):
    """Random parameters of the size that trained ones have (those of the golden numbers), so that all branches matter."""
    import jax

    from afunet_jax.models import afunet

    rng = np.random.default_rng(0)
    around = {'table': (0, 0.5), 'bias': (0, 0.1), 'scale': (1, 0.1), 'temperature': (1, 0.2), 'beta_1': (0.5, 0.1), 'beta_3': (0.5, 0.1)}

    def draw(path, leaf):
        gain = 0.25 if path[0].key == 'output_conv' else 0.6
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) != 3 else 9
        mean, std = around.get(path[-1].key, (0, gain / np.sqrt(fan_in)))
        return np.asarray(mean + std * rng.standard_normal(leaf.shape), np.float32)

    return jax.tree_util.tree_map_with_path(draw, afunet.parameter_shapes(model))


def flags(config):
    """The configuration's differences from the default as command-line flags."""
    from configs import default

    def walk(ours, theirs, prefix):
        for key, value in ours.items():
            if hasattr(value, 'items'):
                yield from walk(value, theirs[key], f'{prefix}.{key}')
            elif value != theirs[key]:
                yield f'{prefix}.{key}={value}'

    return ['--config=configs/default.py', *walk(config, default.get_config(), '--config')]


def start(program, *arguments, devices=1):
    """Starts a program of the project in a process of its own, on so many faked CPU devices."""
    environment = {
        **os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT),
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *program.split(), *map(str, arguments)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(program, *arguments, devices=1):
    """Runs a program to its end: (exit status, stdout, stderr)."""
    process = start(program, *arguments, devices=devices)
    out, err = process.communicate()
    return process.returncode, out, err
