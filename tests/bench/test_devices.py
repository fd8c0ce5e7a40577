"""What a device asks for, and how a GPU is timed, on one that is made up."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import pytest
import torch

from bench import cuda_timing, devices, timing
from bench.__main__ import main


class _Gpu:
    """Its clock, in milliseconds, moves when work is handed to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def Event(self, enable_timing: bool) -> SimpleNamespace:  # noqa: N802
        assert enable_timing
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now)
        event.synchronize = lambda: None
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def work(self) -> None:
        self.now += 4.0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> _Gpu:
    gpu = _Gpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.Event)
    return gpu


def test_seconds_on_a_gpu_are_its_own(gpu: _Gpu) -> None:
    assert cuda_timing.Called().seconds(gpu.work, 3) == pytest.approx(0.012)
    seconds = timing.interleaved({"a": gpu.work}, 2, watch=cuda_timing.Called())
    assert seconds == {"a": pytest.approx([0.004, 0.004])}


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
