"""Arrays at chosen addresses, in the four dtypes of the kernels, with checks of the memory beside them."""

from __future__ import annotations

import ctypes
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

import gpuless.memory

Array = NDArray[Any]

_C = ctypes.CDLL(None)  # under LD_PRELOAD, its malloc is AddressSanitizer's
_C.malloc.restype = ctypes.c_void_p
_C.malloc.argtypes = [ctypes.c_size_t]
_C.free.argtypes = [ctypes.c_void_p]


@dataclass(frozen=True)
class Format:
    """The properties of a dtype: its code in the kernels, numpy's storage, epsilon and least positive number."""

    name: str
    code: int
    storage: type[np.generic]
    eps: float
    tiny: float

    @property
    def itemsize(self) -> int:
        return int(np.dtype(self.storage).itemsize)

    def encode(self, values: Array | float) -> Array:
        if self.storage is not np.uint16:
            return np.asarray(values).astype(self.storage)
        bits = np.asarray(values).astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

    def decode(self, stored: Array) -> Array:
        if self.storage is np.uint16:
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float64)


FLOAT64 = Format("float64", 0, np.float64, 2.0**-52, 2.0**-1074)
FLOAT32 = Format("float32", 1, np.float32, 2.0**-23, 2.0**-149)
BFLOAT16 = Format("bfloat16", 2, np.uint16, 2.0**-7, 2.0**-133)
FLOAT16 = Format("float16", 3, np.float16, 2.0**-10, 2.0**-24)
FORMATS = (FLOAT64, FLOAT32, BFLOAT16, FLOAT16)


def accumulator(fmt: Format) -> Format:
    return FLOAT64 if fmt is FLOAT64 else FLOAT32


@dataclass
class Memory:
    """The allocations of one case, with malloc or beside guard pages.

    AddressSanitizer puts a redzone on both sides of memory from malloc. A guard page ends the process when it is
    touched. It also shows what AddressSanitizer misses: intrinsics that store past the cache or load under a mask.
    """

    guard_pages: bool
    _side: random.Random = field(default_factory=lambda: random.Random(0))
    _blocks: list[int] = field(default_factory=list)
    _pages: gpuless.memory.Memory = field(default_factory=gpuless.memory.Memory)

    def take(self, nbytes: int) -> int:
        if not self.guard_pages:
            self._blocks.append(_C.malloc(nbytes))
            return self._blocks[-1]
        # Only one end can lie at a guard page, unless the size is whole pages.
        return self._pages.guarded(nbytes, begins=self._side.choice((True, False)))

    def sparse(self, nbytes: int) -> int:
        """Return the address of memory that costs only the pages that are written."""
        return self._pages.reserved(nbytes)

    def release(self) -> None:
        for block in self._blocks:
            _C.free(block)
        self._blocks.clear()
        self._pages.release()


SENTINEL = 77.0
_SPARSE_FROM = 2**30  # elements


class Rows:
    """Rows of an array: n rows of k elements, with `gap` elements between them and `shift` elements before the first.

    An input, which has values, lies among NaN, so that a read outside the rows spoils the result. An output starts as
    NaN among sentinels, which shows elements that are not written, and writes outside the rows.
    """

    def __init__(
        self, memory: Memory, fmt: Format, shape: tuple[int, int], values: Array | None, gap: int = 0, shift: int = 0
    ) -> None:
        n, k = shape
        self.format, self.stride = fmt, k + gap
        count = shift + (max(n - 1, 0) * self.stride + k if n else 0)
        self._is_sparse = count > _SPARSE_FROM
        start = (memory.sparse if self._is_sparse else memory.take)(count * fmt.itemsize)
        self.address = start + shift * fmt.itemsize
        block = (ctypes.c_byte * (count * fmt.itemsize)).from_address(start)
        self._flat: Array = np.frombuffer(block, fmt.storage)
        self._outside = fmt.encode(SENTINEL if values is None else np.nan)
        if not self._is_sparse:
            self._flat[:] = self._outside
        self._rows = as_strided(self._flat[shift:], shape, (self.stride * fmt.itemsize, fmt.itemsize))
        self._given = None if values is None else fmt.encode(values.reshape(shape))
        self._rows[:] = fmt.encode(np.nan) if self._given is None else self._given

    def write(self, values: Array | float) -> None:
        """Put values into an output that a kernel adds to."""
        self._rows[:] = self.format.encode(values)

    def read(self) -> Array:
        return self.format.decode(self._rows)

    def check(self, what: str) -> None:
        """Check that every output element is written, and that every input and all memory outside the rows is
        unchanged."""
        if self._given is None:
            unwritten = np.argwhere(np.isnan(self.read()))
            assert not len(unwritten), f"{what}: {len(unwritten)} elements not written (or NaN), first {unwritten[0]}"
        else:
            assert self._rows.tobytes() == self._given.tobytes(), f"{what}: a kernel wrote to its input"
        if not self._is_sparse:
            kept = self._rows.copy()
            self._rows[:] = self._outside
            changed = np.flatnonzero(
                self._flat.view(np.uint8) != np.full_like(self._flat, self._outside).view(np.uint8)
            )
            assert not len(changed), f"{what}: wrote outside the rows, first at byte {changed[0]} of the allocation"
            self._rows[:] = kept
