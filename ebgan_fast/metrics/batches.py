"""How much is computed at a time: as much as keeps a device busy, and no more than its memory holds."""

from __future__ import annotations

import os

import torch

_SHARE = 4  # of the memory, one part may be taken


def most_at_once(device: torch.device, bytes_each: int, most: int) -> int:
    """The number of pieces of work that may run together: `most`, or fewer, at least 1, where memory is short.

    Together they take at most a quarter of what a GPU has free, or of all that a CPU has: a number that doesn't change
    while a run goes on, so neither do its scores' last digits.
    """
    memory = _memory(device)
    return most if memory is None else max(1, min(most, memory // (_SHARE * bytes_each)))


def _memory(device: torch.device) -> int | None:
    """Bytes; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, and systems that don't name them
        return None
