"""Arrays with more than 2^31 elements that cost only the memory that is written.

One block of a file is mapped many times, copy on write. All elements read as `fill` until one is written, and only then
does its page cost memory. On both sides lies as much forbidden address space as an int32 index can reach. An offset
that was cut to 32 bits therefore ends the process, or lands on `fill`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import ArrayLike, array_at, contiguous_strides, element_bytes, extent, itemsize
from .memory import Memory

_BLOCK = 2 << 20  # bytes; an array of 8 GiB is 4,096 mappings, of the 65,530 that Linux allows a process


def sparse(
    shape: Sequence[int], dtype: Any, strides: Sequence[int] | None = None, *, fill: float | None = None
) -> ArrayLike:
    """Return an array of any size that ends right before forbidden memory.

    Don't fill or reduce the whole array: every page that is written costs memory.

    Args:
        shape: The shape of the array.
        dtype: The dtype. With one of torch's, the result is a tensor.
        strides: The strides, in elements; None for an array without gaps.
        fill: The value of every element that was not written. None sets all bits: NaN, or -1.

    Raises:
        OSError: If the system cannot map such memory. Linux can.
    """
    strides = contiguous_strides(shape) if strides is None else strides
    size = itemsize(dtype)
    nbytes = extent(shape, strides) * size
    element = b"\xff" * size if fill is None else element_bytes(dtype, fill)
    count = -(-nbytes // _BLOCK)
    around = 2**31 * size  # an int32 index reaches this far to both sides
    memory = Memory()
    end = memory.repeated(element * (_BLOCK // size), count, around) + count * _BLOCK
    return array_at(memory, end - nbytes, shape, dtype, strides)
