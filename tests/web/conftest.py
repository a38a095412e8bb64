"""Weights of a tiny network, and a server that merges with them."""

import jax
import numpy as np
import pytest
import small
from web_server import serving

from afunet_jax import safetensors_weights
from afunet_jax.models import afunet
from afunet_jax.web.process import MergingProcess

SPREAD = 0.2  # of the random parameters


class Recorded(MergingProcess):
    """Keeps the stages of every job: name, and seconds that it will take."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.stages = {}

    def merge(self, order, say):
        said = self.stages[order.folder.name] = []
        return super().merge(order, lambda *stage: (said.append(stage), say(*stage)))


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    rng, shapes = np.random.default_rng(0), afunet.parameter_shapes(afunet.build(small.MODEL))
    params = jax.tree.map(lambda leaf: rng.normal(0, SPREAD, leaf.shape).astype(leaf.dtype), shapes)
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    safetensors_weights.write(path, params, {'model': small.MODEL})
    return path


@pytest.fixture(scope='session')
def server(weights, tmp_path_factory):
    root = tmp_path_factory.mktemp('jobs')
    merging = Recorded(str(weights), 0.0, root)
    assert 'tiny.safetensors' in merging.start()
    with serving(merging, root) as client:
        client.stages = merging.stages
        yield client
