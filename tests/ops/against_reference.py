"""An op, its value and its gradients, held against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .budget import ULPS, assert_within_budget


def _value_and_gradients(
    op: Callable[..., Tensor], tensors: Sequence[Tensor], upstream: Tensor | None
) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    value = op(*leaves)
    upstream = torch.ones_like(value) if upstream is None else upstream.to(value.dtype)
    return value, *torch.autograd.grad(value, leaves, upstream)


def check(
    op: Callable[..., Tensor],
    truth_op: Callable[..., Tensor],
    eager_op: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    upstream: Tensor | None = None,
    terms: Sequence[Tensor | float | None] = (),
    ulps: int = ULPS,
) -> None:
    """`terms`: for the value and each gradient, how large the terms are that cancel in it, or None."""
    before = [tensor.clone() for tensor in tensors]
    got = _value_and_gradients(op, tensors, upstream)
    assert all(map(torch.equal, before, tensors)), "an input was written"
    truth = _value_and_gradients(truth_op, [tensor.double() for tensor in tensors], upstream)
    yardstick = _value_and_gradients(eager_op, tensors, upstream)
    wide = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    assert got[0].dtype == wide
    for tensor, gradient in zip(tensors, got[1:], strict=True):
        assert gradient.dtype == tensor.dtype
    names = ("value", *(f"gradient {index}" for index in range(len(tensors))))
    scales = terms or [None] * len(names)
    for name, scale, *values in zip(names, scales, got, truth, yardstick, strict=True):
        assert_within_budget(*values, name, scale, ulps)
