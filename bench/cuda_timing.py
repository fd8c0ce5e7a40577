"""Timing on a GPU: as a program calls the ops, the kernels alone, and whole training steps."""

from __future__ import annotations

import time

import torch

from .timing import BLOCK_SECONDS, Step, WallClock


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was told; the CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Called:
    """Calls one after the other, as a program makes them: the GPU's time, or Python's where that is longer."""

    block: float = BLOCK_SECONDS

    def prepared(self, step: Step) -> Step:
        return step

    def seconds(self, step: Step, repeats: int) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


class Replayed(Called):
    """The kernels alone, without the calls: the step is captured once, into a CUDA graph that is replayed."""

    block: float = 0.002
    """No Python stands between two replays, so that less evens out."""

    def prepared(self, step: Step) -> Step:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, and lets autograd and cuBLAS make what they keep
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay


class Synchronized(WallClock):
    """The time from an idle GPU to an idle GPU, by the processor's clock: all that a user waits for."""

    def seconds(self, step: Step, repeats: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        torch.cuda.synchronize()
        return time.perf_counter() - start
