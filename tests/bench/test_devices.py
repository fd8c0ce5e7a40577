"""A device has enough copies of its inputs, and a made-up GPU is timed by its own clock."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import pytest
import torch

from bench.__main__ import main
from bench.timing import devices, rounds, watches


class _Gpu:
    """A made-up GPU, whose clock in milliseconds moves when it is given work."""

    def __init__(self) -> None:
        self.now = self.waited = 0.0

    def Event(self, enable_timing: bool) -> SimpleNamespace:  # noqa: N802
        assert enable_timing
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now)
        event.synchronize = lambda: None
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def work(self) -> None:
        self.now += 4.0

    def synchronize(self) -> None:
        """Move the CPU's clock to the end of the work that the GPU was given."""
        self.waited = self.now


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> _Gpu:
    gpu = _Gpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.Event)
    return gpu


def test_seconds_on_a_gpu_are_its_own(gpu: _Gpu) -> None:
    assert watches.Called().seconds(gpu.work, 3) == pytest.approx(0.012)
    seconds = rounds.interleaved({"a": gpu.work}, 2, watch=watches.Called())
    assert seconds == {"a": pytest.approx([0.004, 0.004])}


def test_a_synchronized_step_is_waited_for(gpu: _Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading leaves out what the GPU was given before it, and ends when the GPU has done the steps."""
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    monkeypatch.setattr(watches, "time", SimpleNamespace(perf_counter=lambda: gpu.waited / 1e3))
    gpu.work()
    assert watches.Synchronized().seconds(gpu.work, 3) == pytest.approx(0.012)


def test_replays_are_read_in_shorter_blocks_than_calls() -> None:
    read: list[int] = []

    def clock(repeats: int) -> float:
        read.append(repeats)
        return 0.0005 * repeats

    for watch, least in ((watches.Called(), 16), (watches.Replayed(), 4)):
        read.clear()
        rounds.interleaved_clocks({"a": clock}, 1, block=watch.block)
        assert least <= read[-1] <= 1.2 * least


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", [("ops", "--device", "cuda"), ("tune",)], ids=" ".join)
def test_without_a_gpu_one_line_says_so(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "sees no GPU" in line


@pytest.mark.usefixtures("cpu_backend")
def test_inputs_take_turns_until_they_exceed_the_cache_twice() -> None:
    mebibyte = 2**20
    gpu = devices.Device(torch.device("cpu"), {}, "a-gpu", "triton", ("cuda",), cache=50 * mebibyte)
    assert [gpu.copies(size * mebibyte) for size in (1, 10, 30, 100, 400)] == [16, 10, 4, 1, 1]
    assert dataclasses.replace(gpu, cache=0).copies(8) == 1


@pytest.mark.usefixtures("cpu_backend")
def test_the_cache_of_the_processor_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_LEVEL3_CACHE_SIZE": 123}.__getitem__)
    assert devices.cpu().cache == 123
    monkeypatch.delattr(os, "sysconf")
    assert devices.cpu().cache == 0


def test_a_name_becomes_part_of_a_file_name() -> None:
    assert devices.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
