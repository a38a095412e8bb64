"""A small evaluation to report."""

import json

import numpy as np

from afunet_jax import hdr
from afunet_jax.html_report import ScenePictures
from afunet_jax.reports import SourcedLine, SourcedTable

EVIL = (
    '<img src=x onerror="document.title=`owned`">',
    "a'b\"c</script><script>document.title='owned'</script>",
    'ünï-雪-\u202egnp',
)
HEIGHT, WIDTH = 60, 90
MAP = 'HDR-VDP-2 (sctnet)'


def image(seed):
    """A linear image with 14 stops: a ramp across, a coloured lamp, noise."""
    rng = np.random.default_rng(seed)
    ramp = np.exp2(np.linspace(-14, -1, WIDTH))[None, :, None] * rng.uniform(0.7, 1.0, (HEIGHT, 1, 3))
    ramp[20:30, 20:30] = 1.0, 0.5, 0.25
    return ramp.astype(np.float32)


def scene(name, methods=('AFUNet', 'middle exposure'), seed=0):
    truth = image(seed)
    predictions = {method: truth * np.float32(1 - 0.25 * i) for i, method in enumerate(methods)}
    reference = np.round(hdr.from_radiance(truth, np.float32(4)) * 65535).astype(np.uint16)
    maps = {method: np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) for method in methods}
    return ScenePictures(name, predictions, truth, reference, {MAP: maps})


def row(scene, method, **values):
    return {'scene': scene, 'method': method, 'height': HEIGHT, 'width': WIDTH, 'seconds': 0.5, **values}


def rows(names, methods=('AFUNet', 'middle exposure')):
    return [
        row(
            name,
            method,
            psnr_l=30.0 + i - 5 * j,
            psnr_mu=40.0 + i - 5 * j,
            ssim_l=0.9,
            ssim_mu=0.95,
            preset='sctnet',
        )
        for i, name in enumerate(names)
        for j, method in enumerate(methods)
    ]


def beside(method='AFUNet'):
    """Published figures beside a measured one."""
    lines = (
        SourcedLine('first', {'psnr_mu': '44.10', 'hdrvdp2_safnet': '66.93'}, (1,)),
        SourcedLine('second', {'psnr_mu': '44.91'}, (1, 2)),
        SourcedLine(method, {'psnr_mu': '44.500', 'hdrvdp2_sctnet': '66.75'}),
    )
    titles = {'psnr_mu': 'PSNR-mu', 'hdrvdp2_sctnet': 'HDR-VDP-2 (sctnet)', 'hdrvdp2_safnet': 'HDR-VDP-2 (safnet)'}
    return SourcedTable('kalantari', titles, lines, (f'a paper of {method}', 'another paper'))


def write_log(path, steps=1000):
    lines = []
    for step in range(1, steps + 1):
        lines.append(
            {'step': step, 'epoch': 0, 'loss': 0.1 / step, 'learning_rate': 2e-4 * (1 - step / steps)}
        )
        if step % 100 == 0:
            lines.append({'step': step, 'validation': {'psnr_mu': 30 + step / 100, 'psnr_l': 25.0}})
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return path
