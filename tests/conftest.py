"""Settings of every test: four CPU devices, full precision, no silent rank promotion. And a browser."""

import gc
import os
import pathlib
import tempfile

# Before jax starts: it reads these once.
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# All tests share what is compiled, in all processes, and the programs that they start: many compile the same again.
# Nothing is left behind.
_COMPILED = tempfile.TemporaryDirectory()
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _COMPILED.name)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')

import chromium
import jax
import pytest
import small

small.heed_signals()

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
gc.set_threshold(200_000, 50, 50)  # tracing makes many objects, and looking for garbage among them took a seventh of it


@pytest.fixture(scope='module')
def quickly_compiled():
    """What a module compiles on CPUs is not optimised: for those that compile for minutes and compute for seconds.

    Programs that they start are compiled as users have them.
    """
    jax.config.update('jax_disable_most_optimizations', jax.default_backend() == 'cpu')
    yield
    jax.config.update('jax_disable_most_optimizations', False)
    jax.clear_caches()


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
