"""The memory that a step takes on a GPU."""

from __future__ import annotations

import gc

import torch

from .cuda_timing import wait
from .timing import Step


def held(device: torch.device) -> int:
    """Bytes that tensors hold now; 0 on the CPU, whose allocator does not tell."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def rise(run: Step, device: torch.device, before: int | None = None) -> int | None:
    """Run once; bytes held at the peak over those held before, by default when the run begins. None on the CPU."""
    if device.type != "cuda":
        return None
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = held(device) if before is None else before
    run()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


def release() -> None:
    """Give the GPU back the memory of tensors that nobody has any more."""
    gc.collect()
    torch.cuda.empty_cache()
