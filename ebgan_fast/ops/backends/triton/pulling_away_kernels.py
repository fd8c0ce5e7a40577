"""Triton kernels for the pulling-away term, computed from the smaller of the two Gram matrices.

Arguments: p_ marks a pointer. A code is [n, d], with samples code_stride elements apart. ACC is float64 for float64
codes, else float32. Counters are int32 zeros, and a kernel leaves them as zeros. Notation:

Primal, n <= d: K = S S^T, G = K / (lengths lengths^T) with a zero diagonal, r_i = sum_j G_ij^2;
    value = sum_i r_i / (n(n-1)); grad_i = 4 / (n(n-1) length_i) ((G - diag r) U)_i, U = S / lengths.
    residual: G - diag r.
Dual, d < n: E = U^T U - (n'/d) I with n' the number of nonzero rows, the trace of U^T U;
    value = (n'(n'-d)/d + sum E^2) / (n(n-1)); grad_i = 4 / (n(n-1) length_i) (E u_i - (u_i^T E u_i) u_i).
    residual: E.
A row of zeros has 1/length := 0: it contributes 0 and gets gradient 0.

S stands for the rows times their scales. A scale is 1, except for rows too short or too long to be squared:
pulling_away_range_kernels.py. lengths are those of S. The gradient to the code is grad_i times the scale.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic_kernels import quotient, root, scalar
from .pulling_away_range_kernels import is_in_doubt, lengths_of_scaled, redone, scale_of, scales_at


@triton.jit
def _inverse(length):
    return tl.where(length == 0, 0.0, quotient(tl.full((), 1.0, length.dtype) + tl.zeros_like(length), length))


@triton.jit
def _pairs(n, ACC: tl.constexpr):
    """Return n(n-1), at least 1."""
    wide = tl.full((), 0.0, ACC) + n
    return tl.maximum(wide * (wide - 1), 1.0)


@triton.jit
def _operand(
    p_code,
    p_lengths,
    code_stride,
    first,  # index of the tile's first row: a sample, or in dual an element of the code
    rows,  # number of rows of the operand
    k,  # depth: an element of the code, or in dual a sample
    end,  # end of the depth
    n,
    DUAL: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return a tile of S, or in dual of U^T, [BLOCK, BLOCK_K]. It is zero outside of the matrix."""
    row = tl.arange(0, BLOCK)
    inner = tl.arange(0, BLOCK_K)
    inside = (row < rows - first)[:, None] & (inner < end - k)[None, :]
    wide_first = tl.zeros((), dtype=tl.int64) + first
    wide_k = tl.zeros((), dtype=tl.int64) + k
    if DUAL:
        offset = (inner.to(tl.int64) * code_stride)[None, :] + row[:, None]
        value = tl.load(p_code + (wide_k * code_stride + wide_first) + offset, mask=inside, other=0.0).to(ACC)
        p_length = p_lengths + wide_k
        length = tl.load(p_length + inner, mask=inner < end - k, other=0.0)
        scale = scales_at(p_code, p_length + n, inner, inner < end - k)
        return value * scale[None, :] * _inverse(length)[None, :]
    else:
        offset = (row.to(tl.int64) * code_stride)[:, None] + inner[None, :]
        return tl.load(p_code + (wide_first * code_stride + wide_k) + offset, mask=inside, other=0.0)


@triton.jit
def _store_lengths(p_lengths, length, scale, row, n, end):
    """Store the lengths of rows below `end`, and their scales n numbers behind the lengths."""
    tl.store(p_lengths + row, length, mask=row < end)
    tl.store(p_lengths + n + row, scale, mask=row < end)


@triton.jit
def _arrives_last(p_counter, count):
    """Count this program. Returns True for the last program, which then sees all stores of the others."""
    tl.debug_barrier()  # all threads must have stored before the one thread counts
    is_last = tl.atomic_add(p_counter, 1, sem="acq_rel") == count - 1
    if is_last:
        tl.store(p_counter, 0)
    return is_last


@triton.jit
def _store_value(p_value, p_loss, value, weight, ADDS_TO_LOSS: tl.constexpr):
    tl.store(p_value, value)
    if ADDS_TO_LOSS:
        tl.store(p_loss, tl.load(p_loss) + weight * value)


