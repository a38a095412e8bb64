"""The blocks of AFUNet: SAM, SFM, CFM, DCM, and AFM, one stage of the unfolding.

Notation (the paper's, arXiv 2506.23537), all maps `[B, H, W, C]`, C = 24 channels per exposure:

    y_2       shallow features of the middle exposure, the same in every stage
    x         the HDR estimate's features, y_2 before the first stage
    alpha_i   features of the short (i = 1) and the long (i = 3) exposure, aligned anew in every stage
    d_i       D_i x, the estimate as exposure i would show it, Eq. (4)
    u, v      the auxiliary variables of the short and the long side, Eq. (13)
    r         the middle part of the fused features
    beta_1, beta_3   the weights of u and v in the data term, one pair a stage

H and W are multiples of the window's side. `train` turns stochastic depth on; `positions` are the
examples' places in the global batch (see `layers.DropPath`).
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from afunet_jax.errors import ConfigError
from afunet_jax.models import attention, fused_attention, windows
from afunet_jax.models.chunks import Images, map_tiles
from afunet_jax.models.execution import Execution, on_cpu
from afunet_jax.models.layers import (
    INIT,
    Conv3x3,
    Dense,
    DepthwiseConv3x3,
    DropPath,
    LayerNorm,
    Mlp,
    dense,
    layer_norm,
    mlp,
)  # fmt: skip

ABLATIONS = ('M1', 'M2', 'M3', 'M4')
"""Table 4. Each adds a module to the one before; the paper prints no formulas, so the plainest reading:

    M1  SFM alone: alpha_i stay the shallow features, [u, r, v] = split(SFM(s)), x_p = r
    M2  + SAM: alpha_i are aligned
    M3  + CFM: u and v are fused with x
    M4  + DCM: x_p from Eq. (14), the full network
