"""Kernels with one bug each, and their correct versions. test_interpreter.py runs them under Triton's interpreter."""

from __future__ import annotations

import resource
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

import gpuless.triton
from gpuless.guard_pages import guarded, guarded_allocations
from gpuless.sparse import sparse

COUNT, BLOCK = 100, 128


@triton.jit
def copy_kernel(p_in, p_out, count, MUTATION: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    if MUTATION == "load without a mask":
        value = tl.load(p_in + index)
    elif MUTATION == "mask of one too many":
        value = tl.load(p_in + index, mask=index <= count)
    elif MUTATION == "load before the first":
        value = tl.load(p_in + index - 1, mask=inside)
    else:
        value = tl.load(p_in + index, mask=inside)
    if MUTATION == "last element not stored":
        inside = index < count - 1
    if MUTATION == "store without a mask":
        tl.store(p_out + index, value)
    else:
        tl.store(p_out + index, value, mask=inside)


def _copy(values: torch.Tensor, mutation: str) -> torch.Tensor:
    """Copy a tensor as an op's host code does, which allocates the output itself."""
    out = torch.empty_like(values)
    kernel: Any = copy_kernel
    kernel[(1,)](values, out, values.numel(), MUTATION=mutation, BLOCK=BLOCK)
    return out


def copy_guarded(mutation: str, begins: bool) -> None:
    values = guarded(torch.arange(COUNT, dtype=torch.float32), begins=begins)
    with guarded_allocations():
        out = _copy(values, mutation)
    assert torch.equal(out, values), out[-4:]


def copy_unguarded(mutation: str) -> None:
    """Copy rows inside larger tensors, and look only at the rows that are right in spite of the bug."""
    values, out = (torch.zeros(3, BLOCK)[1, :COUNT] for _ in range(2))
    values.copy_(torch.arange(COUNT))
    kernel: Any = copy_kernel
    kernel[(1,)](values, out, COUNT, MUTATION=mutation, BLOCK=BLOCK)
    assert torch.equal(out, values), out


def compile_in_the_interpreter() -> None:
    """Check that a compile under the interpreter raises a clear error, and none about a missing attribute."""
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        gpuless.triton.compile(copy_kernel, {})


@triton.jit
def copy_row_kernel(p_in, p_out, row, stride, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    if WIDE:
        row = row.to(tl.int64)
    column = tl.arange(0, BLOCK)
    value = tl.load(p_in + row * stride + column)
    tl.store(p_out + row * stride + column, value)


def copy_a_far_row(row: int, wide: bool, stride: int) -> None:
    values, out = (sparse((row + 1, BLOCK), torch.float32, (stride, 1)) for _ in range(2))
    values[row] = expected = torch.arange(BLOCK, dtype=torch.float32)
    kernel: Any = copy_row_kernel
    kernel[(1,)](values, out, row, stride, WIDE=wide, BLOCK=BLOCK)
    assert torch.equal(out[row], expected), f"row {row} holds {out[row]}"
    assert out[0].isnan().all(), f"row 0 holds {out[0]}"
    # An interpreter or a test that copies the whole array would make this check worthless.
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert megabytes < 2048, f"{megabytes} MB of memory"
