"""The needs that both GPU backends share: the GPU's name, the user's word on float32 products,
and counters, by which the last program of a launch knows that it is the last."""

from __future__ import annotations

import contextlib
import functools
import threading

import torch
from torch import Tensor


@functools.cache
def architecture(device: torch.device) -> str:
    """The name of a GPU in the tables of measured choices: "sm_90", "gfx942"; "default" where there is no GPU."""
    if device.type != "cuda":
        return "default"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def allows_tf32() -> bool:
    """Return True if float32 products on a GPU may round their factors to tf32, as torch's own products do then.

    `torch.backends.cuda.matmul.fp32_precision` (torch 2.9) says "tf32" whichever way that was asked for: there, in
    `torch.backends.fp32_precision`, which it inherits from, or by `torch.set_float32_matmul_precision`. The getter of
    that last function raises once a program has used the switches, so only an older torch is asked by it.
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


_FEWEST = 1024  # counters of a stream, in one allocation
# Counters of graphs of a device, in one allocation of 256 KB. A training step takes some hundreds.
SLAB = 1 << 16
_LINE = 32  # of 128 bytes; a launch whose counters are not aligned to 16 would be compiled anew


class _Slabs:
    """Zeros of a device that graphs take parts of. No part is given twice, and none is freed: a graph may be replayed
    as long as the process lives."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._slabs: list[Tensor] = []
        self._used = 0  # of the last one

    @property
    def is_low(self) -> bool:
        """True if less than half of a slab is left."""
        return not self._slabs or self._used > SLAB // 2

    def refill(self) -> None:
        """Add a slab where that is low. Not in a capture, which it would break."""
        if not self.is_low:
            return
        self._slabs.append(torch.zeros(SLAB, dtype=torch.int32, device=self._device))
        self._used = 0
        # A graph may be replayed on a stream that waits for nothing: the zeros must be there.
        torch.cuda.current_stream(self._device).synchronize()

    def take(self, count: int) -> Tensor | None:
        """`count` zeros of its own for a launch in a graph, or None when they are used up."""
        first, end = self._used, self._used + -(-count // _LINE) * _LINE
        if not self._slabs or end > SLAB:
            return None
        self._used = end
        return self._slabs[-1][first : first + count]


of_streams: dict[tuple[torch.device, int], Tensor] = {}
of_graphs: dict[torch.device, _Slabs] = {}
_lock = threading.Lock()  # several threads may call and capture


def counters(device: torch.device, count: int) -> Tensor:
    """`count` int32 zeros, which every kernel leaves as zeros again.

    Kernels of one stream run one after another, so they share theirs. A launch in a CUDA graph gets its own, for the
    graph may be replayed on any stream: from a slab that the first call outside a graph made, where setting zeros in
    the graph would cost a node each. Under the interpreter, which an exception may leave halfway, they are new.
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
