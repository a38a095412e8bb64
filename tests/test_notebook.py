"""The notebook runs from top to bottom, and is kept without outputs."""

import base64
import io
import pathlib

import jax
import numpy as np
import pytest
import small
from PIL import Image

from afunet_jax import safetensors_weights
from afunet_jax.models import afunet

NOTEBOOK = pathlib.Path(__file__).parent.parent / 'docs' / 'merge.ipynb'
SECONDS = 120  # for a cell

nbformat = pytest.importorskip('nbformat')
nbclient = pytest.importorskip('nbclient')
pytest.importorskip('ipykernel')


@pytest.fixture(scope='module')
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(cell, kind):
    return [output for output in cell.get('outputs', []) if output['output_type'] == kind]


def test_it_is_valid_and_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get('outputs') and cell.get('execution_count') is None


def test_it_runs_from_top_to_bottom_on_a_fresh_clone(notebook, tmp_path, monkeypatch):
    rng, shapes = np.random.default_rng(0), afunet.parameter_shapes(afunet.build(small.MODEL))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(leaf.dtype), shapes)
    safetensors_weights.write(tmp_path / 'tiny.safetensors', params, {'model': small.MODEL})
    monkeypatch.setenv('AFUNET_WEIGHTS', str(tmp_path / 'tiny.safetensors'))
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    ran = nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name='python3',
                                  resources={'metadata': {'path': str(NOTEBOOK.parent)}}).execute()  # fmt: skip
    code = [cell for cell in ran.cells if cell.cell_type == 'code']
    printed = ''.join(output['text'] for cell in code for output in outputs(cell, 'stream'))
    assert '+2.00 EV (EXIF), srgb' in printed and 'tiny.safetensors' in printed and 'result.exr' in printed
    shown = [output['data']['image/png'] for cell in code for output in outputs(cell, 'display_data')]
    assert [Image.open(io.BytesIO(base64.b64decode(data))).size for data in shown] == [(1152, 256)] * 3 + [(384, 256)]
    assert not list(tmp_path.glob('tmp*'))  # the photos' folder is gone
