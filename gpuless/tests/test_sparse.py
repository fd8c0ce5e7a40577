"""Tensors beyond 32 bits cost what is written to them, and index arithmetic in 32 bits does not survive them."""

from __future__ import annotations

import resource

import pytest
import torch

from gpuless.guard_pages import interpreted, is_forbidden, poisoned
from gpuless.sparse import sparse

BEYOND = 2**31 + 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_a_sparse_tensor_costs_its_written_pages(dtype: torch.dtype) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tensor = sparse((BEYOND,), dtype)
    tensor[-1], tensor[2**30] = 3, 2
    assert (tensor[-1].item(), tensor[2**30].item()) == (3, 2)
    around = torch.stack([tensor[0], tensor[-2], tensor[2**30 - 1], tensor[2**31]])
    assert (around.isnan() if dtype.is_floating_point else around == -1).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_fill_is_read_everywhere_and_written_in_one_place() -> None:
    tensor = sparse((3, 5), torch.bfloat16, (2**31, 1), fill=1.5)
    tensor[1] = 0
    assert torch.equal(tensor, torch.tensor([1.5, 0, 1.5], dtype=torch.bfloat16)[:, None].expand(3, 5))


@pytest.mark.parametrize("offset", [BEYOND, BEYOND + 2**31 - 1, -(2**31)])
def test_what_an_int32_can_reach_outside_is_forbidden(offset: int) -> None:
    tensor, _before, _behind = (sparse((BEYOND,), torch.float32) for _ in range(3))  # Linux maps downwards
    assert not is_forbidden(tensor, 0)
    assert is_forbidden(tensor, offset)


def test_large_allocations_of_a_test_are_sparse() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large = poisoned((2, BEYOND), torch.float16)
    large[1, -1] = 1
    assert large[0, 0].isnan()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_int32_offsets_fault_or_miss() -> None:
    pytest.importorskip("triton", reason="runs Triton's interpreter")
    from planted_interpreter import copy_a_far_row

    stride = 2**15
    negative, zero = 2**31 // stride, 2**32 // stride  # what row * stride becomes in 32 bits: -2^31, 0
    right, right_too, faults, misses = interpreted(
        (copy_a_far_row, negative, stride, True),
        (copy_a_far_row, zero, stride, True),
        (copy_a_far_row, negative, stride, False),
        (copy_a_far_row, zero, stride, False),
    )
    assert right.kind == right_too.kind == "fine"
    assert faults.kind == "fault"
    assert misses.kind == "wrong"
    assert "holds tensor([nan" in misses.report
