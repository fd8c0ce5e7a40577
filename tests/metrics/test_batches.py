from __future__ import annotations

import os

import pytest
import torch

from ebgan_fast.metrics.batches import most_at_once

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("free", "expected"), [(4000, 10), (3999, 9), (400, 1), (0, 1), (10**12, 10)])
def test_a_quarter_of_the_memory_is_taken(monkeypatch: pytest.MonkeyPatch, free: int, expected: int) -> None:
    """The quarter is of a GPU's free memory, and of all memory for a CPU. Here 1 to 10 pieces take 100 bytes each."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**15))
    assert most_at_once(GPU, 100, 10) == expected
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": free, "SC_PAGE_SIZE": 1}[name])
    assert most_at_once(CPU, 100, 10) == expected


def test_memory_that_torch_keeps_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch keeps freed blocks: at a second score it still holds the memory of the first score's feature maps."""
    second = torch.device("cuda", 1)
    sizes = {"mem_get_info": (400, 10**15), "memory_reserved": 5600, "memory_allocated": 2000}
    for name, size in sizes.items():
        monkeypatch.setattr(torch.cuda, name, {second: size}.__getitem__)
    assert most_at_once(second, 100, 50) == 10


def test_where_no_one_says_how_much_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert most_at_once(CPU, 1 << 60, 10) == 10
