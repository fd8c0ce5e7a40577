"""Rows of a code whose squared lengths leave a safe range; pulling_away_kernels.py has the equations and names.

A cosine does not depend on the lengths of its vectors. A row that is too short or too long is therefore multiplied by
its scale, a power of two, before anything is squared. The scale of all others is 1. csrc/row_scale.h has the same
numbers, and the reasons. Rows of float16 never leave the range.

Dual's rows are measured first, those out of range twice. Primal's squares come from the Gram matrix, so there a row is
known only when the matrix is done: the last program then computes all cosines anew, from the code. It takes long, and
costs the others no register.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic_kernels import quotient, root


@triton.jit
def _scale_between(
    length,
    ACC: tl.constexpr,
    SHORTEST: tl.constexpr,
    LONGEST: tl.constexpr,
    UP: tl.constexpr,
    DOWN: tl.constexpr,
):
    one = tl.full(length.shape, 1.0, ACC)
    return tl.where(length < SHORTEST, one * UP, tl.where(length > LONGEST, one * DOWN, one))


@triton.jit
def scale_of(length, ACC: tl.constexpr):
    """The scales of rows of these lengths; 1 for NaN."""
    if ACC == tl.float64:  # noqa: SIM300
        return _scale_between(length, ACC, 2.0**-400, 2.0**450, 2.0**700, 2.0**-600)
    else:
        return _scale_between(length, ACC, 2.0**-40, 2.0**50, 2.0**100, 2.0**-80)


@triton.jit
def scales_at(p_code, p_scale, row, inside):
    """The scales of the rows behind p_scale; 0 outside. float16 has ones, which cost nothing."""
    ACC: tl.constexpr = p_scale.dtype.element_ty
    if p_code.dtype.element_ty == tl.float16:
        return tl.full(row.shape, 1.0, ACC)
    else:
        return tl.load(p_scale + row, mask=inside, other=0.0)


@triton.jit
def _scaled(p_code, code_stride, first, scale, n, k, d, BLOCK: tl.constexpr):
    """ACC [rows, BLOCK]: rows times their scales, from row first and element k on; zeros outside."""
    row = tl.arange(0, scale.shape[0])
    inner = tl.arange(0, BLOCK)
    inside = (row < n - first)[:, None] & (inner < d - k)[None, :]
    offset = (row.to(tl.int64) * code_stride)[:, None] + inner[None, :]
    wide_first = tl.zeros((), dtype=tl.int64) + first
    code = tl.load(p_code + (wide_first * code_stride + k) + offset, mask=inside, other=0.0)
    return code.to(scale.dtype) * scale[:, None]


@triton.jit
def lengths_of_scaled(p_code, code_stride, first, scale, n, d, BLOCK: tl.constexpr, UNROLLED: tl.constexpr = False):
    """The lengths of the rows from first on, times their scales."""
    squares = tl.zeros((scale.shape[0], BLOCK), dtype=scale.dtype)
    for k in tl.range(0, d, BLOCK, num_stages=1):
        value = _scaled(p_code, code_stride, first, scale, n, k, d, BLOCK)
        squares += value * value
        if not UNROLLED:
            tl.debug_barrier()
    return root(tl.sum(squares, axis=1))


@triton.jit
def is_in_doubt(length):
    """True for the lengths of rows out of range, by what came of their squares: NaN may be a sum of infinities."""
    return (scale_of(length, length.dtype) != 1) | (length != length)


@triton.jit
def out_of_range(p_code, code_stride, first, length, n, d, BLOCK: tl.constexpr):
    """The rows out of range among those in doubt: which, and the lengths and scales of all.

    Rows of zeros are not among them, nor are those with an infinite or NaN number. They have the cosines that came of
    their squares: 0, or NaN.
    """
    in_doubt = is_in_doubt(length)
    longest = tl.full(length.shape, float("inf"), length.dtype)
    scale = scale_of(tl.where(length == length, length, longest), length.dtype)
    scaled = lengths_of_scaled(p_code, code_stride, first, scale, n, d, BLOCK)
    is_out = in_doubt & (scaled > 0) & (scaled < float("inf"))
    return is_out, tl.where(is_out, scaled, length), tl.where(is_out, scale, tl.full(length.shape, 1.0, length.dtype))


@triton.jit
def rows_of_cosines(
    p_code,  # [n, d]
    p_residual,  # ACC [n, n]: primal's; rows of it are written, but for the diagonal
    code_stride,
    first,  # row
    length,  # ACC [rows], of the rows times their scales
    scale,  # ACC [rows]
    n,
    d,
    BLOCK: tl.constexpr,  # rows beside them at a time
    BLOCK_K: tl.constexpr,
):
    """The cosines of some rows with every row, whatever the lengths; returns the sums of their squares.

    It is slow. Small tiles ask for few registers of a kernel that hardly ever comes here.
    """
    ACC: tl.constexpr = length.dtype
    row = tl.arange(0, length.shape[0])
    column = tl.arange(0, BLOCK)
    p_first = p_residual + (tl.zeros((), dtype=tl.int64) + first) * n
    row_sum = tl.zeros(row.shape, dtype=ACC)
    for start in tl.range(0, n, BLOCK, num_stages=1):
        other_scale = tl.full((BLOCK,), 1.0, ACC)
        other_scale = scale_of(lengths_of_scaled(p_code, code_stride, start, other_scale, n, d, BLOCK_K), ACC)
        other_length = lengths_of_scaled(p_code, code_stride, start, other_scale, n, d, BLOCK_K)
        products = tl.zeros((row.shape[0], BLOCK, BLOCK_K), dtype=ACC)
        for k in tl.range(0, d, BLOCK_K, num_stages=1):
            mine = _scaled(p_code, code_stride, first, scale, n, k, d, BLOCK_K)
            other = _scaled(p_code, code_stride, start, other_scale, n, k, d, BLOCK_K)
            products += mine[:, None, :] * other[None, :, :]
            tl.debug_barrier()  # a loop that is not unrolled, for want of registers
        both = length[:, None] * other_length[None, :]  # NaN for a row of zeros beside an infinite one
        apart = (first + row)[:, None] != (start + column)[None, :]
        cosine = tl.where(apart & (both != 0), quotient(tl.sum(products, axis=2), both), 0.0)
        row_sum += tl.sum(cosine * cosine, axis=1)
        inside = (row < n - first)[:, None] & (column < n - start)[None, :] & apart
        tl.store(p_first + start + (row.to(tl.int64) * n)[:, None] + column[None, :], cosine, mask=inside)
    return row_sum


@triton.jit
def redone(p_code, p_lengths, p_residual, code_stride, n, d):
    """All of primal anew if a row is out of range, else what stands; returns the sum of the cosines' squares.

    For a program that sees what all the others stored. Rows of zeros are read once more, and change nothing.
    """
    ACC: tl.constexpr = p_lengths.dtype.element_ty
    some = tl.arange(0, 8)
    squares = tl.zeros((), dtype=ACC)
    are_out = tl.zeros((), dtype=tl.int32)
    for first in tl.range(0, n, 8, num_stages=1):
        row = first + some.to(tl.int64)
        length = tl.load(p_lengths + row, mask=row < n, other=1.0, cache_modifier=".cg")
        squares -= tl.sum(tl.load(p_residual + row * (n + 1), mask=row < n, other=0.0, cache_modifier=".cg"), axis=0)
        if tl.max(is_in_doubt(length).to(tl.int32), axis=0) > 0:
            is_out, length, scale = out_of_range(p_code, code_stride, first, length, n, d, 32)
            tl.store(p_lengths + row, length, mask=row < n)
            tl.store(p_lengths + n + row, scale, mask=row < n)
            are_out = tl.maximum(are_out, tl.max(is_out.to(tl.int32), axis=0))
    if are_out > 0:
        tl.debug_barrier()  # the lengths, before they are read
        two = tl.arange(0, 2)
        squares = tl.zeros((), dtype=ACC)
        for first in tl.range(0, n, 2, num_stages=1):
            row = first + two.to(tl.int64)
            length = tl.load(p_lengths + row, mask=row < n, other=0.0, cache_modifier=".cg")
            scale = tl.load(p_lengths + n + row, mask=row < n, other=1.0, cache_modifier=".cg")
            sums = rows_of_cosines(p_code, p_residual, code_stride, first, length, scale, n, d, 4, 64)
            tl.store(p_residual + row * (n + 1), -sums, mask=row < n)
            squares += tl.sum(sums, axis=0)
    return squares
