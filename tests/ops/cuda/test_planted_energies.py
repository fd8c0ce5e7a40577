"""Bugs planted into the kernels of the energies are noticed by the simulators that can see them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from . import marks  # isort: skip  (skips the module where no simulator can be built)

from gpuless.ptx import OutOfBounds, Race

from . import building
from .energy_cases import batches, run_and_check
from .stand_ins import in_ptx, needs_nvcc

pytestmark = marks.slow

Changes = Mapping[str, tuple[str, str]]

BARRIER = "    if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;\n    __syncthreads();\n"
NO_BARRIER = {"energy_kernels.cuh": (BARRIER, BARRIER.replace("    __syncthreads();\n", ""))}
ONE_TOO_MANY = {"energy_kernels.cuh": ("column < count);", "column <= count);")}
NO_ZEROS = {"energy_kernels.cuh": ("if (upstream != 0 && (!is_fake || !(margin - energy <= 0))) return;", "return;")}
SHUT_TOO_LATE = {"energy_kernels.cuh": ("return margin - energy <= 0 ? A{0} : -share;", "return -share;")}
NO_RESET = {"reduce.cuh": ("    if (is_last) *p_counter = 0;\n", "")}
FENCE = "  __threadfence();  // this thread's stores must be visible before the block is counted\n"
NO_FENCE = {"reduce.cuh": (FENCE, "")}
NO_SECOND_FENCE = {"reduce.cuh": ("  if (is_last) __threadfence();\n", "")}
NO_BARRIER_BEFORE_COUNTING = {"reduce.cuh": (f"{FENCE}  __syncthreads();\n", FENCE)}
ANY_ADDRESS_IS_WIDE = {"dtypes.cuh": ("reinterpret_cast<uintptr_t>(pointer) % 16 == 0 &&", "pointer != nullptr &&")}


def _in_ptx(name: str, changes: Changes, elements: int) -> None:
    csrc = building.planted(f"ptx_{name}", changes)
    for seed in range(2):
        tensors = batches((3, elements, 4, elements), torch.float32)
        run_and_check(lambda inputs, order: in_ptx(inputs, order, csrc=csrc), tensors, "mse", seed=seed)


IN_PTX: dict[str, tuple[Changes, int, type[Exception], str]] = {
    "no_barrier": (NO_BARRIER, 1300, Race, "of shared memory, written by thread"),
    "one_too_many": (ONE_TOO_MANY, 7, OutOfBounds, "load of 4 bytes at byte"),
    "no_zeros": (NO_ZEROS, 16400, AssertionError, "grad_recon_fake"),
    "shut_too_late": (SHUT_TOO_LATE, 96, AssertionError, "grad_recon_fake"),
    "no_reset": (NO_RESET, 96, AssertionError, "a counter is not zero"),
    "no_fence": (NO_FENCE, 96, Race, "written by thread"),
    "no_fence_between_chunks": (NO_FENCE, 16400, Race, "written by thread"),
    "no_second_fence": (NO_SECOND_FENCE, 96, Race, "written by thread"),
    "no_barrier_before_counting": (NO_BARRIER_BEFORE_COUNTING, 96, Race, "written by thread"),
}


@needs_nvcc
@pytest.mark.parametrize("name", IN_PTX)
def test_bugs_in_ptx(name: str) -> None:
    changes, elements, error, message = IN_PTX[name]
    with pytest.raises(error, match=message):
        _in_ptx(name, changes, elements)


def _built(name: str, changes: Changes, sanitizers: str) -> Path:
    csrc = building.planted(f"simt_{name}", changes, every_dtype=not changes)
    building.library(csrc, csrc, ("energy.cu",), sanitizers)
    shutil.copy(building.simulated() / "_simulated.so", csrc)
    return csrc


IN_SIMT: dict[str, tuple[Changes, int, str]] = {
    "no_barrier": (NO_BARRIER, 1, "AssertionError"),
    "one_too_many": (ONE_TOO_MANY, -11, ""),  # SIGSEGV
}


@pytest.mark.parametrize("name", IN_SIMT)
def test_bugs_in_simt(name: str) -> None:
    changes, status, message = IN_SIMT[name]
    done = building.ended("run_energies", str(_built(name, changes, "")), "simt")
    assert done.returncode == status, done.stderr
    assert message in done.stderr


@needs_nvcc
def test_misaligned_vectors() -> None:
    """A bug of the host code that takes any address for aligned is found by both simulators."""
    folder = _built("any_address_is_wide", ANY_ADDRESS_IS_WIDE, "undefined")
    for simulator, message in {"simt": "misaligned address", "ptx": "Misaligned: load of 16 bytes"}.items():
        done = building.ended("run_energies", str(folder), simulator)
        assert done.returncode == 1, done.stderr
        assert message in done.stderr


def test_no_access_that_address_sanitizer_sees() -> None:
    """AddressSanitizer finds no wrong access to shared memory or to a thread's own arrays.

    Neither lies next to a guard page.
    """
    environment = building.address_sanitizer()
    if environment is None:
        pytest.skip("the compiler comes without AddressSanitizer")
    folder = _built("none_with_addresses", {}, "address")
    done = building.ended("run_energies", str(folder), "simt", "every_dtype", **environment)
    assert done.returncode == 0, done.stderr
