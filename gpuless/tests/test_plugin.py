"""Tests of the fixture `gpu`: correct kernels pass under every seed, and each planted bug fails."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gpuless.cuda
from gpuless.arrays import copy, fill_from, same_bytes
from gpuless.ptx import OutOfBounds, Race
from gpuless.pytest_plugin import Gpu

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SOURCE = Path(__file__).parents[1] / "examples" / "total.cu"
needs_nvcc = pytest.mark.skipif(gpuless.cuda.missing() is not None, reason=gpuless.cuda.missing() or "")


def total(gpu: Gpu, *options: str, before: int = 0) -> int:
    x, out = np.arange(500, dtype=np.int32), np.full(1, before, np.int32)
    gpu.cuda(SOURCE, "total", grid=4, threads=128, arguments=[x, out, 500], options=options)
    return int(out[0])


@needs_nvcc
def test_every_seed_starts_from_what_was_given() -> None:
    """Every run starts from the given arrays. If runs continued from each other, four runs would add four times."""
    gpu = Gpu()
    assert total(gpu, before=3) == 500 * 499 // 2 + 3
    gpu.seeds = [7]
    assert total(gpu) == 500 * 499 // 2


@needs_nvcc
def test_bugs_are_errors() -> None:
    with pytest.raises(Race):
        total(Gpu(), "-DRACE")
    with pytest.raises(OutOfBounds):
        total(Gpu(), "-DTOO_FAR")


@needs_nvcc
def test_an_order_that_shows_is_an_error(tmp_path: Path) -> None:
    """A result that depends on the order of blocks is an error. Each block takes a ticket by an atomic, which is no
    race.
    """
    source = tmp_path / "ticket.cu"
    source.write_text("__global__ void ticket(int* next, int* own) { own[blockIdx.x] = atomicAdd(next, 32) / 1024; }")
    arguments = [np.zeros(1, np.int32), np.zeros(4, np.int32)]
    with pytest.raises(AssertionError, match="argument 1: seed 1 gives other results than seed 0"):
        Gpu().cuda(source, "ticket", grid=4, threads=32, arguments=arguments)
    reports = Gpu().cuda(source, "ticket", grid=4, threads=32, arguments=arguments, deterministic=False)
    assert [report.ctas for report in reports] == [4] * 4


def test_triton_kernels() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("triton", reason="triton is not installed (Linux only)")
    import planted_triton as planted

    gpu, counter = Gpu(), torch.zeros(1, dtype=torch.int32)
    gpu.triton(planted.count_without_atomics, (1,), {"p_count": counter}, num_warps=4)
    assert counter.item() == 1
    with pytest.raises(Race):
        gpu.triton(planted.count_without_atomics, (4,), {"p_count": counter}, num_warps=4)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_bits_are_compared(library: str) -> None:
    array = np.array([0.0, np.nan], np.float32)
    if library == "torch":
        array = pytest.importorskip("torch", reason="torch is not installed").from_numpy(array)
    kept = copy(array)
    assert same_bytes(array, kept)
    array[0] = -0.0
    assert not same_bytes(array, kept)
    fill_from(array, kept)
    assert same_bytes(array, kept)


PROGRAM = """
def test_a_kernel_of_triton(gpu):
    gpu.triton(None, (1,), {})

def test_a_kernel_of_cuda(gpu):
    gpu.cuda("any.cu", "any", grid=1, threads=32, arguments=[])
"""


def test_what_is_missing_skips_with_its_reason(run_python: Run, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['torch'] = None\n")
    (tmp_path / "test_kernels.py").write_text(PROGRAM)
    nowhere = {"PATH": str(tmp_path), "CUDA_HOME": str(tmp_path)}
    plugins = ["-p", "no:cacheprovider", "-p", "gpuless.pytest_plugin"]
    done = run_python("-m", "pytest", "-rs", *plugins, f"--rootdir={tmp_path}", str(tmp_path), **nowhere)
    assert "2 skipped" in done.stdout, done.stdout + done.stderr
    assert "torch is not installed: pip install 'gpuless[triton]'" in done.stdout
    assert "nvcc is not installed (CUDA toolkit)" in done.stdout
