"""What a file brings along never runs: a malicious pickle is refused, and nothing of ours could run one."""

import ast
import io
import os
import pathlib
import pickle
import zipfile

import pytest
import torch

from afunet_jax import torch_files, torch_weights, vgg
from afunet_jax.errors import AFUNetError, WeightsError

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / 'afunet_jax').rglob('*.py'), *(ROOT / 'configs').glob('*.py'), *ROOT.glob('*.py'),
                  *(ROOT / 'benchmarks').glob('*.py')])  # fmt: skip
MODULES = {'pickle', 'cPickle', '_pickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal', 'yaml', 'code', 'codeop', 'runpy', 'tarfile'}
CALLS = {'eval', 'exec', '__import__'}
METHODS = {
    ('os', 'system'), ('os', 'popen'), ('torch', 'jit'), ('torch', 'hub'), ('zipfile', 'extractall'), ('shutil', 'unpack_archive'),
    ('torch', 'load'), ('numpy', 'fromregex'),
}  # fmt: skip
ALLOWED = {'afunet_jax/torch_files.py': {'torch.load'}}  # the one place; the test below holds it to weights_only


class Malicious:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickles(path):
    """The attack in every form that torch.load knows."""
    weights = {'conv1.0.weight': torch.zeros(3), 'x': Malicious(path)}
    yield 'in a state dict', saved(weights)
    yield 'in the release\'s dict', saved({'state_dict': {'a': torch.zeros(1)}, 'epoch': Malicious(path)})
    yield 'old format', saved(weights, _use_new_zipfile_serialization=False)
    yield 'bare pickle', pickle.dumps(Malicious(path))
    yield 'bare pickle, protocol 0', pickle.dumps({'a': Malicious(path)}, protocol=0)
    archive = io.BytesIO(saved({'a': torch.zeros(1)}))
    changed = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(changed, 'w') as new:
        for entry in old.infolist():
            attack = pickle.dumps(Malicious(path), protocol=2)
            new.writestr(entry.filename, attack if entry.filename.endswith('.pkl') else old.read(entry))
    yield 'pickle put into an archive', changed.getvalue()


def saved(content, **options):
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


def test_the_attack_works_where_nothing_guards(tmp_path):
    for name, content in pickles(tmp_path / 'owned'):
        torch.load(io.BytesIO(content), weights_only=False) if 'bare' not in name else pickle.loads(content)
        (tmp_path / 'owned').rmdir()


@pytest.mark.parametrize('read', [torch_weights.read_pth, vgg.load, torch_files.load])
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, read):
    for i, (name, content) in enumerate(pickles(tmp_path / 'owned')):
        path = tmp_path / f'{i}.pth'
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=f'{i}.pth'):
            read(path)
        assert not (tmp_path / 'owned').exists(), name


def test_a_malicious_array_is_refused_and_nothing_runs(tmp_path):
    import numpy as np

    attack = np.empty(1, object)
    attack[0] = Malicious(tmp_path / 'owned')
    np.savez(tmp_path / 'a.npz', **{key: attack for key in vgg.expected_shapes()})
    with pytest.raises(AFUNetError, match='a.npz'):
        vgg.load(tmp_path / 'a.npz')
    assert not (tmp_path / 'owned').exists()


def found_in(tree):
    """Whatever could run what it reads."""
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name.split('.')[0]: alias.name.split('.')[0] for alias in node.names}
            yield from (alias.name for alias in node.names if alias.name.split('.')[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or '').split('.')[0] in MODULES:
                yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names if ((node.module or '').split('.')[0], alias.name) in METHODS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in CALLS:
            yield node.id
        elif isinstance(node, ast.Attribute):
            owner = modules.get(node.value.id, node.value.id) if isinstance(node.value, ast.Name) else ''
            if (owner, node.attr) in METHODS or node.attr == 'extractall':
                yield f'{owner}.{node.attr}'
        elif isinstance(node, ast.keyword):
            if node.arg in ('allow_pickle', 'shell') and not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f'{node.arg}={ast.unparse(node.value)}'
            if node.arg == 'weights_only' and not (isinstance(node.value, ast.Constant) and node.value.value is True):
                yield 'weights_only'


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_evals_or_execs(path):
    name = str(path.relative_to(ROOT))
    assert set(found_in(ast.parse(path.read_text()))) <= ALLOWED.get(name, set())


def test_torch_load_has_weights_only():
    tree = ast.parse((ROOT / 'afunet_jax/torch_files.py').read_text())
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == 'torch.load']
    assert {k.arg: ast.unparse(k.value) for k in call.keywords}['weights_only'] == 'True'


@pytest.mark.parametrize('code', [
    'import pickle', 'from pickle import loads', 'eval(x)', 'f = exec', 'import numpy as np\nnp.load(x, allow_pickle=True)',
    'import torch\ntorch.load(x)', 'import torch as t\nt.load(x)', 'from torch import load', 'import yaml', 'import os\nos.system(x)',
    'import subprocess\nsubprocess.run(x, shell=True)', 'z.extractall(x)', 'load(x, weights_only=False)', '__import__(x)',
])  # fmt: skip
def test_the_search_finds_what_it_looks_for(code):
    assert list(found_in(ast.parse(code)))
