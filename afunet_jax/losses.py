"""The training losses, Eq. (17), on mu-law images.

With tau the mu-law of `hdr.mu_law`, every loss is

    mean |tau(prediction) - tau(label)|  +  weight * second term

and the second term is the release's Fourier difference ('release'), the paper's VGG-19 feature
difference ('paper'), or nothing ('reconstruction'). Every term is a plain mean over the batch, so the
average over devices with equal shares of a batch is the loss of the whole batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from afunet_jax import hdr, vgg
from afunet_jax.errors import ConfigError, DataError

LEAST_ERROR = 1e-3  # mu-law; without it the error of an exact candidate would be predicted ever smaller
LEAST_SQUARE = 1e-6  # 60 dB; without it a crop that is nearly exact would count more than all others
ERRORS_SHARE = 0.02  # of error prediction beside the mixture's own error, which leaves the errors' scale open
WEIGHT = 0.005  # of the second term, in the paper and the release

Terms = dict[str, jax.Array]
Loss = Callable[[jax.Array, jax.Array], tuple[jax.Array, Terms]]
BlendLoss = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Terms]]


def _mu_law_pair(prediction: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    if prediction.shape != label.shape or prediction.ndim != 4 or prediction.shape[-1] != 3:
        raise DataError(
            'A loss compares images [B, H, W, 3] of the same shape, but the prediction has '
            f'{list(prediction.shape)} and the label {list(label.shape)}.'
        )
    return tuple(hdr.mu_law(jnp.asarray(image, jnp.float32)) for image in (prediction, label))


def _mean_absolute(x: jax.Array) -> jax.Array:
    # Not jnp.abs: its gradient at 0 is 1, and PyTorch's is 0.
    return (jnp.sign(x) * x).mean()


def reconstruction_loss(prediction: jax.Array, label: jax.Array) -> jax.Array:
    """Mean absolute difference of the mu-law images, the first term of Eq. (17).

    Args:
        prediction: linear `[B, H, W, 3]` in [0, 1].
        label: the same of the ground truth.

    Returns:
        float32 scalar; its gradient is finite everywhere, black and equal images included.

    Raises:
        DataError: other shapes (so do all losses here).
    """
    prediction, label = _mu_law_pair(prediction, label)
    return _mean_absolute(prediction - label)


def fft_loss(prediction: jax.Array, label: jax.Array) -> jax.Array:
    """Mean absolute difference of the real and imaginary parts of the spectra, the release's second term.

    `rfft2` over H and W, not normalised, of the mu-law images: sum(|dRe| + |dIm|) / (2 N) with N complex
    entries. The weight is not included. Arguments and result as in `reconstruction_loss`.
    """
    prediction, label = _mu_law_pair(prediction, label)
    # The transform is linear: one of the difference does for two.
    difference = jnp.fft.rfft2(prediction - label, axes=(1, 2))
    return (_mean_absolute(difference.real) + _mean_absolute(difference.imag)) / 2


def vgg_loss(prediction: jax.Array, label: jax.Array, vgg_params: vgg.Params) -> jax.Array:
    """Sum over VGG-19's relu1_1 to relu5_1 of their mean absolute difference, the paper's second term.

    The weight is not included. `vgg_params` is from `vgg.load`; the rest as in `reconstruction_loss`, and
    images are at least 16x16.
    """
    pairs = zip(*(vgg.features(vgg_params, image) for image in _mu_law_pair(prediction, label)))
    return sum(_mean_absolute(ours - theirs) for ours, theirs in pairs)


def error_prediction(candidates: jax.Array, log_errors: jax.Array, label: jax.Array) -> tuple[jax.Array, Terms]:
    """What a blending head learns by: negative logarithm of the likelihood of the candidates' errors.

    Errors are taken for Laplace's distribution of the predicted scale: mean of `(e + floor) exp(-s) + s`, e the
    absolute difference of mu-law values, s the predicted logarithm. Least where exp(s) is the mean error.

    Args:
        candidates, log_errors: `[5, B, H, W, 3]`, of `models.blend.Blend`.
        label: linear `[B, H, W, 3]`.

    Returns:
        As a loss of `make_loss`; it can be negative.
    """
    errors = jnp.abs(hdr.mu_law(candidates) - hdr.mu_law(label)[None])
    value = ((errors + LEAST_ERROR) * jnp.exp(-log_errors) + log_errors).mean()
    return _total({'error_prediction': value})


def log_square(prediction: jax.Array, label: jax.Array) -> jax.Array:
    """Mean over the batch of the natural logarithm of each image's mean squared difference of mu-law values.

    It is PSNR-mu but for sign and factor, up to `LEAST_SQUARE`. Arguments and errors as of `reconstruction_loss`.
    """
    prediction, label = _mu_law_pair(prediction, label)
    return jnp.log(((prediction - label) ** 2).mean((1, 2, 3)) + LEAST_SQUARE).mean()


def _total(terms: Terms) -> tuple[jax.Array, Terms]:
    return sum(terms.values()), terms


def _reconstruction(prediction, label):
    return _total({'reconstruction': reconstruction_loss(prediction, label)})


def _release(weight, prediction, label):
    terms = {'reconstruction': reconstruction_loss(prediction, label)}
    return _total(terms | {'fft': weight * fft_loss(prediction, label)})


def _paper(weight, vgg_params, prediction, label):
    terms = {'reconstruction': reconstruction_loss(prediction, label)}
    return _total(terms | {'vgg': weight * vgg_loss(prediction, label, vgg_params)})


def _errors(prediction, candidates, log_errors, label):
    return error_prediction(candidates, log_errors, label)


def _mixture(prediction, candidates, log_errors, label):
    _, terms = error_prediction(candidates, log_errors, label)
    squares = log_square(prediction, label)
    return _total({'log_square': squares} | {name: ERRORS_SHARE * term for name, term in terms.items()})


BLEND_LOSSES = {'errors': _errors, 'mixture': _mixture}


def make_blend_loss(name: str) -> BlendLoss:
    """The loss function of a network with a blending head.

    Args:
        name: 'errors': `error_prediction`, from which a new head learns; or 'mixture': `log_square` of the mixture
            and a little of `error_prediction`, for a head that can predict errors already.

    Returns:
        `loss(prediction, candidates, log_errors, label) -> (total, terms)`, of the network's output and what
        `models.blend.Blend` returns. A pytree, as that of `make_loss`.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in BLEND_LOSSES:
        raise ConfigError(f'loss.blend is one of {", ".join(BLEND_LOSSES)}, not {name!r}')
    return jax.tree_util.Partial(BLEND_LOSSES[name])


