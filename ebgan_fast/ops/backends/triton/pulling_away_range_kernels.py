"""Triton kernels for rows of a code whose squared lengths leave a safe range.

pulling_away_kernels.py has the equations and names.

A cosine does not depend on the lengths of its vectors. A row that is too short or too long is therefore multiplied by
its scale, a power of two, before anything is squared. The scale of all other rows is 1. csrc/row_scale.h has the same
numbers, and the reasons. Rows of float16 never leave the range.

In dual, all rows are measured first, and rows out of range a second time. In primal, the squares come from the Gram
matrix, so a row out of range is known only when the matrix is done. The last program then computes its cosines again,
from the code, one after another.
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
    """Return the scales of rows of these lengths; 1 for NaN."""
    if ACC == tl.float64:  # noqa: SIM300
        return _scale_between(length, ACC, 2.0**-400, 2.0**450, 2.0**700, 2.0**-600)
    else:
        return _scale_between(length, ACC, 2.0**-40, 2.0**50, 2.0**100, 2.0**-80)


@triton.jit
def scales_at(p_code, p_scale, row, inside):
    """Return the scales of the rows from p_scale on, 0 outside. For float16 they are ones without a cost."""
    ACC: tl.constexpr = p_scale.dtype.element_ty
    if p_code.dtype.element_ty == tl.float16:
        return tl.full(row.shape, 1.0, ACC)
    else:
        return tl.load(p_scale + row, mask=inside, other=0.0)


@triton.jit
def _scaled(p_code, code_stride, first, scale, n, k, d, BLOCK: tl.constexpr):
    """Return scaled rows, ACC [rows, BLOCK], from row `first` and element k on. They are zero outside of the code."""
    row = tl.arange(0, scale.shape[0])
    inner = tl.arange(0, BLOCK)
    inside = (row < n - first)[:, None] & (inner < d - k)[None, :]
    offset = (row.to(tl.int64) * code_stride)[:, None] + inner[None, :]
    wide_first = tl.zeros((), dtype=tl.int64) + first
    code = tl.load(p_code + (wide_first * code_stride + k) + offset, mask=inside, other=0.0)
    return code.to(scale.dtype) * scale[:, None]


@triton.jit
def lengths_of_scaled(p_code, code_stride, first, scale, n, d, BLOCK: tl.constexpr, UNROLLED: tl.constexpr = False):
    """Return the lengths of the scaled rows, from row `first` on."""
    squares = tl.zeros((scale.shape[0], BLOCK), dtype=scale.dtype)
    for k in tl.range(0, d, BLOCK, num_stages=1):
        value = _scaled(p_code, code_stride, first, scale, n, k, d, BLOCK)
        squares += value * value
        if not UNROLLED:
            tl.debug_barrier()
    return root(tl.sum(squares, axis=1))


@triton.jit
def is_in_doubt(length):
    """Return True for the lengths of rows that may be out of range. NaN counts: it may be a sum of infinities."""
    return (scale_of(length, length.dtype) != 1) | (length != length)


@triton.jit
def _product(p_code, code_stride, i, scale, j, other_scale, d, BLOCK: tl.constexpr):
    """Return the product of the scaled rows i and j. Each thread has one element of each row, to save registers."""
    ACC: tl.constexpr = scale.dtype
    inner = tl.arange(0, BLOCK)
    p_mine = p_code + (tl.zeros((), dtype=tl.int64) + i) * code_stride
    p_other = p_code + (tl.zeros((), dtype=tl.int64) + j) * code_stride
    products = tl.zeros((BLOCK,), dtype=ACC)
    for k in tl.range(0, d, BLOCK, num_stages=1):
        mine = tl.load(p_mine + k + inner, mask=inner < d - k, other=0.0).to(ACC) * scale
        other = tl.load(p_other + k + inner, mask=inner < d - k, other=0.0).to(ACC) * other_scale
        products += mine * other
        tl.debug_barrier()  # keeps the compiler from unrolling the loop
    return tl.sum(products, axis=0)


@triton.jit
def _next_row(p_numbers, last, n, ARE_SCALES: tl.constexpr, BLOCK: tl.constexpr):
    """Return the first row after row `last` whose length is in doubt, or whose scale is not 1; n if there is none.

    ARE_SCALES says whether the numbers are scales.
    """
    index = tl.arange(0, BLOCK)
    found = tl.zeros((), dtype=tl.int32) + n
    for first in tl.range(0, n, BLOCK, num_stages=1):
        row = first + index
        number = tl.load(p_numbers + row, mask=(row > last) & (row < n), other=1.0, cache_modifier=".cg")
        if ARE_SCALES:
            is_found = number != 1
        else:
            is_found = is_in_doubt(number)
        found = tl.minimum(found, tl.min(tl.where(is_found, row, n), axis=0))
        tl.debug_barrier()
    return found


@triton.jit
def _measure(p_code, p_lengths, code_stride, i, n, d, BLOCK: tl.constexpr):
    """Store the length and the scale of row i if it is out of range. Returns 1 if it is, else 0.

    A row of zeros is not out of range, and neither is a row with an infinite or NaN number. They keep the cosines
    computed from their squares: 0, or NaN.
    """
    length = tl.load(p_lengths + i, cache_modifier=".cg")
    scale = scale_of(tl.where(length == length, length, float("inf")), length.dtype)  # NaN may be a sum of infinities
    scaled = root(_product(p_code, code_stride, i, scale, i, scale, d, BLOCK))
    is_out = (scaled > 0) & (scaled < float("inf"))
    tl.store(p_lengths + i, tl.where(is_out, scaled, length))
    tl.store(p_lengths + n + i, tl.where(is_out, scale, 1.0))
    return is_out.to(tl.int32)


@triton.jit
def _row_of_cosines(
    p_code,  # [n, d]
    p_lengths,  # ACC [2, n]: lengths of the scaled rows, and the scales
    p_residual,  # ACC [n, n]: row i is written, except the diagonal
    code_stride,
    i,
    n,
    d,
    BLOCK: tl.constexpr,
):
    """Compute the cosines of row i with all rows out of range, or with all rows if row i is out of range.

    Returns the sum of the squares of all cosines of the row.
    """
    p_row = p_residual + (tl.zeros((), dtype=tl.int64) + i) * n
    scale = tl.load(p_lengths + n + i, cache_modifier=".cg")
    j = tl.zeros((), dtype=tl.int32)
    if scale == 1:
        j = _next_row(p_lengths + n, -1, n, True, BLOCK)
    while j < n:
        both = tl.load(p_lengths + i, cache_modifier=".cg") * tl.load(p_lengths + j, cache_modifier=".cg")
        other_scale = tl.load(p_lengths + n + j, cache_modifier=".cg")
        product = _product(p_code, code_stride, i, scale, j, other_scale, d, BLOCK)
        # `both` is NaN for a row of zeros and an infinite row.
        cosine = tl.where(both != 0, quotient(product, both), 0.0)
        tl.store(p_row + j, cosine, mask=i != j)
        if scale == 1:
            j = _next_row(p_lengths + n, j, n, True, BLOCK)
        else:
            j += 1
    tl.debug_barrier()  # the cosines must be stored before they are read
    index = tl.arange(0, BLOCK)
    squares = tl.zeros((BLOCK,), dtype=p_lengths.dtype.element_ty)
    for first in tl.range(0, n, BLOCK, num_stages=1):
        column = first + index
        cosines = tl.load(p_row + column, mask=(column < n) & (column != i), other=0.0, cache_modifier=".cg")
        squares += cosines * cosines
        tl.debug_barrier()
    return tl.sum(squares, axis=0)


@triton.jit
def redone(p_code, p_lengths, p_residual, code_stride, n, d, BLOCK: tl.constexpr = 512):
    """Compute the cosines of rows out of range again, if there are any. Returns the sum of all squared cosines.

    Only a program that sees the stores of all others may call this. It is slow and rarely needed.
    """
    are_out = tl.zeros((), dtype=tl.int32)
    i = _next_row(p_lengths, -1, n, False, BLOCK)
    while i < n:
        are_out = tl.maximum(are_out, _measure(p_code, p_lengths, code_stride, i, n, d, BLOCK))
        i = _next_row(p_lengths, i, n, False, BLOCK)
    if are_out > 0:
        tl.debug_barrier()  # the lengths must be stored before they are read
        for row in tl.range(0, n, num_stages=1):
            row_sum = _row_of_cosines(p_code, p_lengths, p_residual, code_stride, row, n, d, BLOCK)
            tl.store(p_residual + (tl.zeros((), dtype=tl.int64) + row) * (n + 1), -row_sum)
        tl.debug_barrier()
    squares = tl.zeros((), dtype=p_lengths.dtype.element_ty)
    index = tl.arange(0, BLOCK)
    for first in tl.range(0, n, BLOCK, num_stages=1):
        row = first + index.to(tl.int64)
        squares -= tl.sum(tl.load(p_residual + row * (n + 1), mask=row < n, other=0.0, cache_modifier=".cg"), axis=0)
        tl.debug_barrier()
    return squares
