"""AFUNet: shallow features, T unrolled stages, reconstruction.

Equivariant to permutations of the batch only. Flips, rotations, translations and exchanged colours change the result:
position tables have a direction, padding is at the bottom and right, and CFM sees the whole image.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax.errors import ConfigError, DataError
from afunet_jax.models.afm import ABLATIONS, AFM, ORDERS
from afunet_jax.models.blend import CELL, Blend, mixed
from afunet_jax.models.chunks import Images, map_tiles
from afunet_jax.models.execution import ATTENTIONS, Execution
from afunet_jax.models.layers import INIT_STD, Conv3x3, LayerNorm, normal_deviation
from afunet_jax.models.smoothing import smoothed

DTYPES = ('float32', 'bfloat16')
PRECISIONS = ('highest', 'default')
HEADS = ('sigmoid', 'blend')
BLENDED = 'blended'  # collection of what a blending head mixes, for its training
# Above these a file's or an option's network would take hours to build, and is a mistake.
MAX_WIDTH, MAX_DEPTH, MAX_WINDOW, MAX_MLP_RATIO = 3072, 32, 32, 64
MAX_STAGES = 6  # SAM's stochastic depth is spaced for six stages, whatever T is
INPUT_CHANNELS = 18
# Weights do not depend on them.
NOT_ARCHITECTURE = ('drop_path', 'chunk_windows', 'remat', 'attention', 'dtype', 'precision')
INITIAL_CONSTANTS = {'bias': 0, 'scale': 1, 'temperature': 1, 'beta_1': 0.5, 'beta_3': 0.5}  # all else is random


class AFUNet(nn.Module):
    """AFUNet (Li et al., ICCV 2025): three exposures to one HDR image.

    Attributes:
        num_stages: T, 2 to 6 in the paper (Table 6).
        width: channels of the fused features, a third of them for each exposure.
        sfm_depth: Swin blocks per SFM.
        sfm_heads, sam_heads, cfm_heads: attention heads of the modules.
        window_size: side of the attention windows, pixels.
        mlp_ratio: hidden over outer width of every MLP.
        drop_path: largest rate of stochastic depth, in [0, 1).
        order: 'AF' aligns, then fuses; 'FA' the other way round (Table 5).
        ablation: 'M1' SFM alone, 'M2' + SAM, 'M3' + CFM, 'M4' + DCM, the full network (Table 4).
        head: 'sigmoid', Eq. (16); 'blend' mixes that image with the exposures and takes noise out, see `blend`; not in
            the paper.
        chunk_windows, remat, attention: how it is computed: speed and memory, not values; see `execution.Execution`.
        dtype: of feature maps and matrix products, 'float32' or 'bfloat16'. Parameters, the input and its first
            convolution, norms, softmax, sums over the image, the head and the output are float32 in any case.
        precision: of products of float32: 'highest', or 'default': a GPU's own, which rounds their factors to ten bits
            (TF32). A gradient's own products have it where `jax.grad` is called inside `jax.default_matmul_precision`,
            as `training.gradients` does. On a CPU both are the same.
    """

    num_stages: int = 4
    width: int = 72
    sfm_depth: int = 5
    sfm_heads: int = 4
    sam_heads: int = 2
    cfm_heads: int = 2
    window_size: int = 8
    mlp_ratio: int = 2
    drop_path: float = 0.1
    order: str = 'AF'
    ablation: str = 'M4'
    head: str = 'sigmoid'
    chunk_windows: int = -1
    remat: str = 'auto'
    attention: str = 'plain'
    dtype: str = 'float32'
    precision: str = 'highest'

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, positions: jax.Array | None = None) -> jax.Array:
        """Merges three exposures.

        Args:
            x: `[B, H, W, 18]`, see `hdr.network_input`. H and W of at least 8 (one window) are padded
                by reflection to multiples of the window, and the output is cropped back.
            train: stochastic depth on; needs a `dropout` key in `rngs`.
            positions: int `[B]`, place of each example in the global batch when it is spread over
                devices; 0 to B - 1 if None. Stochastic depth is drawn by it.

        Returns:
            Linear HDR image `[B, H, W, 3]`, values in (0, 1); with the head 'blend' up to the brightest radiance.

        Raises:
            DataError: the input's shape.
            ConfigError: the network's settings.
        """
        check_architecture(self)
        with jax.default_matmul_precision(self.precision):
            return self._merged(x, train, positions)

    def _merged(self, x: jax.Array, train: bool, positions: jax.Array | None) -> jax.Array:
        height, width = _check_input(x, self.window_size)
        padded = x = _pad_to_multiple(x, self.window_size)
        channels = self.width // 3
        f_1, f_2, f_3 = (Conv3x3(channels, name=f'shallow_{i + 1}')(x[..., 6 * i : 6 * i + 6]) for i in range(3))
        alpha_1, y_2, alpha_3 = self._normalised([f_1, f_2, f_3])
        self.sow('intermediates', 'z', jnp.concatenate([alpha_1, y_2, alpha_3], -1))
        x = y_2
        for stage in self._stages():
            alpha_1, x, alpha_3 = stage(alpha_1, x, alpha_3, y_2, train, positions)
        x = x.astype(jnp.float32) + Conv3x3(channels, name='skip_conv')(f_2)
        output = nn.sigmoid(Conv3x3(3, name='output_conv')(x))  # Eq. (16)
        if self.head == 'blend':
            candidates, log_errors, guides = Blend(2 * channels, name='blend')(x, output, padded)
            self.sow(BLENDED, 'candidates', candidates[:, :, :height, :width])
            self.sow(BLENDED, 'log_errors', log_errors[:, :, :height, :width])
            output = smoothed(mixed(candidates, log_errors), guides)
        return output[:, :height, :width]

    def _normalised(self, features: list[jax.Array]) -> list[jax.Array]:
        """LayerNorm over the channels of all, apart: as one array they would stay in memory to the end.

        In tiles, because XLA repeats what it can fuse for each user of a map, and keeps what it is made of.
        """
        scale, bias = (jnp.split(weights, 3) for weights in LayerNorm(name='shallow_norm').weights(self.width))
        images = {f'f_{i}': f for i, f in enumerate(features)}
        execution = self._execution()
        tile, parts, after = execution.tile(features[0].shape, 1), [], features[-1]
        for i in range(3):
            f = _normalised_part(f'f_{i}', self.dtype)
            parts.append(map_tiles(f, (scale[i], bias[i]), images, {}, tile, execution.recompute, after=after))
            after = parts[-1]
        return parts

    def _execution(self) -> Execution:
        return Execution(self.chunk_windows, self.remat, self.attention, self.window_size)

    def _stages(self) -> list[AFM]:
        depth, stages = self.sfm_depth, self.num_stages
        sfm_rates = np.linspace(0, self.drop_path, depth * stages)
        sam_rates = np.linspace(0, self.drop_path, MAX_STAGES)
        return [
            AFM(
                self.sam_heads, self.sfm_heads, self.cfm_heads, self.window_size, self.mlp_ratio,
                float(sam_rates[t]), tuple(map(float, sfm_rates[depth * t : depth * (t + 1)])),
                self._execution(),
                self.ablation, self.order, is_last=t == stages - 1, name=f'stage_{t}',
            )
            for t in range(stages)
        ]  # fmt: skip


@functools.cache
def _normalised_part(name: str, dtype: str) -> Callable[..., jax.Array]:
    """One exposure's part of the LayerNorm over all three, in the type of the feature maps."""

    def f(tile: Images, scale: jax.Array, bias: jax.Array) -> jax.Array:
        width = sum(x.shape[-1] for x in tile.values())
        mean = sum(x.sum(-1, keepdims=True) for x in tile.values()) / width
        centred = {key: x - mean for key, x in tile.items()}
        deviation = normal_deviation(sum((c * c).sum(-1, keepdims=True) for c in centred.values()) / width)
        return (centred[name] / deviation * scale[None, None, None] + bias[None, None, None]).astype(dtype)

    return f


