"""Folders of training runs: one file damaged blindly, or a whole run that agrees with itself and is hostile.

The first is caught by the checksums of the manifest. The second has checksums that are right: whoever wrote it wanted it
read. Such a run is a .zip here, `put` makes the folder of it and its manifests.
"""

import contextlib
import functools
import hashlib
import json
import pathlib
import shutil
import zlib
from unittest import mock

import jax
import numpy as np
import tensorstore
from fuzz import mutations, values
from fuzz.formats import DAMAGED_ALREADY, Format, Wrong
from fuzz.mutations import pick
from fuzz.trees import MODEL, params, zip_entries, zip_of

from afunet_jax import checkpoints, manifest
from afunet_jax.models import afunet

STEP = 3
SETTINGS = {**MODEL, 'drop_path': 0.1}
CONFIG = {'model': SETTINGS, 'seed': 1}
STATE = {'count': np.zeros(1, np.int32)}
ABOUT = {'config': CONFIG, 'data_position': {'step': STEP}}
CONFIG_PLACE = f'run/{checkpoints.CONFIG_FILE}'
ARRAY, GONE = 'array:', 'gone:'  # entries of the .zip that are put into the store of the arrays, or taken out of it
BOMB = 200_000_000  # bytes that a chunk unpacks to


def build_run(folder):
    saved = checkpoints.Checkpoints(folder / 'run')
    saved.save(STEP, params(), STATE, ABOUT)
    saved.save_best(STEP, params(), {**ABOUT, 'validation': {'psnr_mu': 30.0}})
    saved.wait()
    saved.close()
    (folder / CONFIG_PLACE).write_text(json.dumps(CONFIG, indent=1))


def run_of(path):
    return next(parent for parent in path.parents if parent.name == 'run')


# ---- one file ---------------------------------------------------------------------------------------


def build_checkpoint(folder):
    build_run(folder)
    shutil.rmtree(folder / 'run' / checkpoints.BEST)


def whole_run(folder, seed):
    """The damaged file in a copy of the whole run; the copy is made once."""
    if not (folder / 'run').exists():
        shutil.copytree(pathlib.Path(seed.split('run')[0]) / 'run', folder / 'run')
    return folder / 'run' / seed.split('run/', 1)[1]


def json_or_bytes(rng, data, other):
    try:
        return values.json_text(rng, data.decode()).encode('utf-8', 'surrogatepass')
    except (ValueError, LookupError, TypeError, RecursionError):
        return pick(rng, mutations.GENERIC)(rng, data, other)


def read_checkpoint(path):
    """Whatever reads the damaged file: the run's configuration, or one of the checkpoint's files."""
    if path.name == checkpoints.CONFIG_FILE:
        return checkpoints.check_workdir(run_of(path), CONFIG, ('train',))
    return checkpoints.load_weights(run_of(path))


# ---- a whole run ------------------------------------------------------------------------------------


def store(folder: pathlib.Path):
    """The arrays' descriptions and chunks, by name."""
    return tensorstore.KvStore.open({'driver': 'ocdbt', 'base': f'file://{folder}/'}).result()


def build_zip(folder):
    build_run(folder)
    content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted((folder / 'run').rglob('*'))
               if path.is_file() and path.name != manifest.NAME}  # fmt: skip
    arrays = store(folder / 'run' / checkpoints.LATEST / str(STEP) / checkpoints.PARAMS)
    described = {name.decode(): arrays.read(name).result().value.decode('latin-1') for name in arrays.list().result()}
    content['arrays.json'] = json.dumps(described).encode()
    shutil.rmtree(folder / 'run')
    (folder / 'run.zip').write_bytes(zip_of(content))


def put(path, data):
    """The folder `run` beside the path, with manifests that are right where the .zip has none."""
    shutil.rmtree(path.parent / 'run', ignore_errors=True)
    changes: dict[pathlib.Path, list] = {}
    for name, content in zip_entries(data).items():
        if name.startswith((ARRAY, GONE)):
            kind, where, key = name.split(':', 2)
            changes.setdefault(path.parent / where, []).append((key, content if f'{kind}:' == ARRAY else None))
        elif name.startswith('run/'):
            (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / name).write_bytes(content)
    for folder, new in changes.items():
        with contextlib.suppress(ValueError):  # damaged before, by `inner_file`
            arrays = store(folder)
            for key, content in new:
                arrays.write(key, content).result()
    for place in places():
        if not (path.parent / place / manifest.NAME).exists():
            manifest.write(path.parent / place, format_version=checkpoints.FORMAT_VERSION, step=STEP)


