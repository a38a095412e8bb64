"""Weights, options of the command line, and what describes a checkpoint: trees of values in files. See `formats`."""

import io
import json
import pathlib
import shutil
import struct
import sys
import types
import zipfile
import zlib

import absl.app
import absl.flags
import numpy as np
import torch
from flax import traverse_util
from fuzz import mutations, values
from fuzz.formats import Format, Wrong
from fuzz.mutations import pick
from ml_collections import config_flags

from afunet_jax import checkpoints, cli, errors, evaluation, safetensors_weights, torch_weights, training, vgg
from afunet_jax.metrics import registry
from afunet_jax.models import afunet

MODEL = {'num_stages': 1, 'width': 6, 'sfm_depth': 2, 'sfm_heads': 1, 'sam_heads': 1, 'cfm_heads': 1}

torch.set_num_threads(1)


def params():
    return afunet.init_params(afunet.build(MODEL), 0)


def build_pth(folder):
    torch_weights.write_pth(folder / 'ours.pth', params())
    state = torch_weights.read_pth(folder / 'ours.pth')
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    torch.save(tensors, folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    content = {'state_dict': {f'module.{key}': value.half() if value.is_floating_point() else value
                              for key, value in tensors.items()}, 'epoch': 3}  # fmt: skip
    torch.save(content, folder / 'module.pth')


def pth_pickle(rng, data, other):
    """The pickle inside the archive is damaged; the archive's checksums are right."""
    try:
        source = zipfile.ZipFile(io.BytesIO(data))
        entries = [(info, source.read(info)) for info in source.infolist()]
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, OSError, zlib.error):
        return mutations.extreme(rng, data, other)
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for info, content in entries:
            if info.filename.endswith('data.pkl') or rng.random() < 0.02:
                content = pick(rng, mutations.GENERIC)(rng, content, content)
            archive.writestr(info.filename, content)
    return out.getvalue()


def pth_content(rng, data, other):
    """A well-formed file of an absurd state dict."""
    try:
        state = torch.load(io.BytesIO(data), weights_only=True)
        state = dict(state.get('state_dict', state))
    except Exception:  # damaged already
        return mutations.extreme(rng, data, other)
    for _ in range(pick(rng, (1, 1, 3))):
        key = pick(rng, list(state))
        value = state.pop(key)
        if not isinstance(value, torch.Tensor):
            continue
        state[pick(rng, (key, key, key, key, 'module.' + key, key.upper(), 'SFM.99999.residual_group.blocks.0.x', '../../x', ''))] = pick(
            rng, (
                lambda: value.new_zeros(()), lambda: value[None], lambda: value.double(), lambda: value.bfloat16(), lambda: value.to(torch.complex64),
                lambda: torch.full(value.shape, float('nan')), lambda: value.to_sparse() if value.dim() else value, lambda: 3, lambda: None,
                lambda: 'text', lambda: {}, lambda: torch.zeros(1).expand(2**31), lambda: torch.zeros(1).half().expand(2**33), lambda: torch.empty(0, 5),
                lambda: torch.zeros(1).expand(*[1] * 40), lambda: torch.zeros(1).half().expand(2**31 - 1, 2), lambda: torch.zeros(65025, 1),
                lambda: torch.zeros(1).expand(2**20, 2**20), lambda: value.new_empty(value.shape, device='meta'), lambda: torch.zeros(40, 40, dtype=torch.bool),
            ))()  # fmt: skip
    whole = pick(rng, (state, {'state_dict': state}, {'state_dict': [state]}, [state], {'state_dict': {'state_dict': state}}, {1: 2}, 7))
    out = io.BytesIO()
    torch.save(whole, out)
    return out.getvalue()


def build_safetensors(folder):
    safetensors_weights.write(folder / 'ours.safetensors', params(), {'model': {**MODEL, 'drop_path': 0.1}, 'step': 5})


def safetensors_header(rng, data, other):
    """The header's JSON, or the description in it, is changed as a tree."""
    try:
        (length,) = struct.unpack_from('<Q', data)
        text = data[8 : 8 + length].decode()
        tree = json.loads(text)
        about = json.loads(tree['__metadata__']['about'])
    except (struct.error, ValueError, KeyError, TypeError, RecursionError):
        return mutations.extreme(rng, data, other)
    if rng.random() < 0.6:
        if rng.random() < 0.5:
            about['model'][pick(rng, list(about['model']))] = pick(rng, values.JSON_VALUES)
            about = json.dumps(about)
        else:
            about = values.json_text(rng, json.dumps(about))
        tree['__metadata__']['about'] = about
        text = json.dumps(tree)
    else:
        text = values.json_text(rng, text)
    new = text.encode('utf-8', 'surrogatepass')
    new += b' ' * (-len(new) % 8)
    return struct.pack('<Q', len(new)) + new + data[8 + length :]


