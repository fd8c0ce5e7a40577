"""Tests that torch's new tensors end at forbidden memory and are otherwise the same as without the guard."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from torch import Tensor

from dtypes import last
from gpuless.guard_pages import guarded_allocations, is_forbidden


def test_every_allocation_is_guarded() -> None:
    base = torch.arange(6.0).view(2, 3).t()
    makers: dict[str, Callable[[], Tensor]] = {
        "empty": lambda: torch.empty(3, 5),
        "empty_like": lambda: torch.empty_like(base),
        "empty_strided": lambda: torch.empty_strided((2, 3), (1, 4)),
        "new_empty": lambda: base.new_empty(5, dtype=torch.float64),
        "zeros": lambda: torch.zeros(5),
        "new_zeros": lambda: base.new_zeros(()),
        "full": lambda: torch.full((), 3.0),
        "clone": lambda: base.clone(),
        "product": lambda: base * 2,
        "second of two": lambda: base.max(0)[1],
    }
    for name, make in makers.items():
        ordinary = make()
        with guarded_allocations():
            made = make()
        assert (made.shape, made.stride(), made.dtype) == (ordinary.shape, ordinary.stride(), ordinary.dtype), name
        assert made.isnan().all() if "empty" in name else torch.equal(made, ordinary), name
        assert is_forbidden(made, last(made) + 1), name


def test_views_and_operators_in_place_keep_their_memory() -> None:
    base = torch.zeros(4, 4)
    with guarded_allocations():
        assert base.t()[1:].data_ptr() == base[:, 1:].data_ptr()
        assert base.add_(1).data_ptr() == base.data_ptr()
        out = base.new_empty(4)
        assert torch.sum(base, 0, out=out) is out
        assert torch.empty(0).shape == (0,)
    assert torch.equal(out, torch.full((4,), 4.0))


def test_gradients_pass_through() -> None:
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    with guarded_allocations():
        (leaf * leaf).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, torch.tensor([2.0, 4.0]))
