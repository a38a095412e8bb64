"""Window attention as one GPU kernel each way, in Pallas: logits and weights never leave the chip.

The kernels read q, k and v where the dense layers left them, heads side by side in the channels of
`[n, N, channels]`, and write the result and the gradients in the same places: no transpose and no
padding in memory. On chip a head is padded with zeros to a power of two, at least `LEAST_SIDE`, as
Triton's matrix products want it. A program treats some consecutive windows of one head, and loads
the position bias once for all of them.

Float32 inputs are multiplied in full float32 (no TF32); of bfloat16 inputs the factors of all matrix
products are bfloat16. Logits, softmax and sums are float32 in both cases.

This is Pallas' Triton backend, which serves all NVIDIA GPUs since Ampere. JAX 0.11 still has it, but
announces its removal, so the plain formula stays the default and the reference.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from afunet_jax.errors import ConfigError
from afunet_jax.models.windows import OTHER_REGION

LEAST_SIDE = 16  # of a matrix in Triton's products
MOST_TOKENS = 64  # a window's logits must fit into the registers of one program
MOST_CHANNELS = 64  # of a head, for the same reason
PRECISION = jax.lax.Precision.HIGHEST  # of the matrix products: float32 stays float32

FORWARD_WINDOWS = 4  # windows a program
BACKWARD_WINDOWS = 4  # windows a program, at least
BACKWARD_PROGRAMS = 128  # programs a head, at most: each writes a partial sum of the bias's gradient
# From the compiler's report for an H100: heads of 12 and 18 channels then stay in registers. Not yet timed.
FORWARD_PARAMS = triton.CompilerParams(num_warps=4, num_stages=2)
BACKWARD_PARAMS = triton.CompilerParams(num_warps=8, num_stages=1)

Tokens = tuple[jax.Array, ...]
Refs = tuple[Any, ...]
Place = tuple[Any, jax.Array]  # an array in memory and the first channel of a head in it


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The sizes of one call, and how many windows a program treats."""

    n: int
    tokens: int
    heads: int
    d: int
    at_once: int

    @property
    def channels(self) -> int:
        return self.heads * self.d

    @property
    def groups(self) -> int:
        return pl.cdiv(self.n, self.at_once)

    @property
    def padded(self) -> int:
        """Channels of a head on chip."""
        return max(LEAST_SIDE, pl.next_power_of_2(self.d))

    @property
    def scale(self) -> float:
        return self.d**-0.5

    def rows(self, *sizes: int) -> pl.BlockSpec:
        """An array with the windows in front: a program sees its own."""
        return pl.BlockSpec((self.at_once, *sizes), lambda head, group: (group, *(0 for _ in sizes)))


def fused_window_attention(
    tokens: Sequence[jax.Array], bias: jax.Array, regions: jax.Array | None = None, *, interpret: bool = False
) -> jax.Array:
    """softmax(q k^T d^(-1/2) + bias + mask) v in every window and head, as `attention.window_attention`.

    Work and memory traffic for n windows of N tokens, C = heads * d channels, s bytes a number:

        forward   4 n N^2 C operations,  reads 3 and writes 1 times n N C s bytes
        backward  10 n N^2 C operations, reads 4 and writes 3 times n N C s bytes

    with d counted as padded, 32 for 18 and 16 for 12. The backward pass keeps nothing of the forward
    pass but its inputs. Besides its results it writes at most
    `BACKWARD_PROGRAMS * heads * N^2` float32 numbers: partial sums of the bias's gradient, added up in
    a fixed order, so that the gradient is the same in every run.

    Args:
        tokens: arrays `[n, N, channels]` whose channels, put together, are q, k, v, each `heads * d` wide
            with head h at h * d to (h + 1) * d: `(qkv,)`, `(q, kv)` or `(q, k, v)`. All float32 or all
            bfloat16.
        bias: learned relative position bias, `[heads, N, N]`.
        regions: int32 `[n, N]` of a shifted block, see `windows.regions_of_windows`: pairs of different regions
            get -100 added to their logits, on chip. Or None.
        interpret: run the kernels as ordinary JAX operations, for tests without a GPU.

    Returns:
        `[n, N, heads * d]` of the tokens' type. Differentiable in tokens and bias.

    Raises:
        ConfigError: N is none of 16, 32, 64, or d is above 64, or the tokens are of another type.
        ValueError: the shapes do not belong together.
    """
    tokens = tuple(tokens)
    _check(tokens, bias, regions)
    return _attention(tokens, bias, regions, interpret)


