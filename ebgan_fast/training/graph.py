"""A step's arithmetic as one CUDA graph: run as it is at first, then recorded, then replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

_WARM_UP = 3
"""Steps before the recorded one: libraries choose their kernels in them, and the optimizers make their state."""

Compute = Callable[[], None]
"""Arithmetic on tensors that keep their places. It asks for no value and depends on no number of the host's."""


class Recorder(Protocol):
    """Records arithmetic on a device."""

    def warm_up(self, compute: Compute) -> None:
        """Run it as it is, where it will be recorded."""

    def record(self, compute: Compute) -> Compute:
        """Record it without running it. The answer runs what was recorded, on the same tensors."""


class CudaRecorder:
    """Records into a CUDA graph, on a stream of its own.

    An error of another thread's call doesn't end the recording: the reader of images allocates pinned memory meanwhile.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, compute: Compute) -> None:
        """Run it as it is on the recording's stream."""
        around = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(around)
        with torch.cuda.stream(self._stream):
            compute()
        around.wait_stream(self._stream)

    def record(self, compute: Compute) -> Compute:
        """Record it. What is allocated meanwhile is the graph's own, beside the memory of the steps before."""
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
        with torch.cuda.device(self._device), recording:
            compute()
        replay: Compute = graph.replay
        return replay


def recorder_of(device: torch.device, processes: int) -> Recorder:
    """The recorder of a run with `cuda_graph`.

    Raises:
        ValueError: no CUDA device, or several processes.
    """
    if device.type != "cuda":
        raise ValueError(f"cuda_graph: got True on {device}, expected a CUDA device, or False")
    if processes > 1:
        raise ValueError(f"cuda_graph: got True for {processes} processes, expected one, or False")
    return CudaRecorder(device)


class StepGraph:
    """Runs the same arithmetic step after step, from the fourth on as a recording.

    Args:
        recorder: of the device that it runs on.

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
        """Do one step's arithmetic."""
        if self._replay is None:
            if self._warmed_up < _WARM_UP:
                self._recorder.warm_up(compute)
                self._warmed_up += 1
                return
            self._replay = self._recorder.record(compute)
        self._replay()

    def forget(self) -> None:
        """Drop the recording, as tensors have changed their places; the next steps begin anew."""
        self._replay = None
        self._warmed_up = 0
