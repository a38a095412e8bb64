"""The command-line programs, as a user starts them."""

import json
import re

import pytest
import small

from afunet_jax import safetensors_weights


def test_tiny_trains_and_evaluates(tmp_path):
    data = [f'--config.data.dir={tmp_path}/data', f'--config.data.prepared_dir={tmp_path}/prepared']
    status, _, err = small.run('train.py', '--config=configs/tiny.py', f'--workdir={tmp_path}/run', *data)
    assert status == 0, err
    assert 'step 30/30' in err and 'ETA' in err
    status, out, err = small.run(
        'eval.py', '--config=configs/tiny.py', f'--weights={tmp_path}/run', f'--out={tmp_path}/out', *data
    )
    assert status == 0, err
    assert 'AFUNet' in out and 'middle exposure' in out and 'PSNR-mu' in out
    assert len(json.loads((tmp_path / 'out' / 'results.json').read_text())['scenes']) == 10
    little = ['--config.eval.baselines=False', "--config.eval.metrics=('psnr_mu',)", '--config.eval.pictures=False']
    status, out, err = small.run('eval.py', '--config=configs/tiny.py', f'--out={tmp_path}/packaged', *data, *little)
    assert status == 0, err
    assert "those of the package are evaluated" in err and "not the config's network" in err
    results = json.loads((tmp_path / 'packaged' / 'results.json').read_text())
    assert results['weights'] == str(safetensors_weights.PACKAGED)
    packaged, _ = safetensors_weights.read(safetensors_weights.PACKAGED)
    assert results['model']['width'] == packaged['model']['width']


@pytest.mark.parametrize(
    ('program', 'arguments', 'message'),
    [
        ('train.py', ['--config=configs/tiny.py', '--config.train.stepps=3', '--workdir=DIR'], 'stepps'),
        ('train.py', ['--config=configs/kalantari.py', '--workdir=DIR'], 'config.data.dir is empty'),
        ('train.py', ['--config=configs/kalantari.py', '--config.data.dir=DIR/none', '--workdir=DIR'], 'none'),
        ('train.py', ['--config=configs/tiny.py', '--config.model.width=70', '--workdir=DIR'], 'width'),
        ('eval.py', ['--config=configs/tiny.py', '--weights=DIR/none', '--out=DIR/out'], 'no such file'),
        ('eval.py', ['--config=configs/tiny.py', '--weights=README.md', '--out=DIR/out'], 'README.md.*not a file of PyTorch'),
    ],
)
def test_mistakes_end_with_a_message_and_no_trace(program, arguments, message, tmp_path):
    status, _, err = small.run(program, *(a.replace('DIR', str(tmp_path)) for a in arguments))
    assert status == 2
    assert 'Traceback' not in err
    assert re.search(message, err), err
    assert not list(tmp_path.iterdir())
