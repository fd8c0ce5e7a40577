"""Arrays beside forbidden memory: one element too far, read or written, ends the process with SIGSEGV.

Whatever runs on such an array, a kernel built as C++ or Triton's interpreter, is caught at the access itself.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import arrays
from .arrays import ArrayLike, array_at, contiguous_strides, element_strides, extent, itemsize
from .memory import Memory, is_readable
from .sparse import sparse

_SPARSE_FROM = 256 << 20  # bytes
_ALL_ONES = 0xFF  # the byte of a NaN in every floating-point dtype; of -1 in an integer


def poisoned(
    shape: Sequence[int], dtype: Any, strides: Sequence[int] | None = None, *, begins: bool = False
) -> ArrayLike:
    """An array whose last element touches forbidden memory: or the first, if it `begins` there.

    It is a tensor if dtype is torch's. strides are in elements. It holds NaN, or -1, also between its elements; what
    lies on its other side, up to the next page, can be touched unseen.

    Its address is a multiple of 16 where its size is, or where it begins at the page: of its element size elsewhere.
    """
    strides = contiguous_strides(shape) if strides is None else strides
    nbytes = extent(shape, strides) * itemsize(dtype)
    if nbytes > _SPARSE_FROM:
        return sparse(shape, dtype, strides)
    inside = max(1, -(-nbytes // mmap.PAGESIZE)) * mmap.PAGESIZE
    memory = Memory()
    start = memory.guarded(inside)  # whole pages have a guard at either end
    ctypes.memset(start, _ALL_ONES, inside)
    return array_at(memory, start if begins else start + inside - nbytes, shape, dtype, strides)


def guarded(values: ArrayLike, *, begins: bool = False) -> ArrayLike:
    """A copy with the same strides, placed as by `poisoned`: NaN lies between its elements."""
    strides = element_strides(values)
    copy = poisoned(values.shape, values.dtype, strides, begins=begins)
    distinct = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)  # expanded dimensions
    copy[distinct] = (values.detach() if arrays.is_torch(values.dtype) else values)[distinct]
    return copy


def faults(touch: Callable[[], object]) -> bool:
    """Return True if it touches forbidden memory: in a child process, which ends there."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        touch()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def is_forbidden(array: ArrayLike, offset: int) -> bool:
    """Return True if a byte so many elements from the array's first cannot be read."""
    return not is_readable(arrays.address(array) + offset * itemsize(array.dtype))


@contextmanager
def guarded_allocations() -> Iterator[None]:
    """Every CPU tensor of torch that is made meanwhile ends at forbidden memory, with the strides it would have had.

    What is allocated without a value (torch.empty and its kin) is NaN, or -1: an output that nobody writes shows.
    """
    from .allocations import GuardedAllocations

    with GuardedAllocations():
        yield
