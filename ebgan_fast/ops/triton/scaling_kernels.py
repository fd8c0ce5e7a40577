"""The Triton kernel that multiplies gradients of upstream 1 by the upstream gradient, which only the device knows.

Arguments: p_ is a pointer. A gradient is one run of numbers, in any order. ACC is float32, or float64 for float64
gradients. Counts may go past 2^31: offsets of blocks are 64-bit scalars, and only those within a block 32-bit vectors.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _scale(p_from, p_to, count, upstream, ACC: tl.constexpr, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * BLOCK
    step = tl.num_programs(0).to(tl.int64) * BLOCK
    column = tl.arange(0, BLOCK)
    for start in range(first, count, step):
        inside = column < count - start
        value = tl.load(p_from + start + column, mask=inside).to(ACC) * upstream
        tl.store(p_to + start + column, value.to(p_to.dtype.element_ty), mask=inside)


@triton.jit
def multiply_gradients(
    p_upstream,  # ACC []
    p_from_0,  # [count_0], or None, as those below
    p_from_1,
    p_from_2,
    p_from_3,
    p_to_0,  # [count_0]: another tensor, or IN_PLACE the same
    p_to_1,
    p_to_2,
    p_to_3,
    count_0,
    count_1,
    count_2,
    count_3,
    IN_PLACE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """to = upstream * from for up to four gradients, rounded once. In place, an upstream of 1 moves nothing."""
    upstream = tl.load(p_upstream)
    if not IN_PLACE or upstream != 1:
        if p_from_0 is not None:
            _scale(p_from_0, p_to_0, count_0, upstream, ACC, BLOCK)
        if p_from_1 is not None:
            _scale(p_from_1, p_to_1, count_1, upstream, ACC, BLOCK)
        if p_from_2 is not None:
            _scale(p_from_2, p_to_2, count_2, upstream, ACC, BLOCK)
        if p_from_3 is not None:
            _scale(p_from_3, p_to_3, count_3, upstream, ACC, BLOCK)
