"""The Triton kernel that multiplies gradients by upstream / expected, which only the device knows.

Arguments: p_ marks a pointer. A gradient is one run of numbers, in any order. ACC is float64 for float64 gradients,
else float32. Counts may exceed 2^31: offsets of blocks are 64-bit scalars, and only offsets within a block are 32-bit
vectors.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic_kernels import quotient, scalar


@triton.jit
def _scale(p_from, p_to, count, factor, ACC: tl.constexpr, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * BLOCK
    step = tl.num_programs(0).to(tl.int64) * BLOCK
    column = tl.arange(0, BLOCK)
    for start in range(first, count, step):
        inside = column < count - start
        value = tl.load(p_from + start + column, mask=inside).to(ACC) * factor
        tl.store(p_to + start + column, value.to(p_to.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["expected"])
def multiply_gradients(
    p_upstream,  # [], any float dtype
    expected,  # number, or pointer to a 0-d tensor
    p_from_0,  # [count_0], or None, like those below
    p_from_1,
    p_from_2,
    p_from_3,
    p_to_0,  # [count_0]: another tensor, or with IN_PLACE the same tensor
    p_to_1,
    p_to_2,
    p_to_3,
    count_0,
    count_1,
    count_2,
    count_3,
    EXPECTED_IS_POINTER: tl.constexpr,
    IN_PLACE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write each `to` = upstream / expected * `from`, rounded once, for up to four gradients.

    If upstream equals expected, the factor is 1, even if both are 0, and with IN_PLACE nothing is written.
    """
    wide_upstream = tl.load(p_upstream).to(ACC)
    wide_expected = scalar(expected, EXPECTED_IS_POINTER, ACC)
    if not IN_PLACE or wide_upstream != wide_expected:
        factor = tl.where(wide_upstream == wide_expected, 1.0, quotient(wide_upstream, wide_expected))
        if p_from_0 is not None:
            _scale(p_from_0, p_to_0, count_0, factor, ACC, BLOCK)
        if p_from_1 is not None:
            _scale(p_from_1, p_to_1, count_1, factor, ACC, BLOCK)
        if p_from_2 is not None:
            _scale(p_from_2, p_to_2, count_2, factor, ACC, BLOCK)
        if p_from_3 is not None:
            _scale(p_from_3, p_to_3, count_3, factor, ACC, BLOCK)
