"""Helpers of both GPU backends: the GPU's name, the setting for float32 products, and counters.

The counters tell the last program of a launch that it is the last one.
"""

from __future__ import annotations

import contextlib
import functools
import threading

import torch
from torch import Tensor


@functools.cache
def architecture(device: torch.device) -> str:
    """Return a GPU's name in the tables of measured choices, such as "sm_90" or "gfx942"; "default" without a GPU."""
    if device.type != "cuda":
        return "default"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def allows_tf32() -> bool:
    """Return True if float32 products on a GPU may round their factors to tf32, as torch's own products then do.

    `torch.backends.cuda.matmul.fp32_precision` (torch 2.9) is "tf32" for each way to set it: this attribute,
    `torch.backends.fp32_precision`, from which it inherits, or `torch.set_float32_matmul_precision`.
    `torch.get_float32_matmul_precision` raises an error once a program has set the attributes. So it is called only for
    older versions of torch.
    """
    precision = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if precision is None:
        return torch.get_float32_matmul_precision() != "highest"
    return bool(precision == "tf32")


def here(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Make the device CUDA's current one, on which kernels launch."""
    if device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


_FEWEST = 1024  # counters per allocation for a stream
# Counters per allocation for the graphs of a device: 256 KB. A training step takes some hundreds of counters.
SLAB = 1 << 16
_LINE = 32  # 128 bytes; Triton would compile a launch again if its counters were not aligned to 16


class _Slabs:
    """Zeros on a device, of which each launch in a CUDA graph takes its own part.

    No part is used twice or freed, because a graph may be replayed as long as the process lives.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._slabs: list[Tensor] = []
        self._used = 0  # counters taken from the last slab

    @property
    def is_low(self) -> bool:
        """True if less than half of a slab is left."""
        return not self._slabs or self._used > SLAB // 2

    def refill(self) -> None:
        """Add a slab if less than half is left. Don't call this in a capture, which it would break."""
        if not self.is_low:
            return
        self._slabs.append(torch.zeros(SLAB, dtype=torch.int32, device=self._device))
        self._used = 0
        # The zeros must be written now, because a graph may be replayed on a stream that doesn't wait for this one.
        torch.cuda.current_stream(self._device).synchronize()

    def take(self, count: int) -> Tensor | None:
        """Return `count` zeros for one launch in a graph, or None if not enough are left."""
        first, end = self._used, self._used + -(-count // _LINE) * _LINE
        if not self._slabs or end > SLAB:
            return None
        self._used = end
        return self._slabs[-1][first : first + count]


of_streams: dict[tuple[torch.device, int], Tensor] = {}
of_graphs: dict[torch.device, _Slabs] = {}
_lock = threading.Lock()  # several threads may launch and capture


def counters(device: torch.device, count: int) -> Tensor:
    """Return `count` int32 zeros. Every kernel leaves them as zeros again.

    Kernels of one stream run one after another, so they share their counters. A launch in a CUDA graph gets its own
    counters, because the graph may be replayed on any stream. They come from a slab that the first call outside a graph
    allocated, because setting zeros inside the graph would cost a node per launch. Under Triton's interpreter they are
    new at each call, because an exception may stop a kernel halfway.
    """
    if device.type != "cuda":
        return torch.zeros(count, dtype=torch.int32, device=device)
    with here(device):
        if torch.cuda.is_current_stream_capturing():
            with _lock:
                slabs = of_graphs.get(device)
                taken = None if slabs is None else slabs.take(count)
            return torch.zeros(count, dtype=torch.int32, device=device) if taken is None else taken
        stream = torch.cuda.current_stream(device).cuda_stream
        kept = of_streams.get((device, stream))
        slabs = of_graphs.get(device)
        if slabs is None or slabs.is_low:
            with _lock:
                of_graphs.setdefault(device, _Slabs(device)).refill()
        if kept is None or kept.numel() < count:
            size = max(_FEWEST, 1 << (count - 1).bit_length())
            kept = of_streams[device, stream] = torch.zeros(size, dtype=torch.int32, device=device)
        return kept
