"""What this machine can do at best, timed in the same rounds as a case: the rates of a copy and of a product, and
the time of an empty autograd Function, below which no op that is joined to autograd from Python can fall.

A case's ceiling is the rate it would reach if its least traffic ran at the speed of the copy and its least arithmetic
at that of the product. Small tensors stay in the cache and may pass the copy, which does not.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .cases import Arguments, Work
from .correctness import leaves
from .timing import Step

COPY, PRODUCT, EMPTY = "copy", "product", "empty"
_COPY_SHAPE = (64, 3, 128, 128)
_PRODUCT_SIDE = 2048


class Ceiling(NamedTuple):
    name: str
    value: float
    """In the unit of the case's rate."""


def product_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums over 16-bit values run in float32, and so does the product that bounds them."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@functools.cache
def _copy() -> Step:
    source, resident = torch.ones(_COPY_SHAPE), torch.ones(_COPY_SHAPE)
    return functools.partial(resident.copy_, source)


@functools.cache
def _product(dtype: torch.dtype) -> Step:
    left, right, out = (torch.ones(_PRODUCT_SIDE, _PRODUCT_SIDE, dtype=dtype) for _ in range(3))
    return functools.partial(torch.mm, left, right, out=out)


class _Empty(torch.autograd.Function):
    """Allocates a scalar and the gradients, and hands them out."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        gradients = [torch.empty_like(tensor) for tensor in inputs]
        ctx.save_for_backward(*inputs, *gradients)
        return inputs[0].new_empty(())

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, ...]:
        return ctx.saved_tensors[len(ctx.needs_input_grad) :]


def _empty(arguments: Arguments) -> Step:
    inputs = list(leaves(arguments).values())
    return lambda: torch.autograd.grad(_Empty.apply(*inputs), inputs)


def steps(work: Work, dtype: torch.dtype, arguments: Arguments) -> dict[str, Step]:
    """The bounds of a case, to be timed beside its providers."""
    chosen = {EMPTY: _empty(arguments)}
    if work.elements:
        chosen[COPY] = _copy()
    if work.operations:
        chosen[PRODUCT] = _product(product_dtype(dtype))
    return chosen


def unit(work: Work) -> str:
    return "GB/s" if work.elements else "GFLOP/s"


def amount(work: Work, dtype: torch.dtype) -> float:
    """The useful work in giga-units of `unit`."""
    return (work.elements * dtype.itemsize if work.elements else work.operations) / 1e9


def ceiling(work: Work, dtype: torch.dtype, best: dict[str, float]) -> Ceiling:
    """From the best seconds of the ceilings' steps."""
    names, seconds = [], 0.0
    if work.elements:
        copied = 2 * torch.Size(_COPY_SHAPE).numel() * torch.float32.itemsize
        seconds += work.elements * dtype.itemsize / copied * best[COPY]
        names.append("copy")
    if work.operations:
        seconds += work.operations / (2 * _PRODUCT_SIDE**3) * best[PRODUCT]
        names.append("dgemm" if product_dtype(dtype) == torch.float64 else "sgemm")
    return Ceiling(" + ".join(names), amount(work, dtype) / seconds)
