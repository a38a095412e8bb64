"""Settings of every test: four CPU devices, full precision, no silent rank promotion."""

import os

# Before jax starts: it reads this once.
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import pathlib
import tempfile

import jax
import pytest

_COMPILED = tempfile.TemporaryDirectory()  # programs that tests start share it; nothing is left behind
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _COMPILED.name)

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')


@pytest.fixture(scope='session')
def golden() -> pathlib.Path:
    """The folder of numbers that the PyTorch release computed."""
    return pathlib.Path(__file__).parent / 'golden'
