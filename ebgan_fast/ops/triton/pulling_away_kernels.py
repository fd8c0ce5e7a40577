"""Triton kernels for the pulling-away term, over the smaller of the two Gram matrices.

Arguments: p_ is a pointer. A code is [n, d], samples code_stride elements apart. ACC is float32, or float64 for float64
codes. Counters are int32 zeros, left as zeros. What is not found in another argument is said in the op's equations:

Primal, n <= d: K = S S^T, G = K / (norms norms^T) with a zero diagonal, r_i = sum_j G_ij^2;
    value = sum_i r_i / (n(n-1)); grad_i = 4 / (n(n-1) norm_i) ((G - diag r) U)_i, U = S / norms. gram is G - diag r.
Dual, d < n: E = U^T U - (n'/d) I with n' the number of nonzero rows, the trace of U^T U;
    value = (n'(n'-d)/d + sum E^2) / (n(n-1)); grad_i = 4 / (n(n-1) norm_i) (E u_i - (u_i^T E u_i) u_i). gram is E.
A row of zeros has 1/norm := 0: it contributes 0 and gets gradient 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .energy_kernels import quotient, root, scalar

GROUP = tl.constexpr(8)  # partial sums that one program adds up: a tree of two levels reads 16 tiles in place of 64


@triton.jit
def _inverse(norm):
    return tl.where(norm == 0, 0.0, quotient(tl.full((), 1.0, norm.dtype) + tl.zeros_like(norm), norm))


@triton.jit
def _pairs(n, ACC: tl.constexpr):
    """n(n-1), at least 1."""
    wide = tl.full((), 0.0, ACC) + n
    return tl.maximum(wide * (wide - 1), 1.0)


@triton.jit
def _operand(
    p_code,
    p_norms,
    code_stride,
    first,  # index of the tile's first row: a sample, or dual an element of the code
    rows,  # of the operand
    k,  # depth: an element of the code, or dual a sample
    end,  # of the depth
    DUAL: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """[BLOCK, BLOCK_K] of S, or dual of U^T; zeros outside."""
    row = tl.arange(0, BLOCK)
    inner = tl.arange(0, BLOCK_K)
    inside = (row < rows - first)[:, None] & (inner < end - k)[None, :]
    wide_first = tl.zeros((), dtype=tl.int64) + first
    wide_k = tl.zeros((), dtype=tl.int64) + k
    if DUAL:
        offset = (inner.to(tl.int64) * code_stride)[None, :] + row[:, None]
        value = tl.load(p_code + (wide_k * code_stride + wide_first) + offset, mask=inside, other=0.0).to(ACC)
        norm = tl.load(p_norms + wide_k + inner, mask=inner < end - k, other=0.0)
        return value * _inverse(norm)[None, :]
    else:
        offset = (row.to(tl.int64) * code_stride)[:, None] + inner[None, :]
        return tl.load(p_code + (wide_first * code_stride + wide_k) + offset, mask=inside, other=0.0)


@triton.jit
def _strip(first, BLOCK: tl.constexpr, STRIP: tl.constexpr):
    """Offsets of rows first, first + 1, ... of a tile that lies in memory."""
    return (first + tl.arange(0, STRIP))[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]


@triton.jit
def _add_slots(p_slots, step, count, ACC: tl.constexpr, BLOCK: tl.constexpr, STRIP: tl.constexpr):
    """Tiles that other programs wrote, added in their order into the first; past the first cache."""
    for first in range(0, BLOCK, STRIP):
        offset = _strip(first, BLOCK, STRIP)
        total = tl.zeros((STRIP, BLOCK), dtype=ACC)
        for index in range(0, count):
            total += tl.load(p_slots + (index * step) * (BLOCK * BLOCK) + offset, cache_modifier=".cg")
        tl.store(p_slots + offset, total)


@triton.jit
def _arrives_last(p_counter, count):
    """Count this program in; True for the last, which then sees what all the others stored."""
    tl.debug_barrier()  # every thread's stores before the one thread that counts
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
def _diagonal(p_tile, row, BLOCK: tl.constexpr):
    """The diagonal of a tile in memory, at these rows."""
    return tl.load(p_tile + row * (BLOCK + 1))


@triton.jit
def _store_mirrored(p_gram, values, row, column, side, IS_DIAGONAL):
    """Values at rows x columns of the [side, side] matrix, and off the diagonal tiles their mirror image."""
    far = row.to(tl.int64)[:, None]
    wide = column.to(tl.int64)[None, :]
    inside = (far < side) & (wide < side)
    tl.store(p_gram + far * side + wide, values, mask=inside)
    if not IS_DIAGONAL:
        tl.store(p_gram + wide * side + far, values, mask=inside)


@triton.jit
def _finish_primal(p_tile, p_norms, p_gram, n, ACC: tl.constexpr, BLOCK: tl.constexpr, STRIP: tl.constexpr):
    """From K to norms and G - diag r; returns sum r. All of K is this one tile."""
    column = tl.arange(0, BLOCK)
    norm = root(_diagonal(p_tile, column, BLOCK))
    tl.store(p_norms + column, norm, mask=column < n)
    other = _inverse(norm)[None, :]
    total = tl.zeros((STRIP,), dtype=ACC)
    for first in range(0, BLOCK, STRIP):
        row = first + tl.arange(0, STRIP)
        mine = _inverse(root(_diagonal(p_tile, row, BLOCK)))[:, None]
        on_diagonal = row[:, None] == column[None, :]
        cosine = tl.load(p_tile + _strip(first, BLOCK, STRIP)) * mine * other
        cosine = tl.where(on_diagonal, 0.0, cosine)
        row_sum = tl.sum(cosine * cosine, axis=1)
        total += row_sum
        inside = (row < n)[:, None] & (column < n)[None, :]
        to = p_gram + row[:, None] * n + column[None, :]
        tl.store(to, tl.where(on_diagonal, -row_sum[:, None], cosine), mask=inside)
    return tl.sum(total, axis=0)


@triton.jit
def _store_primal_tile(p_tile, p_norms, p_gram, i, j, n, BLOCK: tl.constexpr, STRIP: tl.constexpr):
    """One tile of K, and the norms that its diagonal holds."""
    column = tl.arange(0, BLOCK)
    for first in range(0, BLOCK, STRIP):
        values = tl.load(p_tile + _strip(first, BLOCK, STRIP))
        _store_mirrored(p_gram, values, i + first + tl.arange(0, STRIP), j + column, n, i == j)
    if i == j:
        tl.store(p_norms + i + column, root(_diagonal(p_tile, column, BLOCK)), mask=i + column < n)


@triton.jit
def _nonzero(p_norms, n, ACC: tl.constexpr):
    """How many norms are not zero."""
    count = tl.zeros((1024,), dtype=ACC)
    for first in range(0, n, 1024):
        index = first + tl.arange(0, 1024)
        norm = tl.load(p_norms + index, mask=index < n, other=0.0)
        count += tl.where(norm == 0, 0.0, 1.0)
    return tl.sum(count, axis=0)


@triton.jit
def _sum_of(p_values, count, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """Numbers that other programs wrote, in a fixed order."""
    total = tl.zeros((BLOCK,), dtype=ACC)
    for first in range(0, count, BLOCK):
        index = first + tl.arange(0, BLOCK)
        total += tl.load(p_values + index, mask=index < count, other=0.0, cache_modifier=".cg")
    return tl.sum(total, axis=0)


@triton.jit
def _store_dual_tile(
    p_tile, p_gram, p_tile_sum, share, i, j, d, ACC: tl.constexpr, BLOCK: tl.constexpr, STRIP: tl.constexpr
):
    """From U^T U to E in one tile, and the sum of its squares, mirror image included."""
    column = j + tl.arange(0, BLOCK)
    total = tl.zeros((STRIP,), dtype=ACC)
    for first in range(0, BLOCK, STRIP):
        row = i + first + tl.arange(0, STRIP)
        values = tl.load(p_tile + _strip(first, BLOCK, STRIP))
        values = tl.where((row[:, None] == column[None, :]) & (row < d)[:, None], values - share, values)
        total += tl.sum(values * values, axis=1)
        _store_mirrored(p_gram, values, row, column, d, i == j)
    squares = tl.sum(total, axis=0)
    tl.store(p_tile_sum, tl.where(i == j, squares, 2 * squares))


@triton.jit
def _row_of_triangle(tile):
    """The row of the tile-th tile, counted row by row on and below the diagonal."""
    row = ((tl.sqrt(8.0 * tile + 1.0) - 1.0) / 2.0).to(tl.int32)
    row = tl.where(row * (row + 1) // 2 > tile, row - 1, row)  # the root may round either way
    return tl.where((row + 1) * (row + 2) // 2 <= tile, row + 1, row)


@triton.jit(do_not_specialize=["splits", "tiles", "weight"])
def gram_matrix(
    p_code,  # [n, d]
    p_norms,  # ACC [n]: written (primal) or read (dual)
    p_gram,  # ACC [side, side], side = min(n, d)
    p_partials,  # ACC [tiles, splits, BLOCK, BLOCK]
    p_tile_sums,  # ACC [tiles], dual only
    p_counters,  # int32 [tiles * groups + tiles + 1]
    p_value,  # ACC []
    p_loss,  # ACC [], to which weight * value is added, or None
    code_stride,
    n,
    d,
    splits,
    split_depth,  # a multiple of BLOCK_K
    tiles,  # on and below the diagonal
    weight,  # number, or pointer to a 0-d tensor
    WEIGHT_IS_POINTER: tl.constexpr,
    ADDS_TO_LOSS: tl.constexpr,
    DUAL: tl.constexpr,
    SINGLE: tl.constexpr,  # all of the matrix is one tile
    PRECISION: tl.constexpr,  # of the products: "tf32", "tf32x3" or "ieee"
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STRIP: tl.constexpr,  # rows of a tile that are added up or finished at a time
):
    """One triangle of S S^T or U^T U, every tile cut along its depth, sums added in a fixed order.

    The last program of a tile finishes it. For a SINGLE tile and for the dual form that is all: norms, gram and value
    are done in this launch. A primal matrix of many tiles is left as K, with the norms, for `finish_rows`.
    """
    program = tl.program_id(0)
    tile = program // splits
    split = program % splits
    side = d if DUAL else n
    depth = n if DUAL else d
    row = _row_of_triangle(tile)
    i = row * BLOCK
    j = (tile - row * (row + 1) // 2) * BLOCK
    begin = split * split_depth
    end = tl.minimum(depth, begin + split_depth)
    total = tl.zeros((BLOCK, BLOCK), dtype=ACC)
    for k in range(begin, end, BLOCK_K):
        left = _operand(p_code, p_norms, code_stride, i, side, k, end, DUAL, ACC, BLOCK, BLOCK_K)
        if SINGLE:
            right = left
        else:
            right = _operand(p_code, p_norms, code_stride, j, side, k, end, DUAL, ACC, BLOCK, BLOCK_K)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION, out_dtype=ACC)

    # The sums go through memory in strips from here on: a whole tile would not fit the registers twice.
    slots = p_partials + tile.to(tl.int64) * splits * (BLOCK * BLOCK)
    tl.store(slots + split * (BLOCK * BLOCK) + _strip(0, BLOCK, BLOCK), total)
    groups = (splits + GROUP - 1) // GROUP
    group = split // GROUP
    members = tl.minimum(GROUP, splits - group * GROUP)
    is_last = _arrives_last(p_counters + tile * groups + group, members)
    if is_last:
        _add_slots(slots + group * GROUP * (BLOCK * BLOCK), 1, members, ACC, BLOCK, STRIP)
        is_last = _arrives_last(p_counters + tiles * groups + tile, groups)
    if is_last:
        _add_slots(slots, GROUP, groups, ACC, BLOCK, STRIP)
        tl.debug_barrier()  # what a thread added up, before others read it
        wide_weight = scalar(weight, WEIGHT_IS_POINTER, ACC)
        if DUAL:
            trace = _nonzero(p_norms, n, ACC)
            _store_dual_tile(slots, p_gram, p_tile_sums + tile, quotient(trace, d), i, j, d, ACC, BLOCK, STRIP)
            if _arrives_last(p_counters + tiles * groups + tiles, tiles):
                isotropic = quotient(trace * (trace - d), d)
                value = quotient(isotropic + _sum_of(p_tile_sums, tiles, ACC, 128), _pairs(n, ACC))
                _store_value(p_value, p_loss, value, wide_weight, ADDS_TO_LOSS)
        elif SINGLE:
            value = quotient(_finish_primal(slots, p_norms, p_gram, n, ACC, BLOCK, STRIP), _pairs(n, ACC))
            _store_value(p_value, p_loss, value, wide_weight, ADDS_TO_LOSS)
        else:
            _store_primal_tile(slots, p_norms, p_gram, i, j, n, BLOCK, STRIP)


@triton.jit(do_not_specialize=["weight"])
def finish_rows(
    p_norms,  # ACC [n]
    p_gram,  # ACC [n, n]: K, overwritten with G - diag r
    p_row_sums,  # ACC [n]
    p_counter,  # int32 [1]
    p_value,  # ACC []
    p_loss,  # ACC [] or None
    n,
    weight,
    WEIGHT_IS_POINTER: tl.constexpr,
    ADDS_TO_LOSS: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The end of the primal form: from K and the norms to gram and value. ROWS rows by a program."""
    first = tl.program_id(0) * ROWS
    row = first + tl.arange(0, ROWS)
    inverse = _inverse(tl.load(p_norms + row, mask=row < n, other=0.0))[:, None]
    far = row.to(tl.int64)[:, None] * n
    row_sum = tl.zeros((ROWS,), dtype=ACC)
    for start in range(0, n, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = (row < n)[:, None] & (column < n)[None, :]
        other = _inverse(tl.load(p_norms + column, mask=column < n, other=0.0))[None, :]
        cosine = tl.load(p_gram + far + column[None, :], mask=inside, other=0.0) * inverse * other
        cosine = tl.where(row[:, None] == column[None, :], 0.0, cosine)
        row_sum += tl.sum(cosine * cosine, axis=1)
        tl.store(p_gram + far + column[None, :], cosine, mask=inside)
    tl.debug_barrier()  # the zeros on the diagonal, before what belongs there
    tl.store(p_gram + row.to(tl.int64) * n + row, -row_sum, mask=row < n)
    tl.store(p_row_sums + row, row_sum, mask=row < n)
    if _arrives_last(p_counter, tl.num_programs(0)):
        value = quotient(_sum_of(p_row_sums, n, ACC, 1024), _pairs(n, ACC))
        _store_value(p_value, p_loss, value, scalar(weight, WEIGHT_IS_POINTER, ACC), ADDS_TO_LOSS)


@triton.jit(do_not_specialize=["n"])
def row_norms(
    p_code,  # [n, d]
    p_norms,  # ACC [n]
    code_stride,
    n,
    d,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The lengths of the codes."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = tl.arange(0, ROWS)
    squares = tl.zeros((ROWS, BLOCK), dtype=ACC)
    for start in range(0, d, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = (first + row < n)[:, None] & (column < d)[None, :]
        offset = (row.to(tl.int64) * code_stride)[:, None] + column[None, :]
        value = tl.load(p_code + first * code_stride + offset, mask=inside, other=0.0).to(ACC)
        squares += value * value
    tl.store(p_norms + first + row, root(tl.sum(squares, axis=1)), mask=first + row < n)
