"""Scratch memory of the kernels: counters, by which the last program of a launch knows that it is the last."""

from __future__ import annotations

import torch
from torch import Tensor

_kept: dict[tuple[torch.device, int], Tensor] = {}


def counters(device: torch.device, count: int) -> Tensor:
    """`count` int32 zeros, which every kernel leaves as zeros again.

    Kernels of one stream run one after another, so they share theirs. A CUDA graph gets its own: it may be replayed on
    any stream. So does every launch under the interpreter, which an exception may leave halfway.
    """
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(count, dtype=torch.int32, device=device)
    stream = torch.cuda.current_stream(device).cuda_stream
    kept = _kept.get((device, stream))
    if kept is None or kept.numel() < count:
        size = max(1024, 1 << (count - 1).bit_length())
        kept = _kept[device, stream] = torch.zeros(size, dtype=torch.int32, device=device)
    return kept
