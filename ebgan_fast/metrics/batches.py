"""The number of pieces of work that run together: they keep a device busy and fit its memory."""

from __future__ import annotations

import os

import torch

_SHARE = 4  # of the memory, one part may be taken


def most_at_once(device: torch.device, bytes_each: int, most: int) -> int:
    """Return the number of pieces of work that may run together: `most`, or fewer, at least 1, where memory is short.

    Together they take at most a quarter of what a GPU has free, or of all that a CPU has. The CPU's number doesn't
    change while a run goes on, so neither do its scores' last digits. A GPU's may.
    """
    memory = _memory(device)
    return most if memory is None else max(1, min(most, memory // (_SHARE * bytes_each)))


def _memory(device: torch.device) -> int | None:
    """The memory in bytes; None where nobody says."""
    if device.type == "cuda":
        # What torch has reserved and not given out is free for the work, though not for other programs.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, and systems that don't name them
        return None