def make_loss(name: str, vgg_params: vgg.Params | None = None, weight: float = WEIGHT) -> Loss:
    """The loss function of a recipe.

    Args:
        name: 'release', 'paper' or 'reconstruction'.
        vgg_params: from `vgg.load`, for 'paper' only.
        weight: of the second term; 'reconstruction' has none and ignores it.

    Returns:
        `loss(prediction, label) -> (total, terms)`. The terms, 'reconstruction' and 'fft' or 'vgg', include
        their weights and add up to the total. The function is a pytree (`jax.tree_util.Partial`): pass it to
        a jitted function as an argument, and VGG's 52 MB are not compiled into it as constants.

    Raises:
        ConfigError: an unknown name, 'paper' without its weights, or weights that another loss would ignore.
    """
    if name not in ('release', 'paper', 'reconstruction'):
        raise ConfigError(f'The loss must be "release", "paper" or "reconstruction", but is "{name}".')
    if name == 'paper' and vgg_params is None:
        raise ConfigError(
            "The paper's loss needs the weights of VGG-19; `vgg.load` reads them from a file you name: "
            f'{vgg.WHERE_FROM}.'
        )
    if name != 'paper' and vgg_params is not None:
        raise ConfigError(f'The weights of VGG-19 are for the loss "paper", but the loss is "{name}".')
    if name == 'reconstruction':
        return jax.tree_util.Partial(_reconstruction)
    if name == 'release':
        return jax.tree_util.Partial(_release, weight)
    return jax.tree_util.Partial(_paper, weight, vgg_params)
