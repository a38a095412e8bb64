"""Released PyTorch weights to our parameters and back: one table of names, one of layouts.

The number of stages, the widths, the heads and the window are read off the weights' shapes. Only the
full network in the order AF exists as PyTorch code, so only it can be imported and exported.
PyTorch itself is needed for reading and writing files alone, and imported there.
"""

import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from afunet_jax import files, torch_files
from afunet_jax.errors import ConfigError, WeightsError, some
from afunet_jax.models import afunet, windows

MASK_WINDOWS = 5  # the release registers attn_mask for an image of 5 x 5 windows (40 x 40 pixels)
UNUSED = 'patch_embed_div3.norm'  # a LayerNorm that the release registers and never calls
TABLE = 'relative_position_bias_table'
STAGE_KEY = re.compile(r'SFM\.(\d{1,4})\.residual_group\.blocks\.(\d{1,4})\.')
MAX_SHARING = 4  # bytes of tensors to a byte of file: some share what is stored

Layout = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]

LAYOUTS: dict[str, Layout] = {  # name: (PyTorch to ours, ours to PyTorch)
    'same': (lambda a: a, lambda a: a),
    'dense': (lambda a: a.T, lambda a: a.T),  # [out, in] <-> [in, out]
    'conv': (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),  # OIHW <-> HWIO
    'pointwise': (lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]),  # [O, I, 1, 1] <-> [I, O]
    'depthwise': (  # [C, 1, 3, 3] <-> [3, 3, C]
        lambda a: a[:, 0].transpose(1, 2, 0),
        lambda a: a.transpose(2, 0, 1)[:, None],
    ),
    'heads': (lambda a: a[:, 0, 0], lambda a: a[:, None, None]),  # [heads, 1, 1] <-> [heads]
}


def _layer(key: str, path: str, layout: str, bias: bool = True) -> list[tuple[str, str, str]]:
    rows = [(f'{key}.weight', f'{path}/kernel', layout)]
    return rows + [(f'{key}.bias', f'{path}/bias', 'same')] if bias else rows


def _norm(key: str, path: str) -> list[tuple[str, str, str]]:
    return [(f'{key}.weight', f'{path}/scale', 'same'), (f'{key}.bias', f'{path}/bias', 'same')]


def _mlp(key: str, path: str) -> list[tuple[str, str, str]]:
    return _layer(f'{key}.fc1', f'{path}/fc1', 'dense') + _layer(f'{key}.fc2', f'{path}/fc2', 'dense')


def _sam(key: str, path: str) -> list[tuple[str, str, str]]:
    key = f'{key}.residual_group.blocks.0'
    return [
        (f'{key}.attn.relative_position_bias_table', f'{path}/position_bias/table', 'same'),
        *_layer(f'{key}.attn.q', f'{path}/query', 'dense'),
        *_layer(f'{key}.attn.kv', f'{path}/key_value', 'dense'),
        *_layer(f'{key}.attn.proj', f'{path}/projection', 'dense'),
        *_layer(f'{key}.mlp', f'{path}/depthwise', 'depthwise'),
    ]


def _cfm(key: str, path: str) -> list[tuple[str, str, str]]:
    return [
        (f'{key}.attn.temperature', f'{path}/temperature', 'heads'),
        *_layer(f'{key}.attn.q', f'{path}/query', 'pointwise', bias=False),
        *_layer(f'{key}.attn.k', f'{path}/key', 'pointwise', bias=False),
        *_layer(f'{key}.attn.v', f'{path}/value', 'pointwise', bias=False),
        *_layer(f'{key}.attn.project_out', f'{path}/projection', 'pointwise', bias=False),
        *_layer(f'{key}.conv', f'{path}/depthwise', 'depthwise'),
    ]


def _swin(key: str, path: str) -> list[tuple[str, str, str]]:
    return [
        *_norm(f'{key}.norm1', f'{path}/norm1'),
        (f'{key}.attn.relative_position_bias_table', f'{path}/position_bias/table', 'same'),
        *_layer(f'{key}.attn.qkv', f'{path}/qkv', 'dense'),
        *_layer(f'{key}.attn.proj', f'{path}/projection', 'dense'),
        *_norm(f'{key}.norm2', f'{path}/norm2'),
        *_mlp(f'{key}.mlp', f'{path}/mlp'),
    ]


