"""Scratch memory of the kernels: counters, by which the last program of a launch knows that it is the last."""

from __future__ import annotations

import contextlib
import threading

import torch
from torch import Tensor

_FEWEST = 1024  # counters of a stream, in one allocation
# Counters of all graphs of a device: 256 KB. A training step takes some hundreds.
_SLAB = 1 << 16
_LINE = 32  # of 128 bytes; a launch whose counters are not aligned to 16 would be compiled anew


class _Slab:
    """Zeros that graphs take parts of. No part is given twice: a graph may be replayed as long as the process lives."""

    def __init__(self, device: torch.device) -> None:
        self._zeros = torch.zeros(_SLAB, dtype=torch.int32, device=device)
        self._used = 0
        self._lock = threading.Lock()  # graphs may be captured by several threads
        # A graph may be replayed on a stream that waits for nothing: the zeros must be there.
        torch.cuda.current_stream(device).synchronize()

    def take(self, count: int) -> Tensor | None:
        """`count` zeros of its own for a launch in a graph, or None when they are used up."""
        with self._lock:
            first, end = self._used, self._used + -(-count // _LINE) * _LINE
            if end > self._zeros.numel():
                return None
            self._used = end
        return self._zeros[first : first + count]


_of_streams: dict[tuple[torch.device, int], Tensor] = {}
_of_graphs: dict[torch.device, _Slab] = {}


def counters(device: torch.device, count: int) -> Tensor:
    """`count` int32 zeros, which every kernel leaves as zeros again.

    Kernels of one stream run one after another, so they share theirs. A launch in a CUDA graph gets its own, for the
    graph may be replayed on any stream: from a slab that the first call outside a graph made, where setting zeros in
    the graph would cost a node each. Under the interpreter, which an exception may leave halfway, they are new.
    """
    if device.type != "cuda":
        return torch.zeros(count, dtype=torch.int32, device=device)
    with contextlib.nullcontext() if device.index == torch.cuda.current_device() else torch.cuda.device(device):
        if torch.cuda.is_current_stream_capturing():
            slab = _of_graphs.get(device)
            taken = None if slab is None else slab.take(count)
            return torch.zeros(count, dtype=torch.int32, device=device) if taken is None else taken
        stream = torch.cuda.current_stream(device).cuda_stream
        kept = _of_streams.get((device, stream))
        if kept is None or kept.numel() < count:
            if device not in _of_graphs:
                _of_graphs[device] = _Slab(device)
            size = max(_FEWEST, 1 << (count - 1).bit_length())
            kept = _of_streams[device, stream] = torch.zeros(size, dtype=torch.int32, device=device)
        return kept
