"""Launches of Triton kernels that are correct by default and have a bug on demand."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from launches import Launch

FULL, MASKED, ONE_TOO_MANY = (tl.constexpr(number) for number in range(3))


@triton.jit
def row_sums(p_x, p_sums, stride, n, MASK: tl.constexpr, BLOCK: tl.constexpr):
    """Sum each row of [rows, n] into [rows], with one program for each row."""
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n, BLOCK):
        index = first + tl.arange(0, BLOCK)
        if MASK == FULL:
            total += tl.load(p_x + row * stride + index).to(tl.float32)
        else:
            end = n + 1 if MASK == ONE_TOO_MANY else n
            total += tl.load(p_x + row * stride + index, mask=index < end, other=0.0).to(tl.float32)
    tl.store(p_sums + row, tl.sum(total, axis=0))


def row_sums_launch(x: Any, sums: Any, mask: int = 1, block: int = 512, num_warps: int = 4) -> Launch:
    arguments = {"p_x": x, "p_sums": sums, "stride": x.stride(0), "n": x.shape[1], "MASK": mask, "BLOCK": block}
    return Launch(row_sums, (x.shape[0],), arguments, num_warps)


@triton.jit
def product(p_a, p_b, p_c, n, m, k, PRECISION: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    """Compute [n, k] [k, m] -> [n, m] in tiles, with float32 sums."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for first in range(0, k, DEPTH):
        inner = first + tl.arange(0, DEPTH)
        a = tl.load(p_a + row[:, None] * k + inner[None, :], mask=(row < n)[:, None] & (inner < k)[None, :], other=0.0)
        b = tl.load(p_b + inner[:, None] * m + column[None, :], mask=(inner < k)[:, None] & (column < m), other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    tl.store(p_c + row[:, None] * m + column[None, :], total, mask=(row < n)[:, None] & (column < m))


def product_launch(a: Any, b: Any, c: Any, precision: str, block: int = 64, depth: int = 32) -> Launch:
    (n, k), m = a.shape, b.shape[1]
    arguments = {"p_a": a, "p_b": b, "p_c": c, "n": n, "m": m, "k": k}
    arguments |= {"PRECISION": precision, "BLOCK": block, "DEPTH": depth}
    return Launch(product, (-(-n // block), -(-m // block)), arguments, num_warps=4, num_stages=3)


@triton.jit
def total_by_last(
    p_x,  # [programs, BLOCK]
    p_partials,  # [programs, BLOCK]
    p_counter,
    p_total,  # [BLOCK]
    SEMANTICS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute column sums. Each program stores its row, and the last program to arrive adds all rows."""
    program = tl.program_id(0)
    index = tl.arange(0, BLOCK)
    tl.store(p_partials + program * BLOCK + index, tl.load(p_x + program * BLOCK + index) * 2)
    tl.debug_barrier()
    if tl.atomic_add(p_counter, 1, sem=SEMANTICS) == tl.num_programs(0) - 1:
        tl.store(p_counter, 0)
        total = tl.zeros((BLOCK,), tl.float32)
        for each in range(0, tl.num_programs(0)):
            total += tl.load(p_partials + each * BLOCK + index, cache_modifier=".cg")
        tl.store(p_total + index, total)


@triton.jit
def count_without_atomics(p_count):
    tl.store(p_count, tl.load(p_count) + 1)


@triton.jit
def offsets(p_offsets, row, stride, BLOCK: tl.constexpr):
    """Store row * stride + i in 32 bits, after an assertion that `row` is below 100."""
    index = tl.arange(0, BLOCK)
    tl.device_assert(row < 100, "row is too large")
    tl.store(p_offsets + index, row * stride + index)


@triton.jit
def squares_of_rows(p_x, p_sums, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sum the squares of each row. With one element of a row in each lane, the first addition joins two lanes."""
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    x = tl.load(p_x + row[:, None] * stride + column[None, :])
    tl.store(p_sums + row, tl.sum(x * x, axis=1))


class Rows(NamedTuple):
    """A matrix, as the kernel takes it."""

    p_x: Any  # [n, elements]
    p_twice: Any  # [n, elements], or None if the doubled rows are not wanted
    stride: int
    elements: int


@triton.jit
def _double_row(rows, row, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    inside = column < rows.elements
    x = tl.load(rows.p_x + row * rows.stride + column, mask=inside, other=0.0)
    if rows.p_twice is not None:
        tl.store(rows.p_twice + row * rows.stride + column, x * 2, mask=inside)
    return tl.sum(x, axis=0)


@triton.jit(do_not_specialize=["n"])
def double_rows(first, second, n, to, BLOCK: tl.constexpr):
    """Double the rows of two matrices, the first with n rows. Store the sum of each row at to[0], with stride to[1]."""
    row = tl.program_id(0)
    total = 0.0
    if row < n:
        total = _double_row(first, row, BLOCK)
    elif second.p_x is not None:
        total = _double_row(second, row - n, BLOCK)
    tl.store(to[0] + row * to[1], total)


def double_rows_launch(first: Rows, second: Rows, sums: Any) -> Launch:
    n = first.p_x.shape[0]
    arguments = {"first": first, "second": second, "n": n, "to": (sums, sums.stride(0)), "BLOCK": 128}
    return Launch(double_rows, (n + second.p_x.shape[0],), arguments, 4)
