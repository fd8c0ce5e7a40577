from __future__ import annotations

import resource

import pytest
import torch

import ebgan_fast
from ebgan_fast.memory import keep_freed_memory

from ..conftest import Fork

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("forked")]


def print_faults(keep: bool) -> None:
    """Print the page faults of a 48 MB block that is allocated, filled and freed after some rounds of the same."""

    def fill() -> None:
        torch.empty(12 << 20).fill_(1.0)

    if keep and not keep_freed_memory():
        raise SystemExit("this system's C library has no mallopt that keeps memory")
    ebgan_fast.pulling_away_term(torch.randn(4, 4))
    torch.set_num_threads(1)
    for _ in range(4):
        fill()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


def faults(fork: Fork, keep: bool) -> int:
    child = fork(print_faults, keep)
    if child.status() and "no mallopt" in child.said:
        pytest.skip(child.said)
    assert child.status() == 0, child.said
    return int(child.said)


def test_kept_memory_is_not_mapped_again(fork: Fork) -> None:
    assert faults(fork, keep=True) < 100


def test_the_library_leaves_the_allocator_as_it_is(fork: Fork) -> None:
    """The library does not change the allocator: glibc maps a block above 32 MB anew each time.

    That is 12,288 pages of 4 KB, and fewer where pages are larger.
    """
    kept = faults(fork, keep=True)  # this skips the test where there is no difference to see
    assert faults(fork, keep=False) >= 6 + kept
