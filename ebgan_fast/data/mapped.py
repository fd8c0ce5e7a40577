"""Map a file as a tensor, whose bytes the system reads from the disk when they are used."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import warnings
import weakref
from pathlib import Path

import torch
from torch import Tensor


def mapped(path: Path, size: int) -> Tensor:
    """Map a file as a uint8 tensor [size], which must only be read: a write kills the process.

    The pages are read-only. Writable pages, such as those of `torch.from_file`, count as memory that the process might
    use, so that a strict limit would refuse a set larger than the machine's memory. The file isn't kept open, as
    Python's `mmap` would keep it: a set of many shards would run out of file descriptors. The file may be removed; its
    bytes stay until the tensor is freed.

    Args:
        path: the file.
        size: the number of its bytes, at least 1.

    Raises:
        OSError: the file can't be opened or mapped. The error names the file.
    """
    with path.open("rb") as file:
        if sys.platform == "win32":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns that the memory can't be written
                return torch.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), dtype=torch.uint8)
        return _map(file.fileno(), size, path)


def _map(descriptor: int, size: int, path: Path) -> Tensor:
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
    system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = system.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    pages = (ctypes.c_ubyte * size).from_address(address)  # the tensor's storage keeps this object alive
    # Not unmapped when the process ends: a thread may still read.
    weakref.finalize(pages, system.munmap, address, size).atexit = False
    return torch.frombuffer(pages, dtype=torch.uint8)
