"""The source hash covers every byte and name that the kernels are made from, and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.results import provenance


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = (
        "csrc/bindings.cpp",
        "csrc/cpu/energy.cpp",
        "ebgan_fast/ops/backends/cpu.py",
        "ebgan_fast/ops/backends/triton/tables.json",
    )
    for name in (*names, "CMakeLists.txt", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte of a kernel": lambda tree: (tree / "csrc/cpu/energy.cpp").write_text("csrc/cpu/energy.cpq"),
    "a byte of the package": lambda tree: (tree / "ebgan_fast/ops/backends/cpu.py").write_text(""),
    "a tile": lambda tree: (tree / "ebgan_fast/ops/backends/triton/tables.json").write_text("{}"),
    "a byte of the build": lambda tree: (tree / "CMakeLists.txt").write_text("-O2"),
    "a new header": lambda tree: (tree / "csrc/cpu/empty.h").touch(),
    "a name": lambda tree: (tree / "csrc/bindings.cpp").rename(tree / "csrc/bindingz.cpp"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_changes_with(tree: Path, change: str) -> None:
    before = provenance.source_hash(tree)
    CHANGES[change](tree)
    after = provenance.source_hash(tree)
    assert before != after
    assert len(before) == len(after) == 16


def test_the_hash_does_not_change_with_a_page_or_a_cache(tree: Path) -> None:
    before = provenance.source_hash(tree)
    (tree / "README.md").write_text("other words")
    (tree / "ebgan_fast" / "ops" / "cpu.pyc").touch()
    assert provenance.source_hash(tree) == before


@pytest.mark.usefixtures("cpu_backend")
def test_a_kernel_newer_than_its_build_is_named(tree: Path) -> None:
    for path in tree.rglob("*.*"):
        os.utime(path, (0, 0))
    assert provenance.stale_extension(tree) is None
    tomorrow = time.time() + 86400
    for name in ("cpu.py", "triton/tables.json"):  # these files are not compiled into the extension
        os.utime(tree / "ebgan_fast/ops/backends" / name, (tomorrow, tomorrow))
    assert provenance.stale_extension(tree) is None
    os.utime(tree / "csrc/cpu/energy.cpp", (tomorrow, tomorrow))
    assert provenance.stale_extension(tree) == "csrc/cpu/energy.cpp"


@pytest.mark.usefixtures("cpu_backend")
def test_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    told = provenance.environment(torch.device("cpu"), "cpu")
    assert told["omp_wait_policy"] == "passive"
    assert told["omp_num_threads"] is None
    assert told["tf32"] == {"matmul": False, "cudnn": False}
    assert told["versions"].keys() == {"ebgan_fast", "torch", "python", "compiler"}
    assert all((*told["versions"].values(), told["processor"], told["isa"]))
    json.dumps(told)


@pytest.mark.usefixtures("cpu_backend")
def test_a_gpu_is_told_with_its_driver_and_every_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conditions of a made-up GPU name its driver and the compiler of every kernel that can run."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 580.65.06\necho 580.65.06\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(provenance, "architecture", lambda device: "sm_90")
    available = {name: SimpleNamespace(available=name == "triton") for name in ("triton", "cuda")}
    monkeypatch.setattr(provenance, "backends", lambda: available)
    told = provenance.environment(torch.device("cuda", 0), "triton")
    assert told["processor"].startswith("A GPU, CUDA ")
    assert told["isa"] == "sm_90, backend triton"
    assert told["versions"]["driver"] == "580.65.06"
    assert told["versions"]["compiler"] == f"Triton {importlib.metadata.version('triton')}"
    assert told["tf32"] == {"matmul": False, "cudnn": True}
    json.dumps(told)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert provenance.environment(torch.device("cuda", 0), "triton")["versions"]["driver"] == "unknown"