def build(settings: Mapping[str, Any]) -> AFUNet:
    """The network of a mapping (or ml_collections config) of AFUNet's attributes.

    Raises:
        ConfigError: an unknown or impossible setting.
    """
    settings = dict(settings)
    known = {field.name for field in dataclasses.fields(AFUNet)} - {'parent', 'name'}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f'model settings are {", ".join(sorted(known))}; unknown: {", ".join(unknown)}')
    kinds = {field.name: field.type for field in dataclasses.fields(AFUNet)}
    wrong = [f'{key} is {str(value)[:40]!r}, {kinds[key].__name__} is wanted' for key, value in settings.items()
             if type(value) is not kinds[key] and not (kinds[key] is float and type(value) is int)]  # fmt: skip
    if wrong:
        raise ConfigError('model: ' + '; '.join(wrong))
    model = AFUNet(**settings)
    check_architecture(model)
    return model


def architecture(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of AFUNet's attributes that weights depend on."""
    return {key: value for key, value in settings.items() if key not in NOT_ARCHITECTURE}


def check_architecture(model: AFUNet) -> None:
    """Raises ConfigError if the settings cannot be built, naming the rule."""
    m = model
    rules = [
        (1 <= m.num_stages <= MAX_STAGES, f'num_stages is 1 to {MAX_STAGES}', m.num_stages),
        (3 <= m.width <= MAX_WIDTH and m.width % 3 == 0,
         f'width is a multiple of 3, a third for each exposure, up to {MAX_WIDTH}', m.width),
        (1 <= m.sfm_depth <= MAX_DEPTH, f'sfm_depth is 1 to {MAX_DEPTH}', m.sfm_depth),
        (m.sfm_heads >= 1 and m.width % m.sfm_heads == 0, 'sfm_heads divides width', m.sfm_heads),
        (m.sam_heads >= 1 and m.width // 3 % m.sam_heads == 0, 'sam_heads divides width / 3', m.sam_heads),
        (m.cfm_heads >= 1 and m.width // 3 % m.cfm_heads == 0, 'cfm_heads divides width / 3', m.cfm_heads),
        (2 <= m.window_size <= MAX_WINDOW and m.window_size % 2 == 0, f'window_size is even, 2 to {MAX_WINDOW}',
         m.window_size),
        (1 <= m.mlp_ratio <= MAX_MLP_RATIO, f'mlp_ratio is 1 to {MAX_MLP_RATIO}', m.mlp_ratio),
        (m.chunk_windows >= -1, 'chunk_windows is -1 (automatic), 0 (all) or a number', m.chunk_windows),
        (m.remat in ('auto', 'on', 'off'), 'remat is auto, on or off', m.remat),
        (m.attention in ATTENTIONS, f'attention is one of {", ".join(ATTENTIONS)}', m.attention),
        (m.dtype in DTYPES, f'dtype is one of {", ".join(DTYPES)}', m.dtype),
        (m.precision in PRECISIONS, f'precision is one of {", ".join(PRECISIONS)}', m.precision),
        (0 <= m.drop_path < 1, 'drop_path is in [0, 1)', m.drop_path),
        (m.order in ORDERS, f'order is one of {", ".join(ORDERS)}', m.order),
        (m.ablation in ABLATIONS, f'ablation is one of {", ".join(ABLATIONS)}', m.ablation),
        (m.head in HEADS, f'head is one of {", ".join(HEADS)}', m.head),
        (m.head != 'blend' or m.window_size % CELL == 0, f'with the head blend window_size is a multiple of {CELL}',
         m.window_size),
    ]
    broken = [f'{rule}, but it is {value!r}' for holds, rule, value in rules if not holds]
    if broken:
        raise ConfigError('model: ' + '; '.join(broken))


def parameter_shapes(model: AFUNet) -> dict[str, Any]:
    """The tree of the network's parameters, as shapes; nothing is computed."""
    model = model.clone(attention='plain', chunk_windows=0)  # the same on a machine that could not compute it
    sample = jax.ShapeDtypeStruct((1, model.window_size, model.window_size, INPUT_CHANNELS), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), sample)['params']


def init_params(model: AFUNet, seed: int) -> dict[str, Any]:
    """Initial parameters, float32 NumPy arrays, the same on every platform.

    Distributed as `model.init` draws them, but drawn by NumPy from (seed, the parameter's path): compiling
    JAX's generator once a parameter takes minutes.
    """

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = '/'.join(key.key for key in path)
        constant = INITIAL_CONSTANTS.get(path[-1].key)
        if constant is not None:
            return np.full(leaf.shape, constant, np.float32)
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        return (INIT_STD * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, parameter_shapes(model))


def grown(params: Mapping[str, Any], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Trained parameters with the stages behind them that a deeper network has, whose output is the same at first.

    A stage adds to its estimate what its SFM's convolution and `mlp_end` give, Eq. (13) and (15). The weights of both
    layers begin at 0 in the stages that are added, and have gradients at once.

    Args:
        params: of the trained network.
        drawn: `init_params` of one with more stages that is otherwise the same.

    Returns:
        A tree like `drawn`.
    """
    stages = {name: {**drawn[name], **params.get(name, {})} for name in drawn if name.startswith('stage_')}
    for name in stages.keys() - params.keys():
        stage = stages[name]
        stage['sfm'] = {**stage['sfm'], 'conv': jax.tree.map(np.zeros_like, stage['sfm']['conv'])}
        stage['mlp_end'] = {**stage['mlp_end'], 'fc2': jax.tree.map(np.zeros_like, stage['mlp_end']['fc2'])}
    return {**params, **stages}


def count_parameters(params: Any) -> int:
    """Number of scalars in a tree of parameters (arrays or shapes)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def _check_input(x: jax.Array, window: int) -> tuple[int, int]:
    if x.ndim != 4 or x.shape[-1] != INPUT_CHANNELS:
        raise DataError(f'AFUNet takes [B, H, W, {INPUT_CHANNELS}] (see hdr.network_input), but got {list(x.shape)}')
    height, width = x.shape[1:3]
    for side in (height, width):
        if -side % window > side - 1:
            raise DataError(
                f'an image of {height}x{width} pixels cannot be padded by reflection to multiples of {window}: '
                f'a side of {side} reflects at most {side - 1} pixels; use images of at least {window}x{window}'
            )
    return height, width


def _pad_to_multiple(x: jax.Array, multiple: int) -> jax.Array:
    """Pads bottom and right by reflection."""
    bottom, right = -x.shape[1] % multiple, -x.shape[2] % multiple
    return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)), mode='reflect') if bottom or right else x
