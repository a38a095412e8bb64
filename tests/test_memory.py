import ctypes
import re
import sys

import jax
import jax.numpy as jnp
import pytest

from afunet_jax import memory

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'malloc_trim'), reason='the C library is not glibc')


def resident_mb():
    with open('/proc/self/status') as status:
        return int(re.search(r'VmRSS:\s*(\d+) kB', status.read())[1]) / 1e3


@glibc
def test_what_is_free_between_used_blocks_is_given_back():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(100_000) for _ in range(2_000)]  # 200 MB, each too small for a mapping of its own
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking
        libc.free(block)
    kept = resident_mb()
    memory.give_back()
    assert resident_mb() < kept - 150
    libc.free(blocks[-1])


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'win32')
    monkeypatch.setattr(ctypes, 'CDLL', lambda name: pytest.fail('asked for a library'))
    memory.give_back()


def test_it_follows_long_compilations_and_no_others(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, 'give_back', lambda: calls.append(1))
    memory.give_back_after_compilations()
    memory.give_back_after_compilations()  # registered once
    monkeypatch.setattr(memory, 'LONG_COMPILATION', 1e9)
    jax.jit(lambda x: jnp.sin(x) + 1)(jnp.ones(3))
    assert not calls
    monkeypatch.setattr(memory, 'LONG_COMPILATION', 0.0)
    jax.jit(lambda x: jnp.sin(x) + 2)(jnp.ones(3))
    first = len(calls)
    assert first
    jax.jit(lambda x: jnp.sin(x) + 3)(jnp.ones(3))
    assert len(calls) == 2 * first
