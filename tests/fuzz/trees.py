"""Weights, options of the command line, and what describes a checkpoint: trees of values in files. See `formats`."""

import collections
import functools
import io
import json
import re
import struct
import sys
import types
import zipfile
import zlib
from unittest import mock

import absl.app
import absl.flags
import jax
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


def zip_entries(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zip_of(content, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)  # without the time: a case is always the same
    return out.getvalue()


def build_pth(folder):
    torch_weights.write_pth(folder / 'ours.pth', params())
    state = torch_weights.read_pth(folder / 'ours.pth')
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    torch.save(tensors, folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    content = {'state_dict': {f'module.{key}': value.half() if value.is_floating_point() else value
                              for key, value in tensors.items()}, 'epoch': 3}  # fmt: skip
    torch.save(content, folder / 'module.pth')
    torch.save({key: torch.from_numpy(value) for key, value in vgg_weights().items()}, folder / 'vgg.pth')


def pth_pickle(rng, data, other):
    """The pickle inside the archive is damaged; the archive's checksums are right."""
    try:
        content = zip_entries(data)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, OSError, zlib.error):
        return mutations.extreme(rng, data, other)
    compression = pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    for name in content:
        if name.endswith('data.pkl') or rng.random() < 0.02:
            content[name] = pick(rng, mutations.GENERIC)(rng, content[name], content[name])
    return zip_of(content, compression)


def nested(depth, inner):
    for _ in range(depth):
        inner = {'state_dict': inner}
    return inner


MOST_NUMBERS = 1_000_000
ABSURD = (  # what a tensor becomes: all of it is read with weights_only
    lambda value: value.new_zeros(()), lambda value: value[None], lambda value: value.double(), lambda value: value.bfloat16(),
    lambda value: value.to(torch.complex64), lambda value: torch.full(value.shape, float('nan')),
    lambda value: torch.full(value.shape, 1e300, dtype=torch.float64), lambda value: value.to_sparse() if value.dim() else value,
    lambda value: value.to_sparse_csr() if value.dim() == 2 else value, lambda value: 3, lambda value: None, lambda value: 'text',
    lambda value: {}, lambda value: torch.Size([1]), lambda value: torch.float32, lambda value: b'x', lambda value: {1, 2},
    lambda value: torch.zeros(1).expand(2**31), lambda value: torch.zeros(1).half().expand(2**33), lambda value: torch.empty(0, 5),
    lambda value: torch.zeros(1).expand(*[1] * 40), lambda value: torch.zeros(1).half().expand(2**31 - 1, 2), lambda value: torch.zeros(65025, 1),
    lambda value: torch.zeros(1).expand(2**20, 2**20), lambda value: value.new_empty(value.shape, device='meta'),
    lambda value: torch.zeros(40, 40, dtype=torch.bool), lambda value: torch.nn.Parameter(value.float()), lambda value: value.float().T,
    lambda value: value.to(torch.float8_e4m3fn) if value.is_floating_point() else value, lambda value: value.flatten()[:1].expand(value.shape),
    lambda value: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8), lambda value: value.int(), lambda value: value.bool(),
    lambda value: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (2**31, 2**31)),
    lambda value: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (2**20, 2**11)),
    lambda value: torch.view_as_complex(torch.zeros(3, 2)).conj(), lambda value: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
)  # fmt: skip


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
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.numel() > MOST_NUMBERS:
            continue  # an absurd one already
        names = key, key, key, key, 'module.' + key, key.upper(), 'SFM.99999.residual_group.blocks.0.x', '../../x', '', '\ud800'
        state[pick(rng, names)] = pick(rng, ABSURD)(value)
    whole = pick(rng, (
        state, state, {'state_dict': state}, {'state_dict': [state]}, [state], {'state_dict': {'state_dict': state}}, {1: 2}, 7,
        collections.OrderedDict(state), {**state, 5: torch.zeros(3)}, {**state, None: 1}, nested(pick(rng, (3, 900, 20_000)), state),
        {'state_dict': state, 'epoch': 10**400, 'optimizer': nested(500, state)}, {'state_dict': {}}, {'state_dict': None, **state},
    ))  # fmt: skip
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
        if not np.isfinite(leaf).all():
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


# ---- VGG-19, an eighth as wide and shorter: its own weights are 52 MB, and a mutant a second -------------------

