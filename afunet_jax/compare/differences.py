"""Runs two networks on one batch, and measures how far they are apart."""

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import flax.traverse_util
import jax
import numpy as np
import optax

from afunet_jax import hdr, losses, torch_weights
from afunet_jax.compare import networks
from afunet_jax.errors import ConfigError
from afunet_jax.models import afunet

if TYPE_CHECKING:
    import torch

STEPS = 5
LEARNING_RATE = 5e-4  # the release's, before any decay
GRADIENT_FLOOR = 1e-5  # of the whole gradient's norm: 1e-4 of it is 1e-9 of the whole, far below float32's rounding
SIGN_CHANGE_EFFECT = 10  # on later losses, relative, over the share of signs that changed; 9 was measured
ROUNDING = 1e-9  # of the largest Fourier coefficient: smaller parts are zero but for rounding
STAGE_BLOCKS = {  # what our stages sow: the release's name of it
    'd_1': 'D1_x', 'd_3': 'D3_x', 'alpha_1': 'alpha1', 'alpha_3': 'alpha3', 'h': 'sfm',
    'u_cfm': 'u_cfm', 'v_cfm': 'v_cfm', 'dcm/d2t': 'D2T_y2', 'x_p': 'x_p', 'end': 'mlp_end',
}  # fmt: skip
SHALLOW, OUTPUT, LOSS = 'tokens_after_norm', 'output', 'loss'


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """The largest differences that count as equal.

    Attributes:
        output: of the network's output, absolute.
        blocks: of a block, relative to PyTorch's largest value in it.
        losses: of the loss and its terms, relative.
        gradients: of a parameter's gradient, the norm of the difference relative to PyTorch's norm; the norms
            then differ by no more.
        training: the loss before and after every step of Adam, relative.
    """

    output: float = 2e-6
    blocks: float = 1e-5
    losses: float = 1e-5
    gradients: float = 1e-4
    training: float = 1e-4


@dataclasses.dataclass(frozen=True)
class BlockDifference:
    """How far two arrays are apart.

    Attributes:
        name: of the block, as in `torch_twin.intermediates`.
        shape: `[B, H, W, C]`.
        largest, mean: of the absolute differences.
        relative: `largest` over the largest absolute value of PyTorch's array.
        within: the tolerance is kept.
    """

    name: str
    shape: tuple[int, ...]
    largest: float
    mean: float
    relative: float
    within: bool


@dataclasses.dataclass(frozen=True)
class ValueDifference:
    """Two losses, or two gradients of one parameter.

    Attributes:
        name: of the loss or its term; of a gradient, PyTorch's key.
        jax, pytorch: the losses, or the gradients' norms.
        relative: the losses' difference, or the norm of the gradients' difference, over `pytorch`, which for
            a gradient counts as at least `GRADIENT_FLOOR` times the norm of all gradients together.
        within: the tolerance is kept.
    """

    name: str
    jax: float
    pytorch: float
    relative: float
    within: bool | None


@dataclasses.dataclass(frozen=True)
class StepDifference(ValueDifference):
    """The loss before a step of Adam, or after the last; not judged (None) after a change of sign.

    Attributes:
        sign_changes: how many differences of prediction and label, or of their spectra, have opposite signs.
    """

    sign_changes: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All that `compare` found.

    Attributes:
        tolerances: that decided.
        blocks: in the order of computation, with the network's padding; the output, without it, is the last.
        losses: the release's loss and its terms. Empty without a label, as are the next two.
        gradients: of every parameter of the release that is used.
        training: the loss before each step and after the last.
    """

    tolerances: Tolerances
    blocks: list[BlockDifference]
    losses: list[ValueDifference]
    gradients: list[ValueDifference]
    training: list[StepDifference]

    @property
    def above(self) -> list[str]:
        """Names of the figures that are above their tolerances, or not numbers."""
        parts = {'': [*self.blocks, *self.training], 'loss: ': self.losses, 'gradient: ': self.gradients}
        return [f'{part}{row.name}' for part, rows in parts.items() for row in rows if row.within is False]


@dataclasses.dataclass(frozen=True)
class Step:
    """A network before a step of Adam.

    Attributes:
        losses: the loss, then its terms.
        prediction: `[B, H, W, 3]`.
        gradients: under PyTorch's keys and in its layouts.
    """

    losses: Mapping[str, float]
    prediction: np.ndarray
    gradients: Mapping[str, np.ndarray]


def compare(
    model: afunet.AFUNet,
    params: Mapping[str, Any],
    x: np.ndarray,
    label: np.ndarray | None = None,
    *,
    network: 'torch.nn.Module | None' = None,
    steps: int = STEPS,
    tolerances: Tolerances = Tolerances(),
) -> Comparison:
    """Compares our network with PyTorch's on one batch.

    Args:
        model: the full network in the order AF.
        params: its parameters.
        x: `[B, H, W, 18]` float32. Where H or W is no multiple of the window each side pads by itself.
        label: linear `[B, H, W, 3]` float32 in [0, 1]; without it there are no losses, gradients and steps.
        network: PyTorch's, with the same weights, from `twin` or `authors_network`; the twin if None. It is
            used in evaluation mode, and not changed.
        steps: of Adam at `LEARNING_RATE`, 0 or more.
        tolerances: what counts as equal.

    Raises:
        ConfigError: another variant of the network, which PyTorch does not have; PyTorch is missing.
        DataError: the shapes.
    """
    network = networks.twin(model, params) if network is None else copy.deepcopy(network).eval()
    x, values, gradients, training = np.asarray(x, np.float32), [], [], []
    with jax.default_matmul_precision('highest'):
        ours, theirs = _our_blocks(model, params, x), _their_blocks(network, x, model.window_size)
        blocks = [block_difference(name, ours[name], theirs[name], tolerances) for name in ours]
        if label is not None:
            label = np.asarray(label, np.float32)
            ours = list(_our_steps(model, params, x, label, steps))
            theirs = list(their_steps(network, x, label, steps))
            a, b = ours[0], theirs[0]
            limit = tolerances.losses
            values = [value_difference(name, a.losses[name], b.losses[name], limit) for name in b.losses]
            gradients = gradient_differences(a.gradients, b.gradients, tolerances.gradients)
            training = step_differences(ours, theirs, label, tolerances.training)
    return Comparison(tolerances, blocks, values, gradients, training)


def _our_blocks(model: afunet.AFUNet, params: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """What our network sows, under the release's names."""
    apply = jax.jit(lambda params, x: model.apply({'params': params}, x, mutable=['intermediates']))
    output, sown = apply(params, x)
    flat = flax.traverse_util.flatten_dict(sown['intermediates'], sep='/')
    blocks = {SHALLOW: flat['z'][0]}
    for t in range(model.num_stages):
        blocks |= {f'stage{t}_{name}': flat[f'stage_{t}/{path}'][0] for path, name in STAGE_BLOCKS.items()}
    return {name: np.asarray(value) for name, value in (blocks | {OUTPUT: output}).items()}


def _their_blocks(network: 'torch.nn.Module', x: np.ndarray, window: int) -> dict[str, np.ndarray]:
    torch, torch_twin = networks.pytorch()
    bottom, right = (-side % window for side in x.shape[1:3])
    padded = np.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)), mode='reflect')
    blocks = torch_twin.intermediates(network, _channels_first(padded))
    with torch.no_grad():  # the output of the image that the network pads itself
        return blocks | {OUTPUT: network(_channels_first(x)).permute(0, 2, 3, 1).numpy()}


def _our_steps(
    model: afunet.AFUNet, params: Any, x: np.ndarray, label: np.ndarray, steps: int
) -> Iterator[Step]:
    """Before each step of Adam and after the last: the release's loss, optax's Adam."""
    loss, optimizer = losses.make_loss('release'), optax.adam(LEARNING_RATE)

    def objective(params, x, label):
        prediction = model.apply({'params': params}, x)
        total, terms = loss(prediction, label)
        return total, (terms, prediction)

    differentiate = jax.jit(jax.value_and_grad(objective, has_aux=True))
    # Adam on one vector is Adam on each of its parts, without a long compilation; NumPy has none at all.
    vector = _ravel(params)
    state = optimizer.init(vector)
    for _ in range(steps + 1):
        (total, (terms, prediction)), gradients = differentiate(_unravel(vector, params), x, label)
        values = {name: float(value) for name, value in {LOSS: total, **terms}.items()}
        yield Step(values, np.asarray(prediction), torch_weights.to_state_dict(gradients))
        updates, state = optimizer.update(_ravel(gradients), state)
        vector = optax.apply_updates(vector, updates)