def places() -> list[str]:
    return [f'run/{kind}/{STEP}' for kind in (checkpoints.LATEST, checkpoints.BEST)]


def hostile(damage):
    """A function `(rng, content of the .zip, folder of a checkpoint)` as damage to the .zip; both checkpoints half the time."""

    @functools.wraps(damage)
    def damaged(rng, data, other):
        content = zip_entries(data)
        for place in places() if rng.random() < 0.5 else [pick(rng, places())]:
            try:
                damage(rng, content, place)
            except DAMAGED_ALREADY:
                content[CONFIG_PLACE] = mutations.extreme(rng, content[CONFIG_PLACE], b'')
        return zip_of(content)

    return damaged


MODEL_VALUES = {
    'num_stages': (0, -1, 2, 6, 7, 10**9), 'width': (0, -3, 3, 9, 72, 3072, 3075, 10**9, 10**30), 'sfm_depth': (0, 1, 3, 32, 33, 10**9),
    'sfm_heads': (0, -1, 2, 3, 6, 10**9), 'sam_heads': (0, -1, 2, 10**9), 'cfm_heads': (0, 2, 10**9), 'window_size': (0, 1, 2, 4, 32, 34, 2**31),
    'mlp_ratio': (0, 1, 3, 64, 65, 10**9), 'drop_path': (-1, 0, 1, float('nan'), 1e308), 'order': ('FA', '', 'X' * 10**5),
    'ablation': ('M1', 'M2', 'M3', 'M5'), 'head': ('blend', 'x'), 'dtype': ('bfloat16', 'float64'), 'chunk_windows': (-2, 0, 10**30), 'attention': ('fused', 'x'),
}  # fmt: skip
LARGEST = {'num_stages': 6, 'sfm_depth': 32, 'width': 3072, 'mlp_ratio': 64, 'window_size': 32}


@hostile
def model_settings(rng, content, place):
    """A network of other settings, possible ones and large ones too; the run's configuration agrees, or does not."""
    name = f'{place}/{checkpoints.ABOUT}/metadata'
    change = {key: pick(rng, MODEL_VALUES[key]) for key in rng.permutation(list(MODEL_VALUES))[: pick(rng, (1, 1, 2, 5))]}
    if rng.random() < 0.1:
        change = {key: LARGEST[key] for key in rng.permutation(list(LARGEST))[: pick(rng, (1, 2, 5))]}
    for place in [name, CONFIG_PLACE][: pick(rng, (1, 2))]:
        try:
            about = json.loads(content[place])
            (about['config'] if place == name else about)['model'].update(change)
            content[place] = json.dumps(about).encode()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # damaged already
            content[place] = mutations.extreme(rng, content[place], b'')


ABOUT_VALUES = {
    'step': (-1, -(2**63), 2**64, 1.5, '3', None, [], True), 'format_version': (-1, 0, 1, 2, 3, 10**30, '2', None, [2], {}, True, 1.5),
    'config': ([], {}, None, 'x', [{'model': MODEL}], {'model': []}, {'model': None}, {'model': [['width', 6]]}, {'model': {}}),
    'validation': ([], None, {}, {'psnr_mu': None}, {'psnr_mu': 'x'}, {'psnr_mu': float('nan')}, {'psnr_mu': -1e308}, 30),
    'data_position': ([], None, {}, 7, {'step': -1}), 'log': ([], 7, None),
}  # fmt: skip


@hostile
def description(rng, content, place):
    """What a checkpoint says about itself."""
    name = f'{place}/{checkpoints.ABOUT}/metadata'
    if rng.random() < 0.5:
        content[name] = json_or_bytes(rng, content[name], content[CONFIG_PLACE])
        return
    try:
        about = json.loads(content[name])
        key = pick(rng, list(ABOUT_VALUES))
        about[key] = pick(rng, ABOUT_VALUES[key])
        content[name] = json.dumps(about).encode()
    except (ValueError, TypeError, RecursionError):
        content[name] = mutations.extreme(rng, content[name], b'')


