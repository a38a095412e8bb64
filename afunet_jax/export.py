"""The network as one file that runs without this package: StableHLO, by `jax.export`.

    python -m afunet_jax.export [--weights=DIR_OR_FILE] --out=afunet.stablehlo [--height=H --width=W]

Without a size, height and width are symbols: one file for all images whose sides are multiples of the window. The
parameters are in the file. Beside it goes `afunet.stablehlo.json`, which says what goes in, what comes out, and how
the input is made. To run it, with nothing but jax, flatbuffers and NumPy:

    exported = jax.export.deserialize(pathlib.Path('afunet.stablehlo').read_bytes())
    image = exported.call(x)  # [1, H, W, 18] float32 to [1, H, W, 3]

The network is traced as for any device, one row of windows at a time (2.6 GB for 1000x1504 pixels on a CPU);
`--at_once=image` computes all windows at once, for a GPU that has the memory. ONNX is not written: the maintained
converter, jax2onnx, needs a dozen packages more (onnxruntime and huggingface-hub among them) and an older Orbax.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax import export as jax_export

from afunet_jax import checkpoints, cli, files, hdr, safetensors_weights
from afunet_jax.errors import ConfigError
from afunet_jax.models import afunet, execution

FORMAT_VERSION = 1
PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
DEFAULT_PLATFORMS = ('cpu', 'cuda')
AT_ONCE = ('row', 'image')
SOME_WINDOWS = 1  # of a symbolic image: any number but 0 means a row of windows
DESCRIPTION_ENDING = '.json'


@dataclasses.dataclass(frozen=True)
class Size:
    """Of the images that an exported network takes: pixels, or None for any multiple of the window."""

    height: int | None = None
    width: int | None = None
    batch: int = 1


def export_network(
    model: afunet.AFUNet,
    params: Any,
    size: Size = Size(),
    platforms: Sequence[str] = DEFAULT_PLATFORMS,
    at_once: str = 'row',
) -> jax_export.Exported:
    """The network with its parameters as a program for other machines.

    Args:
        model: its dtype counts; how it is computed does not.
        params: its parameters.
        size: of the images; one side may be fixed and the other not.
        platforms: of `PLATFORMS`; the program runs on all of them.
        at_once: 'row' computes a row of windows at a time, 'image' all.

    Returns:
        A function of `[batch, H, W, 18]` float32 (see `hdr.network_input`) to `[batch, H, W, 3]` float32.

    Raises:
        ConfigError: a size that is no multiple of the window, or another value that cannot be.
    """
    _check(model.window_size, size, platforms, at_once)
    sides = [str(side or f'{model.window_size}*{symbol}') for side, symbol in ((size.height, 'h'), (size.width, 'w'))]
    shape = (size.batch, *jax_export.symbolic_shape(', '.join(sides)), afunet.INPUT_CHANNELS)
    windows = 0 if at_once == 'image' else (size.width or 0) // model.window_size * size.batch or SOME_WINDOWS
    network = model.clone(chunk_windows=windows, remat='off', attention='plain', precision='highest')
    apply = jax.jit(lambda x: network.apply({'params': params}, x))
    with execution.for_any_device():
        return jax_export.export(apply, platforms=tuple(platforms))(jax.ShapeDtypeStruct(shape, jnp.float32))


def _check(window: int, size: Size, platforms: Sequence[str], at_once: str) -> None:
    for name, side in (('height', size.height), ('width', size.width)):
        if side is not None and (side < window or side % window):
            raise ConfigError(f'{name} is a multiple of the window, {window} pixels, not {side}. Pad the images by '
                              'reflection, or leave it out to take any multiple')
    if size.batch < 1:
        raise ConfigError(f'batch is at least 1, not {size.batch}')
    if not platforms or (unknown := sorted(set(platforms) - set(PLATFORMS))):
        wrong = ', '.join(unknown) if platforms else 'none'
        raise ConfigError(f'platforms are some of {", ".join(PLATFORMS)}, not {wrong}')
    if at_once not in AT_ONCE:
        raise ConfigError(f'at_once is one of {", ".join(AT_ONCE)}, not {at_once!r}')


def describe(exported: jax_export.Exported, data: bytes, window: int, weights: str) -> dict[str, Any]:
    """What someone needs to know who has nothing but the file. JSON-able."""
    (taken,), (given,) = exported.in_avals, exported.out_avals
    return {
        'format_version': FORMAT_VERSION,
        'network': 'AFUNet',
        'made_with': f'jax {jax.__version__}',
        'weights': weights,
        'bytes': len(data),
        'sha256': hashlib.sha256(data).hexdigest(),
        'platforms': list(exported.platforms),
        'calling_convention_version': exported.calling_convention_version,
        'input': {
            'shape': [str(side) for side in taken.shape],
            'dtype': str(taken.dtype),
            'layout': 'batch, height, width, channels',
            'channels': 'for the short, the middle and the long exposure: radiance R, G, B, then LDR R, G, B',
            'ldr': f'gamma-encoded, stored 16-bit value / {hdr.LDR_SCALE:.0f}, in [0, 1)',
            'radiance': f'ldr ** {hdr.GAMMA} / (t + 1e-8), float32, t = 2 ** EV the relative exposure time',
            'ev': 'stops over the short exposure, whose EV is 0: the network was trained so, and others give '
                  'wrong brightness',
            'size': f'height and width are multiples of {window}; pad bottom and right by reflection, crop the output',
        },
        'output': {
            'shape': [str(side) for side in given.shape],
            'dtype': str(given.dtype),
            'range': 'linear radiance, R, G, B, on the scale of the radiance that goes in; with EV 0 for the short '
                     'exposure from 0 to 1, the full scale of the short exposure',
        },
        'run': 'jax.export.deserialize(file.read_bytes()).call(x)',
    }


def write(
    path: str | pathlib.Path,
    weights: str | pathlib.Path,
    size: Size = Size(),
    platforms: Sequence[str] = DEFAULT_PLATFORMS,
    at_once: str = 'row',
) -> dict[str, Any]:
    """Exports weights to `path`, and writes the description beside it.

    Args:
        path: of the new file; its folder is made if absent.
        weights: a `.pth`, a checkpoint, or a working directory of training.
        size, platforms, at_once: as for `export_network`.

    Returns:
        The description, see `describe`.

    Raises:
        WeightsError, CheckpointError: the weights cannot be read.
        ConfigError: as `export_network`, or the file cannot be written.
    """
    path = pathlib.Path(path)
    settings, params = checkpoints.load_weights(weights)
    model = afunet.build(settings)
    exported = export_network(model, params, size, platforms, at_once)
    data = _serialized(exported)
    about = describe(exported, data, model.window_size, pathlib.Path(weights).name)
    try:
        with files.replacing(path) as temporary:
            temporary.write_bytes(data)
        files.write_json(path.with_name(path.name + DESCRIPTION_ENDING), about)
    except OSError as error:
        raise ConfigError(f'{path}: cannot be written ({error.strerror}); choose another --out') from error
    return about


def _serialized(exported: jax_export.Exported) -> bytes:
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise ConfigError('a file of jax.export needs the package flatbuffers; run pip install flatbuffers') from error


_WEIGHTS = flags.DEFINE_string('weights', None, 'As of eval.py; none: those of the package.')
_OUT = flags.DEFINE_string('out', 'afunet.stablehlo', 'The exported network; its description goes beside it.')
_HEIGHT = flags.DEFINE_integer('height', None, 'Of the images, pixels, a multiple of the window; absent: any.')
_WIDTH = flags.DEFINE_integer('width', None, 'Of the images, pixels, a multiple of the window; absent: any.')
_BATCH = flags.DEFINE_integer('batch', 1, 'Images at once.')
_PLATFORMS = flags.DEFINE_list('platforms', list(DEFAULT_PLATFORMS), f'Of {", ".join(PLATFORMS)}.')
_AT_ONCE = flags.DEFINE_enum('at_once', 'row', AT_ONCE, 'Windows at once: a row, in little memory, or the whole image.')


def main(_: Sequence[str]) -> None:
    """The command."""
    size = Size(_HEIGHT.value, _WIDTH.value, _BATCH.value)
    weights = _WEIGHTS.value or safetensors_weights.packaged()
    about = write(_OUT.value, weights, size, _PLATFORMS.value, _AT_ONCE.value)
    shapes = ' -> '.join(f'[{", ".join(about[end]["shape"])}]' for end in ('input', 'output'))
    print(f'{_OUT.value}: {shapes}, {about["bytes"] / 1e6:.1f} MB, for {", ".join(about["platforms"])}')


if __name__ == '__main__':
    cli.run(main)
