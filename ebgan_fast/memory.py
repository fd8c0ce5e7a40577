"""Memory that the process keeps, so that a training step does not map it anew, and how much it took.

glibc returns large freed blocks to the system (always those above 32 MB), and a tensor of the next step then costs a
page fault for every 4 KB: on a virtual machine, a fresh tensor of 48 MB filled at 1.5 GB/s and a warm one at 13
(docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

import torch

# Names and numbers of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

_NEVER = 2**31 - 1
_TOP_PAD = 64 << 20  # ask the system for this much at a time


def keep_freed_memory() -> bool:
    """Tell the C allocator to keep what is freed, and to serve large blocks from it.

    This is a decision about the whole process: memory, once used, is not returned to the system before it ends. The
    training program takes it for itself; `import ebgan_fast` never does.

    Returns:
        True if this system's allocator could be told so. glibc can, others are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS lack the function, Windows the library of the process
        return False
    settings = ((_M_MMAP_THRESHOLD, _NEVER), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD))
    return all([mallopt(name, value) == 1 for name, value in settings])


def peak_memory(device: torch.device) -> float:
    """Most memory that the run has held so far, in GB: torch's on a GPU, the process's on the CPU; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
