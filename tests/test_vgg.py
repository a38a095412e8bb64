"""VGG-19 against a PyTorch implementation with random weights of the true shapes."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from afunet_jax import vgg
from afunet_jax.errors import ConfigError, WeightsError

# Channels of torchvision's `features`, M for a maximum pooling, as far as relu5_1.
LAYERS = [64, 64, 'M', 128, 128, 'M', 256, 256, 256, 256, 'M', 512, 512, 512, 512, 'M', 512]
TAPS = (1, 6, 11, 20, 29)  # indices of relu1_1 ... relu5_1 in `features`


def torch_features():
    layers, channels = [], 3
    for layer in LAYERS:
        if layer == 'M':
            layers.append(torch.nn.MaxPool2d(2, 2))
        else:
            layers += [torch.nn.Conv2d(channels, layer, 3, padding=1), torch.nn.ReLU()]
            channels = layer
    model = torch.nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(0)
    for module in model:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
            torch.nn.init.normal_(module.bias, std=0.1, generator=generator)
    return model.requires_grad_(False)


@pytest.fixture(scope='module')
def model():
    return torch_features()


@pytest.fixture(scope='module')
def state_dict(model):
    return {f'features.{key}': value for key, value in model.state_dict().items()}


@pytest.fixture(scope='module')
def arrays(state_dict):
    return {key: value.numpy() for key, value in state_dict.items()}


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 37, 50, 3), np.float32)


def features_of(model, x):
    """x: [B, 3, H, W] in [0, 1]."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    x = (x - mean) / std
    found = []
    for index, module in enumerate(model):
        x = module(x)
        if index in TAPS:
            found.append(x)
    return found


def to_torch(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def assert_same(params, others):
    assert jax.tree.structure(params) == jax.tree.structure(others)
    jax.tree.map(np.testing.assert_array_equal, params, others)


def test_features_match_pytorch(model, arrays, images):
    found = vgg.features(vgg.from_state_dict(arrays), jnp.asarray(images))
    expected = features_of(model, to_torch(images))
    sizes = [(37, 50, 64), (18, 25, 128), (9, 12, 256), (4, 6, 512), (2, 3, 512)]
    assert [f.shape for f in found] == [(2, *size) for size in sizes]
    for ours, theirs in zip(found, expected):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * theirs.max())


def test_gradient_matches_pytorch(model, arrays, images):
    params = vgg.from_state_dict(arrays)
    gradient = jax.grad(lambda x: sum(f.mean() for f in vgg.features(params, x)))(jnp.asarray(images))
    x = to_torch(images).requires_grad_()
    sum(f.mean() for f in features_of(model, x)).backward()
    expected = x.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize('shape', [(1, 15, 64, 3), (1, 64, 15, 3)])
def test_refuses_images_that_pooling_would_use_up(arrays, shape):
    with pytest.raises(ConfigError, match='16x16'):
        vgg.features(vgg.from_state_dict(arrays), jnp.zeros(shape))


def test_the_shapes_are_torchvision_s(state_dict):
    assert vgg.expected_shapes() == {key: tuple(value.shape) for key, value in state_dict.items()}


@pytest.mark.parametrize('legacy', [False, True])
def test_loads_a_pth_and_ignores_the_rest_of_vgg(state_dict, arrays, tmp_path, legacy):
    path = tmp_path / 'vgg19.pth'
    extra = {'features.34.bias': torch.zeros(512), 'classifier.6.bias': torch.zeros(1000)}
    torch.save({**state_dict, **extra}, path, _use_new_zipfile_serialization=not legacy)
    assert_same(vgg.load(path), vgg.from_state_dict(arrays))


def without_torch(name, *args, real=builtins.__import__, **kwargs):
    if name == 'torch' or name.startswith('torch.'):
        raise ImportError(name)
    return real(name, *args, **kwargs)


def test_loads_an_npz_without_torch(arrays, tmp_path, monkeypatch):
    path = tmp_path / 'vgg19.npz'
    np.savez(path, **arrays)
    monkeypatch.setattr(builtins, '__import__', without_torch)
    assert_same(vgg.load(str(path)), vgg.from_state_dict(arrays))


def test_a_pth_without_torch_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / 'vgg19.pth'
    path.write_bytes(b'')
    monkeypatch.setattr(builtins, '__import__', without_torch)
    with pytest.raises(WeightsError, match=r'vgg19.pth.*requirements-dev.txt.*npz'):
        vgg.load(path)


