"""What holds for every input: finite outputs and gradients, each image by itself, the same seeds the same bits.

The network commutes with a permutation of the batch, and with nothing else that images are turned and moved by: the
tables of relative positions tell left from right, shifted windows wrap and are masked at the border, padding is at
the bottom and right, and CFM sees the whole image. `test_what_does_not_hold` measures it.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import MODEL

from afunet_jax import hdr, losses
from afunet_jax.models import afm, afunet, execution

pytestmark = pytest.mark.usefixtures('quickly_compiled')

ROOT = pathlib.Path(__file__).parents[2]
QUICK_SIZES = ((8, 8), (13, 21))  # a size compiles for seconds: one window; several, and padding
MANY_SIZES = tuple((int(h), int(w)) for h, w in np.random.default_rng(0).integers(8, 301, (24, 2))) + (
    (8, 300), (300, 8), (9, 9), (15, 16), (299, 257))  # fmt: skip
BATCH = 2
NEIGHBOUR_BAR = 2e-6  # absolute, of outputs in (0, 1): the bar of equality with the release
# Exposures of the benchmarks, the rim of what a file of exposures may hold, and all alike.
EXPOSURES = ((0.0, 2.0, 4.0), (-3.0, 0.0, 3.0), (-60.0, 0.0, 60.0), (60.0, 60.0, 60.0), (0.0, 0.0, 0.0), (-60.0, -60.0, -60.0))
KINDS = ('random', 'black', 'white', 'saturated', 'constant', 'one channel', 'one pixel', 'checkerboard')
QUICK = hypothesis.settings(derandomize=True, max_examples=12, deadline=None, database=None)
MANY = hypothesis.settings(derandomize=True, max_examples=150, deadline=None, database=None)


@functools.cache
def network():
    """A network of every block, with weights of a size that trained ones have."""
    # Computed in one piece: it compiles sooner.
    model = afunet.build({**MODEL, 'drop_path': 0.0, 'chunk_windows': 0, 'remat': 'off'})
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: (leaf + 0.2 * rng.standard_normal(leaf.shape)).astype(np.float32), afunet.init_params(model, 0))
    return model, params


def ldrs(kind, batch, height, width, seed):
    """Three exposures as stored, uint16 `[B, 3, H, W, 3]`."""
    rng = np.random.default_rng(seed)
    shape = (batch, 3, height, width, 3)
    image = np.zeros(shape, np.uint16)
    if kind == 'random':
        image[:] = rng.integers(0, 65536, shape)
    elif kind == 'white':
        image[:] = 65535
    elif kind == 'saturated':
        image[:, 1:] = 65535
    elif kind == 'constant':
        image[:] = rng.integers(0, 65536)
    elif kind == 'one channel':
        image[..., 1] = rng.integers(0, 65536, shape[:-1])
    elif kind == 'one pixel':
        image[:, :, height // 2, width // 2] = 65535
    elif kind == 'checkerboard':
        image[:, :, ::2, ::2] = image[:, :, 1::2, 1::2] = 65535
    return image


def inputs(kind, batch, height, width, evs, seed):
    return np.stack([hdr.network_input(hdr.decode_ldr(one), np.float32(evs)) for one in ldrs(kind, batch, height, width, seed)])


@functools.cache
def step(size):
    """Output, loss and gradients of parameters and input, compiled for `(batch, height, width)`."""
    model, params = network()
    loss = losses.make_loss('release')

    def objective(params, x, label):
        output = model.apply({'params': params}, x)
        return loss(output, label)[0], output

    return jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))


def draw(sizes):
    return {'size': st.sampled_from(sizes), 'kind': st.sampled_from(KINDS),
            'label': st.sampled_from(('black', 'white', 'random', 'output')), 'evs': st.sampled_from(EXPOSURES),
            'seed': st.integers(0, 2**16)}  # fmt: skip


def check_finite(size, kind, label, evs, seed, batch=BATCH):
    x = inputs(kind, batch, *size, evs, seed)
    model, params = network()
    rng = np.random.default_rng(seed)
    wanted = {'black': np.zeros, 'white': np.ones, 'random': rng.random, 'output': np.zeros}[label]((batch, *size, 3)).astype(np.float32)
    compiled = step((batch, *size))
    if label == 'output':  # equal images: the absolute difference has its corner there
        wanted = np.asarray(compiled(params, x, wanted)[0][1])
    (loss, output), gradients = compiled(params, x, wanted)
    assert output.shape == (batch, *size, 3) and np.isfinite(loss)
    assert (np.asarray(output) >= 0).all() and (np.asarray(output) <= 1).all()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), (jax.tree_util.keystr(path), kind, evs, label)


@QUICK
@hypothesis.given(**draw(QUICK_SIZES))
def test_outputs_and_gradients_are_finite(**case):
    check_finite(**case)


@pytest.mark.slow
@MANY
@hypothesis.given(**draw(MANY_SIZES))
def test_outputs_and_gradients_are_finite_for_sizes_up_to_300(**case):
    check_finite(**case)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('evs', [EXPOSURES[0], EXPOSURES[2]])
def test_every_bad_point_with_every_kind_of_image(kind, evs):
    for label in ('black', 'white', 'output'):
        check_finite((8, 8), kind, label, evs, 0)


# ---- each image by itself ---------------------------------------------------------------------------


@functools.cache
def merge():
    model, params = network()
    return jax.jit(lambda x: model.apply({'params': params}, x))


@QUICK
@hypothesis.given(size=st.sampled_from(QUICK_SIZES), kind=st.sampled_from(KINDS), seed=st.integers(0, 2**16), place=st.integers(0, 2))
def test_an_image_does_not_depend_on_its_neighbours(size, kind, seed, place):
    batch = inputs('random', 3, *size, EXPOSURES[0], seed)
    changed = inputs(kind, 3, *size, EXPOSURES[1], seed + 1)
    changed[place] = batch[place]
    one, other = np.asarray(merge()(batch)), np.asarray(merge()(changed))
    np.testing.assert_array_equal(one[place], other[place])
    alone = np.asarray(merge()(batch[place : place + 1]))[0]
    np.testing.assert_allclose(alone, one[place], rtol=0, atol=NEIGHBOUR_BAR)


@QUICK
@hypothesis.given(size=st.sampled_from(QUICK_SIZES), order=st.permutations(range(3)), seed=st.integers(0, 2**16))
def test_it_commutes_with_a_permutation_of_the_batch(size, order, seed):
    batch = inputs('random', 3, *size, EXPOSURES[0], seed)
    np.testing.assert_array_equal(np.asarray(merge()(batch[list(order)])), np.asarray(merge()(batch))[list(order)])


TURNS = {
    'left and right': lambda x: x[:, :, ::-1], 'up and down': lambda x: x[:, ::-1], 'transposed': lambda x: x.swapaxes(1, 2),
    'turned by 90 degrees': lambda x: np.rot90(x, axes=(1, 2)), 'rolled by a window': lambda x: np.roll(x, 8, (1, 2)),
    'colours swapped': lambda x: x[..., ::-1] if x.shape[-1] == 3 else x.reshape(*x.shape[:3], 6, 3)[..., ::-1].reshape(x.shape),
}  # fmt: skip


@pytest.mark.parametrize('name', TURNS)
def test_what_does_not_hold(name):
    """Turned input gives another image than the turned output: stated, so that nobody relies on it."""
    turn, x = TURNS[name], inputs('random', 3, 24, 24, EXPOSURES[0], 0)
    turned, output = np.asarray(merge()(np.ascontiguousarray(turn(x)))), np.asarray(merge()(x))
    assert np.abs(turned - turn(output)).max() > 1e-3


# ---- the bad points ---------------------------------------------------------------------------------


@pytest.mark.parametrize('value', [0.0, 1e-38, 1e-30, 1e-12, 1.0])
def test_cfm_where_its_norm_is_zero(value):
    """q and k are divided by max(norm, 1e-12) over all positions: constant and black channels, gradients included."""
    block = afm.CFM(2, execution.Execution())
    shape = (1, 8, 8, 12)
    for x, w in (np.full(shape, value), np.zeros(shape)), (np.zeros(shape), np.full(shape, value)), (np.full(shape, value),) * 2:
        x, w = x.astype(np.float32), w.astype(np.float32)
        params = jax.jit(block.init)(jax.random.key(0), x, w)

        @jax.jit
        @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
        def total(params, x, w):
            return block.apply(params, x, w).sum()

        value_, gradients = total(params, x, w)
        assert np.isfinite(value_) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@QUICK
@hypothesis.given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_tau_and_its_gradient_are_finite_and_rise(a, b):
    tau, slope = hdr.mu_law(jnp.float32(a)), jax.grad(hdr.mu_law)(jnp.float32(a))
    assert 0 <= tau <= 1 and 0 < slope < 1000
    assert (a < b) <= (tau <= hdr.mu_law(jnp.float32(b)))


# ---- the same seeds, the same bits ------------------------------------------------------------------

ONCE = """
import hashlib, json, sys
import jax, numpy as np, optax
from afunet_jax import hdr, losses
from afunet_jax.models import afunet
model = afunet.build(json.loads(sys.argv[1]))
params = afunet.init_params(model, 443)
rng = np.random.default_rng(7)
x, label = rng.random((2, 16, 24, 18), np.float32), rng.random((2, 16, 24, 3), np.float32)
loss, optimizer = losses.make_loss('release'), optax.adam(1e-3)
def objective(params, key):
    image = model.apply({'params': params}, x, train=True, rngs={'dropout': key})
    return loss(image, label)[0], image
@jax.jit
def step(params, state, key):
    value, gradients = jax.value_and_grad(objective, has_aux=True)(params, key)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, updates), state, value
def digest(tree):
    return hashlib.sha256(b''.join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()
found = [digest(params)]
state = optimizer.init(params)
for i in range(2):
    params, state, value = step(params, state, jax.random.fold_in(jax.random.key(443), i))
    found.append(digest((params, state, value)))
print(json.dumps(found))
"""


def test_the_same_seeds_give_the_same_bits_in_two_processes():
    """Initial values, and two steps of training with stochastic depth and their images; the hash seeds differ."""
    settings = json.dumps({**MODEL, 'sfm_depth': 1, 'drop_path': 0.5, 'chunk_windows': 0, 'remat': 'off'})
    running = []
    for hash_seed in ('1', '2'):
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONHASHSEED': hash_seed}
        environment.pop('JAX_COMPILATION_CACHE_DIR', None)  # each compiles for itself
        running.append(subprocess.Popen([sys.executable, '-c', ONCE, settings], env=environment, stdout=subprocess.PIPE, text=True))
    found = [json.loads(process.communicate()[0]) for process in running]
    assert found[0] == found[1] and len(set(found[0])) == 3
