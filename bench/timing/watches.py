"""The watches, which read the seconds of a step on the CPU or a GPU, and the memory that a step takes on a GPU."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from typing import Protocol

import torch

Step = Callable[[], object]
Clock = Callable[[int], float]
"""Runs a step a number of times, and returns the seconds of all these calls together."""

# Long against the clock's resolution and a tick of the scheduler, short enough for many rounds.
BLOCK_SECONDS = 0.008


class Watch(Protocol):
    """A way to read the seconds of a step."""

    block: float
    """Seconds that one reading should take at least."""

    def prepared(self, step: Step) -> Step:
        """Return the step that is timed in place of this one."""

    def seconds(self, step: Step, repeats: int) -> float:
        """Return the seconds of that many calls together."""


def clock_of(step: Step, watch: Watch) -> Clock:
    """Prepare a step for a watch, and return the clock that reads its seconds."""
    return functools.partial(watch.seconds, watch.prepared(step))


class WallClock:
    """The time from a call to its return, which is all of the time if the CPU does the work."""

    block: float = BLOCK_SECONDS

    def prepared(self, step: Step) -> Step:
        return step

    def seconds(self, step: Step, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return time.perf_counter() - start


class Called:
    """The time of calls one after another, as a program makes them: the GPU's time, or Python's if that is longer."""

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
    """The time of the kernels without the calls: the step is captured once into a CUDA graph, which is replayed."""

    block: float = 0.002
    """Shorter than for calls, because no Python runs between two replays and a reading varies less."""

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
    """The time from an idle GPU to an idle GPU by the CPU's clock: all that a user waits for."""

    def seconds(self, step: Step, repeats: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        torch.cuda.synchronize()
        return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Wait until a GPU has done all work that was handed to it. The CPU needs no wait."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- Memory on a GPU


def held(device: torch.device) -> int:
    """Return the bytes that tensors hold now; 0 on the CPU, whose allocator does not tell."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def rise(run: Step, device: torch.device, before: int | None = None) -> int | None:
    """Run a step once, and return the bytes held at its peak over those held before; None on the CPU.

    Args:
        run: The step.
        device: The device whose memory the step takes.
        before: The bytes held before. None: those held when the step begins.
    """
    if device.type != "cuda":
        return None
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = held(device) if before is None else before
    run()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


def release() -> None:
    """Give the memory of tensors that no longer exist back to the GPU."""
    gc.collect()
    torch.cuda.empty_cache()
