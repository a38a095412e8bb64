"""Imports go one way, and heavy packages stay where they belong."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'afunet_jax'
LAYERS = [  # a module imports from its own group or from those above it
    {'errors'},
    {'hdr', 'files', 'manifest', 'memory', 'signals', 'parallel', 'sizes', 'metrics.checks', 'metrics.similarity',
     'models.windows', 'models.layers', 'models.attention', 'models.chunks', 'models.execution',
     'models.smoothing'},
    {'cli', 'image_io', 'torch_files', 'models.fused_attention', 'models.afm', 'models.blend', 'metrics.psnr',
     'metrics.ssim', 'metrics.hdrvdp2', 'data.progress'},
    {'metrics.ssim_variants', 'metrics.pu21', 'metrics', 'metrics.registry'},
    {'models.afunet', 'vgg', 'outputs', 'reports', 'data.layouts', 'torch_twin'},
    {'losses', 'safetensors_weights', 'torch_weights', 'html_report', 'data.scenes'},
    {'checkpoints', 'data.check', 'data.tfds_builders', 'data.batches', 'data.synthetic', 'data.brackets',
     'photos'},
    {'data.datasets', 'data.record', 'export'},
    {'baselines', 'published', 'comparison', 'packaging'},
    {'evaluation'},
    {'training', 'training_log', 'events', 'merging'},
    {'compare', 'study', 'web'},
]
# Each counts as one module.
PACKAGES = (
    'checkpoints', 'data.synthetic', 'data.brackets', 'compare', 'image_io', 'metrics.hdrvdp2', 'html_report', 'outputs',
    'photos', 'published', 'study', 'web',
)  # fmt: skip
TORCH = {'torch_files', 'torch_twin', 'compare'}


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    parts = parts[:-1] if parts[-1] == '__init__' else parts
    return whole('.'.join(parts))


def whole(name):
    return next((package for package in PACKAGES if name == package or name.startswith(f'{package}.')), name)


SOURCES = {path: module_of(path) for path in PACKAGE.rglob('*.py') if module_of(path) not in ('', 'models', 'data')}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def layer(name):
    found = [i for i, group in enumerate(LAYERS) if name in group]
    assert found, f'{name} has no place in LAYERS'
    return found[0]


@pytest.mark.parametrize('path', SOURCES, ids=SOURCES.get)
def test_imports_go_one_way(path):
    ours = SOURCES[path]
    known = set().union(*LAYERS)
    for name in imports(path):
        if not name.startswith('afunet_jax.'):
            continue
        theirs = whole(name.removeprefix('afunet_jax.'))
        if theirs in known and theirs != ours:
            assert layer(theirs) <= layer(ours), f'{ours} imports {theirs}'


def test_models_import_nothing_but_models():
    allowed = {'afunet_jax.errors', 'afunet_jax.hdr', 'afunet_jax.models'}
    for path, name in SOURCES.items():
        if name.startswith('models.'):
            ours = {i for i in imports(path) if i.startswith('afunet_jax')}
            assert all(any(i == a or i.startswith(f'{a}.') for a in allowed) for i in ours), (name, ours)


def test_the_package_never_imports_configs_or_tensorflow():
    for path, name in SOURCES.items():
        roots = {i.split('.')[0] for i in imports(path)}
        assert 'configs' not in roots, name
        assert 'tensorflow' not in roots, name


def test_only_these_know_torch():
    found = {name for path, name in SOURCES.items() if 'torch' in {i.split('.')[0] for i in imports(path)}}
    assert found <= TORCH


def test_only_parallel_names_devices():
    words = ('pmap', 'device_count', 'process_index', 'jax.devices', 'jax.distributed', 'multihost')
    for path, name in SOURCES.items():
        if name != 'parallel':
            text = path.read_text()
            assert not any(f'jax.{word}' in text or f'import {word}' in text for word in words), name


def test_training_and_evaluation_need_neither_torch_nor_tensorflow():
    code = (
        'import sys, afunet_jax.training, afunet_jax.data.check\n'
        'assert not {"torch", "tensorflow"} & set(sys.modules)\n'
        'sys.modules["torch"] = None\n'  # tensorboardX imports it where it is installed; here it is made to be missing
        'import afunet_jax.events; assert "tensorflow" not in sys.modules'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
