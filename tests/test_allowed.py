"""The limits of control groups, versions 1 and 2, give a process's share of processors and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ebgan_fast import _allowed
from ebgan_fast.data import reader

GIB = 1 << 30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a machine of 64 processors and 256 GiB without limits; return the folder of its files.

    The folder holds cgroup for /sys/fs/cgroup, own for /proc/self/cgroup, and meminfo for /proc/meminfo.
    """
    monkeypatch.setattr(_allowed, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(_allowed, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(_allowed, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    write(tmp_path / "meminfo", f"MemTotal: 999 kB\nMemAvailable:   {256 << 20} kB\n")
    write(tmp_path / "own", "0::/\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_it_is_the_machine(system: Path) -> None:
    assert _allowed.processors() == 64
    assert _allowed.memory() == 256 * GIB


def test_only_processors_that_it_may_run_on_count(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5})
    assert _allowed.processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert _allowed.processors() == 8


def test_a_container_of_the_second_version(system: Path) -> None:
    write(system / "cgroup" / "cpu.max", "250000 100000\n")
    write(system / "cgroup" / "memory.max", f"{4 * GIB}\n")
    write(system / "cgroup" / "memory.current", f"{GIB}\n")
    assert _allowed.processors() == 3
    assert _allowed.memory() == 4 * GIB - GIB // 2


def test_a_limit_of_a_group_around_counts(system: Path) -> None:
    write(system / "own", "0::/batch/job/step\n")
    write(system / "cgroup" / "batch" / "job" / "step" / "cpu.max", "max 100000\n")
    write(system / "cgroup" / "batch" / "job" / "cpu.max", "200000 100000\n")
    write(system / "cgroup" / "batch" / "memory.max", f"{8 * GIB}\n")
    assert _allowed.processors() == 2
    assert _allowed.memory() == 8 * GIB


def test_a_container_of_the_first_version(system: Path) -> None:
    """In a container the process's path is often that of the host, and does not exist."""
    write(system / "own", "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n")
    write(system / "cgroup" / "cpu,cpuacct" / "cpu.cfs_quota_us", "150000\n")
    write(system / "cgroup" / "cpu,cpuacct" / "cpu.cfs_period_us", "100000\n")
    write(system / "cgroup" / "memory" / "memory.limit_in_bytes", f"{2 * GIB}\n")
    assert _allowed.processors() == 2
    assert _allowed.memory() == 2 * GIB
    write(system / "cgroup" / "cpu,cpuacct" / "cpu.cfs_quota_us", "-1\n")
    assert _allowed.processors() == 64


def test_nothing_that_is_known(system: Path) -> None:
    (system / "own").unlink()
    (system / "meminfo").unlink()
    write(system / "cgroup" / "cpu.max", "nonsense")
    assert _allowed.processors() == 64
    assert _allowed.memory() is None


@pytest.mark.parametrize(("memory", "workers"), [(None, 8), (256 * GIB, 8), (GIB, 2), (0, 1)])
def test_workers_are_as_many_as_processors_and_memory_allow(
    memory: int | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_allowed, "processors", lambda: 8)
    monkeypatch.setattr(_allowed, "memory", lambda: memory)
    assert reader.allowed_workers() == workers


def test_this_machine_says_something() -> None:
    assert 1 <= _allowed.processors() <= (os.cpu_count() or 1)
    memory = _allowed.memory()
    assert memory is None or memory > 1 << 20
