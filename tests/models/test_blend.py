import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from small import MODEL

from afunet_jax import hdr, losses, metrics
from afunet_jax.errors import ConfigError
from afunet_jax.models import afunet, blend
from afunet_jax.models.blend import CANDIDATES, SHARPNESS, TYPICAL, Blend, mixed
from afunet_jax.models.smoothing import FEATURES, START, STEEPEST, WIDTHS, smoothed

pytestmark = pytest.mark.usefixtures('quickly_compiled')

SIZE = (2, 12, 20)  # a multiple of cells, less than a view
UNEVEN = (2, 11, 14)  # no multiple of the window
EXPOSURES = ((0, 2, 4), (-3, 0, 3), (-60, 0, 60), (0, 0, 0))


def photos(evs=(0, 2, 4), seed=0, size=SIZE):
    """The network's input, `[B, H, W, 18]`."""
    ldrs = np.random.default_rng(seed).random((size[0], 3, *size[1:], 3), np.float32)
    return np.stack([hdr.network_input(one, np.array(evs)) for one in ldrs])


def with_parameters(seed=1, deviation=0.3):
    """A head, its parameters, what it is given: features, the network's image, the input."""
    rng = np.random.default_rng(seed)
    head = Blend(6)
    features, merged = rng.standard_normal((*SIZE, 5)).astype(np.float32), rng.random((*SIZE, 3), np.float32)
    x = photos()
    shapes = jax.eval_shape(head.init, jax.random.key(0), features, merged, x)['params']
    params = jax.tree.map(lambda leaf: (deviation * rng.standard_normal(leaf.shape)).astype(np.float32), shapes)
    return head, params, (features, merged, x)


@functools.partial(jax.jit, static_argnums=0)
def mix(head, params, *given):
    return mixed(*head.apply({'params': params}, *given)[:2])


@functools.cache
def in_network():
    """A network with a head, and its image and what the head gave, compiled."""
    blending = afunet.build({**MODEL, 'head': 'blend'})
    return blending, jax.jit(lambda p, x: blending.apply({'params': p}, x, mutable=[afunet.BLENDED]))


def ldrs_of(x):
    return [x[..., 6 * i + 3 : 6 * i + 6] for i in range(3)]


def candidates(merged, x):
    exposures = [x[..., 6 * i : 6 * i + 3] for i in range(3)]
    return np.stack([merged, *exposures, hdr.weighted_merge(exposures, ldrs_of(x))])


def mean_around(image, side):
    """Of places inside the image, by sums over all of them."""
    before = (side - 1) // 2
    places = [slice(max(0, i - before), i - before + side) for i in range(max(image.shape[1:3]))]
    return np.stack([
        np.stack([image[:, places[i], places[j]].mean((1, 2)) for j in range(image.shape[2])], 1)
        for i in range(image.shape[1])
    ], 1)  # fmt: skip


def cells(image):
    batch, height, width, channels = image.shape
    return image.reshape(batch, height // 4, 4, width // 4, 4, channels).mean((2, 4))


def bilinear(image):
    """Four times as high and wide; the values stand at the middles of cells."""
    for axis in (1, 2):
        length = image.shape[axis]
        at = np.clip((np.arange(4 * length) + 0.5) / 4 - 0.5, 0, length - 1)
        low = np.minimum(np.floor(at).astype(int), length - 2)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        image = (1 - part) * image.take(low, axis) + part * image.take(low + 1, axis)
    return image


def views(images, ldrs):
    """As `_views` says, in float64 and without its pooling."""
    usable = [(ldr > 0.01) & (ldr < 0.98) for ldr in ldrs]
    masks, found = [np.ones_like(usable[0]), *usable], []
    for a, b in itertools.combinations(range(4), 2):
        mask = np.float64(masks[a] & masks[b])
        apart = np.abs(cells((images[a] - images[b]) * mask)).mean(-1, keepdims=True)
        for side in (4, 16):
            share = mean_around(cells(mask).mean(-1, keepdims=True), side)
            found.append(np.log(mean_around(apart, side) / (share + 1e-4) + 1e-3))
            if a:
                found.append(share)
    for image in images:
        noise = cells(np.abs(image - mean_around(image, 3)).mean(-1, keepdims=True))
        smoothest = noise.min((1, 2), keepdims=True)  # the image is smaller than the view from its middle
        assert noise.shape[1] <= 8 and noise.shape[2] <= 8
        found += [np.log(noise + 1e-4), np.log(np.broadcast_to(smoothest, noise.shape) + 1e-4)]
    return np.concatenate(found, -1)


def convolution(x, weights):
    padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.einsum('bhwcij,ijco->bhwo', windows, np.float64(weights['kernel'])) + weights['bias']


def test_weights_fall_with_the_fourth_power_of_the_predicted_errors():
    head, params, (features, merged, x) = with_parameters()
    compressed = [np.log1p(5000 * np.float64(image)) / np.log(5001) for image in candidates(merged, x)]
    apart = [np.abs(image - compressed[0]) for image in compressed[1:]]
    mean, variance = features.mean(-1, keepdims=True), features.var(-1, keepdims=True)
    normal = (features - mean) / np.sqrt(variance + 1e-5) * params['norm']['scale'] + params['norm']['bias']
    far = views(compressed[:4], ldrs_of(x))
    assert far.shape == (SIZE[0], SIZE[1] // 4, SIZE[2] // 4, 26)
    far = far @ params['views_hidden']['kernel'] + params['views_hidden']['bias']
    far = far * scipy.special.ndtr(far) @ params['views']['kernel'] + params['views']['bias']
    seen = np.concatenate([normal, *compressed, *ldrs_of(x), *apart, bilinear(far)], -1)
    for name in ('hidden_0', 'hidden_1'):
        seen = convolution(seen, params[name])
        seen = seen * scipy.special.ndtr(seen)
    errors = np.exp(np.moveaxis(convolution(seen, params['errors']).reshape(*SIZE, CANDIDATES, 3), -2, 0) + TYPICAL)
    expected = (errors**-SHARPNESS * candidates(merged, x)).sum(0) / (errors**-SHARPNESS).sum(0)
    found, log_errors, guides = jax.jit(head.apply)({'params': params}, features, merged, x)
    np.testing.assert_array_equal(found[:4], candidates(merged, x)[:4])
    np.testing.assert_allclose(found[4], candidates(merged, x)[4], rtol=1e-6)
    np.testing.assert_allclose(np.exp(np.float64(log_errors)), errors, rtol=1e-4)
    np.testing.assert_allclose(mixed(found, log_errors), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(guides, convolution(seen, params['guides']) + [*START, *[0] * FEATURES], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('evs', EXPOSURES)
@pytest.mark.parametrize('deviation', [0.0, 0.3, 100.0])
def test_the_result_lies_between_the_candidates(evs, deviation):
    head, params, (features, merged, _) = with_parameters(deviation=deviation)
    x = photos(evs)
    result = np.asarray(mix(head, params, features, merged, x))
    given = candidates(merged, x)
    slack = 1e-6 * given.max(0)
    assert np.isfinite(result).all()
    assert (result >= given.min(0) - slack).all() and (result <= given.max(0) + slack).all()


@pytest.mark.parametrize('chosen', range(CANDIDATES))
def test_one_candidate_can_be_taken_as_it_is(chosen):
    head, params, (features, merged, x) = with_parameters(deviation=0.0)
    params['errors']['bias'] = np.repeat(-50 * (np.arange(CANDIDATES) == chosen), 3).astype(np.float32)
    result = mix(head, params, features, merged, x)
    np.testing.assert_allclose(result, candidates(merged, x)[chosen], rtol=1e-6 if chosen == 4 else 0)


@pytest.mark.parametrize('evs', EXPOSURES)
def test_gradients_are_finite_and_reach_all_parameters_and_nothing_before(evs):
    head, params, (features, merged, _) = with_parameters()

    def loss(params, features, merged):
        found, log_errors, guides = head.apply({'params': params}, features, merged, jnp.asarray(photos(evs)))
        prediction = smoothed(mixed(found, log_errors), guides)
        return losses.make_blend_loss('mixture')(prediction, found, log_errors, jnp.ones_like(merged))[0]

    own, *before = jax.jit(jax.grad(loss, (0, 1, 2)))(params, features, merged)
    assert all(np.isfinite(g).all() and g.any() for g in jax.tree.leaves(own))
    assert not any(g.any() for g in before)


def test_in_the_network_it_comes_after_equation_16_and_changes_nothing_else():
    plain, (blending, apply) = afunet.build(MODEL), in_network()
    params = afunet.init_params(blending, 0)
    rest = {name: params[name] for name in params if name != 'blend'}
    assert jax.tree.structure(rest) == jax.tree.structure(afunet.init_params(plain, 0))
    x = photos(size=UNEVEN)
    expected = jax.jit(lambda p, x: plain.apply({'params': p}, x))(rest, x)
    params['blend']['guides']['bias'][1] = STEEPEST  # no pixel around counts
    params['blend']['errors']['bias'] = np.repeat([-50, 0, 0, 0, 0], 3).astype(np.float32)
    np.testing.assert_allclose(apply(params, x)[0], expected, rtol=0, atol=1e-6)
    params['blend']['errors']['bias'] = np.repeat([0, 0, -50, 0, 0], 3).astype(np.float32)
    np.testing.assert_array_equal(apply(params, x)[0], x[..., 6:9])


def test_noise_is_taken_out_of_the_mixture_of_whole_images():
    blending, apply = in_network()
    params = afunet.init_params(blending, 0)
    params['blend']['guides']['bias'][:WIDTHS] = -8  # wide
    x = photos(size=UNEVEN)
    smooth, sown = apply(params, x)
    plain = mixed(sown[afunet.BLENDED]['candidates'][0], sown[afunet.BLENDED]['log_errors'][0])
    assert smooth.shape == plain.shape == (*UNEVEN, 3)
    assert np.abs(np.diff(hdr.mu_law(smooth), axis=1)).mean() < 0.8 * np.abs(np.diff(hdr.mu_law(plain), axis=1)).mean()
    params['blend']['guides']['bias'][:WIDTHS] = 2 * STEEPEST
    np.testing.assert_allclose(apply(params, x)[0], plain, rtol=1e-6)


def test_the_loss_is_least_where_errors_are_predicted():
    rng = np.random.default_rng(0)
    label, found = rng.random((1, 8, 8, 3)), rng.random((CANDIDATES, 1, 8, 8, 3))
    errors = np.abs(hdr.mu_law(found) - hdr.mu_law(label)) + losses.LEAST_ERROR
    gradient = jax.grad(lambda s: losses.error_prediction(found, s, label)[0])(np.log(errors))
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    for change in (-0.3, 0.3):
        worse = losses.error_prediction(found, np.log(errors) + change, label)[0]
        assert worse > losses.error_prediction(found, np.log(errors), label)[0]


def test_the_loss_of_an_exact_candidate_has_a_bound():
    label = np.full((1, 8, 8, 3), 0.5)
    found = np.repeat(label[None], CANDIDATES, 0)
    losses_of = [losses.error_prediction(found, np.full(found.shape, s), label)[0] for s in (-4, -7, -20)]
    assert losses_of[1] < losses_of[0] < losses_of[2]


def test_the_mixture_s_loss_is_its_psnr_and_a_little_of_error_prediction():
    rng = np.random.default_rng(0)
    label, found = rng.random((2, 8, 8, 3)), rng.random((CANDIDATES, 2, 8, 8, 3))
    log_errors = rng.normal(-3, 1, found.shape)
    weights = np.exp(-SHARPNESS * log_errors)
    prediction = (weights * found).sum(0) / weights.sum(0)
    total, terms = losses.make_blend_loss('mixture')(mixed(found, log_errors), found, log_errors, label)
    pairs = zip(*(hdr.mu_law(np.float32(images)) for images in (prediction, label)))
    psnr = np.mean([metrics.psnr(*pair) for pair in pairs])
    assert terms.keys() == {'log_square', 'error_prediction'}
    np.testing.assert_allclose(-10 / np.log(10) * terms['log_square'], psnr, rtol=1e-3)
    beside = losses.error_prediction(found, log_errors, label)[0]
    np.testing.assert_allclose(total, terms['log_square'] + losses.ERRORS_SHARE * beside, rtol=1e-6)


def test_the_mixture_s_loss_falls_where_weight_goes_to_better_candidates_and_counts_each_image_alike():
    rng = np.random.default_rng(0)
    label = hdr.inverse_mu_law(np.repeat(rng.uniform(0.3, 0.7, (1, 8, 8, 3)), 2, 0))
    signs = rng.choice([-1, 1], (CANDIDATES, 1, 8, 8, 3))
    errors = np.array([0.01, 0.02, 0.05, 0.1, 0.2]).reshape(-1, 1, 1, 1, 1) * np.array([1, 0.5]).reshape(1, -1, 1, 1, 1)
    found = hdr.inverse_mu_law(hdr.mu_law(label) + errors * signs)

    def loss(log_errors):
        return losses.make_blend_loss('mixture')(mixed(found, log_errors), found, log_errors, label)[1]['log_square']

    gradient = jax.jit(jax.grad(loss))(np.zeros(found.shape))
    by_image = np.abs(gradient).sum((0, 2, 3, 4))
    assert gradient[0].mean() > 0 > gradient[4].mean()  # a smaller error of the best and a larger one of the worst
    assert 0.5 < by_image[0] / by_image[1] < 2  # squares would count the one of larger errors four times as much


def test_the_gradient_of_an_exact_mixture_is_finite():
    label = jnp.full((1, 8, 8, 3), 0.5)
    found = jnp.repeat(label[None], CANDIDATES, 0)
    value, gradient = jax.value_and_grad(losses.log_square)(label, label)
    assert value == np.float32(np.log(losses.LEAST_SQUARE)) and not gradient.any()
    mixture = losses.make_blend_loss('mixture')
    gradient = jax.grad(lambda s: mixture(mixed(found, s), found, s, label)[0])(jnp.zeros(found.shape))
    assert np.isfinite(gradient).all()


def test_other_losses_of_a_head_are_refused():
    with pytest.raises(ConfigError, match="loss.blend is one of errors, mixture, not 'psnr'"):
        losses.make_blend_loss('psnr')


@pytest.mark.parametrize('moved', [False, True])
def test_it_sees_from_afar_whether_something_has_moved(moved):
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.uniform(0.3, 0.6, (1, 8, 8, 3)), 8, 1).repeat(8, 2)
    frames = [truth + 0.05 * rng.standard_normal(truth.shape) for _ in range(4)]
    if moved:
        frames[2] = np.roll(frames[2], 8, 2)
    found = blend._views([jnp.float32(frame) for frame in frames], [jnp.full(truth.shape, 0.5)] * 3)
    of_short_and_middle = np.asarray(found)[..., 6 + 2]  # after three pairs with the network's image, wider view
    assert (np.exp(of_short_and_middle) > 0.05).mean() == moved


@pytest.mark.parametrize(
    ('colour', 'share'), [([0.0, 1.0, 0.0], 0), ([0.2, 1.0, 1.0], 1 / 3), ([0.5, 0.5, 0.0], 2 / 3), ([0.5, 0.5, 0.5], 1)]
)
def test_colours_that_are_clipped_or_black_are_not_compared_and_the_others_are(colour, share):
    rng = np.random.default_rng(1)
    images, ldrs = rng.random((4, 1, 16, 16, 3)), np.full((3, 1, 16, 16, 3), 0.5)
    ldrs[1] = colour
    others = images.copy()
    others[2] = np.where((ldrs[1] > 0.01) & (ldrs[1] < 0.98), others[2], rng.random(others[2].shape))
    found, same = (np.asarray(blend._views(np.float32(i), np.float32(ldrs)))[..., :18] for i in (images, others))
    np.testing.assert_array_equal(found, same)
    np.testing.assert_allclose(found[0, 0, 0, [7, 9, 11, 13, 15, 17]], [share, share, 1, 1, share, share], rtol=1e-6)
    assert (np.exp(found[..., 6]) > 2 * blend.LEAST_DIFFERENCE).all() == (share > 0)


def test_windows_that_cells_do_not_fill_are_refused():
    with pytest.raises(ConfigError, match='window_size is a multiple of 4, but it is 6'):
        afunet.build({**MODEL, 'head': 'blend', 'window_size': 6})
