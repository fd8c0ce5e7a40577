"""The sums of a tensor core.

NVIDIA documents little. Measured on an A100 (Fasi, Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor
cores, PeerJ Computer Science 7:e330, 2021): products are exact; 8 of 16-bit numbers, or 4 of tf32, are added to the
accumulator at a time; before that every summand is shifted to the largest exponent, with one bit more than float32
keeps, and what falls off the end is cut off; the sum is cut to float32. Later GPUs keep more bits and add more at a
time, so this is the least exact of those that run the same PTX.
"""

from __future__ import annotations

import numpy as np

from .formats import Array

_SUMMANDS = {"f16": 8, "bf16": 8, "tf32": 4}
_KEPT = 2.0**24  # in units of the leading bit: float32's 23 bits after it and one more
_EXPONENT = np.uint64(0x7FF0000000000000)
_FLOAT32_PART = np.uint64(0xFFFFFFFFE0000000)


def _leading_bit(values: Array) -> Array:
    """2^e of 1.xxx * 2^e, and 0 of 0."""
    return (values.view(np.uint64) & _EXPONENT).view(np.float64)


def dot(a: Array, b: Array, c: Array, kind: str) -> Array:
    """float64 [warps, M, K] and [warps, N, K], float32 [warps, M, N] -> c + a b^T, float32 [warps, M, N]."""
    # The axis that is summed comes first: numpy is several times slower on a short last one.
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
