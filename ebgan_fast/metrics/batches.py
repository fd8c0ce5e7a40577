"""Choose how many pieces of work run together, so that they keep a device busy and fit in its memory."""

from __future__ import annotations

import os

import torch

_SHARE = 4  # a quarter of the memory may be taken


def most_at_once(device: torch.device, bytes_each: int, most: int) -> int:
    """Return the number of pieces of work that may run together: `most`, or fewer, at least 1, if memory is short.

    Together they take at most a quarter of a GPU's free memory, or of all memory for a CPU. The number for a CPU
    doesn't change during a run, so the last digits of its scores don't either. For a GPU they may change.

    Args:
        device: the device that does the work.
        bytes_each: the bytes that one piece takes.
        most: the largest number to return.
    """
    memory = _memory(device)
    return most if memory is None else max(1, min(most, memory // (_SHARE * bytes_each)))


def _memory(device: torch.device) -> int | None:
    """Return a GPU's free memory, or all memory for a CPU, in bytes; None if the system doesn't report it."""
    if device.type == "cuda":
        # Memory that torch has reserved but doesn't use is free for this work, though not for other programs.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, and systems without these names
        return None