def configuration(rng, data, other):
    """config.json of the run alone."""
    content = zip_entries(data)
    content[CONFIG_PLACE] = json_or_bytes(rng, content[CONFIG_PLACE], content[CONFIG_PLACE])
    return zip_of(content)


@hostile
def tree(rng, content, place):
    """Orbax's own descriptions: of the checkpoint, and of the tree of arrays."""
    found = [name for name in content if name.startswith(f'{place}/') and name.endswith('METADATA')]
    name = pick(rng, found)
    content[name] = json_or_bytes(rng, content[name], content[name])


@functools.cache
def chunk_bomb() -> bytes:
    return zlib.compress(bytes(BOMB), 9)


ZARRAY = {
    'shape': ([], [0], [-1], [2**31], [2**40], [2**63 - 1], [10**6] * 4, [1] * 33, None, 'x', [1.5], [[1]], [6], [3], [100, 100]),
    'chunks': ([], [0], [-1], [1], [2**31], [2**40], [10**6] * 4, None, [7], [2**62]), 'dtype':
    ('<f8', '<f2', '>f4', '|O', '<M8', '|V1000000000', 'bfloat16', '<c16', '|b1', '|u1', '<i8', [['a', '<f4']], None, '', 'int4'),
    'compressor': (None, {}, {'id': 'zlib', 'level': 1}, {'id': 'blosc'}, {'id': 'bz2'}, {'id': 'x'}, {'id': 'zstd', 'level': 10**9}, 7, 'zstd'),
    'fill_value': (0, 1, float('nan'), 'NaN', 'Infinity', 10**400, 'x', [], 1e308), 'filters': ([], [{'id': 'delta'}], 'x'),
    'order': ('F', 'X', None), 'dimension_separator': ('/', '', None, '..'), 'zarr_format': (1, 3, None, '2', 10**30),
}  # fmt: skip


