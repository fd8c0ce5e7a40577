"""The process's memory: keeping freed blocks between training steps, and the peak that a run has reached.

glibc returns large freed blocks to the system (always those above 32 MB). A tensor of the next step then costs a page
fault for every 4 KB. On a virtual machine, a fresh tensor of 48 MB filled at 1.5 GB/s and a reused one at 13
(docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

import torch

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

_NEVER = 2**31 - 1
_TOP_PAD = 64 << 20  # bytes to ask the system for at a time


def keep_freed_memory() -> bool:
    """Make the C allocator keep freed memory, and serve large blocks from it.

    This affects the whole process: memory, once used, is not returned to the system before the process ends. The
    training program calls this function. `import ebgan_fast` never does.

    Returns:
        True if the allocator accepted the settings. Only glibc does; others stay unchanged.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS lack mallopt; on Windows, CDLL(None) fails
        return False
    settings = ((_M_MMAP_THRESHOLD, _NEVER), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD))
    return all([mallopt(name, value) == 1 for name, value in settings])


def peak_memory(device: torch.device) -> float:
    """Return the most memory that the run has held, in GB: torch's on a GPU, else the process's; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
