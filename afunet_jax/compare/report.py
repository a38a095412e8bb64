"""A comparison as text and as JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afunet_jax import reports
from afunet_jax.compare.differences import LEARNING_RATE, Comparison, StepDifference, ValueDifference

WORST = 5  # gradients that are printed
NOT_JUDGED = (
    'Not judged: rounding has put values on other sides of their labels. There the loss has a kink,\n'
    'and the two runs part. A larger image, or another --seed, tells more.'
)


def format_comparison(found: Comparison) -> str:
    """The comparison as tables."""
    parts = [_format_blocks(found)]
    if found.losses:
        parts += [
            _format_values('loss', found.losses),
            _format_gradients(found.gradients),
            _format_values(f'training (Adam, {LEARNING_RATE:g})', found.training),
        ]
    if any(row.within is None for row in found.training):
        parts.append(NOT_JUDGED)
    limits = ', '.join(f'{name} {value:g}' for name, value in dataclasses.asdict(found.tolerances).items())
    parts.append(f'tolerances: {limits} (output absolute, all others relative)')
    above = f'above tolerance: {", ".join(found.above)}'
    return '\n\n'.join([*parts, above if found.above else 'Everything judged is within tolerance.'])


def _format_blocks(found: Comparison) -> str:
    cells = [
        [r.name, 'x'.join(map(str, r.shape)), *map(_short, (r.largest, r.mean, r.relative)), _mark(r)]
        for r in found.blocks
    ]
    text = reports.table(['block', 'shape', 'largest', 'mean', 'relative', ''], cells)
    padded, size = (f'{row.shape[1]}x{row.shape[2]}' for row in (found.blocks[0], found.blocks[-1]))
    if size != padded:
        text += (
            f'\nThe input of {size} pixels is padded by reflection, bottom and right, to {padded} '
            'on both sides: blocks are compared with their padding, the output without.'
        )
    return text


def _format_values(title: str, rows: Sequence[ValueDifference]) -> str:
    more = ['sign_changes'] if isinstance(rows[0], StepDifference) else []
    cells = [
        [row.name, f'{row.jax:.8g}', f'{row.pytorch:.8g}', _short(row.relative)]
        + [*(str(getattr(row, name)) for name in more), _mark(row)]
        for row in rows
    ]
    titles = [title, 'JAX', 'PyTorch', 'relative', *(name.replace('_', ' ') for name in more), '']
    return reports.table(titles, cells)


def _format_gradients(rows: Sequence[ValueDifference]) -> str:
    worst = sorted(rows, key=lambda row: -math.inf if math.isnan(row.relative) else -row.relative)[:WORST]
    median = _short(np.median([row.relative for row in rows]))
    table = _format_values(f'norm of the gradient (worst {len(worst)})', worst)
    return f'{table}\n{len(rows)} gradients, relative norm of the difference: median {median}'


def _mark(row: Any) -> str:
    return {True: '', False: 'ABOVE', None: 'not judged'}[row.within]


def _short(value: float) -> str:
    return f'{value:.2e}'


def to_json(found: Comparison, about: Mapping[str, Any]) -> dict[str, Any]:
    """`about`, `ok`, and all fields of the comparison; what is not finite becomes a string."""
    return reports.json_able({**about, 'ok': not found.above, 'above': found.above, **dataclasses.asdict(found)})