def test_every_wrong_key_is_listed_at_once(arrays):
    wrong = dict(arrays)
    del wrong['features.5.bias'], wrong['features.28.weight']
    wrong['features.0.weight'] = np.zeros((64, 1, 3, 3), np.float32)
    wrong['features.10.bias'] = np.full(256, np.nan, np.float32)
    wrong['features.2.bias'] = np.full(64, 'x')
    with pytest.raises(WeightsError) as caught:
        vgg.from_state_dict(wrong, 'some.pth')
    message = str(caught.value)
    assert message.startswith('some.pth: ')
    assert 'features.5.bias is missing' in message and 'features.28.weight is missing' in message
    assert 'features.0.weight has the shape (64, 1, 3, 3), not (64, 3, 3, 3)' in message
    assert 'features.10.bias holds values that are not finite' in message
    assert 'features.2.bias holds <U1' in message
    assert message.count('features.') == 5


@pytest.mark.parametrize('path', [None, ''])
def test_no_path_tells_where_the_file_comes_from(path):
    where = 'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth.*nothing is downloaded'
    with pytest.raises(ConfigError, match=where):
        vgg.load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match='absent.pth: no such file'):
        vgg.load(tmp_path / 'absent.pth')


def test_an_unknown_suffix(tmp_path):
    path = tmp_path / 'vgg19.h5'
    path.write_bytes(b'')
    with pytest.raises(WeightsError, match=r'vgg19.h5.*\.pth, \.pt, \.npz'):
        vgg.load(path)


@pytest.mark.parametrize('suffix', ['.pth', '.npz'])
@pytest.mark.parametrize('damage', ['empty', 'truncated', 'text'])
def test_a_damaged_file(state_dict, arrays, tmp_path, suffix, damage):
    path = tmp_path / f'vgg19{suffix}'
    small = {k: v for k, v in arrays.items() if k.startswith('features.0')}
    if suffix == '.npz':
        np.savez(path, **small)
    else:
        torch.save({k: state_dict[k] for k in small}, path)
    content = {'empty': b'', 'truncated': path.read_bytes()[:3000], 'text': b'<html>404 Not Found</html>'}
    path.write_bytes(content[damage])
    with pytest.raises(WeightsError, match=f'vgg19{suffix}: not a'):
        vgg.load(path)


def test_a_damaged_compressed_npz(arrays, tmp_path):
    path = tmp_path / 'vgg19.npz'
    np.savez_compressed(path, **{'features.0.weight': arrays['features.0.weight']})
    content = bytearray(path.read_bytes())
    content[1000:1010] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match='vgg19.npz: not a'):
        vgg.load(path)


def test_a_pth_that_is_no_state_dict(tmp_path):
    path = tmp_path / 'vgg19.pth'
    torch.save(torch.zeros(3), path)
    with pytest.raises(WeightsError, match='holds a Tensor, not a state dict'):
        vgg.load(path)
    torch.save({'features.0.weight': 'text'}, path)
    with pytest.raises(WeightsError, match='features.0.weight is missing'):
        vgg.load(path)


BIAS = 'features.0.bias'


@pytest.mark.parametrize('change', [
    lambda value: torch.zeros(1).expand(2**40), lambda value: torch.zeros(1).expand(2**20, 2**20), lambda value: value.to_sparse(),
    lambda value: value.new_empty(value.shape, device='meta'), lambda value: torch.full((64,), 1e300, dtype=torch.float64),
    lambda value: value.to(torch.complex64), lambda value: torch.nested.nested_tensor([value, value[:3]]),
    lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.quint8),
])  # fmt: skip
def test_tensors_in_a_pth_that_are_no_plain_numbers_are_refused(state_dict, tmp_path, change):
    torch.save({**state_dict, BIAS: change(state_dict[BIAS])}, tmp_path / 'vgg19.pth')
    with pytest.raises(WeightsError, match='vgg19.pth: not '):
        vgg.load(tmp_path / 'vgg19.pth')


def test_float64_that_float32_does_not_hold_is_refused(arrays):
    with pytest.raises(WeightsError, match=f'{BIAS} holds values that are not finite'):
        vgg.from_state_dict({**arrays, BIAS: np.full(64, 1e300)})


def test_an_npz_is_not_unpacked_beyond_vgg_s_size(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / 'vgg19.npz', **{BIAS: np.zeros(10**7, np.float32)})
    monkeypatch.setattr(np, 'load', None)  # never called
    with pytest.raises(WeightsError, match=f'vgg19.npz: .*{BIAS} unpacks to 40000128 bytes'):
        vgg.load(tmp_path / 'vgg19.npz')
