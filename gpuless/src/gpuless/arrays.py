"""Memory of NumPy arrays and of torch's CPU tensors. Importing this module does not import torch."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from .memory import Memory

ArrayLike: TypeAlias = Any
"""A numpy.ndarray, or a torch.Tensor on the CPU. NumPy has no bfloat16, so bfloat16 data comes as a tensor."""


def is_array(value: object) -> bool:
    """Return True for a NumPy array or a torch tensor, and False for a NumPy scalar, which counts as a number."""
    return isinstance(value, np.ndarray) or hasattr(value, "data_ptr")


def address(array: ArrayLike) -> int:
    """Return the address of the first element. Raise TypeError for a tensor that isn't on the CPU."""
    if isinstance(array, np.ndarray):
        return int(array.__array_interface__["data"][0])
    if array.device.type != "cpu":
        raise TypeError(f"got a tensor on {array.device}, expected one on the CPU: tensor.cpu()")
    return int(array.data_ptr())


def is_writable(array: ArrayLike) -> bool:
    """Return False if the array is a read-only NumPy array."""
    return not isinstance(array, np.ndarray) or bool(array.flags.writeable)


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return the number of elements from the first to the last, both included. Strides are in elements."""
    if 0 in shape:
        return 0
    if any(stride < 0 for stride in strides):
        raise ValueError(f"strides: got {tuple(strides)}, expected none below zero: copy the array")
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def extent_of(array: ArrayLike) -> int:
    """Return the number of bytes from the first element to the end of the last."""
    if isinstance(array, np.ndarray):
        if array.size == 0:
            return 0
        return extent(array.shape, array.strides) - 1 + array.itemsize
    return extent(array.shape, array.stride()) * int(array.element_size())


def element_strides(array: ArrayLike) -> tuple[int, ...]:
    """Return the strides in elements. Raise ValueError if a stride is not a whole number of elements."""
    if not isinstance(array, np.ndarray):
        return tuple(array.stride())
    if any(stride % array.itemsize for stride in array.strides):
        raise ValueError(
            f"strides: got {array.strides} bytes, expected multiples of the {array.itemsize} of an element"
        )
    return tuple(stride // array.itemsize for stride in array.strides)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of an array without gaps whose last dimension is the innermost."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(1, size))
    return tuple(strides[::-1][: len(shape)])


def is_torch(dtype: object) -> bool:
    """Return True if `dtype` is torch's, and False if it is one for numpy.dtype."""
    return type(dtype).__module__ == "torch"


def itemsize(dtype: Any) -> int:
    """Return the bytes of one element, for a dtype of NumPy or torch."""
    return int(dtype.itemsize if is_torch(dtype) else np.dtype(dtype).itemsize)


def element_bytes(dtype: Any, value: float) -> bytes:
    """Return the bytes of one element that holds `value`."""
    if is_torch(dtype):
        import torch

        return torch.full((1,), value, dtype=dtype).view(torch.uint8).numpy().tobytes()
    return np.full(1, value, dtype).tobytes()


def array_at(memory: Memory, address: int, shape: Sequence[int], dtype: Any, strides: Sequence[int]) -> ArrayLike:
    """Return an array over the bytes at `address`, or a tensor if `dtype` is torch's.

    `memory` is released when the last array that shares these bytes is gone.
    """
    nbytes = extent(shape, strides) * itemsize(dtype)
    if nbytes == 0:
        memory.release()
        return _empty(shape, dtype, strides)
    block = (ctypes.c_byte * nbytes).from_address(address)
    weakref.finalize(block, memory.release)
    if is_torch(dtype):
        import torch

        return torch.frombuffer(block, dtype=dtype).as_strided(tuple(shape), tuple(strides))
    of_bytes = tuple(stride * itemsize(dtype) for stride in strides)
    return np.ndarray(tuple(shape), dtype, memoryview(block), strides=of_bytes)


def _empty(shape: Sequence[int], dtype: Any, strides: Sequence[int]) -> ArrayLike:
    if is_torch(dtype):
        import torch

        return torch.empty_strided(tuple(shape), tuple(strides), dtype=dtype)
    return np.empty(tuple(shape), dtype)


def copy(array: ArrayLike) -> ArrayLike:
    """Return a copy in other memory."""
    return array.copy() if isinstance(array, np.ndarray) else array.detach().clone()


def fill_from(array: ArrayLike, values: ArrayLike) -> None:
    """Write `values` to all elements. An array that cannot be written is left alone: read-only, or with stride 0."""
    if isinstance(array, np.ndarray):
        if array.flags.writeable:
            array[...] = values
    elif not any(stride == 0 and size > 1 for size, stride in zip(array.shape, array.stride(), strict=True)):
        array.detach().copy_(values)


def same_bytes(array: ArrayLike, other: ArrayLike) -> bool:
    """Return True if all elements have the same bits: a NaN equals itself."""
    if isinstance(array, np.ndarray):
        return bool(array.tobytes() == other.tobytes())
    import torch

    one, two = (each.detach().reshape(-1).view(torch.uint8) for each in (array, other))
    return bool(torch.equal(one, two))
