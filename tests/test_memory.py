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


GROUPS = {  # what a system lists, and what it says of each group: limit, taken, files that can be let go
    'v2': ('\n0::/job/step\n', 'sys/fs/cgroup', ('memory.max', 'memory.current', 'active_file')),
    'v1': ('5:cpu:/\n4:memory:/job/step\n', 'sys/fs/cgroup/memory',
           ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_active_file')),
}  # fmt: skip


def system(root, version, sizes):
    """Files as Linux has them, 8 GB available; `sizes`: group to limit, taken, files."""
    listed, mount, (limit, taken, files) = GROUPS[version]
    (root / 'proc/self').mkdir(parents=True)
    (root / 'proc/meminfo').write_text('MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n')
    (root / 'proc/self/cgroup').write_text(listed)
    for group, (most, used, cached) in sizes.items():
        folder = root / mount / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f'{most}\n')
        (folder / taken).write_text(f'{used}\n')
        halves = ''.join(f'{files.replace("active", kind)} {cached // 2}\n' for kind in ('active', 'inactive'))
        (folder / 'memory.stat').write_text(f'anon 1\n{halves}workingset_refault_file 7\n')


@pytest.mark.parametrize('version', GROUPS)
@pytest.mark.parametrize(
    ('sizes', 'expected'),
    [
        ({'job/step': (5_000, 4_000, 1_000)}, 2_000),
        ({'job/step': ('max', 4_000, 0), 'job': (9_000, 4_000, 0)}, 5_000),
        ({'job/step': (9_000, 4_000, 0), 'job': (6_000, 4_500, 0), '.': (2**62, 5_000, 0)}, 1_500),
        ({'job/step': (3_000, 4_000, 0)}, 0),
        ({'job/step': ('max', 4_000, 0)}, 8_000_000 * 1024),
        ({}, 8_000_000 * 1024),
    ],
)  # fmt: skip
def test_the_limit_of_a_container_or_job_counts(tmp_path, version, sizes, expected):
    system(tmp_path, version, sizes)
    assert memory.free(tmp_path) == expected


def test_a_system_that_does_not_say_what_is_free(tmp_path):
    assert memory.free(tmp_path) is None
