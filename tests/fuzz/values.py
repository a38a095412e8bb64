"""Damage to what is text: exposures, JSON, and options of the command line."""

import json

from fuzz.mutations import GENERIC, pick

NUMBERS = (
    '0', '-0', '1', '2', '-3.5', '+4', '1e3', '1e38', '1e39', '1e308', '1e999', '-1e999', 'nan', 'NaN', 'inf', '-inf', 'Infinity',
    '0x10', '1_000', '1,5', '1/250', '1/0', '0/0', '0s', '1/250s', '9' * 400, '9' * 60_000, '0.' + '0' * 5000 + '1', '٣', '½', '²', 'e', '-', '.', '1e',
    '--1', '1 2', 'zero', '\ufeff1', '\x00', 'True', 'None', '[]', '1j', '0b1', '1e-400', '340282356779733661637539395458142568447',
)  # fmt: skip
SEPARATORS = ('\n', ' ', '\t', '\r\n', '\r', ',', ';', '\x0b', '\x1c', '\u2028', '\x00', '', '\n\n\n')


def exposure_text(rng, data, other):
    """Absurd numbers, too many or too few, strange white space and encodings."""
    words = [NUMBERS[i] for i in rng.integers(len(NUMBERS), size=pick(rng, (0, 1, 2, 3, 3, 3, 4, 5, 100)))]
    if rng.random() < 0.4:
        words = ['0', '2', '4']
        words[int(rng.integers(3))] = pick(rng, NUMBERS)
    text = pick(rng, SEPARATORS).join(words)
    return text.encode(pick(rng, ('utf-8', 'utf-8-sig', 'utf-16', 'utf-32', 'utf-7')), 'backslashreplace')


JSON_VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 7, 8, 2**31, 2**63, 2**64, 10**30, -(2**63), 1.5, 1e308, float('inf'), float('nan'), '', 'x', 'AF',
    '../../x', '<script>', 'x' * 100_000, [], [1], {}, {'a': 1}, [[]], '1', '\ud800',
)  # fmt: skip


def json_value(rng, value):
    """A tree of JSON with one place changed: a value, a key, or a branch put in, taken out, or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        value = dict(value)
        key = pick(rng, list(value))
        what = rng.integers(10)
        if what == 0:
            del value[key]
        elif what == 1:
            value[pick(rng, ('', 'x', 'num_stages', key.upper(), key + '.', 'parent', 'name', '__class__'))] = value[key]
        elif what == 2:
            other = pick(rng, list(value))
            value[key], value[other] = value[other], value[key]
        else:
            value[key] = json_value(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.85:
        value = list(value)
        at = int(rng.integers(len(value)))
        value[at : at + 1] = [json_value(rng, value[at])] * pick(rng, (1, 1, 1, 0, 2, 50))
        return value
    return pick(rng, JSON_VALUES)


def deep(rng) -> str:
    """JSON that is nested deeper than Python's stack."""
    depth = pick(rng, (900, 5_000, 200_000))
    opening, closing = pick(rng, (('[', ']'), ('{"a":', '}')))
    return opening * depth + '1' + closing * depth


def json_text(rng, text: str) -> str:
    """A JSON text, changed as a tree, as a text, or nested too deep."""
    what = rng.integers(10)
    if what == 0:
        return deep(rng)
    if what == 1:
        return pick(rng, GENERIC)(rng, text.encode(), text.encode()).decode('latin-1')
    if what == 2:  # the first key twice
        return text.replace('{', '{' + text.strip()[1:].split(',')[0] + ',', 1)
    value = json.loads(text)
    for _ in range(pick(rng, (1, 1, 1, 2, 5))):
        value = json_value(rng, value)
    return json.dumps(value)


OPTION_VALUES = (
    '', '0', '1', '-1', '2', '3', '7', '8', '99999999999999999999', '2147483648', '-2147483649', '1.5', '-0.0', 'nan', 'inf', '1e999', 'True',
    'False', 'true', 'None', 'x', 'AF', 'FA', 'M1', "''", '()', "('a',)", "('psnr_l','psnr_l')", '(1,)', '[]', '{}', '{"a": 1}', '../../../etc',
    '/dev/zero', '\x00', '\udcff', '雪', '1 2', '=', '--', '%s%n', '${HOME}', "__import__('os').system('false')", 'x' * 100_000, '(' * 5000,
    '9' * 10_000, '1_0', '0x8', '08', '1e3', 'error', 'plain', 'fused', 'bfloat16', 'paper', 'release', 'psnr_l', 'all',
)  # fmt: skip


def options(rng, keys: list[str]) -> list[str]:
    """Arguments of a command line: a config and some of its keys, right or wrong, set to absurd values."""
    found = []
    for _ in range(pick(rng, (1, 1, 2, 3, 8))):
        key = pick(rng, keys)
        what = rng.integers(12)
        if what == 0:
            key += pick(rng, ('.x', '.', 's', '.0', '[0]', '.__class__', '.items', '.keys', '.lock'))
        elif what == 1:
            key = pick(rng, ('', 'model', 'data', '.', 'x', '__class__', 'items', 'model.update', 'data.synthetic', 'seed.x', 'MODEL', 'update'))
        value = pick(rng, OPTION_VALUES)
        form = rng.integers(10)
        if form == 0:
            found += [f'--config.{key}', value]
        elif form == 1:
            found.append(f'-config.{key}={value}')
        elif form == 2:
            found.append(f'--noconfig.{key}')
        elif form == 3:
            found.append(f'--config.{key}')
        else:
            found.append(f'--config.{key}={value}')
    return found