def name_table(num_stages: int, sfm_depth: int) -> list[tuple[str, str, str]]:
    """Every parameter: (PyTorch's key, our path with '/', name in `LAYOUTS`)."""
    rows = [row for i in (1, 2, 3) for row in _layer(f'conv{i}.0', f'shallow_{i}', 'conv')]
    rows += _norm('patch_embed.norm', 'shallow_norm')
    for t in range(num_stages):
        stage = f'stage_{t}'
        rows += _mlp(f'A1.{t}', f'{stage}/mlp_d1') + _mlp(f'A3.{t}', f'{stage}/mlp_d3')
        rows += _sam(f'a_12.{t}', f'{stage}/sam_1') + _sam(f'a_32.{t}', f'{stage}/sam_3')
        for k in range(sfm_depth):
            rows += _swin(f'SFM.{t}.residual_group.blocks.{k}', f'{stage}/sfm/block_{k}')
        rows += _layer(f'SFM.{t}.conv', f'{stage}/sfm/conv', 'conv')
        rows += _cfm(f'f_12.{t}', f'{stage}/cfm_u') + _cfm(f'f_32.{t}', f'{stage}/cfm_v')
        rows += _mlp(f'A2_T.{t}', f'{stage}/dcm/mlp_d2t') + _mlp(f'inv.{t}', f'{stage}/dcm/mlp_inv')
        rows += [(f'beta1.{t}', f'{stage}/dcm/beta_1', 'same'), (f'beta2.{t}', f'{stage}/dcm/beta_3', 'same')]
        rows += _mlp(f'mlps_end.{t}', f'{stage}/mlp_end')
    return rows + _layer('conv_skip', 'skip_conv', 'conv') + _layer('out.0', 'output_conv', 'conv')


def architecture(state_dict: Mapping[str, Any]) -> dict[str, int]:
    """AFUNet's attributes as the shapes of a released state dict tell them.

    Raises:
        WeightsError: the keys that tell the architecture are missing or misshapen.
    """
    shapes = {key.removeprefix('module.'): np.shape(value) for key, value in state_dict.items()}

    def shape(pattern: str, dimensions: int) -> tuple[int, ...]:
        # Any stage will do: a missing or misshapen key is reported with all others, not here.
        for key, found in shapes.items():
            if re.fullmatch(pattern, key) and len(found) == dimensions:
                return found
        raise WeightsError(
            f'these are not the weights of an AFUNet: no {dimensions}-dimensional key like {pattern} '
            f'among {some(shapes)}'
        )

    blocks = [tuple(map(int, match.groups())) for key in shapes if (match := STAGE_KEY.match(key))]
    block = r'SFM\.\d+\.residual_group\.blocks\.\d+'
    rows, sfm_heads = shape(rf'{block}\.attn\.relative_position_bias_table', 2)
    hidden, width = shape(rf'{block}\.mlp\.fc1\.weight', 2)
    return {
        'num_stages': len({t for t, _ in blocks}),
        'width': width,
        'sfm_depth': len({k for _, k in blocks}),
        'sfm_heads': sfm_heads,
        'sam_heads': shape(r'a_[13]2\.\d+\..*\.relative_position_bias_table', 2)[1],
        'cfm_heads': shape(r'f_[13]2\.\d+\.attn\.temperature', 3)[0],
        'window_size': (math.isqrt(rows) + 1) // 2,
        'mlp_ratio': hidden // max(width, 1),
    }


def from_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch's parameters to ours.

    Args:
        state_dict: key to array, with or without `module.` before the keys. Buffers are checked
            (`relative_position_index`) or ignored (`attn_mask`), the unused LayerNorm is dropped.

    Returns:
        The tree of parameters of `AFUNet(**architecture(state_dict))`, float32 NumPy arrays.

    Raises:
        WeightsError: lists all missing, surplus and misshapen keys.
    """
    arrays = {key.removeprefix('module.'): np.asarray(value) for key, value in state_dict.items()}
    if len(arrays) < len(state_dict):
        twice = [key for key in arrays if key in state_dict and f'module.{key}' in state_dict]
        raise WeightsError(f'keys with and without "module." side by side: {some(twice)}; keep one of each')
    settings = architecture(arrays)
    try:
        shapes = flax.traverse_util.flatten_dict(afunet.parameter_shapes(afunet.build(settings)), sep='/')
    except ConfigError as error:
        raise WeightsError(f'these are not the weights of an AFUNet that can be built: {error}') from error
    params, problems = {}, []
    for key, path, layout in name_table(settings['num_stages'], settings['sfm_depth']):
        if key not in arrays:
            problems.append(f'missing: {key}')
            continue
        array = arrays.pop(key)
        expected = LAYOUTS[layout][1](np.empty(shapes[path].shape)).shape
        if array.shape != expected:
            problems.append(f'misshapen: {key} is {list(array.shape)}, expected {list(expected)}')
        else:
            params[path] = np.array(LAYOUTS[layout][0](array), np.float32, order='C')
    problems += _check_rest(arrays, settings)
    if problems:
        raise WeightsError(f'these weights do not fit AFUNet({settings}):\n  ' + '\n  '.join(problems))
    return flax.traverse_util.unflatten_dict(params, sep='/')


def to_state_dict(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our parameters to PyTorch's, with the buffers and the unused LayerNorm: loads with `strict=True`.

    Raises:
        WeightsError: the parameters are not those of the full network in the order AF.
    """
    flat = flax.traverse_util.flatten_dict(dict(params), sep='/')
    stages = sum(key.startswith('stage_') for key in params)
    depth = sum(key.startswith('block_') for key in params.get('stage_0', {}).get('sfm', {}))
    table = name_table(stages, depth)
    missing, surplus = {path for _, path, _ in table} - set(flat), set(flat) - {path for _, path, _ in table}
    if missing or surplus:
        raise WeightsError(
            'only the full AFUNet (order AF, ablation M4, head sigmoid) can be exported to PyTorch; these parameters lack '
            f'{sorted(missing) or "nothing"} and have {sorted(surplus) or "nothing"} besides'
        )
    state = {key: np.array(LAYOUTS[layout][1](np.asarray(flat[path], np.float32))) for key, path, layout in table}
    channels = state['patch_embed.norm.weight'].shape[0] // 3
    state |= {f'{UNUSED}.weight': np.ones(channels, np.float32), f'{UNUSED}.bias': np.zeros(channels, np.float32)}
    return state | _buffers(state)


