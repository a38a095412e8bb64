"""Memory that is free, here and in the process's group, and that the C library keeps for itself."""

import ctypes
import functools
import pathlib
import re
import sys
from typing import Any

import jax

LONG_COMPILATION = 1.0  # seconds; shorter ones leave little behind


# Of a group of processes (a container, a SLURM job): where it is mounted, its limit, what it has taken, and what of
# that are files in memory, which can be let go (Linux kernel: admin-guide/cgroup-v2 and cgroup-v1/memory).
GROUPS = {
    '': ('sys/fs/cgroup', 'memory.max', 'memory.current', '(?:in)?active_file'),
    'memory': ('sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_(?:in)?active_file'),
}


def free(root: pathlib.Path = pathlib.Path('/')) -> int | None:
    """Bytes of the machine's memory that this process can still have, or None if the system does not say.

    Linux alone: what is free, or what the limits of the process's groups leave, if that is less.
    """
    info = root / 'proc/meminfo'
    found = re.search(r'^MemAvailable:\s*(\d+) kB', info.read_text(), re.M) if info.exists() else None
    return min([int(found[1]) * 1024, *_left_in_groups(root)]) if found else None


def _left_in_groups(root: pathlib.Path) -> list[int]:
    """Bytes that the group of this process, and each around it, may still take."""
    left, listed = [], root / 'proc/self/cgroup'
    for line in listed.read_text().splitlines() if listed.exists() else ():
        _, _, about = line.partition(':')
        controllers, _, path = about.partition(':')
        for name in GROUPS.keys() & set(controllers.split(',')):
            mount, *files = GROUPS[name]
            group = pathlib.PurePosixPath(path.lstrip('/'))
            left += [_left(root / mount / part, *files) for part in (group, *group.parents)]
    return [found for found in left if found is not None]


def _left(group: pathlib.Path, limit: str, taken: str, files: str) -> int | None:
    try:
        kept = re.findall(rf'^{files} (\d+)$', (group / 'memory.stat').read_text(), re.M)
        in_use = int((group / taken).read_text()) - sum(map(int, kept))
        return max(0, int((group / limit).read_text()) - in_use)
    except (OSError, ValueError):  # not mounted, or no limit: 'max'
        return None


def give_back() -> None:
    """Has the C library return what is free to the system. glibc's knows how; with others nothing happens."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None) if sys.platform == 'linux' else None
    if trim is not None:
        trim(0)


@functools.cache
def give_back_after_compilations() -> None:
    """From now on `give_back` follows every long compilation: XLA leaves 500 MB behind for a training step."""
    jax.monitoring.register_event_duration_secs_listener(_after)


def _after(event: str, seconds: float, **_: Any) -> None:
    if 'compile' in event and seconds >= LONG_COMPILATION:
        give_back()
