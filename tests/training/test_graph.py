"""Tests of the recording of a step: the order of calls, CUDA's part, refusals, and Adam's rate as a tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.models import Mlp
from ebgan_fast.training import graph, train
from ebgan_fast.training.graph import CudaRecorder, StepGraph
from ebgan_fast.training.optim import Adam
from ebgan_fast.training.step import Trainer

from .conftest import Configure
from .tape import TapeRecorder
from .test_conv_runs import blobs
from .test_recorded_steps import built, run


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "cuda_graph: got True on cpu, expected a CUDA device, or False"),
        ({"precision": "float16"}, "cuda_graph: got True, expected False with precision 'float16'"),
    ],
)
def test_a_graph_that_cannot_be(configure: Configure, fields: dict[str, Any], words: str) -> None:
    run = configure(cuda_graph=True, **fields)
    with pytest.raises(ValueError, match=f"^{words}"):
        train(run)
    assert not run.out.exists()


def test_a_graph_of_several_processes_is_refused() -> None:
    words = "^cuda_graph: got True for 2 processes, expected one, or False$"
    with pytest.raises(ValueError, match=words):
        graph.recorder_of(torch.device("cuda", 0), 2)


def test_a_graph_is_refused_before_images_are_read(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cuda_graph: got True on cpu"):
        train(configure(cuda_graph=True, data=tmp_path / "no such images"))


def test_a_trainer_refuses_a_graph_before_it_builds_networks(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mlp, "generator", lambda networks, shape: pytest.fail("it was built"))
    with pytest.raises(ValueError, match=r"^cuda_graph: got True on cpu"):
        Trainer(configure(cuda_graph=True), blobs())


def test_the_fourth_run_is_recorded_and_all_later_ones_replayed() -> None:
    events: list[str] = []

    class Noting:
        def warm_up(self, compute: Callable[[], None]) -> None:
            events.append("warm up")
            compute()

        def record(self, compute: Callable[[], None]) -> Callable[[], None]:
            events.append("record")
            return lambda: events.append("replay")

    graph = StepGraph(Noting())
    for index in range(6):
        assert graph.is_recorded is (index > 3)
        graph.run(lambda: events.append("compute"))
    warm = ["warm up", "compute"] * 3
    assert events == [*warm, "record", "replay", "replay", "replay"]
    graph.forget()
    assert not graph.is_recorded
    del events[:]
    graph.run(lambda: events.append("another"))
    assert events == ["warm up", "another"]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_short_run_is_not_recorded(configure: Configure, steps: int) -> None:
    recorder = TapeRecorder()
    run(built(configure(steps=steps), recorder), steps)
    assert recorder.events == ["warm up"] * steps


def test_cuda_is_asked_as_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA is called as torch's documentation says, shown on a simulated CUDA.

    The recording's stream waits for the surrounding stream, and the surrounding stream waits for it. torch's own class
    captures on that stream, in the mode that restricts only its own thread.
    """
    events: list[str] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = "side" if isinstance(name, torch.device) else name

        def wait_stream(self, other: Stream) -> None:
            events.append(f"{self.name} waits for {other.name}")

    class Graph:
        def capture_begin(self, *pool: Any, capture_error_mode: str, **options: Any) -> None:
            assert not pool
            events.append(f"begin, {capture_error_mode}")

        def capture_end(self) -> None:
            events.append("end")

        def replay(self) -> None:
            events.append("replay")

    @contextlib.contextmanager
    def entered(thing: Any) -> Iterator[None]:
        name = getattr(thing, "name", str(thing))
        events.append(f"in {name}")
        yield
        events.append(f"out of {name}")

    for name, stand_in in {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "stream": entered,
        "device": entered,
        "current_stream": lambda device: Stream("around"),
        "synchronize": lambda: events.append("synchronize"),
        "empty_cache": lambda: events.append("empty cache"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    recorder = CudaRecorder(torch.device("cuda", 1))
    recorder.warm_up(lambda: events.append("compute"))
    assert events == ["side waits for around", "in side", "compute", "out of side", "around waits for side"]
    del events[:]
    replay = recorder.record(lambda: events.append("compute"))
    prepared = ["in cuda:1", "synchronize", "empty cache"]
    assert events == [*prepared, "in side", "begin, thread_local", "compute", "end", "out of side", "out of cuda:1"]
    del events[:]
    replay()
    assert events == ["replay"]


@pytest.mark.parametrize("recorded", [False, True])
def test_the_rate_of_a_recorded_step_is_a_tensor(configure: Configure, recorded: bool) -> None:
    trainer = built(configure(), TapeRecorder() if recorded else None)
    run(trainer, 2)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in (trainer.optimizer_g, trainer.optimizer_d)]
    assert all(isinstance(rate, Tensor) is recorded for rate in rates)
    told = [trainer.state_dict()[name]["param_groups"][0]["lr"] for name in ("optimizer_g", "optimizer_d")]
    assert told == [0.001 * (1 - 1 / 20)] * 2


def test_adam_runs_where_torch_has_no_fused_kernel() -> None:
    net = torch.nn.Linear(2, 2, device="meta")
    adam = Adam(net, 0.1, 0.5)
    net(torch.zeros(3, 2, device="meta")).sum().backward()
    adam.step()
    assert not adam.param_groups[0]["fused"]