NARROW = tuple(tuple(layer and (layer[0], -(-layer[1] // 64), layer[2] // 64) for layer in block) for block in vgg.BLOCKS)


def vgg_weights():
    rng = np.random.default_rng(0)
    with mock.patch.object(vgg, 'BLOCKS', NARROW):
        return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in vgg.expected_shapes().items()}


def read_vgg(path):
    with mock.patch.object(vgg, 'BLOCKS', NARROW):
        return traverse_util.flatten_dict(jax.device_get(vgg.load(path)), sep='/')


def build_vgg(folder):
    arrays = vgg_weights()
    np.savez(folder / 'plain.npz', **arrays)
    np.savez_compressed(folder / 'packed.npz', **arrays, other=np.zeros(5))
    np.savez(folder / 'kinds.npz', **{key: value.astype(np.float16 if 'bias' in key else '>f8') for key, value in arrays.items()})


def npz_of(rng, content):
    return zip_of(content, pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


NPY_HEADERS = {
    'descr': ("'<f8'", "'>f4'", "'<f2'", "'|O'", "'<c8'", "'|V2147483647'", "'<U100000000'", "'<M8[s]'", "[('a', '<f4')]", 'None', "'<f4' * 9", "''"),
    'fortran_order': ('True', '1', 'None', "'x'"),
    'shape': ('()', '(0,)', '(-1,)', '(2147483648,)', '(1099511627776,)', '(9223372036854775807, 2)', '(1,) * 9', '(3.5,)', '[3]', '(True,)',
              '(1000000, 1000000)', '(100000000,)', '(' + '1, ' * 70 + ')', '(' * 500 + ')' * 500, 'None', '9' * 5000),
}  # fmt: skip


@functools.cache
def zeros(size):
    return bytes(size)


def npz_header(rng, data, other):
    """The header of an array says something else; some of the arrays unpack to what it says. Checksums are right."""
    content = zip_entries(data)
    for name in [pick(rng, list(content)) for _ in range(pick(rng, (1, 1, 3)))]:
        entry = content[name]
        (length,) = struct.unpack_from('<H', entry, 8)
        text = entry[10 : 10 + length].decode('latin-1')
        key = pick(rng, list(NPY_HEADERS))
        text = re.sub(rf"'{key}': .*?(, '|, }})", lambda match: f"'{key}': {pick(rng, NPY_HEADERS[key])}{match[1]}", text)
        if rng.random() < 0.2:
            text = pick(rng, mutations.GENERIC)(rng, text.encode('latin-1'), entry).decode('latin-1')[:60_000]
        body = zeros(200_000_000) if rng.random() < 0.05 else entry[10 + length :]
        version = pick(rng, (b'\1\0', b'\1\0', b'\1\0', b'\2\0', b'\3\0', b'\4\0'))
        size = struct.pack('<H' if version == b'\1\0' else '<I', len(text) % 65536)
        content[name] = b'\x93NUMPY' + version + size + text.encode('latin-1') + body
    return npz_of(rng, content)


def npz_content(rng, data, other):
    """Arrays of other values and kinds, entries missing or besides."""
    content = zip_entries(data)
    for name in [pick(rng, list(content)) for _ in range(pick(rng, (1, 1, 3)))]:
        array = np.load(io.BytesIO(content[name]))
        new = pick(rng, (
            lambda: np.full(array.shape, np.nan), lambda: np.full(array.shape, 1e300), lambda: array[None], lambda: array.astype(int),
            lambda: array.astype(complex), lambda: array.astype('S'), lambda: np.zeros(25_000_000, np.float32), lambda: array.astype(np.longdouble),
            lambda: np.asfortranarray(array), lambda: array.astype(bool), lambda: np.zeros(0), lambda: None,
        ))()  # fmt: skip
        if new is None:
            content['x' * pick(rng, (1, 60_000))] = content.pop(name)
            continue
        out = io.BytesIO()
        np.save(out, new)
        content[name] = out.getvalue()
    return npz_of(rng, content)


BLIND = {'truncated', 'flipped', 'overwritten', 'inserted', 'cut', 'swapped'}  # damage that makes no other file that is whole


def same_if_blind(reader, mutant, result, original):
    """In an archive every array has a checksum: blind damage is refused, or harmless."""
    blind = set(mutant.kind.split(' + ')) <= BLIND and 'legacy' not in mutant.seed and not isinstance(original, str)
    if blind and any(not np.array_equal(result[key], value) for key, value in original.items()):
        raise Wrong(f'{reader} reads a damaged archive, and other numbers than those that were saved')
    if reader == 'vgg' and not all(np.isfinite(leaf).all() for leaf in result.values()):
        raise Wrong(f'{reader} gives values that are not finite')


FORMATS = {
    '.pth': Format(
        build_pth, '*.pth', (pth_pickle, pth_content, pth_content), {'load_weights': read_pth, 'vgg': read_vgg}, len, same_if_blind),
    '.npz': Format(build_vgg, '*.npz', (npz_header, npz_content), {'vgg': read_vgg}, len, same_if_blind),
    '.safetensors': Format(
        build_safetensors, '*.safetensors', (safetensors_header,), {'safetensors': read_safetensors}, len, check_finite),
    'options': Format(build_options, '*.json', (options,), {'options': read_options}, generic=0.0),
}  # fmt: skip
