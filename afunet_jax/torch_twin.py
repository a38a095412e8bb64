"""AFUNet in PyTorch: the twin that the JAX model is compared with.

Its state dict has exactly the keys, shapes and buffers of the authors' release, so a released
checkpoint loads with `strict=True`, and so does one that this project exports. It is plain eager PyTorch
with softmax attention, and serves as the baseline of the speed comparison.

Notation: see the paper, arXiv 2506.23537. Inside the network images are channels-last, `[B, H, W, C]`;
`forward` takes and returns PyTorch's `[B, C, H, W]`.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPOSURES = 3
EXPOSURE_CHANNELS = 6  # 3 of radiance, 3 of the LDR image
MASK_WINDOWS = 5  # the stored attention mask is for 5 x 5 windows: 40 x 40 pixels with windows of 8
MASKED = -100.0  # added to the logits of pairs from different regions
SAM_DROP_STEPS = 6  # the stochastic depth of the SAMs is spread over 6 stages, however many there are
INIT_STD = 0.02
MU = 5000.0
FFT_WEIGHT = 0.005

# Module (without its stage) -> name of its output in the comparison with the JAX model.
STAGE_OUTPUTS = {
    'A1': 'D1_x',
    'A3': 'D3_x',
    'a_12': 'alpha1',
    'a_32': 'alpha3',
    'SFM': 'sfm',
    'f_12': 'u_cfm',
    'f_32': 'v_cfm',
    'A2_T': 'D2T_y2',
    'inv': 'x_p',
    'mlps_end': 'mlp_end',
}


def window_partition(x: Tensor, size: int) -> Tensor:
    """`[B, H, W, C]` to windows `[B * H/size * W/size, size * size, C]`, row by row."""
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


def window_reverse(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `window_partition`."""
    c = windows.shape[-1]
    x = windows.view(-1, height // size, width // size, size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, c)


def shift_mask(height: int, width: int, size: int, shift: int, device: torch.device | None = None) -> Tensor:
    """What a shifted block adds to its logits: `[windows, size**2, size**2]`, 0 or -100."""
    region = torch.zeros((1, height, width, 1), device=device)
    cuts = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
    for i, rows in enumerate(cuts):
        for j, columns in enumerate(cuts):
            region[:, rows, columns, :] = 3 * i + j
    region = window_partition(region, size).squeeze(-1)
    different = region[:, None, :] != region[:, :, None]
    return torch.zeros(different.shape, device=device).masked_fill(different, MASKED)


def relative_position_index(size: int) -> Tensor:
    """Row of the bias table for query i and key j of a window, `[size**2, size**2]` int64."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')
    y, x = y.flatten(), x.flatten()
    dy = y[:, None] - y[None, :] + size - 1
    dx = x[:, None] - x[None, :] + size - 1
    return dy * (2 * size - 1) + dx


def reflection_conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    """3x3 convolution, padded by one pixel of reflection."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode='reflect', groups=groups)


def channels_last(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a module of `[B, C, H, W]` to `[B, H, W, C]`."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class DropPath(nn.Module):
    """Stochastic depth: drops a branch for whole examples with `probability`, while training."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * kept / keep


class Mlp(nn.Module):
    """Dense, exact GELU, Dense."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Norm(nn.Module):
    """LayerNorm over channels, under the key `norm`."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class WindowAttention(nn.Module):
    """What SAM's and SFM's attention share: softmax in windows with relative position bias."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer('relative_position_index', relative_position_index(window))
        self.proj = nn.Linear(width, width)

    def split_heads(self, x: Tensor, parts: int) -> Tensor:
        """`[windows, N, parts * C]` to `[parts, windows, heads, N, C / heads]`."""
        n, length, _ = x.shape
        return x.view(n, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """softmax(q k^T * scale + bias + mask) v, projected: `[windows, N, C]`."""
        n, heads, length, _ = q.shape
        logits = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        logits = logits + bias.view(length, length, heads).permute(2, 0, 1)
        if mask is not None:
            logits = logits.view(-1, mask.shape[0], heads, length, length) + mask[None, :, None]
            logits = logits.view(n, heads, length, length)
        x = torch.softmax(logits, dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(n, length, -1))


class CrossAttention(WindowAttention):
    """SAM's attention: queries from one image, keys and values from another."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__(width, heads, window)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        q = self.split_heads(self.q(query), 1)[0]
        k, v = self.split_heads(self.kv(context), 2)
        return self.attend(q, k, v)


class SelfAttention(WindowAttention):
    """SFM's attention: queries, keys and values from one image."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__(width, heads, window)
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.split_heads(self.qkv(x), 3)
        return self.attend(q, k, v, mask)


class SAMBlock(nn.Module):
    """SAM without its closing `+ d`."""

    def __init__(self, width: int, heads: int, window: int, drop: float):
        super().__init__()
        self.window = window
        self.attn = CrossAttention(width, heads, window)
        self.drop_path = DropPath(drop)
        self.mlp = reflection_conv(width, width, groups=width)

    def forward(self, d: Tensor, a: Tensor) -> Tensor:
        _, height, width, _ = d.shape
        windows = self.attn(window_partition(a, self.window), window_partition(d + a, self.window))
        r = d + self.drop_path(window_reverse(windows, self.window, height, width))
        return r + channels_last(self.mlp, r)


class SwinBlock(nn.Module):
    """One pre-norm Swin block; a shifted one stores its mask for an image of 5 x 5 windows."""

    def __init__(self, width: int, heads: int, window: int, shift: int, mlp_ratio: float, drop: float):
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, window)
        self.drop_path = DropPath(drop)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)
        if shift:
            side = MASK_WINDOWS * window
            self.register_buffer('attn_mask', shift_mask(side, side, window, shift))

    def mask(self, height: int, width: int, device: torch.device) -> Tensor | None:
        if not self.shift:
            return None
        if height == width == MASK_WINDOWS * self.window:
            return self.attn_mask
        return shift_mask(height, width, self.window, self.shift, device)

    def attention(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
        windows = self.attn(window_partition(x, self.window), self.mask(height, width, x.device))
        x = window_reverse(windows, self.window, height, width)
        return torch.roll(x, (self.shift, self.shift), dims=(1, 2)) if self.shift else x

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BlockGroup(nn.Module):
    """Blocks one after another, under the key `blocks`; further inputs go to each block."""

    def __init__(self, blocks: list[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, *others)
        return x


class SAM(nn.Module):
    """Spatial alignment module, Eq. (11)-(12)."""

    def __init__(self, width: int, heads: int, window: int, drop: float):
        super().__init__()
        self.residual_group = BlockGroup([SAMBlock(width, heads, window, drop)])

    def forward(self, d: Tensor, a: Tensor) -> Tensor:
        return self.residual_group(d, a) + d


class SFM(nn.Module):
    """Spatial fusion module, Eq. (13): Swin blocks, a convolution, and the input added."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: float, drops: list[float]):
        super().__init__()
        blocks = [
            SwinBlock(width, heads, window, window // 2 * (k % 2), mlp_ratio, drop)
            for k, drop in enumerate(drops)
        ]
        self.residual_group = BlockGroup(blocks)
        self.conv = reflection_conv(width, width)

    def forward(self, s: Tensor) -> Tensor:
        return channels_last(self.conv, self.residual_group(s)) + s


class ChannelAttention(nn.Module):
    """CFM's transposed attention: channels attend to channels over all pixels, `[B, C, H, W]`."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q = nn.Conv2d(width, width, 1, bias=False)
        self.k = nn.Conv2d(width, width, 1, bias=False)
        self.v = nn.Conv2d(width, width, 1, bias=False)
        self.project_out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        b, c, height, width = query.shape
        split = (b, self.heads, c // self.heads, height * width)
        q = F.normalize(self.q(query).reshape(split), dim=-1)
        k = F.normalize(self.k(context).reshape(split), dim=-1)
        v = self.v(context).reshape(split)
        attention = torch.softmax(q @ k.transpose(-2, -1) * self.temperature, dim=-1)
        return self.project_out((attention @ v).reshape(b, c, height, width))


class CFM(nn.Module):
    """Channel fusion module, Eq. (14), without the `+ x` outside it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = ChannelAttention(width, heads)
        self.conv = reflection_conv(width, width, groups=width)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x, w = x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2)
        h = x + self.attn(w, x + w)
        return (h + self.conv(h)).permute(0, 2, 3, 1)


class AFUNetTwin(nn.Module):
    """AFUNet as released: three exposures `[B, 18, H, W]` to one HDR image `[B, 3, H, W]` in (0, 1).

    Args:
        num_stages: unfolding stages T.
        width: channels of the three exposures together; each has a third.
        sfm_depth: Swin blocks in an SFM.
        sfm_heads, sam_heads, cfm_heads: attention heads.
        window_size: side of the windows in pixels; the input is padded to a multiple of it.
        mlp_ratio: hidden channels of an MLP over those of one exposure (SFM: over `width`).
        drop_path: largest probability of stochastic depth, used in training mode only.
    """

    def __init__(
        self,
        *,
        num_stages: int = 4,
        width: int = 72,
        sfm_depth: int = 5,
        sfm_heads: int = 4,
        sam_heads: int = 2,
        cfm_heads: int = 2,
        window_size: int = 8,
        mlp_ratio: float = 2,
        drop_path: float = 0.1,
    ):
        super().__init__()
        c = width // EXPOSURES
        hidden = int(c * mlp_ratio)
        sam_drops = torch.linspace(0, drop_path, SAM_DROP_STEPS).tolist()
        sfm_drops = torch.linspace(0, drop_path, sfm_depth * num_stages).tolist()
        self.num_stages = num_stages
        self.window_size = window_size

        def per_stage(make):
            return nn.ModuleList(make(t) for t in range(num_stages))

        self.conv1, self.conv2, self.conv3 = (
            nn.Sequential(reflection_conv(EXPOSURE_CHANNELS, c)) for _ in range(EXPOSURES)
        )
        self.patch_embed = Norm(width)
        self.patch_embed_div3 = Norm(c)  # never used, but part of every released checkpoint
        self.A1 = per_stage(lambda t: Mlp(c, hidden, c))
        self.A3 = per_stage(lambda t: Mlp(c, hidden, c))
        self.a_12 = per_stage(lambda t: SAM(c, sam_heads, window_size, sam_drops[t]))
        self.a_32 = per_stage(lambda t: SAM(c, sam_heads, window_size, sam_drops[t]))
        self.SFM = per_stage(
            lambda t: SFM(width, sfm_heads, window_size, mlp_ratio, sfm_drops[sfm_depth * t :][:sfm_depth])
        )
        self.f_12 = per_stage(lambda t: CFM(c, cfm_heads))
        self.f_32 = per_stage(lambda t: CFM(c, cfm_heads))
        self.A2_T = per_stage(lambda t: Mlp(c, hidden, c))
        self.inv = per_stage(lambda t: Mlp(c, hidden, c))
        self.beta1 = nn.ParameterList(nn.Parameter(torch.tensor(0.5)) for _ in range(num_stages))
        self.beta2 = nn.ParameterList(nn.Parameter(torch.tensor(0.5)) for _ in range(num_stages))
        self.mlps_end = per_stage(lambda t: Mlp(width, hidden, c))
        self.conv_skip = reflection_conv(c, c)
        self.out = nn.Sequential(reflection_conv(c, 3), nn.Sigmoid())
        self.apply(_initialise)

    def align(self, t: int, alpha1: Tensor, x: Tensor, alpha3: Tensor) -> tuple[Tensor, Tensor]:
        """Alignment of stage t, Eq. (11)-(12)."""
        return self.a_12[t](self.A1[t](x), alpha1), self.a_32[t](self.A3[t](x), alpha3)

    def fuse(self, t: int, alpha1: Tensor, x: Tensor, alpha3: Tensor, y2: Tensor) -> Tensor:
        """Fusion of stage t, Eq. (13)-(15)."""
        s = torch.cat([alpha1, x, alpha3], dim=-1)
        u_s, r, v_s = self.SFM[t](s).chunk(EXPOSURES, dim=-1)
        u = self.f_12[t](x, u_s) + x
        v = self.f_32[t](x, v_s) + x
        x_p = self.inv[t](self.A2_T[t](y2) + self.beta1[t] * u + self.beta2[t] * v)  # Eq. (8)
        return self.mlps_end[t](torch.cat([u, x_p, v], dim=-1)) + r  # Eq. (15)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.window_size, 0, -height % self.window_size), mode='reflect')
        convolutions = (self.conv1, self.conv2, self.conv3)
        f = [conv(part) for conv, part in zip(convolutions, x.chunk(EXPOSURES, dim=1))]
        z = self.patch_embed(torch.cat(f, dim=1).permute(0, 2, 3, 1))
        alpha1, y2, alpha3 = z.chunk(EXPOSURES, dim=-1)
        x = y2
        for t in range(self.num_stages):
            alpha1, alpha3 = self.align(t, alpha1, x, alpha3)
            x = self.fuse(t, alpha1, x, alpha3, y2)
        y = self.out(x.permute(0, 3, 1, 2) + self.conv_skip(f[1]))  # Eq. (16)
        return y[..., :height, :width]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.relative_position_bias_table, std=INIT_STD)


def _to_channels_last(output: Tensor, height: int, width: int) -> np.ndarray:
    output = output.detach()
    if output.ndim == 3:  # tokens [B, H * W, C]
        output = output.unflatten(1, (height, width))
    elif tuple(output.shape[1:3]) != (height, width):  # [B, C, H, W]
        output = output.permute(0, 2, 3, 1)
    return output.cpu().numpy().copy()


def intermediates(model: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """What the blocks compute on the way, for a comparison block by block.

    Args:
        model: the twin, or any module with the released names, such as the authors' own class, whose
            blocks may return tokens `[B, H*W, C]` or `[B, C, H, W]`.
        x: `[B, 18, H, W]`, H and W multiples of the window size.

    Returns:
        float32 `[B, H, W, C]` under `tokens_after_norm` and `stage{t}_{name}` with the names of
        `STAGE_OUTPUTS`, each before the additions outside its block, and the network's `output`.
    """
    height, width = x.shape[-2:]
    found = {}

    def keep(name):
        def hook(module, inputs, output):  # returns nothing: a value would replace the output
            found.setdefault(name, _to_channels_last(output, height, width))

        return hook

    names = {'patch_embed': 'tokens_after_norm'}
    names |= {f'{m}.{t}': f'stage{t}_{n}' for t in range(len(model.SFM)) for m, n in STAGE_OUTPUTS.items()}
    hooks = [model.get_submodule(module).register_forward_hook(keep(name)) for module, name in names.items()]
    try:
        with torch.no_grad():
            found['output'] = model(x).permute(0, 2, 3, 1).cpu().numpy().copy()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def mu_law(x: Tensor) -> Tensor:
    """tau(x) = log(1 + 5000 x) / log(5001)."""
    return torch.log(1 + MU * x) / math.log(1 + MU)


def release_loss_terms(prediction: Tensor, label: Tensor) -> dict[str, Tensor]:
    """The two terms of the release's loss on the mu-law images, the weight of the second included."""
    prediction, label = mu_law(prediction), mu_law(label)
    difference = torch.view_as_real(torch.fft.rfft2(prediction) - torch.fft.rfft2(label))
    return {'reconstruction': (prediction - label).abs().mean(), 'fft': FFT_WEIGHT * difference.abs().mean()}


def release_loss(prediction: Tensor, label: Tensor) -> Tensor:
    """L1 plus 0.005 times the Fourier difference on mu-law images; linear `[B, 3, H, W]` in [0, 1]."""
    return sum(release_loss_terms(prediction, label).values())
