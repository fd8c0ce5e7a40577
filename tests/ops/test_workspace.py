"""Counters on a simulated GPU: a stand-in for the stream, which may be capturing, and zeros in CPU memory."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.ops.backends import gpu as counting

GPU, OTHER_GPU = torch.device("cuda", 0), torch.device("cuda", 1)


class _MadeUp:
    """The GPU's state, and the number of allocations and waits."""

    def __init__(self) -> None:
        self.capturing = False
        self.stream = 1
        self.current = 0
        self.entered: list[int] = []
        self.zeros = 0
        self.waits = 0

    def wait(self) -> None:
        self.waits += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> _MadeUp:
    it = _MadeUp()
    zeros = torch.zeros

    def made(*shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        it.zeros += 1
        return zeros(*shape, dtype=dtype, device="cpu")

    class Guard:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            self.before, it.current = it.current, self.device.index
            it.entered.append(self.device.index)

        def __exit__(self, *_: object) -> None:
            it.current = self.before

    monkeypatch.setattr(torch, "zeros", made)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: it.capturing and it.current == 0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: it.current)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=it.stream, synchronize=it.wait)
    )
    monkeypatch.setattr(counting, "of_streams", {})
    monkeypatch.setattr(counting, "of_graphs", {})
    return it


def _span(counters: Tensor) -> tuple[int, int]:
    return counters.data_ptr(), counters.data_ptr() + 4 * counters.numel()


def test_launches_of_a_stream_share_and_streams_do_not(gpu: _MadeUp) -> None:
    first, again = counting.counters(GPU, 7), counting.counters(GPU, 900)
    assert first.data_ptr() == again.data_ptr()
    assert counting.counters(GPU, 5000).numel() >= 5000
    gpu.stream = 2
    assert counting.counters(GPU, 7).data_ptr() not in (first.data_ptr(), counting.of_streams[GPU, 1].data_ptr())


def test_a_graph_costs_no_allocation_and_shares_with_nobody(gpu: _MadeUp) -> None:
    """A captured launch gets its own memory: it shares no counters with eager launches or other captured launches.

    Capturing adds no node that sets zeros.
    """
    eager = counting.counters(GPU, 5)
    assert gpu.waits == 1  # the zeros are written before any graph can run
    made = gpu.zeros
    gpu.capturing = True
    taken = [counting.counters(GPU, count) for count in (1, 300, 1, 7)]
    assert gpu.zeros == made
    assert [it.numel() for it in taken] == [1, 300, 1, 7]
    spans = sorted(map(_span, [eager, *taken]))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert all(it.data_ptr() % 16 == taken[0].data_ptr() % 16 for it in taken)
    assert not any(map(torch.any, taken))


def test_without_a_slab_or_beyond_it_the_graph_sets_its_own_zeros(gpu: _MadeUp) -> None:
    gpu.capturing = True
    first = counting.counters(GPU, 3)
    assert first.numel() == 3
    assert gpu.zeros == 1
    assert gpu.waits == 0  # a wait would break the capture
    gpu.capturing = False
    counting.counters(GPU, 3)
    gpu.capturing = True
    made = gpu.zeros
    half = counting.SLAB // 2
    spans = [_span(counting.counters(GPU, half)) for _ in range(2)]
    assert gpu.zeros == made
    beyond = counting.counters(GPU, 1)
    assert gpu.zeros == made + 1
    assert all(not begin <= beyond.data_ptr() < end for begin, end in spans)


def test_a_call_outside_a_graph_brings_new_zeros_for_later_graphs(gpu: _MadeUp) -> None:
    """A call outside a capture allocates new zeros for later graphs once half of the old ones are used.

    The counters of earlier graphs stay theirs.
    """
    counting.counters(GPU, 3)
    spans = []
    for count, brings in ((counting.SLAB // 2, 0), (32, 1), (counting.SLAB, 1)):
        gpu.capturing = True
        made = gpu.zeros
        spans.append(_span(counting.counters(GPU, count)))
        assert gpu.zeros == made
        gpu.capturing = False
        waits = gpu.waits
        counting.counters(GPU, 3)
        assert (gpu.zeros - made, gpu.waits - waits) == (brings, brings), count
    spans.sort()
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_the_capture_that_counts_is_the_tensors_gpu(gpu: _MadeUp) -> None:
    """A launch on GPU 1 belongs to no graph while only GPU 0 captures."""
    gpu.capturing = True
    counting.counters(OTHER_GPU, 3)
    assert gpu.entered == [1]
    assert list(counting.of_streams) == [(OTHER_GPU, 1)]
    assert gpu.current == 0


def test_off_a_gpu_counters_are_new(gpu: _MadeUp) -> None:
    one, other = (counting.counters(torch.device("cpu"), 4) for _ in range(2))
    assert one.data_ptr() != other.data_ptr()
    assert gpu.zeros == 2
