"""Tests that arrays with more than 2^31 elements cost only what is written, and that memory within an int32's reach is
forbidden.
"""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from dtypes import DTYPES, dtype_of, is_poison
from gpuless.guard_pages import is_forbidden, poisoned
from gpuless.sparse import sparse

BEYOND = 2**31 + 5


def held() -> int:
    """Return the memory of this process now, in bytes. The peak would count an earlier test that took more."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("name", DTYPES)
def test_a_sparse_array_costs_its_written_pages(name: str) -> None:
    dtype = dtype_of(name)
    before = held()
    array = sparse((BEYOND,), dtype)
    array[-1], array[2**30] = 3, 2
    assert (array[-1].item(), array[2**30].item()) == (3, 2)
    assert all(is_poison(array[at]) for at in (0, -2, 2**30 - 1, 2**31))
    assert held() - before < 64 << 20


@pytest.mark.parametrize("name", ["numpy.float16", "torch.bfloat16"])
def test_fill_is_read_everywhere_and_written_in_one_place(name: str) -> None:
    array = sparse((3, 5), dtype_of(name), (2**31, 1), fill=1.5)
    array[1] = 0
    assert array.tolist() == [[1.5] * 5, [0] * 5, [1.5] * 5]


@pytest.mark.parametrize("offset", [BEYOND, BEYOND + 2**31 - 1, -(2**31)])
def test_what_an_int32_can_reach_outside_is_forbidden(offset: int) -> None:
    array, _before, _behind = (sparse((BEYOND,), np.float32) for _ in range(3))  # Linux maps downward
    assert not is_forbidden(array, 0)
    assert is_forbidden(array, offset)


def test_large_allocations_of_a_test_are_sparse() -> None:
    before = held()
    large = poisoned((2, BEYOND), np.float16)
    large[1, -1] = 1
    assert np.isnan(large[0, 0])
    assert held() - before < 64 << 20