def check_finite(reader, mutant, result, original):
    for leaf in result.values():
        if not np.isfinite(leaf).all() and reader == 'safetensors':
            raise Wrong(f'{reader} gives values that are not finite')


def read_pth(path):
    return traverse_util.flatten_dict(checkpoints.load_weights(path)[1], sep='/')


def read_safetensors(path):
    return safetensors_weights._named(safetensors_weights.read(path)[1])


# ---- options and metadata ---------------------------------------------------------------------------


def build_options(folder):
    (folder / 'none.json').write_text('[]')


def option_keys():
    from configs import default

    def walk(config, prefix=''):
        for key, value in config.items():
            yield from walk(value, f'{prefix}{key}.') if hasattr(value, 'items') else [f'{prefix}{key}']

    return list(walk(default.get_config()))


def options(rng, data, other):
    return json.dumps(values.options(rng, option_keys())).encode()


def read_options(path):
    """The command line as train.py and eval.py take it, up to the point where data would be read."""
    arguments = ['train.py', '--config=configs/default.py', *json.loads(path.read_text())]
    found = absl.flags.FlagValues()
    config_flags.DEFINE_config_file('config', 'configs/default.py', lock_config=True, flag_values=found)

    def parse(argv):  # as absl.app.parse_flags_with_usage
        try:
            return found(argv)
        except absl.flags.Error as error:
            print(error, file=sys.stderr)
            sys.exit(1)

    before = sys.argv, cli.app
    sys.argv, cli.app = arguments, types.SimpleNamespace(parse_flags_with_usage=parse)
    try:
        cli._parse(arguments)
        config = found['config'].value
    finally:
        sys.argv, cli.app = before
    with config.unlocked():
        config.data.dir = ''
    model = afunet.build(config.model)
    registry.find_metrics(config.eval.metrics)
    evaluation.Network(model, {}, config.eval.pad_to, config.eval.small_images, config.eval.memory_limit)
    try:
        training.run(model, config, path.parent / 'no such folder')
    except errors.ConfigError as error:
        if 'config.data.dir is empty' not in str(error):
            raise


def build_checkpoint(folder):
    about = {'config': {'model': {**MODEL, 'drop_path': 0.1}, 'seed': 1}, 'data_position': {'step': 3}}
    saved = checkpoints.Checkpoints(folder / 'run')
    saved.save(3, params(), {'count': np.zeros(1, np.int32)}, about)
    saved.wait()
    saved.close()
    (folder / 'run' / checkpoints.CONFIG_FILE).write_text(json.dumps(about['config'], indent=1))


def whole_run(folder, seed):
    """The damaged file in a copy of the whole run; the copy is made once."""
    if not (folder / 'run').exists():
        shutil.copytree(pathlib.Path(seed.split('run')[0]) / 'run', folder / 'run')
    return folder / 'run' / seed.split('run/', 1)[1]


def json_or_bytes(rng, data, other):
    try:
        return values.json_text(rng, data.decode()).encode('utf-8', 'surrogatepass')
    except (ValueError, IndexError, RecursionError):
        return pick(rng, mutations.GENERIC)(rng, data, other)


def run_of(path):
    return next(parent for parent in path.parents if parent.name == 'run')


def read_checkpoint(path):
    """Whatever reads the damaged file: the run's configuration, or one of the checkpoint's files."""
    if path.name == checkpoints.CONFIG_FILE:
        return checkpoints.check_workdir(run_of(path), {'model': {**MODEL, 'drop_path': 0.1}, 'seed': 1}, ('train',))
    return checkpoints.load_weights(run_of(path))


def build_vgg(folder):
    rng = np.random.default_rng(0)
    shapes = vgg.expected_shapes()
    small = {key: np.zeros(shape, np.float32) for key, shape in list(shapes.items())[:2]}
    np.savez(folder / 'some.npz', **small)
    np.savez_compressed(folder / 'packed.npz', **small, other=rng.random(5))


FORMATS = {
    '.pth': Format(
        build_pth, '*.pth', (pth_pickle, pth_content), {'load_weights': read_pth, 'vgg': vgg.load}, len, check_finite),
    '.npz': Format(build_vgg, '*.npz', (mutations.extreme,), {'vgg': vgg.load}, len),
    '.safetensors': Format(
        build_safetensors, '*.safetensors', (safetensors_header,), {'safetensors': read_safetensors}, len, check_finite),
    'options': Format(build_options, '*.json', (options,), {'options': read_options}, generic=0.0),
    'checkpoint': Format(
        build_checkpoint, 'run/**/*', (json_or_bytes,), {'checkpoint': read_checkpoint},
        place=whole_run, generic=0.3, often=(checkpoints.CONFIG_FILE, 'metadata')),
}  # fmt: skip
