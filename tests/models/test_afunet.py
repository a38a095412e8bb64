"""The network's own rules; that it computes what the release does is in `tests/test_release.py`."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import parameters

from afunet_jax import losses, parallel, training
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.models import afm, afunet, fused_attention
from afunet_jax.models.afunet import AFUNet

pytestmark = pytest.mark.usefixtures('quickly_compiled')

SMALL = {'num_stages': 2, 'width': 12, 'sfm_depth': 2, 'sfm_heads': 2, 'sam_heads': 1, 'cfm_heads': 2}


def test_inference_takes_parameters_and_an_input_and_nothing_else():
    params, x = afunet.parameter_shapes(AFUNet()), jnp.ones((1, 8, 8, 18))
    assert jax.eval_shape(AFUNet().apply, {'params': params}, x).shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    'change',
    [{}, {'order': 'FA', 'ablation': 'M3'}, {'ablation': 'M2', 'num_stages': 1}, {'ablation': 'M1', 'num_stages': 1}],
    ids=str,
)
def test_gradients_reach_every_parameter_and_are_finite(change):
    model = AFUNet(**{**SMALL, 'sfm_depth': 1, **change})
    params = parameters(model)
    x = jax.random.uniform(jax.random.key(0), (2, 8, 16, 18))

    def total(params):
        return model.apply({'params': params}, x, train=True, rngs={'dropout': jax.random.key(1)}).sum()

    output, gradients = jax.jit(jax.value_and_grad(total))(params)
    assert np.isfinite(output)
    flat = {jax.tree_util.keystr(path): np.asarray(g) for path, g in jax.tree_util.tree_leaves_with_path(gradients)}
    assert all(np.isfinite(g).all() for g in flat.values())
    dead = [path for path, g in flat.items() if not g.any()]
    assert not dead, 'parameters without any influence'


def modules_of(stage, **change):
    return set(afunet.parameter_shapes(AFUNet(**{**SMALL, **change}))[stage])


def test_each_ablation_adds_its_module():
    sam, cfm = {'sam_1', 'sam_3', 'mlp_d1', 'mlp_d3'}, {'cfm_u', 'cfm_v'}
    base = {'sfm', 'mlp_end'}
    assert modules_of('stage_0', ablation='M1') == base
    assert modules_of('stage_0', ablation='M2') == base | sam
    assert modules_of('stage_0', ablation='M3') == base | sam | cfm
    assert modules_of('stage_0', ablation='M4') == base | sam | cfm | {'dcm'}


def test_fusion_first_aligns_after_every_stage_but_the_last():
    assert 'sam_1' in modules_of('stage_0', order='FA')
    assert 'sam_1' not in modules_of('stage_1', order='FA')
    assert modules_of('stage_0', order='FA') == modules_of('stage_0', order='AF')


def test_stochastic_depth_follows_the_position_in_the_global_batch():
    model = AFUNet(**{**SMALL, 'num_stages': 1, 'drop_path': 0.9})
    params = parameters(model)
    x = jnp.repeat(jax.random.uniform(jax.random.key(0), (1, 8, 8, 18)), 6, axis=0)

    @jax.jit
    def apply(x, positions):
        return model.apply({'params': params}, x, train=True, positions=positions, rngs={'dropout': jax.random.key(3)})

    whole = np.asarray(apply(x, jnp.arange(6)))
    assert len(np.unique(whole.reshape(6, -1), axis=0)) > 1, 'examples must be drawn one by one'
    halves = [apply(x[:3], jnp.arange(3)), apply(x[3:], jnp.arange(3, 6))]
    np.testing.assert_allclose(whole, np.concatenate(halves), atol=1e-6)


@pytest.mark.parametrize('chunk', [0, 1, 4, 5])
def test_chunks_and_recomputation_change_no_value(chunk):
    settings = {**SMALL, 'num_stages': 1}
    x = jax.random.uniform(jax.random.key(0), (2, 16, 24, 18))
    params = parameters(AFUNet(**settings))
    whole = jax.jit(lambda p: AFUNet(**settings, chunk_windows=0, remat='off').apply({'params': p}, x))(params)
    chunked = jax.jit(lambda p: AFUNet(**settings, chunk_windows=chunk, remat='on').apply({'params': p}, x))(params)
    np.testing.assert_allclose(chunked, whole, rtol=0, atol=1e-6)


def test_the_fused_kernel_gives_the_values_and_gradients_of_the_plain_one(monkeypatch):
    settings = {**SMALL, 'num_stages': 1, 'sfm_depth': 1, 'window_size': 4}
    x = jax.random.uniform(jax.random.key(0), (1, 16, 16, 18))
    params = parameters(AFUNet(**settings))

    def run(**more):
        loss = lambda params: (AFUNet(**settings, **more).apply({'params': params}, x) ** 2).mean()  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params)

    plain = run()
    interpreted = functools.partial(fused_attention.fused_window_attention, interpret=True)
    monkeypatch.setattr(fused_attention, 'fused_window_attention', interpreted)
    monkeypatch.setattr(afm, 'on_cpu', lambda: False)
    for a, b in zip(jax.tree.leaves(run(attention='fused')), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, np.abs(b).max()))


def precisions(f, *shapes):
    """Those of the products and convolutions of a program for NVIDIA GPUs."""
    text = jax.jit(f).trace(*shapes).lower(lowering_platforms=('cuda',)).as_text()
    products = [line for line in text.splitlines() if 'stablehlo.dot' in line or 'stablehlo.convolution' in line]
    assert len(products) > 20
    return {found for line in products for found in re.findall('HIGHEST|HIGH|DEFAULT', line) or ['DEFAULT']}


@pytest.mark.parametrize('chunk_windows', [0, 4])
@pytest.mark.parametrize(('precision', 'expected'), [('highest', {'HIGHEST'}), ('default', {'DEFAULT'})])
def test_float32_products_are_not_rounded_on_a_gpu_unless_asked(precision, expected, chunk_windows):
    model = AFUNet(**SMALL, precision=precision, chunk_windows=chunk_windows, remat='on')
    params, x = afunet.parameter_shapes(model), jax.ShapeDtypeStruct((1, 16, 16, 18), jnp.float32)
    batch = {'input': x, 'label': jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)}
    step = jax.ShapeDtypeStruct((), jnp.int32)

    def gradients(params, step, batch, stop):
        one_device = lambda *a: training.gradients(*a, model=model, seed=0)  # noqa: E731
        return jax.vmap(one_device, in_axes=None, axis_size=1, axis_name=parallel.AXIS)(
            params, step, batch, losses.make_loss('release'), stop
        )

    with jax.default_matmul_precision('high'):  # neither one's
        assert precisions(lambda params, x: model.apply({'params': params}, x), params, x) == expected
        assert precisions(gradients, params, step, batch, step) == expected


def test_the_fused_kernel_is_refused_where_there_is_no_gpu():
    model = AFUNet(**SMALL, attention='fused')
    with pytest.raises(ConfigError, match='attention=fused'):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x), jnp.ones((1, 8, 8, 18)))


def test_bfloat16_is_used_between_float32_ends_and_stays_within_its_rounding():
    settings = {**SMALL, 'num_stages': 1, 'sfm_depth': 1}
    x = jax.random.uniform(jax.random.key(0), (2, 16, 24, 18))
    params = parameters(AFUNet(**settings))

    def run(dtype):
        def f(params):
            output, kept = AFUNet(**settings, dtype=dtype).apply({'params': params}, x, mutable=['intermediates'])
            return (output**2).mean(), (output, kept['intermediates'])

        (_, (output, kept)), gradients = jax.jit(jax.value_and_grad(f, has_aux=True))(params)
        assert output.dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype('float32')}
        assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype(dtype)}
        return output, gradients

    (a, to_a), (b, to_b) = run('bfloat16'), run('float32')
    assert 0 < jnp.abs(a - b).max() < 0.02
    norm = lambda tree: jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)))  # noqa: E731
    assert norm(jax.tree.map(jnp.subtract, to_a, to_b)) < 0.05 * norm(to_b)


def test_training_without_a_dropout_key_is_refused():
    model = AFUNet(**SMALL)
    with pytest.raises(Exception, match='dropout'):
        jax.eval_shape(lambda x: model.apply({'params': parameters(model)}, x, train=True), jnp.ones((1, 8, 8, 18)))


def test_examples_of_a_batch_do_not_see_each_other():
    model = AFUNet(**{**SMALL, 'num_stages': 1})
    params = parameters(model)
    x = jax.random.uniform(jax.random.key(0), (3, 16, 16, 18))
    apply = jax.jit(lambda x: model.apply({'params': params}, x))
    alone = jnp.concatenate([apply(x[i : i + 1]) for i in range(3)])
    together = apply(x)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_initial_parameters_are_distributed_as_the_modules_say():
    model = AFUNet(**{**SMALL, 'num_stages': 1, 'sfm_depth': 1})
    ours = jax.tree_util.tree_leaves_with_path(afunet.init_params(model, seed=0))
    theirs = jax.tree.leaves(jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 8, 8, 18)))['params'])
    for (path, a), b in zip(ours, theirs, strict=True):
        name = jax.tree_util.keystr(path)
        assert a.shape == b.shape and a.dtype == b.dtype, name
        if b.size > 1 and np.std(b) > 0:
            np.testing.assert_allclose(np.std(a), 0.02, rtol=4 / np.sqrt(a.size), err_msg=name)
            np.testing.assert_allclose(np.std(b), 0.02, rtol=4 / np.sqrt(a.size), err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_parameters_are_known_where_their_network_cannot_be_computed():
    shapes = [afunet.parameter_shapes(AFUNet(**{**SMALL, 'attention': kind})) for kind in ('plain', 'fused')]
    assert shapes[0] == shapes[1]


def test_initial_parameters_come_from_the_seed():
    model = AFUNet(**SMALL)
    first, again, other = (jax.tree.leaves(afunet.init_params(model, seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other))


@pytest.mark.parametrize(('change', 'stages'), [({}, 2), ({'order': 'FA'}, 3), ({'ablation': 'M1'}, 2)], ids=str)
def test_stages_that_are_added_change_nothing_and_learn_at_once(change, stages):
    shallow, deep = (AFUNet(**{**SMALL, **change, 'num_stages': t}) for t in (1, stages))
    params = jax.tree.map(lambda p: 10 * p, afunet.init_params(shallow, 1))  # so that a stage does something
    drawn = afunet.init_params(deep, 2)
    grown = afunet.grown(params, drawn)
    assert jax.tree.map(np.shape, grown) == jax.tree.map(np.shape, drawn)
    x = np.random.default_rng(0).random((1, 16, 24, 18), np.float32)
    outputs = [jax.jit(model.apply)({'params': p}, x) for model, p in ((shallow, params), (deep, grown), (deep, drawn))]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-6)
    assert np.abs(outputs[2] - outputs[0]).max() > 1e-3
    found = jax.jit(jax.grad(lambda p: deep.apply({'params': p}, x).mean()))(grown)
    for name in (f'stage_{t}' for t in range(1, stages)):
        assert np.abs(found[name]['sfm']['conv']['kernel']).max() > 0
        assert np.abs(found[name]['mlp_end']['fc2']['kernel']).max() > 0


@pytest.mark.parametrize('shape', [(1, 16, 16, 6), (16, 16, 18), (1, 4, 16, 18), (1, 16, 3, 18)])
def test_inputs_that_cannot_be_merged_are_refused(shape):
    model = AFUNet(**SMALL)
    with pytest.raises(DataError):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x), jnp.ones(shape))


@pytest.mark.parametrize(
    ('setting', 'value'),
    [('num_stages', 0), ('num_stages', 7), ('width', 71), ('sfm_heads', 5), ('sam_heads', 5), ('cfm_heads', 0),
     ('window_size', 7), ('order', 'FAF'), ('ablation', 'M5'), ('head', 'tanh'), ('drop_path', 1.0), ('sfm_depth', 0), ('mlp_ratio', 0),
     ('chunk_windows', -2), ('remat', 'maybe'), ('attention', 'flash'), ('dtype', 'float16'),
     ('precision', 'exact')],
)  # fmt: skip
def test_impossible_settings_are_refused_with_rule_and_value(setting, value):
    with pytest.raises(ConfigError, match=f'{setting}.*{value}'):
        afunet.build({setting: value})


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match='number_of_stages'):
        afunet.build({'number_of_stages': 4})