def their_steps(network: 'torch.nn.Module', x: np.ndarray, label: np.ndarray, steps: int) -> Iterator[Step]:
    """PyTorch's side, which changes `network`; in evaluation mode, for stochastic depth must be off."""
    torch, torch_twin = networks.pytorch()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    x, label = _channels_first(x), _channels_first(label)
    for _ in range(steps + 1):
        prediction = network(x)
        terms = torch_twin.release_loss_terms(prediction, label)
        total = sum(terms.values())
        optimizer.zero_grad()
        total.backward()
        gradients = {
            key: (torch.zeros_like(p) if p.grad is None else p.grad).numpy().copy()
            for key, p in network.named_parameters()
            if not key.startswith(torch_weights.UNUSED)
        }
        values = {name: value.item() for name, value in {LOSS: total, **terms}.items()}
        yield Step(values, prediction.detach().permute(0, 2, 3, 1).numpy(), gradients)
        optimizer.step()


def _ravel(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _unravel(vector: Any, like: Any) -> Any:
    leaves, structure = jax.tree.flatten(like)
    parts = np.split(np.asarray(vector), np.cumsum([np.size(leaf) for leaf in leaves])[:-1])
    return jax.tree.unflatten(structure, [part.reshape(np.shape(leaf)) for part, leaf in zip(parts, leaves)])


def _channels_first(x: np.ndarray) -> 'torch.Tensor':
    return networks.pytorch()[0].from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def block_difference(
    name: str, ours: np.ndarray, theirs: np.ndarray, tolerances: Tolerances
) -> BlockDifference:
    """The difference of two arrays; the output is judged by its absolute one, blocks by the relative one."""
    if ours.shape != theirs.shape:
        raise ConfigError(
            f'{name} is {list(ours.shape)} here and {list(theirs.shape)} in PyTorch: not the same network'
        )
    difference = np.abs(ours.astype(np.float64) - theirs)
    largest, relative = float(difference.max()), _ratio(difference.max(), np.abs(theirs).max())
    within = largest <= tolerances.output if name == OUTPUT else relative <= tolerances.blocks
    return BlockDifference(name, ours.shape, largest, float(difference.mean()), relative, within)


def value_difference(name: str, ours: float, theirs: float, tolerance: float) -> ValueDifference:
    """The difference of two numbers, relative to the second."""
    relative = _ratio(abs(ours - theirs), abs(theirs))
    return ValueDifference(name, ours, theirs, relative, relative <= tolerance)


def gradient_differences(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], tolerance: float
) -> list[ValueDifference]:
    """The differences of all gradients in `theirs`."""
    floor = GRADIENT_FLOOR * math.sqrt(sum(_norm(gradient) ** 2 for gradient in theirs.values()))
    rows = []
    for name, gradient in theirs.items():
        norm = _norm(gradient)
        relative = _ratio(_norm(ours[name].astype(np.float64) - gradient), max(norm, floor))
        rows.append(ValueDifference(name, _norm(ours[name]), norm, relative, relative <= tolerance))
    return rows


def step_differences(
    ours: Iterable[Step], theirs: Iterable[Step], label: np.ndarray, tolerance: float
) -> list[StepDifference]:
    """The differences of two runs."""
    rows, changes = [], 0
    for number, (our, their) in enumerate(zip(ours, theirs)):
        row = value_difference(f'step {number}', our.losses[LOSS], their.losses[LOSS], tolerance)
        judged = SIGN_CHANGE_EFFECT * changes / label.size <= tolerance
        now = sign_changes(our.prediction, their.prediction, label)
        fields = dataclasses.asdict(row) | {'within': row.within if judged else None}
        rows.append(StepDifference(**fields, sign_changes=now))
        changes += now
    return rows


def sign_changes(ours: np.ndarray, theirs: np.ndarray, label: np.ndarray) -> int:
    """How many terms of the release's loss have opposite signs for two predictions of one label."""
    label = hdr.mu_law(label.astype(np.float64))
    a, b = (hdr.mu_law(image.astype(np.float64)) - label for image in (ours, theirs))
    pairs = [(a, b)]
    a, b = (np.fft.rfft2(difference, axes=(1, 2)) for difference in (a, b))
    floor = ROUNDING * np.abs(b).max()
    pairs += [(np.where(np.abs(p) > floor, p, 0), q) for p, q in ((a.real, b.real), (a.imag, b.imag))]
    return int(sum(np.count_nonzero(p * q < 0) for p, q in pairs))


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array.astype(np.float64)))


def _ratio(part: float, whole: float) -> float:
    """part / whole; equal zeros do not differ, and zero and something differ infinitely."""
    return float(part / whole) if whole != 0 else (0.0 if part == 0 else math.inf)
