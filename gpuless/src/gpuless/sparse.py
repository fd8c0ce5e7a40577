"""Tensors of more elements than 32 bits count, in the memory that is written to.

One block of a file is mapped again and again, copy on write: all elements read as `fill` until one is written, and then
its page costs memory. On either side lies as much forbidden address space as an int32 index can reach, so that an
offset cut to 32 bits ends the process or lands on `fill`.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .memory import Memory

_BLOCK = 2 << 20  # bytes; 8 GiB are 4,096 mappings of it, of the 65,530 that Linux allows a process


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to the last, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(1, size))
    return tuple(strides[::-1][: len(shape)])


def tensor_at(memory: Memory, address: int, shape: Sequence[int], dtype: torch.dtype, strides: Sequence[int]) -> Tensor:
    """A tensor over memory of ours, which is given back with the last tensor that shares it."""
    nbytes = extent(shape, strides) * dtype.itemsize
    if nbytes == 0:
        memory.release()
        return torch.empty_strided(tuple(shape), tuple(strides), dtype=dtype)
    block = (ctypes.c_byte * nbytes).from_address(address)
    weakref.finalize(block, memory.release)
    return torch.frombuffer(block, dtype=dtype).as_strided(tuple(shape), tuple(strides))


def sparse(
    shape: Sequence[int], dtype: torch.dtype, strides: Sequence[int] | None = None, *, fill: float | None = None
) -> Tensor:
    """A tensor of any size that ends where forbidden memory begins. Without `fill`, its bytes are all ones: NaN, or -1.

    It holds memory for the pages that are written, so fill or reduce none of it whole.
    """
    strides = contiguous_strides(shape) if strides is None else strides
    nbytes = extent(shape, strides) * dtype.itemsize
    blocks = -(-nbytes // _BLOCK)
    around = 2**31 * dtype.itemsize  # an int32 index reaches as far to either side
    memory = Memory()
    end = memory.repeated(_filled(dtype, fill), blocks, around) + blocks * _BLOCK
    return tensor_at(memory, end - nbytes, shape, dtype, strides)


def _filled(dtype: torch.dtype, fill: float | None) -> bytes:
    if fill is None:
        return b"\xff" * _BLOCK
    element = torch.full((1,), fill, dtype=dtype).view(torch.uint8).numpy()
    return np.tile(element, _BLOCK // dtype.itemsize).tobytes()