def read_pth(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The state dict in a `.pth`, bare or inside the release's dict. Read with `weights_only`: no code runs.

    Raises:
        WeightsError: no such file, not a PyTorch file, no state dict in it, or one that is larger than the file;
            PyTorch is missing, or too old to be safe.
    """
    path, torch = pathlib.Path(path), torch_files.import_torch(path)
    content = torch_files.load(path)
    if isinstance(content, Mapping) and isinstance(content.get('state_dict'), Mapping):
        content = content['state_dict']
    if not isinstance(content, Mapping) or not content or not all(isinstance(k, str) for k in content):
        raise WeightsError(
            f'{path}: holds {type(content).__name__}, not a state dict; expected the release\'s dict or a bare one'
        )
    not_tensors = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if not_tensors:
        raise WeightsError(f'{path}: {some(not_tensors)} are not tensors; expected a state dict')
    _check_bytes(path, content)
    try:
        return {key: value.detach().cpu().to(torch.float32 if value.is_floating_point() else value.dtype).numpy()
                for key, value in content.items()}  # fmt: skip
    except (TypeError, NotImplementedError, RuntimeError) as error:  # sparse tensors, tensors without data
        raise WeightsError(f'{path}: holds tensors that are no plain arrays ({error}); save dense tensors') from error


def _check_bytes(path: pathlib.Path, tensors: Mapping[str, Any]) -> None:
    """Tensors that repeat a few stored numbers, by a stride of 0, can be as large as they like."""
    promised, stored = sum(value.numel() * value.element_size() for value in tensors.values()), path.stat().st_size
    if promised > MAX_SHARING * stored:
        raise WeightsError(f'{path}: its tensors have {promised} bytes and the file {stored}; fetch it again')


def write_pth(path: str | pathlib.Path, params: Mapping[str, Any]) -> None:
    """Writes our parameters as the release's dict, `{'state_dict': ...}`, for `load_state_dict(strict=True)`."""
    torch = torch_files.import_torch(path)
    state = {key: torch.from_numpy(np.array(value)) for key, value in to_state_dict(params).items()}
    with files.replacing(path) as temporary:
        torch.save({'state_dict': state}, temporary)


def _buffers(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    buffers = {}
    for key, table in state.items():
        if key.endswith(TABLE):
            window = (math.isqrt(table.shape[0]) + 1) // 2
            prefix = key.removesuffix(f'attn.{TABLE}')
            buffers[f'{prefix}attn.relative_position_index'] = windows.relative_position_index(window).astype(np.int64)
            match = STAGE_KEY.match(key)
            if match and int(match[2]) % 2:
                side = MASK_WINDOWS * window
                regions = jnp.asarray(windows.shift_regions(side, side, window, window // 2))
                mask = windows.shift_mask(windows.regions_of_windows(regions, window))
                buffers[f'{prefix}attn_mask'] = np.asarray(mask)
    return buffers


def _check_rest(arrays: Mapping[str, np.ndarray], settings: Mapping[str, int]) -> list[str]:
    """Problems among the keys that are no parameters."""
    tables = [key for key, _, _ in name_table(settings['num_stages'], settings['sfm_depth']) if key.endswith(TABLE)]
    indices = {key.removesuffix(TABLE) + 'relative_position_index' for key in tables}
    masks = {key.removesuffix(f'attn.{TABLE}') + 'attn_mask' for key in tables if STAGE_KEY.match(key)}
    problems = []
    for key, array in arrays.items():
        if key in indices:
            if not np.array_equal(array, windows.relative_position_index(settings['window_size'])):
                problems.append(f'{key}: another numbering of relative positions than ours')
        elif key not in masks and not key.startswith(f'{UNUSED}.'):
            problems.append(f'surplus: {key}')
    return problems