@triton.jit
def _sum_of(p_values, count, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """Return the sum of numbers that other programs wrote, in a fixed order. The loads bypass the first cache."""
    total = tl.zeros((BLOCK,), dtype=ACC)
    for first in range(0, count, BLOCK):
        index = first + tl.arange(0, BLOCK)
        total += tl.load(p_values + index, mask=index < count, other=0.0, cache_modifier=".cg")
    return tl.sum(total, axis=0)


@triton.jit
def _nonzero(p_lengths, begin, end, ACC: tl.constexpr):
    """Return the number of lengths from `begin` to `end` that are not zero."""
    count = tl.zeros((1024,), dtype=ACC)
    for first in range(begin, end, 1024):
        index = first + tl.arange(0, 1024)
        length = tl.load(p_lengths + index, mask=index < end, other=0.0)
        count += tl.where(length == 0, 0.0, 1.0)
    return tl.sum(count, axis=0)


@triton.jit
def _add_splits(p_sums, offset, inside, step, splits, ACC: tl.constexpr, SPLITS: tl.constexpr):
    """Return the sums over all splits at these offsets, SPLITS splits at a time. Splits are `step` elements apart."""
    split = tl.arange(0, SPLITS)
    if len(offset.shape) == 1:
        number = split[:, None]
    else:
        number = split[:, None, None]
    place = tl.expand_dims(offset, 0)
    if SPLITS > 1:  # for a matrix of few tiles, 32 bits are enough and take half the registers
        place += number * step.to(tl.int32)
    wide_step = tl.zeros((), dtype=tl.int64) + step
    total = tl.zeros(place.shape, dtype=ACC)
    for first in range(0, splits, SPLITS):
        there = (number < splits - first) & tl.expand_dims(inside, 0)
        total += tl.load(p_sums + first * wide_step + place, mask=there, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def _finished(product, mine, other, share, row, column, side, DUAL: tl.constexpr):
    """Return the numbers of residual at row x column of the matrix. The diagonal of primal is left zero.

    mine and other are the inverse lengths of rows and columns (primal). share is n'/d (dual).
    """
    on_diagonal = (row[:, None] == column[None, :]) & (row < side)[:, None]
    if DUAL:
        return tl.where(on_diagonal, product - share, product)
    else:
        return tl.where(on_diagonal, 0.0, product * mine[:, None] * other[None, :])


@triton.jit
def _value_of(squares, trace, n, d, DUAL: tl.constexpr, ACC: tl.constexpr):
    """Return the term, given the sum of residual's squares without primal's diagonal."""
    if DUAL:
        squares += quotient(trace * (trace - d), d)
    return quotient(squares, _pairs(n, ACC))


@triton.jit
def _row_of_triangle(tile):
    """Return the row of tile number `tile`. Tiles on and below the diagonal are numbered row by row."""
    row = ((tl.sqrt(8.0 * tile + 1.0) - 1.0) / 2.0).to(tl.int32)
    row = tl.where(row * (row + 1) // 2 > tile, row - 1, row)  # the root may be rounded up or down
    return tl.where((row + 1) * (row + 2) // 2 <= tile, row + 1, row)


@triton.jit(do_not_specialize=["splits", "weight"])
def gram_matrix(
    p_code,  # [n, d]
    p_lengths,  # ACC [2, n], lengths and scales: read (dual), or written (primal, ALONE)
    p_products,  # ACC [splits, side, side], side = min(n, d); ALONE: residual
    p_squares,  # ACC: primal [splits, n], squares of the lengths; dual [splits], numbers of nonzero lengths
    p_value,  # ACC []; this argument and the next are for ALONE
    p_loss,  # ACC [], to which weight * value is added, or None
    code_stride,
    n,
    d,
    splits,
    split_depth,  # a multiple of BLOCK_K
    weight,  # number, or pointer to a 0-d tensor
    WEIGHT_IS_POINTER: tl.constexpr,
    ADDS_TO_LOSS: tl.constexpr,
    DUAL: tl.constexpr,
    SINGLE: tl.constexpr,  # the whole matrix is one tile
    ALONE: tl.constexpr,  # ... and that tile has one split
    PRECISION: tl.constexpr,  # precision of the products: "tf32", "tf32x3" or "ieee"
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute a tile of S S^T or U^T U for one split of its depth, and store it in the split's own matrix.

    Only tiles on and below the diagonal are computed, and then mirrored. `finish_rows` adds up the splits and does the
    rest. A program that is ALONE computes the whole matrix and finishes it itself: a second launch would take longer
    than its work for so few numbers.
    """
    program = tl.program_id(0)
    tile = program // splits
    split = program % splits
    side = d if DUAL else n
    depth = n if DUAL else d
    tile_row = _row_of_triangle(tile)
    i = tile_row * BLOCK
    j = (tile - tile_row * (tile_row + 1) // 2) * BLOCK
    begin = split * split_depth
    end = tl.minimum(depth, begin + split_depth)
    total = tl.zeros((BLOCK, BLOCK), dtype=ACC)
    for k in range(begin, end, BLOCK_K):
        left = _operand(p_code, p_lengths, code_stride, i, side, k, end, n, DUAL, ACC, BLOCK, BLOCK_K)
        if SINGLE:
            right = left
        else:
            right = _operand(p_code, p_lengths, code_stride, j, side, k, end, n, DUAL, ACC, BLOCK, BLOCK_K)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION, out_dtype=ACC)

    local = tl.arange(0, BLOCK)
    row = i + local
    column = j + local
    inside = (row < side)[:, None] & (column < side)[None, :]
    offset = local[:, None] * side + local[None, :]
    diagonal = tl.where(row[:, None] == column[None, :], total, 0.0)
    if ALONE:
        if DUAL:
            trace = _nonzero(p_lengths, 0, n, ACC)
            values = _finished(total, None, None, quotient(trace, d), row, column, side, DUAL)
            sums = tl.sum(values * values, axis=1)
        else:
            trace = 0.0
            length = root(tl.sum(diagonal, axis=1))
            _store_lengths(p_lengths, length, tl.full((BLOCK,), 1.0, ACC), row, n, n)
            other = _inverse(root(tl.sum(diagonal, axis=0)))
            cosine = _finished(total, _inverse(length), other, None, row, column, side, DUAL)
            sums = tl.sum(cosine * cosine, axis=1)
            values = tl.where(row[:, None] == column[None, :], -sums[:, None], cosine)
        tl.store(p_products + offset, values, mask=inside)
        squares = tl.sum(sums, axis=0)
        if not DUAL and p_code.dtype.element_ty != tl.float16:
            if tl.max((is_in_doubt(length) & (row < n)).to(tl.int32), axis=0) > 0:
                tl.debug_barrier()  # all threads must have stored before others read
                squares = redone(p_code, p_lengths, p_products, code_stride, n, d)
        value = _value_of(squares, trace, n, d, DUAL, ACC)
        _store_value(p_value, p_loss, value, scalar(weight, WEIGHT_IS_POINTER, ACC), ADDS_TO_LOSS)
    else:
        wide_split = split.to(tl.int64)
        wide_i = i.to(tl.int64)
        wide_j = j.to(tl.int64)
        p_mine = p_products + wide_split * side * side
        if not DUAL:
            if i == j:
                tl.store(p_squares + wide_split * n + row, tl.sum(diagonal, axis=1), mask=row < n)
        tl.store(p_mine + (wide_i * side + wide_j) + offset, total, mask=inside)
        if i != j:
            mirrored = local[None, :] * side + local[:, None]
            tl.store(p_mine + (wide_j * side + wide_i) + mirrored, total, mask=inside)
        if DUAL:
            if tile == 0:
                tl.store(p_squares + split, _nonzero(p_lengths, begin, end, ACC))


@triton.jit(do_not_specialize=["code_stride", "splits", "weight"])
def finish_rows(
    p_products,  # ACC [splits, side, side] from gram_matrix; may be p_residual
    p_squares,  # ACC [splits, n], or dual [splits]
    p_code,  # [n, d], in primal with rows that may be out of range; else None
    p_lengths,  # ACC [2, n], written; primal only
    p_residual,  # ACC [side, side]
    p_row_sums,  # ACC [side]
    p_counter,  # int32 [1]
    p_value,  # ACC []
    p_loss,  # ACC [], to which weight * value is added, or None
    code_stride,
    n,
    d,
    splits,
    weight,  # number, or pointer to a 0-d tensor
    WEIGHT_IS_POINTER: tl.constexpr,
    ADDS_TO_LOSS: tl.constexpr,
    DUAL: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,  # splits loaded at a time
):
    """Compute ROWS rows of residual, with the sums of all splits added in a fixed order.

    The last program to finish computes the term.
    """
    side = d if DUAL else n
    first = tl.program_id(0) * ROWS
    local = tl.arange(0, ROWS)
    row = first + local
    start_of_rows = first.to(tl.int64) * side
    wide_n = tl.zeros((), dtype=tl.int64) + n
    wide_side = tl.zeros((), dtype=tl.int64) + side
    trace = tl.zeros((), dtype=ACC)
    share = trace
    mine = tl.zeros((ROWS,), dtype=ACC)
    if DUAL:
        trace = _sum_of(p_squares, splits, ACC, 128)
        share = quotient(trace, d)
    else:
        length = root(_add_splits(p_squares, row, row < n, wide_n, splits, ACC, SPLITS))
        which = tl.arange(0, 2)  # lengths and scales in one store; two stores took one register too many
        both = tl.where(which[:, None] == 0, length[None, :], 1.0)
        tl.store(p_lengths + which[:, None] * n + row[None, :], both, mask=(row < n)[None, :])
        mine = _inverse(length)
    row_sum = tl.zeros((ROWS,), dtype=ACC)
    for start in range(0, side, BLOCK):
        column = start + tl.arange(0, BLOCK)
        offset = local[:, None] * side + column[None, :]
        inside = (row < side)[:, None] & (column < side)[None, :]
        product = _add_splits(p_products + start_of_rows, offset, inside, wide_side * side, splits, ACC, SPLITS)
        if DUAL:
            other = tl.zeros((BLOCK,), dtype=ACC)
        else:
            other = _inverse(root(_add_splits(p_squares, column, column < n, wide_n, splits, ACC, SPLITS)))
        values = _finished(product, mine, other, share, row, column, side, DUAL)
        row_sum += tl.sum(values * values, axis=1)
        tl.store(p_residual + start_of_rows + offset, values, mask=inside)
    if not DUAL:
        tl.debug_barrier()  # the zeros on the diagonal are stored before the values below
        tl.store(p_residual + (start_of_rows + first) + local * (side + 1), -row_sum, mask=row < side)
        if p_code is not None:  # infinity marks a row in doubt for the last program, as no sum of squares is infinite
            # Computed from `mine`, because `length`, kept through the loop, would be spilled.
            row_sum = tl.where(is_in_doubt(_inverse(mine)), float("inf"), row_sum)
    tl.store(p_row_sums + row, row_sum, mask=row < side)
    if _arrives_last(p_counter, tl.num_programs(0)):
        squares = _sum_of(p_row_sums, side, ACC, 1024)
        if p_code is not None:
            if squares - squares != 0:
                squares = redone(p_code, p_lengths, p_residual, code_stride, n, d)
        value = _value_of(squares, trace, n, d, DUAL, ACC)
        _store_value(p_value, p_loss, value, scalar(weight, WEIGHT_IS_POINTER, ACC), ADDS_TO_LOSS)


@triton.jit(do_not_specialize=["n"])
def row_lengths(
    p_code,  # [n, d]
    p_lengths,  # ACC [2, n]
    code_stride,
    n,
    d,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute the lengths of the scaled codes, and the scales."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = tl.arange(0, ROWS)
    scale = tl.full((ROWS,), 1.0, ACC)
    length = lengths_of_scaled(p_code, code_stride, first, scale, n, d, BLOCK, UNROLLED=True)
    if p_code.dtype.element_ty != tl.float16:
        scale = scale_of(length, ACC)
        if tl.max((scale != 1).to(tl.int32), axis=0) > 0:
            length = lengths_of_scaled(p_code, code_stride, first, scale, n, d, 128 // ROWS if ROWS < 128 else 1)
    _store_lengths(p_lengths + first, length, scale, row, n, n - first)