def _check(tokens: Tokens, bias: jax.Array, regions: jax.Array | None) -> None:
    n, size = tokens[0].shape[:2]
    heads, total = bias.shape[0], sum(x.shape[-1] for x in tokens)
    width = total // 3
    if any(x.shape[:2] != (n, size) or x.shape[-1] % width for x in tokens) or total % (3 * heads):
        found = [x.shape for x in tokens]
        raise ValueError(f'tokens {found} are not q, k, v of {heads} heads in arrays [n, N, channels]')
    if bias.shape != (heads, size, size) or (regions is not None and regions.shape != (n, size)):
        found = f'bias {bias.shape}, regions {None if regions is None else regions.shape}'
        raise ValueError(f'{found}: must be [heads, N, N] and [n, N] for n = {n}, N = {size}')
    _check_limits(size, width // heads, sorted({str(x.dtype) for x in tokens}))


def _check_limits(size: int, d: int, dtypes: list[str]) -> None:
    ours = 'fused window attention takes'
    if not LEAST_SIDE <= size <= MOST_TOKENS or size & (size - 1):
        rule = f'{LEAST_SIDE} to {MOST_TOKENS} pixels a window, a power of two'
        raise ConfigError(f'{ours} {rule}, not {size}: turn it off, or use windows of side 4 or 8')
    if d > MOST_CHANNELS:
        raise ConfigError(f'{ours} at most {MOST_CHANNELS} channels a head, not {d}: turn it off')
    if dtypes not in (['float32'], ['bfloat16']):
        raise ConfigError(f'{ours} float32 or bfloat16, not {" with ".join(dtypes)}: cast, or turn it off')


def _plan(tokens: Tokens, bias: jax.Array, at_once: int) -> _Plan:
    n, size = tokens[0].shape[:2]
    heads = bias.shape[0]
    return _Plan(n, size, heads, sum(x.shape[-1] for x in tokens) // (3 * heads), min(n, at_once))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(tokens: Tokens, bias: jax.Array, regions: jax.Array | None, interpret: bool) -> jax.Array:
    plan = _plan(tokens, bias, FORWARD_WINDOWS)
    output = jax.ShapeDtypeStruct((plan.n, plan.tokens, plan.channels), tokens[0].dtype)
    return pl.pallas_call(
        functools.partial(_forward_kernel, plan=plan),
        output,
        grid=(plan.heads, plan.groups),
        in_specs=_input_specs(plan, tokens, regions),
        out_specs=plan.rows(plan.tokens, plan.channels),
        compiler_params=FORWARD_PARAMS,
        interpret=interpret,
        name='window_attention',
    )(tokens, bias, regions)


def _attention_forward(tokens, bias, regions, interpret):
    return _attention(tokens, bias, regions, interpret), (tokens, bias, regions)


def _attention_backward(interpret, inputs, d_output):
    tokens, bias, regions = inputs
    plan = _plan(tokens, bias, max(BACKWARD_WINDOWS, pl.cdiv(tokens[0].shape[0], BACKWARD_PROGRAMS)))
    partial = jax.ShapeDtypeStruct((plan.groups, *bias.shape), jnp.float32)
    d_tokens, d_bias = pl.pallas_call(
        functools.partial(_backward_kernel, plan=plan),
        (tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in tokens), partial),
        grid=(plan.heads, plan.groups),
        in_specs=(*_input_specs(plan, tokens, regions), plan.rows(plan.tokens, plan.channels)),
        out_specs=(_token_specs(plan, tokens), _per_program(plan)),
        compiler_params=BACKWARD_PARAMS,
        interpret=interpret,
        name='window_attention_gradient',
    )(tokens, bias, regions, d_output)
    return d_tokens, d_bias.sum(0).astype(bias.dtype), None


_attention.defvjp(_attention_forward, _attention_backward)


def _input_specs(plan: _Plan, tokens: Tokens, regions: jax.Array | None) -> tuple[Any, ...]:
    square = (plan.tokens, plan.tokens)
    bias = pl.BlockSpec((None, *square), lambda head, group: (head, 0, 0))
    return _token_specs(plan, tokens), bias, None if regions is None else plan.rows(plan.tokens)


def _token_specs(plan: _Plan, tokens: Tokens) -> tuple[pl.BlockSpec, ...]:
    return tuple(plan.rows(plan.tokens, x.shape[-1]) for x in tokens)


def _per_program(plan: _Plan) -> pl.BlockSpec:
    """`[groups, heads, N, N]`: a program sees its own matrix."""
    return pl.BlockSpec((None, None, plan.tokens, plan.tokens), lambda head, group: (group, head, 0, 0))


def _forward_kernel(
    token_refs: Refs, bias_ref: Any, regions_ref: Any, output_ref: Any, *, plan: _Plan
) -> None:
    bias = bias_ref[...].astype(jnp.float32)
    parts, (output,) = _places(token_refs, plan), _places((output_ref,), plan)

    def window(i: jax.Array, carry: None) -> None:
        q, k, v = (_load(place, i, plan) for place in parts)
        weights, total = _softmax(q, k, bias, regions_ref, i, plan)
        _store(output, i, _dot(weights.astype(v.dtype), v) / total, plan)

    jax.lax.fori_loop(0, _windows_here(plan), window, None)


def _backward_kernel(
    token_refs: Refs,
    bias_ref: Any,
    regions_ref: Any,
    d_output_ref: Any,
    d_token_refs: Refs,
    d_bias_ref: Any,
    *,
    plan: _Plan,
) -> None:
    bias = bias_ref[...].astype(jnp.float32)
    parts, d_parts = _places(token_refs, plan), _places(d_token_refs, plan)
    (d_output_place,) = _places((d_output_ref,), plan)

    def window(i: jax.Array, d_bias: jax.Array) -> jax.Array:
        q, k, v = (_load(place, i, plan) for place in parts)
        d_output = _load(d_output_place, i, plan)
        weights, total = _softmax(q, k, bias, regions_ref, i, plan)
        weights = weights / total
        d_weights = _dot(d_output, v, trans_b=True)
        d_logits = weights * (d_weights - (weights * d_weights).sum(1, keepdims=True))
        small = d_logits.astype(q.dtype)
        d_q, d_k = _dot(small, k) * plan.scale, _dot(small, q, trans_a=True) * plan.scale
        d_v = _dot(weights.astype(v.dtype), d_output, trans_a=True)
        for place, value in zip(d_parts, (d_q, d_k, d_v), strict=True):
            _store(place, i, value, plan)
        return d_bias + d_logits

    d_bias_ref[...] = jax.lax.fori_loop(0, _windows_here(plan), window, jnp.zeros_like(bias))


def _places(refs: Refs, plan: _Plan) -> list[Place]:
    """Where this program's head lies in each part (q, k, v) of the arrays."""
    head = pl.program_id(0) * plan.d
    return [(ref, first + head) for ref in refs for first in range(0, ref.shape[-1], plan.channels)]


def _windows_here(plan: _Plan) -> jax.Array:
    """Windows of this program: the last one may have fewer."""
    return jnp.minimum(plan.at_once, plan.n - pl.program_id(1) * plan.at_once)


def _softmax(
    q: jax.Array, k: jax.Array, bias: jax.Array, regions_ref: Any, i: jax.Array, plan: _Plan
) -> tuple[jax.Array, jax.Array]:
    """The attention weights before the division, `[N, N]`, and their sums, `[N, 1]`."""
    logits = _dot(q, k, trans_b=True) * plan.scale + bias
    if regions_ref is not None:
        region = regions_ref[i]
        logits += jnp.where(region[:, None] == region[None, :], 0.0, OTHER_REGION)
    weights = jnp.exp(logits - logits.max(1, keepdims=True))
    return weights, weights.sum(1, keepdims=True)


def _dot(a: jax.Array, b: jax.Array, **transposed: bool) -> jax.Array:
    return triton.dot(a, b, precision=PRECISION, **transposed)


def _load(place: Place, i: jax.Array, plan: _Plan) -> jax.Array:
    """A head of window i, `[N, padded]`: zero behind its d channels."""
    if plan.padded == plan.d:
        return triton.load(_view(place, i, plan))
    return triton.load(_view(place, i, plan), mask=_real(plan), other=0.0)


def _store(place: Place, i: jax.Array, value: jax.Array, plan: _Plan) -> None:
    mask = None if plan.padded == plan.d else _real(plan)
    triton.store(_view(place, i, plan), value.astype(place[0].dtype), mask=mask)


def _view(place: Place, i: jax.Array, plan: _Plan) -> Any:
    """May reach beyond the array's last channel; what lies there is masked."""
    ref, start = place
    return ref.at[i, :, pl.ds(start, plan.padded)]


def _real(plan: _Plan) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, (plan.tokens, plan.padded), 1) < plan.d
