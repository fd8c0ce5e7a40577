"""The best that this machine can do, timed in the same rounds as a case: the rates of a copy and of a product, and
the time of an empty autograd Function, below which no op that is joined to autograd from Python can fall.

A case's ceiling is the rate it would reach if its least traffic ran at the speed of the copy and its least arithmetic
at that of the product. Small tensors stay in the cache and may pass the copy, which does not.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import tf32
from .cases import Arguments, Work
from .correctness import leaves
from .timing import Step

COPY, PRODUCT, EMPTY = "copy", "product", "empty"
# float32 numbers, more than any cache holds.
COPIED = {"cpu": 64 * 3 * 128 * 128, "cuda": 1 << 27}
PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}


class Ceiling(NamedTuple):
    name: str
    value: float
    """In the unit."""
    unit: str


class _Product(NamedTuple):
    """The product that bounds sums over inputs of some dtype."""

    name: str
    dtype: torch.dtype
    times: int = 1
    """The number of its operations that one product as accurate as the inputs takes."""


def _product_of(dtype: torch.dtype, device_type: str) -> _Product:
    if dtype == torch.float64:
        return _Product("dgemm", dtype)
    if device_type == "cpu":  # which sums 16-bit values in float32
        return _Product("sgemm", torch.float32)
    if dtype == torch.float32:
        return _Product("3 tf32 gemms", dtype, times=3)
    return _Product(f"{str(dtype).removeprefix('torch.')} gemm", dtype)


@functools.cache
def _copy(device: torch.device, count: int) -> Step:
    source, resident = (torch.ones(count, device=device) for _ in range(2))
    return functools.partial(resident.copy_, source)


@functools.cache
def _product(dtype: torch.dtype, device: torch.device, side: int) -> Step:
    # Ones would spare a GPU the power that limits its clock.
    left, right, out = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    product = functools.partial(torch.mm, left, right, out=out)
    return _with_tf32(product) if device.type == "cuda" else product


def _with_tf32(step: Step) -> Step:
    def run() -> object:
        with tf32.switched(True):
            return step()

    return run


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
    """The bounds of a case, to be timed beside its providers, where its inputs are."""
    device = next(iter(leaves(arguments).values())).device
    chosen = {EMPTY: _empty(arguments)}
    if work.elements:
        chosen[COPY] = _copy(device, COPIED[device.type])
    if work.operations:
        chosen[PRODUCT] = _product(_product_of(dtype, device.type).dtype, device, PRODUCT_SIDE[device.type])
    return chosen


def _parts(work: Work, dtype: torch.dtype, device_type: str, seconds_of: dict[str, float]) -> dict[str, float]:
    """Seconds of the traffic and of the arithmetic, by what bounds them."""
    seconds = {}
    if work.elements:
        copied = 2 * COPIED[device_type] * torch.float32.itemsize
        seconds[COPY] = work.elements * dtype.itemsize / copied * seconds_of[COPY]
    if work.operations:
        product = _product_of(dtype, device_type)
        timed = 2 * PRODUCT_SIDE[device_type] ** 3
        seconds[product.name] = work.operations / timed * seconds_of[PRODUCT] * product.times
    return seconds


def ceiling(work: Work, dtype: torch.dtype, device_type: str, seconds_of: dict[str, float]) -> Ceiling:
    """Read the seconds of the ceilings' steps."""
    parts = _parts(work, dtype, device_type, seconds_of)
    if work.overlaps:
        longest = max(parts, key=lambda name: parts[name])
        parts = {longest: parts[longest]}
    unit = "GB/s" if COPY in parts else "GFLOP/s"
    return Ceiling(" + ".join(parts), amount(work, dtype, unit) / sum(parts.values()), unit)


def amount(work: Work, dtype: torch.dtype, unit: str) -> float:
    """The useful work in giga-bytes or giga-operations."""
    return (work.elements * dtype.itemsize if unit == "GB/s" else work.operations) / 1e9
