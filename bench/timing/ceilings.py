"""The ceilings of a case: the best that this machine can do, timed in the same rounds.

Three things are timed: a copy, a matrix product, and an empty autograd Function. An op that joins autograd from Python
cannot be faster than the empty Function.

The ceiling of a case is the rate at which its least traffic runs at the speed of the copy, and its least arithmetic at
that of the product. Small tensors stay in the cache, unlike those of the copy, and may exceed it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..results import tf32
from ..subjects.calls import leaves
from ..subjects.cases import Arguments, Work
from .watches import Clock, Step, Watch, clock_of

COPY, PRODUCT, EMPTY = "copy", "product", "empty"
COPIED = {"cpu": 64 * 3 * 128 * 128, "cuda": 1 << 27}
"""Float32 numbers in the copy, by the type of device: more than any cache holds."""
PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the product's square matrices, by the type of device."""


class Ceiling(NamedTuple):
    """The best rate that a case can reach."""

    name: str
    value: float
    """The rate, in the unit."""
    unit: str


class _Product(NamedTuple):
    """The product that bounds sums over inputs of one dtype."""

    name: str
    dtype: torch.dtype
    times: int = 1
    """The number of its operations that one operation as accurate as the inputs takes."""


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
    # Random numbers: ones would spare a GPU the power that limits its clock.
    left, right, out = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    product = functools.partial(torch.mm, left, right, out=out)
    return _with_tf32(product) if device.type == "cuda" else product


def _with_tf32(step: Step) -> Step:
    def run() -> object:
        with tf32.switched(True):
            return step()

    return run


class _Empty(torch.autograd.Function):
    """A Function that allocates a scalar and the gradients, and returns them."""

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
    """Return the steps that a case's ceiling needs, by name, on the device of the case's inputs."""
    device = next(iter(leaves(arguments).values())).device
    chosen = {EMPTY: _empty(arguments)}
    if work.elements:
        chosen[COPY] = _copy(device, COPIED[device.type])
    if work.operations:
        chosen[PRODUCT] = _product(_product_of(dtype, device.type).dtype, device, PRODUCT_SIDE[device.type])
    return chosen


def clocks(work: Work, dtype: torch.dtype, arguments: Arguments, watch: Watch) -> dict[str, Clock]:
    """Return the clocks of the steps that a case's ceiling needs, by name."""
    return {name: clock_of(step, watch) for name, step in steps(work, dtype, arguments).items()}


def ceiling(work: Work, dtype: torch.dtype, device_type: str, seconds_of: dict[str, float]) -> Ceiling:
    """Return the ceiling of a case, from the seconds that the steps of its ceiling took."""
    parts = _parts(work, dtype, device_type, seconds_of)
    if work.overlaps:
        longest = max(parts, key=lambda name: parts[name])
        parts = {longest: parts[longest]}
    unit = "GB/s" if COPY in parts else "GFLOP/s"
    return Ceiling(" + ".join(parts), amount(work, dtype, unit) / sum(parts.values()), unit)


def _parts(work: Work, dtype: torch.dtype, device_type: str, seconds_of: dict[str, float]) -> dict[str, float]:
    """Return the least seconds of the traffic and of the arithmetic, by the name of what bounds each."""
    seconds = {}
    if work.elements:
        copied = 2 * COPIED[device_type] * torch.float32.itemsize
        seconds[COPY] = work.elements * dtype.itemsize / copied * seconds_of[COPY]
    if work.operations:
        product = _product_of(dtype, device_type)
        timed = 2 * PRODUCT_SIDE[device_type] ** 3
        seconds[product.name] = work.operations / timed * seconds_of[PRODUCT] * product.times
    return seconds


def amount(work: Work, dtype: torch.dtype, unit: str) -> float:
    """Return the useful work, in gigabytes or in billions of operations."""
    return (work.elements * dtype.itemsize if unit == "GB/s" else work.operations) / 1e9
