"""The arithmetic of a step as one CUDA graph: it runs normally at first, is recorded once, and then is replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

_WARM_UP = 3
"""The number of steps before the recorded one. In them, libraries choose their kernels and optimizers create their
state."""

Compute = Callable[[], None]
"""A function that computes on tensors whose addresses don't change. It reads no value back and uses no number that
changes on the host."""


class Recorder(Protocol):
    """An object that records arithmetic on a device."""

    def warm_up(self, compute: Compute) -> None:
        """Run `compute` without recording it, on the stream that it will be recorded on."""

    def record(self, compute: Compute) -> Compute:
        """Record `compute` without running it, and return a function that runs the recording on the same tensors."""


class CudaRecorder:
    """A recorder of CUDA graphs, with a stream of its own.

    Calls that other threads make meanwhile don't end a recording: the thread that reads images allocates pinned memory.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, compute: Compute) -> None:
        """Run `compute` without recording it, on the recorder's stream."""
        around = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(around)
        with torch.cuda.stream(self._stream):
            compute()
        around.wait_stream(self._stream)

    def record(self, compute: Compute) -> Compute:
        """Record `compute` into a CUDA graph, and return its replay. The graph keeps the memory that is allocated
        meanwhile."""
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
        with torch.cuda.device(self._device), recording:
            compute()
        replay: Compute = graph.replay
        return replay


def recorder_of(device: torch.device, processes: int) -> Recorder:
    """Return the recorder of a run with `cuda_graph`.

    Args:
        device: the device of the run.
        processes: the number of processes of the run.

    Raises:
        ValueError: the device isn't a CUDA device, or there are several processes.
    """
    if device.type != "cuda":
        raise ValueError(f"cuda_graph: got True on {device}, expected a CUDA device, or False")
    if processes > 1:
        raise ValueError(f"cuda_graph: got True for {processes} processes, expected one, or False")
    return CudaRecorder(device)


class StepGraph:
    """A runner of equal arithmetic in every step: normal in the first three steps, then replayed from a recording.

    Args:
        recorder: a recorder for the device of the steps.

    Attributes:
        is_recorded: True once steps are replayed.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._warmed_up = 0
        self._replay: Compute | None = None

    @property
    def is_recorded(self) -> bool:
        return self._replay is not None

    def run(self, compute: Compute) -> None:
        """Do the arithmetic of one step."""
        if self._replay is None:
            if self._warmed_up < _WARM_UP:
                self._recorder.warm_up(compute)
                self._warmed_up += 1
                return
            self._replay = self._recorder.record(compute)
        self._replay()

    def forget(self) -> None:
        """Drop the recording, because tensors have moved to other addresses. The next steps warm up and record
        again."""
        self._replay = None
        self._warmed_up = 0