"""
ORDERS = ('AF', 'FA')
"""Table 5. AF aligns, then fuses. FA fuses first and aligns for the next stage; the last stage aligns nothing."""


class PositionBias(nn.Module):
    """Learned relative position bias: table `[(2 w - 1) ** 2, heads]` to `[heads, N, N]`."""

    window: int
    heads: int

    @nn.compact
    def __call__(self) -> jax.Array:
        table = self.param('table', INIT, ((2 * self.window - 1) ** 2, self.heads))
        return table[windows.relative_position_index(self.window)].transpose(2, 0, 1)


def _scaled(branch: jax.Array, keep: jax.Array | None) -> jax.Array:
    """A residual branch `[B * windows, N, C]` under stochastic depth; `keep` `[B]` from `DropPath`, or None."""
    if keep is None:
        return branch
    keep = jnp.repeat(jax.lax.stop_gradient(keep), len(branch) // len(keep))
    return branch * keep.astype(branch.dtype)[:, None, None]


@functools.cache
def _of_kind(f: Callable[..., jax.Array], kind: str, window: int) -> Callable[..., jax.Array]:
    """The same object for all blocks of a kind, so that they are traced once."""
    return functools.partial(f, kind, window)


def _attend(kind: str, tokens: tuple[jax.Array, ...], bias: jax.Array, regions: jax.Array | None) -> jax.Array:
    """Attention in windows; the channels of the tokens, put together, are q, k, v."""
    if kind == 'fused':
        if on_cpu():
            raise ConfigError('model.attention=fused is a kernel for NVIDIA GPUs, and this machine has none: use plain')
        return fused_attention.fused_window_attention(tokens, bias, regions)
    width = sum(x.shape[-1] for x in tokens) // 3
    q, k, v = (part for x in tokens for part in jnp.split(x, x.shape[-1] // width, -1))
    return attention.window_attention(q, k, v, bias, regions)


def align_tile(kind: str, window: int, tile: Images, bias, query, key_value, projection, keep) -> jax.Array:
    """SAM's attention in windows, and its residual: Eq. (11)-(12) without the convolution.

    Args:
        kind: of attention, see `execution.Execution`.
        window: side of the windows, pixels.
        tile: `d` and `alpha`, `[B, H, W, C]`.
        bias: `[heads, N, N]`; query, key_value and projection are dense layers' weights; keep is `DropPath`'s.
    """
    d, alpha = (windows.partition(tile[name], window) for name in ('d', 'alpha'))
    attended = _attend(kind, (dense(alpha, *query), dense(d + alpha, *key_value)), bias, None)
    return windows.merge(d + _scaled(dense(attended, *projection), keep), tile['d'].shape[:3], window)


class SAM(nn.Module):
    """Spatial alignment module, Eq. (11)-(12): windowed cross-attention from alpha_i to d_i + alpha_i."""

    heads: int
    window: int
    drop_path: float
    execution: Execution

    @nn.compact
    def __call__(self, d: jax.Array, alpha: jax.Array, train: bool, positions: jax.Array | None) -> jax.Array:
        channels = d.shape[-1]
        weights = (
            PositionBias(self.window, self.heads, name='position_bias')(),
            Dense(channels, name='query').weights(channels),
            Dense(2 * channels, name='key_value').weights(channels),
            Dense(channels, name='projection').weights(channels),
            DropPath(self.drop_path)(len(d), train, positions),
        )
        f = _of_kind(align_tile, self.execution.attention, self.window)
        tile = self.execution.tile(d.shape, 1)
        images = {'d': d, 'alpha': alpha}
        r = map_tiles(f, weights, images, {}, tile, self.execution.recompute, over='alpha')
        r = r + DepthwiseConv3x3(name='depthwise')(r)
        return r + d


def swin_tile(kind: str, window: int, tile: Images, bias, norm1, qkv, projection, norm2, fc1, fc2, *keep) -> jax.Array:
    """A whole Swin block: everything between two shifts.

    Args:
        kind: of attention, see `execution.Execution`.
        window: side of the windows, pixels.
        tile: `x` `[B, H, W, C]`; `regions` `[1, H, W]` of a shifted block, or None.
        bias: `[heads, N, N]`; the rest are the layers' weights; keep are two of `DropPath`'s.
    """
    shape, x = tile['x'].shape[:3], windows.partition(tile['x'], window)
    regions = tile['regions']
    if regions is not None:
        regions = jnp.tile(windows.regions_of_windows(regions, window), (shape[0], 1))
    attended = _attend(kind, (dense(layer_norm(x, *norm1), *qkv),), bias, regions)
    x = x + _scaled(dense(attended, *projection), keep[0])
    x = x + _scaled(mlp(layer_norm(x, *norm2), fc1, fc2), keep[1])
    return windows.merge(x, shape, window)


class SwinBlock(nn.Module):
    """Pre-norm Swin block (Liu et al. 2021) with cyclic shift: window self-attention, then an MLP."""

    heads: int
    window: int
    shift: int
    mlp_ratio: int
    drop_path: float
    execution: Execution

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, positions: jax.Array | None) -> jax.Array:
        keeps = (DropPath(self.drop_path)(len(x), train, positions) for _ in range(2))
        weights = *self._weights(x.shape[-1]), *keeps
        f = _of_kind(swin_tile, self.execution.attention, self.window)
        tile, recompute = self.execution.tile(x.shape), self.execution.recompute
        if not self.shift:
            return map_tiles(f, weights, {'x': x}, {'regions': None}, tile, recompute, over='x')
        regions = jnp.asarray(windows.shift_regions(*x.shape[1:3], self.window, self.shift))
        x = windows.shift(x, -self.shift)
        x = map_tiles(f, weights, {'x': x}, {'regions': regions}, tile, recompute, over='x')
        return windows.shift(x, self.shift)

    def _weights(self, channels: int) -> tuple[Any, ...]:
        fc1, fc2 = Mlp(self.mlp_ratio * channels, channels, name='mlp').weights(channels)
        return (
            PositionBias(self.window, self.heads, name='position_bias')(),
            LayerNorm(name='norm1').weights(channels),
            Dense(3 * channels, name='qkv').weights(channels),
            Dense(channels, name='projection').weights(channels),
            LayerNorm(name='norm2').weights(channels),
            fc1,
            fc2,
        )


class SFM(nn.Module):
    """Spatial fusion module, Eq. (13): Swin blocks, alternately shifted, a convolution and a residual."""

    heads: int
    window: int
    mlp_ratio: int
    drop_paths: tuple[float, ...]  # one rate a block
    execution: Execution

    @nn.compact
    def __call__(self, parts: tuple[jax.Array, ...], train: bool, positions: jax.Array | None) -> list[jax.Array]:
        """Maps the parts of s, `[B, H, W, C]` each, to those of h: apart they need a third less memory."""
        x = jnp.concatenate(parts, -1)
        for k, rate in enumerate(self.drop_paths):
            shift = self.window // 2 if k % 2 else 0
            block = SwinBlock(self.heads, self.window, shift, self.mlp_ratio, rate, self.execution, name=f'block_{k}')
            x = block(x, train, positions)
        return [h + s for h, s in zip(Conv3x3(x.shape[-1], name='conv').in_parts(x, len(parts)), parts)]


class CFM(nn.Module):
    """Channel fusion module, Eq. (13): transposed attention from w (u_s or v_s) to x + w."""

    heads: int
    execution: Execution

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        layers = [Dense(channels, use_bias=False, name=name) for name in ('query', 'key', 'value', 'projection')]
        weights = tuple(layer.weights(channels)[0] for layer in layers)
        temperature = self.param('temperature', nn.initializers.ones, (self.heads,))
        h = x + attention.channel_attention(w, x + w, weights, temperature, self.execution.tile(x.shape, 1))
        return h + DepthwiseConv3x3(name='depthwise')(h)


class DCM(nn.Module):
    """Data consistency module, Eq. (8), (14): x_p = MLP_inv(MLP_D2T(y_2) + beta_1 u + beta_3 v)."""

    mlp_ratio: int
    execution: Execution

    @nn.compact
    def __call__(self, y_2: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        channels = y_2.shape[-1]
        half = nn.initializers.constant(0.5)
        beta_1, beta_3 = (self.param(name, half, ()).astype(u.dtype) for name in ('beta_1', 'beta_3'))
        d2t = Mlp(self.mlp_ratio * channels, channels, self.execution, name='mlp_d2t')(y_2, after=v)
        self.sow('intermediates', 'd2t', d2t)
        inverse = Mlp(self.mlp_ratio * channels, channels, self.execution, name='mlp_inv')
        return inverse(d2t + beta_1 * u + beta_3 * v)


class AFM(nn.Module):
    """Alignment-fusion module: one stage of the unfolding, Eq. (11)-(15).

    Maps `(alpha_1, x, alpha_3)` to the next `(alpha_1, x, alpha_3)`, each `[B, H, W, C]`.
    """

    sam_heads: int
    sfm_heads: int
    cfm_heads: int
    window: int
    mlp_ratio: int
    sam_drop_path: float
    sfm_drop_paths: tuple[float, ...]
    execution: Execution = Execution()
    ablation: str = 'M4'
    order: str = 'AF'
    is_last: bool = False

    @nn.compact
    def __call__(
        self,
        alpha_1: jax.Array,
        x: jax.Array,
        alpha_3: jax.Array,
        y_2: jax.Array,
        train: bool,
        positions: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        aligns = self.ablation != 'M1' and not (self.order == 'FA' and self.is_last)
        if aligns and self.order == 'AF':
            alpha_1, alpha_3 = self._align(alpha_1, x, alpha_3, train, positions)
        x = self._fuse(alpha_1, x, alpha_3, y_2, train, positions)
        if aligns and self.order == 'FA':
            alpha_1, alpha_3 = self._align(alpha_1, x, alpha_3, train, positions)
        return alpha_1, x, alpha_3

    def _mlp(self, channels: int, name: str) -> Mlp:
        return Mlp(self.mlp_ratio * channels, channels, self.execution, name=name)

    def _align(self, alpha_1, x, alpha_3, train, positions):
        aligned = []
        for i, alpha in ((1, alpha_1), (3, alpha_3)):
            d = self._mlp(x.shape[-1], f'mlp_d{i}')(x, after=aligned[0] if aligned else x)  # Eq. (4)
            sam = SAM(self.sam_heads, self.window, self.sam_drop_path, self.execution, name=f'sam_{i}')
            alpha = sam(d, alpha, train, positions)  # Eq. (11)-(12)
            self.sow('intermediates', f'd_{i}', d)
            self.sow('intermediates', f'alpha_{i}', alpha)
            aligned.append(alpha)
        return aligned

    def _fuse(self, alpha_1, x, alpha_3, y_2, train, positions):
        sfm = SFM(self.sfm_heads, self.window, self.mlp_ratio, self.sfm_drop_paths, self.execution, name='sfm')
        u, r, v = sfm((alpha_1, x, alpha_3), train, positions)
        self.sow('intermediates', 'h', jnp.concatenate([u, r, v], -1))
        if self.ablation in ('M3', 'M4'):
            u_fused, v_fused = (
                CFM(self.cfm_heads, self.execution, name=f'cfm_{name}')(x, w) for name, w in (('u', u), ('v', v))
            )
            self.sow('intermediates', 'u_cfm', u_fused)
            self.sow('intermediates', 'v_cfm', v_fused)
            u, v = u_fused + x, v_fused + x  # Eq. (13)
        x_p = DCM(self.mlp_ratio, self.execution, name='dcm')(y_2, u, v) if self.ablation == 'M4' else r  # Eq. (14)
        self.sow('intermediates', 'x_p', x_p)
        end = self._mlp(x.shape[-1], 'mlp_end')(u, x_p, v)
        self.sow('intermediates', 'end', end)
        return end + r  # Eq. (15)
