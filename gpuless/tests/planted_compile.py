"""Launches of correct kernels, and of kernels with a planted fault that shows only in their machine code.

All of the faulty kernels compute the right numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

from launches import Launch


@triton.jit
def center(x, out, n, BLOCK: tl.constexpr):
    """Subtract the mean from a row, which stays in registers during the sum."""
    row = tl.program_id(0) * n
    column = tl.arange(0, BLOCK)
    values = tl.load(x + row + column, mask=column < n, other=0.0)
    tl.store(out + row + column, values - tl.sum(values, axis=0) / n, mask=column < n)


@triton.jit
def center_unrolled(x, out, n, BLOCK: tl.constexpr):
    """Subtract the means from eight rows, with the code of one row repeated eight times."""
    column = tl.arange(0, BLOCK)
    for step in tl.static_range(8):
        row = (tl.program_id(0) * 8 + step) * n
        values = tl.load(x + row + column, mask=column < n, other=0.0)
        tl.store(out + row + column, values - tl.sum(values, axis=0) / n, mask=column < n)


@triton.jit
def total(x, out, n, BLOCK: tl.constexpr):
    """Compute the sum of each row."""
    column = tl.arange(0, BLOCK)
    values = tl.load(x + tl.program_id(0) * n + column, mask=column < n, other=0.0)
    tl.store(out + tl.program_id(0), tl.sum(values, axis=0))


@triton.jit
def total_by_atomics(x, out, n, BLOCK: tl.constexpr):
    """Compute the sum of all elements by atomic additions, whose order changes from run to run."""
    column = tl.arange(0, BLOCK)
    values = tl.load(x + tl.program_id(0) * n + column, mask=column < n, other=0.0)
    tl.atomic_add(out, tl.sum(values, axis=0))


@triton.jit
def product(a, b, out, depth, SIDE: tl.constexpr, STEP: tl.constexpr):
    """Compute one tile of a @ b."""
    row = tl.arange(0, SIDE)[:, None]
    column = tl.arange(0, SIDE)[None, :]
    sums = tl.zeros((SIDE, SIDE), dtype=tl.float32)
    for k in range(0, depth, STEP):
        left = tl.load(a + row * depth + k + tl.arange(0, STEP)[None, :])
        right = tl.load(b + (k + tl.arange(0, STEP)[:, None]) * SIDE + column)
        sums = tl.dot(left, right, sums)
    tl.store(out + row * SIDE + column, sums)


@triton.jit
def product_without_dot(a, b, out, depth, SIDE: tl.constexpr, STEP: tl.constexpr):
    """Compute the tile of a @ b without tl.dot: add one column of a times one row of b after the other."""
    row = tl.arange(0, SIDE)
    column = tl.arange(0, SIDE)
    sums = tl.zeros((SIDE, SIDE), dtype=tl.float32)
    for k in range(depth):
        left = tl.load(a + row * depth + k).to(tl.float32)
        right = tl.load(b + k * SIDE + column).to(tl.float32)
        sums += left[:, None] * right[None, :]
    tl.store(out + row[:, None] * SIDE + column[None, :], sums)


@triton.jit
def plain(p, number, scale, flag, BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    """A kernel that has arguments and does nothing."""


@triton.jit(do_not_specialize=["number"])
def unspecialized(p, number, scale, flag, BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    """A kernel that does nothing and is not specialized for `number`: one compile serves every number."""


@triton.jit
def asserts(p, n):
    tl.device_assert(n > 0, "n is positive")
    tl.store(p, n + tl.load(p))


@triton.jit
def rounded(p, a, b):
    tl.store(p, tl.load(p) * a + b)


@triton.jit
def uncompilable(p):
    tl.store(p + tl.arange(0, 3), 0.0)


def _rows(kernel, n: int, num_warps: int, x_offset: int = 0, out_offset: int = 0) -> Launch:
    x, out = torch.empty(8 * n + x_offset)[x_offset:], torch.empty(8 * n + out_offset)[out_offset:]
    return Launch(kernel, (8,), {"x": x, "out": out, "n": n, "BLOCK": triton.next_power_of_2(n)}, num_warps)


def _product(kernel, side: int, step: int, num_stages: int) -> Launch:
    depth = 4 * step
    a, b = torch.empty(side, depth, dtype=torch.float16), torch.empty(depth, side, dtype=torch.float16)
    arguments = {"a": a, "b": b, "out": torch.empty(side, side), "depth": depth, "SIDE": side, "STEP": step}
    return Launch(kernel, (1,), arguments, 4, num_stages)


GOOD: dict[str, Callable[[], Launch]] = {
    "center": lambda: _rows(center, 1024, 4),
    "total": lambda: _rows(total, 1024, 4),
    "product": lambda: _product(product, 64, 64, 2),
}
PLANTED: dict[str, Callable[[], Launch]] = {
    "one warp": lambda: _rows(center, 4096, 1),
    "too long a row": lambda: _rows(center, 131072, 16),
    "x not aligned": lambda: _rows(center, 1024, 4, x_offset=1),
    "out not aligned": lambda: _rows(center, 1024, 4, out_offset=1),
    "odd stride": lambda: _rows(center, 1023, 4),
    "unrolled": lambda: _rows(center_unrolled, 1024, 4),
    "float atomics": lambda: _rows(total_by_atomics, 1024, 4),
    "no dot": lambda: _product(product_without_dot, 64, 64, 2),
    "three stages": lambda: _product(product, 64, 64, 3),
    "too many stages": lambda: _product(product, 32, 512, 5),
}
