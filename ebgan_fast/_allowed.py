"""This process's share of the machine. A container or batch system often allows less than the machine has."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")


def processors() -> int:
    """Return the number of processors that this process may keep busy: its affinity, or a container's smaller share."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows lack the function
        count = os.cpu_count() or 1
    for folder in _folders("cpu"):
        share = _share(_words(folder / "cpu.max"))
        if share is None:
            quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
            share = _share([*quota, *period])
        if share is not None:
            count = min(count, math.ceil(share))
    return max(count, 1)


def memory() -> int | None:
    """Return the number of bytes that this process may still allocate, or None if the system gives no limit."""
    limits = []
    for line in _lines(_MEMINFO):
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    for folder in _folders("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, taken = _words(folder / limit), _words(folder / used)
            if most and most[0].isdigit():
                # Part of the used memory is the cache of files, which the kernel frees when memory is needed. So only
                # half of it counts.
                limits.append(int(most[0]) - int(taken[0]) // 2 if taken else int(most[0]))
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no module resource
        import resource

        for name in ("RLIMIT_AS", "RLIMIT_DATA"):
            soft = resource.getrlimit(getattr(resource, name))[0]
            if soft != resource.RLIM_INFINITY:
                limits.append(soft)
    return max(min(limits), 0) if limits else None


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups, and the parents of each, for cgroup versions 1 and 2."""
    for line in [*_lines(_OWN_CGROUP), "0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers and (_CGROUPS / controllers).is_dir() else _CGROUPS
        if controllers and root == _CGROUPS:
            root = _CGROUPS / controller
        folder = root / inside.strip("/")
        while True:
            yield folder
            if folder == root or root not in folder.parents:
                break
            folder = folder.parent


def _share(words: list[str]) -> float | None:
    """Return quota / period as a number of processors, or None if there is no limit."""
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
        return int(words[0]) / int(words[1])
    return None


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []
