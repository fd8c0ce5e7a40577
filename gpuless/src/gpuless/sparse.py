"""Arrays of more elements than 32 bits count, in the memory that is written to.

One block of a file is mapped again and again, copy on write: all elements read as `fill` until one is written, and then
its page costs memory. On either side lies as much forbidden address space as an int32 index can reach, so that an
offset cut to 32 bits ends the process or lands on `fill`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import ArrayLike, array_at, contiguous_strides, element_bytes, extent, itemsize
from .memory import Memory

_BLOCK = 2 << 20  # bytes; 8 GiB are 4,096 mappings of it, of the 65,530 that Linux allows a process


def sparse(
    shape: Sequence[int], dtype: Any, strides: Sequence[int] | None = None, *, fill: float | None = None
) -> ArrayLike:
    """An array of any size that ends where forbidden memory begins: a tensor, if dtype is torch's.

    strides are in elements. Without `fill`, its bytes are all ones: NaN, or -1. It holds memory for the pages that are
    written, so fill or reduce none of it whole. OSError where the system has no such memory (Linux has).
    """
    strides = contiguous_strides(shape) if strides is None else strides
    size = itemsize(dtype)
    nbytes = extent(shape, strides) * size
    element = b"\xff" * size if fill is None else element_bytes(dtype, fill)
    count = -(-nbytes // _BLOCK)
    around = 2**31 * size  # an int32 index reaches as far to either side
    memory = Memory()
    end = memory.repeated(element * (_BLOCK // size), count, around) + count * _BLOCK
    return array_at(memory, end - nbytes, shape, dtype, strides)
