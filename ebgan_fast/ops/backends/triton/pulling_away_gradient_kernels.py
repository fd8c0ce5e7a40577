"""Triton kernels for the gradient of the pulling-away term. pulling_away_kernels.py has the equations and names."""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic_kernels import quotient, scalar
from .pulling_away_kernels import _inverse, _pairs
from .pulling_away_range_kernels import scales_at


@triton.jit
def _factor(upstream, n, ACC: tl.constexpr):
    return quotient(4 * upstream, _pairs(n, ACC))


@triton.jit
def _scales_and_inverses(p_code, p_lengths, first, n, ROWS: tl.constexpr):
    """Return the scales of rows, and 1 / the lengths of the scaled rows."""
    row = tl.arange(0, ROWS)
    wide_first = tl.zeros((), dtype=tl.int64) + first
    p_length = p_lengths + wide_first
    length = tl.load(p_length + row, mask=row < n - first, other=0.0)
    return scales_at(p_code, p_length + n, row, row < n - first), _inverse(length)


@triton.jit
def _units(
    p_code,
    scale,  # ACC [ROWS]
    inverse,  # ACC [ROWS]
    code_stride,
    first,  # sample
    n,
    start,  # element
    d,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Return a tile of U, [ROWS, COLUMNS]. It is zero outside of the code."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    wide_first = tl.zeros((), dtype=tl.int64) + first
    inside = (row < n - first)[:, None] & (column < d - start)[None, :]
    offset = (row.to(tl.int64) * code_stride)[:, None] + column[None, :]
    code = tl.load(p_code + (wide_first * code_stride + start) + offset, mask=inside, other=0.0).to(ACC)
    return code * scale[:, None] * inverse[:, None]


@triton.jit
def _store_gradient(p_grad, grad_stride, gradient, first, n, start, d, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    wide_first = tl.zeros((), dtype=tl.int64) + first
    inside = (row < n - first)[:, None] & (column < d - start)[None, :]
    offset = (row.to(tl.int64) * grad_stride)[:, None] + column[None, :]
    to = p_grad + (wide_first * grad_stride + start) + offset
    tl.store(to, gradient.to(p_grad.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["column_tiles", "upstream"])
def primal_gradient(
    p_code,  # [n, d]
    p_lengths,  # ACC [2, n]: lengths of the scaled rows, and the scales
    p_residual,  # ACC [n, n]: G - diag r
    p_grad,  # [n, d]
    code_stride,
    grad_stride,
    n,
    d,
    column_tiles,  # ceil(d / BLOCK_COLUMNS)
    upstream,  # number, or pointer to a 0-d tensor
    UPSTREAM_IS_POINTER: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute a tile of 4 / (n(n-1) length_i) ((G - diag r) U)_i. With n <= BLOCK_ROWS the code is read once."""
    program = tl.program_id(0)
    i = (program // column_tiles) * BLOCK_ROWS
    start = (program % column_tiles) * BLOCK_COLUMNS
    row = (i + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    inner = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=ACC)
    for k in range(0, n, BLOCK_K):
        inside = (row < n)[:, None] & (inner < n - k)[None, :]
        residual = tl.load(p_residual + (row * n)[:, None] + (k + inner)[None, :], mask=inside, other=0.0)
        scale, inverse = _scales_and_inverses(p_code, p_lengths, k, n, BLOCK_K)
        units = _units(p_code, scale, inverse, code_stride, k, n, start, d, ACC, BLOCK_K, BLOCK_COLUMNS)
        total = tl.dot(residual, units, total, input_precision=PRECISION, out_dtype=ACC)
    factor = _factor(scalar(upstream, UPSTREAM_IS_POINTER, ACC), n, ACC)
    scale, inverse = _scales_and_inverses(p_code, p_lengths, i, n, BLOCK_ROWS)
    # The scale comes last, because factor times scale may overflow.
    gradient = total * (factor * inverse)[:, None] * scale[:, None]
    _store_gradient(p_grad, grad_stride, gradient, i, n, start, d, BLOCK_ROWS, BLOCK_COLUMNS)


@triton.jit
def _units_and_product(
    p_code,
    scale,
    inverse,
    p_residual,
    code_stride,
    i,
    n,
    start,
    d,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return a tile of U, and the same tile of U E."""
    ACC: tl.constexpr = scale.dtype
    units = _units(p_code, scale, inverse, code_stride, i, n, start, d, ACC, BLOCK_ROWS, BLOCK_COLUMNS)
    column = start + tl.arange(0, BLOCK_COLUMNS)
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=ACC)
    for k in range(0, d, BLOCK_K):
        inner = k + tl.arange(0, BLOCK_K)
        left = _units(p_code, scale, inverse, code_stride, i, n, k, d, ACC, BLOCK_ROWS, BLOCK_K)
        inside = (inner < d)[:, None] & (column < d)[None, :]
        residual = tl.load(p_residual + (inner.to(tl.int64) * d)[:, None] + column[None, :], mask=inside, other=0.0)
        total = tl.dot(left, residual, total, input_precision=PRECISION, out_dtype=ACC)
    return units, total


@triton.jit(do_not_specialize=["upstream"])
def dual_gradient(
    p_code,  # [n, d]
    p_lengths,  # ACC [2, n]: lengths of the scaled rows, and the scales
    p_residual,  # ACC [d, d]: E
    p_grad,  # [n, d]
    code_stride,
    grad_stride,
    n,
    d,
    upstream,  # number, or pointer to a 0-d tensor
    UPSTREAM_IS_POINTER: tl.constexpr,
    SINGLE: tl.constexpr,  # d <= BLOCK_COLUMNS
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute BLOCK_ROWS rows of 4 / (n(n-1) length_i) (E u_i - (u_i^T E u_i) u_i).

    The second term needs the whole first term. For codes wider than a tile, U E is computed twice instead of kept in
    memory.
    """
    i = tl.program_id(0) * BLOCK_ROWS
    scale, inverse = _scales_and_inverses(p_code, p_lengths, i, n, BLOCK_ROWS)
    slope = _factor(scalar(upstream, UPSTREAM_IS_POINTER, ACC), n, ACC) * inverse[:, None]
    if SINGLE:
        units, product = _units_and_product(
            p_code, scale, inverse, p_residual, code_stride, i, n, 0, d, PRECISION, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_K
        )
        along = tl.sum(product * units, axis=1)[:, None]
        gradient = slope * (product - along * units) * scale[:, None]
        _store_gradient(p_grad, grad_stride, gradient, i, n, 0, d, BLOCK_ROWS, BLOCK_COLUMNS)
    else:
        along = tl.zeros((BLOCK_ROWS,), dtype=ACC)
        for j in range(0, d, BLOCK_COLUMNS):
            units, product = _units_and_product(
                p_code,
                scale,
                inverse,
                p_residual,
                code_stride,
                i,
                n,
                j,
                d,
                PRECISION,
                BLOCK_ROWS,
                BLOCK_COLUMNS,
                BLOCK_K,
            )
            along += tl.sum(product * units, axis=1)
        for j in range(0, d, BLOCK_COLUMNS):
            units, product = _units_and_product(
                p_code,
                scale,
                inverse,
                p_residual,
                code_stride,
                i,
                n,
                j,
                d,
                PRECISION,
                BLOCK_ROWS,
                BLOCK_COLUMNS,
                BLOCK_K,
            )
            gradient = slope * (product - along[:, None] * units) * scale[:, None]
            _store_gradient(p_grad, grad_stride, gradient, i, n, j, d, BLOCK_ROWS, BLOCK_COLUMNS)
