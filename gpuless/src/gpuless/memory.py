"""Memory mapped next to forbidden pages: a process that touches a forbidden page ends.

A mapped page costs memory only after its first write.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

_C = ctypes.CDLL(None, use_errno=True)
_C.mmap.restype = ctypes.c_void_p
_C.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_C.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_C.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_C.write.restype = ctypes.c_ssize_t
_C.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
_MAP_NORESERVE = 0x4000  # Linux's value; the mmap module has no name for it before Python 3.13
_MAP_FIXED = 0x10  # Linux's value; the mmap module has no name for it
_NO_ACCESS = 0


class Memory:
    """Ranges of address space that are freed together, by `release`."""

    def __init__(self) -> None:
        self._maps: list[tuple[int, int]] = []

    def guarded(self, nbytes: int, *, begins: bool = False) -> int:
        """Return the address of `nbytes` bytes that end right before forbidden memory, or with `begins` start right
        behind it.

        On the other side, bytes up to the next page can be touched without a fault.
        """
        page = mmap.PAGESIZE
        inside = -(-nbytes // page) * page
        start = self._map(inside + 2 * page)
        for guard in (start, start + page + inside):
            _forbid(guard, page)
        return start + page + (0 if begins else inside - nbytes)

    def reserved(self, nbytes: int) -> int:
        """Return the address of `nbytes` zeros, which cost memory only where they are written."""
        return self._map(nbytes, _MAP_NORESERVE)

    def repeated(self, block: bytes, count: int, around: int) -> int:
        """Return the address of `count` copies of a block, with `around` forbidden bytes before and behind them.

        The block must fill whole pages. Each copy is one mapping, of the 65,530 that Linux allows a process. It costs
        memory only where it is written.
        """
        inside = len(block) * count
        start = self.reserved(inside + 2 * around)
        _forbid(start, inside + 2 * around)
        file = os.memfd_create("block")
        try:
            os.write(file, block)
            for at in range(start + around, start + around + inside, len(block)):
                flags = mmap.MAP_PRIVATE | _MAP_FIXED
                if _C.mmap(at, len(block), mmap.PROT_READ | mmap.PROT_WRITE, flags, file, 0) != at:
                    raise OSError(ctypes.get_errno(), f"mmap of {inside} bytes in blocks of {len(block)}")
        finally:
            os.close(file)
        return start + around

    def release(self) -> None:
        for start, nbytes in self._maps:
            _C.munmap(start, nbytes)
        self._maps.clear()

    def _map(self, nbytes: int, flags: int = 0) -> int:
        writable = mmap.PROT_READ | mmap.PROT_WRITE
        start = _C.mmap(None, nbytes, writable, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags, -1, 0)
        if start == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), f"no address space for {nbytes} bytes")
        self._maps.append((start, nbytes))
        return int(start)


def _forbid(address: int, nbytes: int) -> None:
    if _C.mprotect(address, nbytes, _NO_ACCESS):
        raise OSError(ctypes.get_errno(), "mprotect")


def is_readable(address: int) -> bool:
    """Return True if the byte at this address can be read.

    The system is asked to copy the byte into a pipe, which takes 20 µs. Trying it in a fork would take 0.1 s in a
    process of 1 GB.
    """
    out, into = os.pipe()
    try:
        if _C.write(into, address, 1) == 1:
            return True
        if ctypes.get_errno() != errno.EFAULT:
            raise OSError(ctypes.get_errno(), f"write of the byte at {address:#x}")
        return False
    finally:
        os.close(out)
        os.close(into)
