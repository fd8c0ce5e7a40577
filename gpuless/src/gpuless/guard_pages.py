"""Arrays next to forbidden memory: an access one element too far, read or write, ends the process with SIGSEGV.

The access itself is caught, whatever code makes it: for example a kernel compiled as C++, or Triton's interpreter.
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
_ALL_ONES = 0xFF  # this byte makes NaN in every floating-point dtype, and -1 in an integer


def poisoned(
    shape: Sequence[int], dtype: Any, strides: Sequence[int] | None = None, *, begins: bool = False
) -> ArrayLike:
    """Return an array that ends right before forbidden memory, or begins right behind it.

    All bytes are ones, also those between the elements: NaN, or -1 for integers. On the array's other side, bytes up to
    the next page can be touched without a fault. Where the array's size is a multiple of 16 bytes, or with `begins`,
    its address is a multiple of 16. Elsewhere the address is a multiple of the element size.

    Args:
        shape: The shape of the array.
        dtype: The dtype. With one of torch's, the result is a tensor.
        strides: The strides, in elements; None for an array without gaps.
        begins: If True, the first element lies right behind forbidden memory, in place of the last one before it.
    """
    strides = contiguous_strides(shape) if strides is None else strides
    nbytes = extent(shape, strides) * itemsize(dtype)
    if nbytes > _SPARSE_FROM:
        return sparse(shape, dtype, strides)
    inside = max(1, -(-nbytes // mmap.PAGESIZE)) * mmap.PAGESIZE
    memory = Memory()
    start = memory.guarded(inside)  # whole pages have forbidden memory at both ends
    ctypes.memset(start, _ALL_ONES, inside)
    return array_at(memory, start if begins else start + inside - nbytes, shape, dtype, strides)


def guarded(values: ArrayLike, *, begins: bool = False) -> ArrayLike:
    """Return a copy with the same strides, placed like an array of `poisoned`. NaN lies between the elements.

    Args:
        values: The array or tensor to copy.
        begins: If True, the first element lies right behind forbidden memory, in place of the last one before it.
    """
    strides = element_strides(values)
    copy = poisoned(values.shape, values.dtype, strides, begins=begins)
    distinct = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)  # expanded dimensions once
    copy[distinct] = (values.detach() if arrays.is_torch(values.dtype) else values)[distinct]
    return copy


def faults(touch: Callable[[], object]) -> bool:
    """Return True if `touch` accesses forbidden memory. It runs in a child process, which the access ends."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        touch()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def is_forbidden(array: ArrayLike, offset: int) -> bool:
    """Return True if the byte that lies `offset` elements behind the array's first cannot be read."""
    return not is_readable(arrays.address(array) + offset * itemsize(array.dtype))


@contextmanager
def guarded_allocations() -> Iterator[None]:
    """Let every CPU tensor that torch makes inside the `with` block end at forbidden memory. Its strides stay the same.

    Memory that is allocated without a value (torch.empty and its kin) holds NaN, or -1, so an output that nothing
    writes is seen.
    """
    from .allocations import GuardedAllocations

    with GuardedAllocations():
        yield
