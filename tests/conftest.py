"""Settings of every test: four CPU devices, full precision, no silent rank promotion. And a browser."""

import os

# Before jax starts: it reads this once.
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import pathlib
import tempfile

import chromium
import jax
import pytest
import small

small.heed_signals()
_COMPILED = tempfile.TemporaryDirectory()  # programs that tests start share it; nothing is left behind
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _COMPILED.name)

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')


@pytest.fixture(scope='session')
def golden() -> pathlib.Path:
    """The folder of numbers that the PyTorch release computed."""
    return pathlib.Path(__file__).parent / 'golden'


@pytest.fixture(scope='session')
def browser(tmp_path_factory):
    """Chromium, to look at pages with; tests that use it are marked so."""
    if not chromium.find():
        pytest.skip('no Chromium on this machine; install it, or name it in the variable CHROMIUM')
    browser = chromium.Chromium(tmp_path_factory.mktemp('profile'))
    yield browser
    browser.close()
