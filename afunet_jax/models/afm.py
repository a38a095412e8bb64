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

import flax.linen as nn
import jax
import jax.numpy as jnp

from afunet_jax.models import attention, windows
from afunet_jax.models.layers import INIT, Conv3x3, Dense, DepthwiseConv3x3, DropPath, LayerNorm, Mlp

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


class SAM(nn.Module):
    """Spatial alignment module, Eq. (11)-(12): windowed cross-attention from alpha_i to d_i + alpha_i."""

    heads: int
    window: int
    drop_path: float

    @nn.compact
    def __call__(self, d: jax.Array, alpha: jax.Array, train: bool, positions: jax.Array | None) -> jax.Array:
        shape, channels = d.shape[:3], d.shape[-1]
        q = Dense(channels, name='query')(alpha.reshape(-1, channels))
        kv = Dense(2 * channels, name='key_value')((d + alpha).reshape(-1, channels))
        (q,) = windows.split_heads(q, shape, self.window, self.heads, 1)
        k, v = windows.split_heads(kv, shape, self.window, self.heads, 2)
        bias = PositionBias(self.window, self.heads, name='position_bias')()
        attended = windows.join_heads(attention.window_attention(q, k, v, bias), shape, self.window)
        branch = Dense(channels, name='projection')(attended).reshape(d.shape)
        r = d + DropPath(self.drop_path)(branch, train, positions)
        r = r + DepthwiseConv3x3(name='depthwise')(r)
        return r + d


class SwinBlock(nn.Module):
    """Pre-norm Swin block (Liu et al. 2021) with cyclic shift: window self-attention, then an MLP."""

    heads: int
    window: int
    shift: int
    mlp_ratio: int
    drop_path: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, positions: jax.Array | None) -> jax.Array:
        branch = self._attend(LayerNorm(name='norm1')(x))
        x = x + DropPath(self.drop_path)(branch, train, positions)
        channels = x.shape[-1]
        branch = Mlp(self.mlp_ratio * channels, channels, name='mlp')(LayerNorm(name='norm2')(x))
        return x + DropPath(self.drop_path)(branch, train, positions)

    def _attend(self, x: jax.Array) -> jax.Array:
        shape, channels = x.shape[:3], x.shape[-1]
        mask = None
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
            mask = windows.shift_mask(shape[1], shape[2], self.window, self.shift)
        qkv = Dense(3 * channels, name='qkv')(x.reshape(-1, channels))
        q, k, v = windows.split_heads(qkv, shape, self.window, self.heads, 3)
        bias = PositionBias(self.window, self.heads, name='position_bias')()
        attended = windows.join_heads(attention.window_attention(q, k, v, bias, mask), shape, self.window)
        x = Dense(channels, name='projection')(attended).reshape(x.shape)
        return jnp.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class SFM(nn.Module):
    """Spatial fusion module, Eq. (13): Swin blocks, alternately shifted, a convolution and a residual."""

    heads: int
    window: int
    mlp_ratio: int
    drop_paths: tuple[float, ...]  # one rate a block

    @nn.compact
    def __call__(self, s: jax.Array, train: bool, positions: jax.Array | None) -> jax.Array:
        x = s
        for k, rate in enumerate(self.drop_paths):
            shift = self.window // 2 if k % 2 else 0
            x = SwinBlock(self.heads, self.window, shift, self.mlp_ratio, rate, name=f'block_{k}')(x, train, positions)
        return Conv3x3(s.shape[-1], name='conv')(x) + s


class CFM(nn.Module):
    """Channel fusion module, Eq. (13): transposed attention from w (u_s or v_s) to x + w."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        x_tokens, w_tokens = (a.reshape(batch, height * width, channels) for a in (x, w))
        q = Dense(channels, use_bias=False, name='query')(w_tokens)
        k = Dense(channels, use_bias=False, name='key')(x_tokens + w_tokens)
        v = Dense(channels, use_bias=False, name='value')(x_tokens + w_tokens)
        temperature = self.param('temperature', nn.initializers.ones, (self.heads,))
        attended = attention.channel_attention(q, k, v, temperature)
        h = x + Dense(channels, use_bias=False, name='projection')(attended).reshape(x.shape)
        return h + DepthwiseConv3x3(name='depthwise')(h)


class DCM(nn.Module):
    """Data consistency module, Eq. (8), (14): x_p = MLP_inv(MLP_D2T(y_2) + beta_1 u + beta_3 v)."""

    mlp_ratio: int

    @nn.compact
    def __call__(self, y_2: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        channels = y_2.shape[-1]
        half = nn.initializers.constant(0.5)
        beta_1, beta_3 = self.param('beta_1', half, ()), self.param('beta_3', half, ())
        d2t = Mlp(self.mlp_ratio * channels, channels, name='mlp_d2t')(y_2)
        self.sow('intermediates', 'd2t', d2t)
        return Mlp(self.mlp_ratio * channels, channels, name='mlp_inv')(d2t + beta_1 * u + beta_3 * v)


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
    ablation: str = 'M4'
    order: str = 'AF'
    is_last: bool = False

    @nn.compact
    def __call__(
        self, alpha_1: jax.Array, x: jax.Array, alpha_3: jax.Array, y_2: jax.Array, train: bool, positions: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        aligns = self.ablation != 'M1' and not (self.order == 'FA' and self.is_last)
        if aligns and self.order == 'AF':
            alpha_1, alpha_3 = self._align(alpha_1, x, alpha_3, train, positions)
        x = self._fuse(alpha_1, x, alpha_3, y_2, train, positions)
        if aligns and self.order == 'FA':
            alpha_1, alpha_3 = self._align(alpha_1, x, alpha_3, train, positions)
        return alpha_1, x, alpha_3

    def _align(self, alpha_1, x, alpha_3, train, positions):
        aligned = []
        for i, alpha in ((1, alpha_1), (3, alpha_3)):
            d = Mlp(self.mlp_ratio * x.shape[-1], x.shape[-1], name=f'mlp_d{i}')(x)  # Eq. (4)
            sam = SAM(self.sam_heads, self.window, self.sam_drop_path, name=f'sam_{i}')
            alpha = sam(d, alpha, train, positions)  # Eq. (11)-(12)
            self.sow('intermediates', f'd_{i}', d)
            self.sow('intermediates', f'alpha_{i}', alpha)
            aligned.append(alpha)
        return aligned

    def _fuse(self, alpha_1, x, alpha_3, y_2, train, positions):
        s = jnp.concatenate([alpha_1, x, alpha_3], -1)
        h = SFM(self.sfm_heads, self.window, self.mlp_ratio, self.sfm_drop_paths, name='sfm')(s, train, positions)
        self.sow('intermediates', 'h', h)
        u, r, v = jnp.split(h, 3, -1)
        if self.ablation in ('M3', 'M4'):
            u_fused, v_fused = CFM(self.cfm_heads, name='cfm_u')(x, u), CFM(self.cfm_heads, name='cfm_v')(x, v)
            self.sow('intermediates', 'u_cfm', u_fused)
            self.sow('intermediates', 'v_cfm', v_fused)
            u, v = u_fused + x, v_fused + x  # Eq. (13)
        x_p = DCM(self.mlp_ratio, name='dcm')(y_2, u, v) if self.ablation == 'M4' else r  # Eq. (14)
        self.sow('intermediates', 'x_p', x_p)
        end = Mlp(self.mlp_ratio * x.shape[-1], x.shape[-1], name='mlp_end')(jnp.concatenate([u, x_p, v], -1))
        self.sow('intermediates', 'end', end)
        return end + r  # Eq. (15)
