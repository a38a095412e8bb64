"""PyTorch's networks with our weights: the twin, and the authors' own class."""

import contextlib
import importlib
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from afunet_jax import torch_weights
from afunet_jax.errors import ConfigError, WeightsError
from afunet_jax.models import afunet

if TYPE_CHECKING:
    import torch

ARCHITECTURE = (  # what the twin's constructor takes; stochastic depth is off
    'num_stages', 'width', 'sfm_depth', 'sfm_heads', 'sam_heads', 'cfm_heads', 'window_size', 'mlp_ratio',
)  # fmt: skip
TIMM = 'timm==1.0.9'  # what the authors' requirements.txt names
AUTHORS_MODULE = 'models.AFUNet'
AUTHORS_CLASS = 'AFUNet'


def pytorch() -> tuple[Any, Any]:
    """The modules torch and torch_twin; a ConfigError that says what to install, if PyTorch is missing."""
    try:
        with warnings.catch_warnings(action='ignore'):
            import torch

            from afunet_jax import torch_twin
    except ImportError as error:
        raise ConfigError(
            f'comparing needs PyTorch ({error}): pip install -r requirements-dev.txt (its CPU build will do)'
        ) from error
    return torch, torch_twin


def twin(model: afunet.AFUNet, params: Any) -> 'torch.nn.Module':
    """Our PyTorch twin of a network, with its weights, in evaluation mode.

    Raises:
        ConfigError: another variant than the full network in the order AF; PyTorch is missing.
    """
    network = pytorch()[1].AFUNetTwin(**{name: getattr(model, name) for name in ARCHITECTURE})
    return _with_weights(network, model, params, 'the twin')


def authors_network(clone: str | pathlib.Path, model: afunet.AFUNet, params: Any) -> 'torch.nn.Module':
    """The authors' own class, from a clone of their repository, with our weights. Runs their code.

    Args:
        clone: folder that holds `models/AFUNet.py`.
        model: the full network in the order AF.
        params: its parameters.

    Raises:
        ConfigError: no such file or class, something that it imports is not installed, or its constructor
            does not take the arguments of the release.
        WeightsError: the weights do not load into it with `strict=True`.
    """
    torch_twin, clone = pytorch()[1], pathlib.Path(os.path.abspath(clone))
    make = _authors_class(clone)
    arguments = {
        'img_size': (torch_twin.MASK_WINDOWS * model.window_size,) * 2,  # that of the stored attention masks
        'in_chans': afunet.INPUT_CHANNELS,
        'window_size': model.window_size,
        'img_range': 1.0,
        'depths': [model.sfm_depth] * model.num_stages,
        'embed_dim': model.width,
        'num_heads': [model.sfm_heads] * model.num_stages,  # half as many in SAM and CFM
        'mlp_ratio': model.mlp_ratio,
    }
    try:
        with warnings.catch_warnings(action='ignore'):
            network = make(**arguments)
    except Exception as error:  # their code
        raise ConfigError(
            f'{AUTHORS_CLASS} in {clone} cannot be made with the arguments of the release, {arguments} '
            f'({type(error).__name__}: {error}); is it a clone of the release?'
        ) from error
    return _with_weights(network, model, params, f'{AUTHORS_CLASS} in {clone}')


def _authors_class(clone: pathlib.Path) -> Callable[..., Any]:
    path = clone / (AUTHORS_MODULE.replace('.', '/') + '.py')
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; --authors takes a clone of the authors' repository")
    try:
        with _importing_from(clone), warnings.catch_warnings(action='ignore'):
            module = importlib.import_module(AUTHORS_MODULE)
    except Exception as error:  # their code
        missing = (error.name or '').split('.')[0] if isinstance(error, ImportError) else ''
        cure = f'; pip install {TIMM if missing == "timm" else missing}' if missing else ''
        raise ConfigError(f'{path} cannot be imported ({type(error).__name__}: {error}){cure}') from error
    if pathlib.Path(module.__file__) != path:
        raise ConfigError(f'{AUTHORS_MODULE} was found in {module.__file__}, not in {path}; rename that')
    if not hasattr(module, AUTHORS_CLASS):
        raise ConfigError(f'{path} has no class {AUTHORS_CLASS}; is it a clone of the release?')
    return getattr(module, AUTHORS_CLASS)


@contextlib.contextmanager
def _importing_from(folder: pathlib.Path) -> Iterator[None]:
    """Imports look into `folder` first; afterwards the interpreter knows nothing of it."""
    package = AUTHORS_MODULE.split('.')[0]
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split('.')[0] == package}
    before, search, bytecode = set(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True  # leaves no __pycache__ in the clone
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = search, bytecode
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], '__file__', None)
            if name.split('.')[0] == package or origin and folder in pathlib.Path(origin).parents:
                del sys.modules[name]
        sys.modules.update(aside)


def _with_weights(network: Any, model: afunet.AFUNet, params: Any, name: str) -> 'torch.nn.Module':
    if (model.order, model.ablation, model.head) != ('AF', 'M4', 'sigmoid'):
        raise ConfigError(
            'only the full network has PyTorch code (order AF, ablation M4, head sigmoid), but this one has order '
            f'{model.order}, ablation {model.ablation} and head {model.head}; use weights of the full network'
        )
    torch = pytorch()[0]
    state = {key: torch.tensor(value) for key, value in torch_weights.to_state_dict(params).items()}
    try:
        network.load_state_dict(state, strict=True)
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(f'the weights do not fit {name}: {error}') from error
    return network.float().cpu().eval()
