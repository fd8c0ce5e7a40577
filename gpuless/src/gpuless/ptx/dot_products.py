"""Compute sums as a tensor core does.

NVIDIA documents little of it. The rules here were measured on an A100 (Fasi, Higham, Mikaitis and Pranesh, Numerical
behavior of NVIDIA tensor cores, PeerJ Computer Science 7:e330, 2021):

* Products are exact.
* Products are added to the accumulator in groups: 8 at a time for 16-bit numbers, 4 for tf32.
* Before each addition, every summand is shifted to the largest exponent. It keeps one bit more than float32 does, and
  the lower bits are cut off.
* The sum is cut to float32.

Later GPUs keep more bits and add more products at a time. So this is the least exact of the GPUs that run the same PTX.
"""

from __future__ import annotations

import numpy as np

from .formats import Array

_SUMMANDS = {"f16": 8, "bf16": 8, "tf32": 4}
_KEPT = 2.0**24  # in units of the leading bit: the 23 bits that float32 has after it, and one more
_EXPONENT = np.uint64(0x7FF0000000000000)
_FLOAT32_PART = np.uint64(0xFFFFFFFFE0000000)


def _leading_bit(values: Array) -> Array:
    """Return 2^e for a number 1.xxx * 2^e, and 0 for 0."""
    return (values.view(np.uint64) & _EXPONENT).view(np.float64)


def dot(a: Array, b: Array, c: Array, kind: str) -> Array:
    """Return c + a b^T for each warp, float32 [warps, M, N].

    a is float64 [warps, M, K], b float64 [warps, N, K], c float32 [warps, M, N].
    """
    # The summed axis comes first: NumPy is several times slower on a short last axis.
    left = np.ascontiguousarray(a.transpose(2, 0, 1))[:, :, :, None]
    right = np.ascontiguousarray(b.transpose(2, 0, 1))[:, :, None, :]
    products, leading = left * right, _leading_bit(left) * _leading_bit(right)
    total = c.astype(np.float64)
    for first in range(0, len(products), _SUMMANDS[kind]):
        part = slice(first, first + _SUMMANDS[kind])
        largest = np.maximum(leading[part].max(0), _leading_bit(total))
        scale = np.where(largest == 0, 1.0, _KEPT / largest)
        summands = np.trunc(products[part] * scale)
        total = (summands.sum(0) + np.trunc(total * scale)) / scale
        total = (total.view(np.uint64) & _FLOAT32_PART).view(np.float64)
    result = total.astype(np.float32)
    if not np.isfinite(result).all():
        exact = products.sum(0) + c
        result = np.where(np.isfinite(exact), result, exact.astype(np.float32))
    return result