@hostile
def array_description(rng, content, place):
    """Shape, chunks, type, packing of an array, or of all; sometimes a chunk that agrees with it and unpacks to far more."""
    described = json.loads(content['arrays.json'])
    names = [name for name in described if name.endswith('.zarray')]
    change = {key: pick(rng, ZARRAY[key]) for key in rng.permutation(list(ZARRAY))[: pick(rng, (1, 1, 2, 3))]}
    bomb = rng.random() < 0.15
    for name in names if rng.random() < 0.1 else [pick(rng, names)]:
        about = json.loads(described[name])
        one_more = len(about['shape'])
        if bomb:
            length = pick(rng, (BOMB // 4, 2**40, about['shape'][0]))
            sides = [length] + about['shape'][1:] if rng.random() < 0.5 else about['shape']
            change = {'compressor': {'id': 'zlib', 'level': 9}, 'shape': sides, 'chunks': [length] + about['chunks'][1:]}
            content[f'{ARRAY}{place}/{checkpoints.PARAMS}:{name[:-7]}{".".join("0" * one_more)}'] = chunk_bomb()
        elif rng.random() < 0.2:
            change = {'shape': about['shape'] + [1]}
        text = json.dumps({**about, **change}) if rng.random() < 0.8 else values.json_text(rng, described[name])
        content[f'{ARRAY}{place}/{checkpoints.PARAMS}:{name}'] = text.encode('utf-8', 'surrogatepass')


@hostile
def chunks(rng, content, place):
    """Chunks or descriptions that are missing, exchanged, damaged, or of no array."""
    described = json.loads(content['arrays.json'])
    names, where = list(described), f'{place}/{checkpoints.PARAMS}'
    for name in [pick(rng, names) for _ in range(pick(rng, (1, 1, 5)))]:
        data, what = described[name].encode('latin-1'), rng.integers(4)
        if what == 0:
            content[f'{GONE}{where}:{name}'] = b''
        elif what == 1:
            content[f'{ARRAY}{where}:{name}'] = described[pick(rng, names)].encode('latin-1')
        elif what == 2:
            content[f'{ARRAY}{where}:{name}'] = pick(rng, mutations.GENERIC)(rng, data, data)
        else:
            content[f'{ARRAY}{where}:{pick(rng, ("../../x", "x", "", "a.b/.zarray", "_METADATA"))}'] = data


NAMES = ('../../x', '/dev/zero', '/etc/passwd', '..', '.', '', 'about', 'a\0b', '\ud800', 'x' * 5000, '../../../run/config.json', 'manifest.json')


@hostile
def listed(rng, content, place):
    """The manifest, with a checksum of its own that is right."""
    found = {name.removeprefix(f'{place}/'): {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
             for name, data in content.items() if name.startswith(f'{place}/')}  # fmt: skip
    whole = {'format_version': checkpoints.FORMAT_VERSION, 'step': STEP, manifest.FILES: found}
    name = pick(rng, list(found))
    what = rng.integers(6)
    if what == 0:
        found[pick(rng, NAMES)] = {'bytes': 0, 'sha256': hashlib.sha256(b'').hexdigest()}
    elif what == 1:
        found[name] = pick(rng, (*values.JSON_VALUES, {'bytes': 0}, {'sha256': ''}, {'bytes': '1', 'sha256': 1}))
    elif what == 2:
        whole[manifest.FILES] = pick(rng, (*values.JSON_VALUES, list(found)))
    elif what == 3:
        whole.pop(pick(rng, list(whole)))
    elif what == 4:
        whole['format_version'] = pick(rng, ABOUT_VALUES['format_version'])
    else:
        whole = values.json_value(rng, whole)
    try:
        text = manifest._text(whole)
    except (TypeError, ValueError):  # a list, a number: no manifest at all
        text = json.dumps(whole)
    content[f'{place}/{manifest.NAME}'] = text.encode()


@hostile
def inner_file(rng, content, place):
    """Any of the files, the database of arrays too."""
    name = pick(rng, [name for name in content if name.startswith(f'{place}/')])
    content[name] = pick(rng, mutations.GENERIC)(rng, content[name], content[CONFIG_PLACE])


like = functools.cache(params)
layout = functools.cache(afunet.parameter_shapes)  # tracing a network takes most of the time; each is traced once


def load_weights(path):
    with mock.patch.object(afunet, 'parameter_shapes', layout):
        return checkpoints.load_weights(path.parent / 'run')


def resume(path):
    """As a training begins: the configuration, the best figure, the newest checkpoint that is whole."""
    run = path.parent / 'run'
    checkpoints.check_workdir(run, CONFIG, ('train',))
    saved = checkpoints.Checkpoints(run)
    try:
        best = saved.best_about()
        found = saved.restore_newest(like(), STATE)
    finally:
        saved.close()
    return best, found


def check_run(reader, mutant, result, original):
    """What is read has the types that its readers count on; parameters that were left alone are what they were."""
    if isinstance(original, str):
        raise Wrong(f'{reader} does not read the undamaged run: {original[-500:]}')
    best, found = (None, (0, result[1], None, {})) if reader == 'load_weights' else result
    untouched = not any(kind in mutant.kind for kind in ('array_description', 'chunks', 'inner_file', 'tree', 'extreme'))
    expected = jax.tree.leaves(original[1] if reader == 'load_weights' else original[1][1])
    if untouched and found is not None:
        leaves = jax.tree.leaves(found[1])
        if len(leaves) != len(expected) or not all(map(np.array_equal, leaves, expected)):
            raise Wrong(f'{reader} gives other parameters than those that were saved')
    for about in (best, found and found[3]):
        problem = about and problem_of(about)
        if problem:
            raise Wrong(f'{reader}: {problem}')


def problem_of(about):
    """What training would stumble over."""
    step, figures = about.get('step', 0), about.get('validation', {'psnr_mu': 0.0})
    if type(step) is not int or not 0 <= step:
        return f'the step is {step!r}'
    wrong = [key for key in ('config', 'data_position', 'log') if not isinstance(about.get(key, {}), dict)]
    if wrong or not isinstance(figures, dict) or not all(type(value) in (int, float) for value in figures.values()):
        return f'{wrong} or validation is no mapping, or one of no figures: {figures!r}'
    return None


FORMATS = {
    'checkpoint': Format(
        build_checkpoint, 'run/**/*', (json_or_bytes,), {'checkpoint': read_checkpoint},
        place=whole_run, generic=0.3, often=(checkpoints.CONFIG_FILE, 'metadata')),
    'whole run': Format(
        build_zip, 'run.zip',
        (model_settings, description, description, configuration, tree, array_description, array_description, chunks, listed, inner_file),
        {'load_weights': load_weights, 'resume': resume}, check=check_run, generic=0.0, put=put),
}  # fmt: skip
