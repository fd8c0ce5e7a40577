"""Tests of the devices of a run's processes: one GPU a task, more processes than GPUs, and invalid variables."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ebgan_fast.training import parallel
from ebgan_fast.training.parallel import World, joined, own_device, usable_device

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that makes torch see a given number of GPUs."""

    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return see


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_task_that_sees_its_own_gpu_alone(
    name: str, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch systems show each task one GPU, number 0 in each task, while LOCAL_RANK still counts the tasks."""
    gpus(1)
    for rank in ("0", "3"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert own_device(name) == torch.device("cuda", 0)
    gpus(4)
    assert own_device(name) == torch.device("cuda", 3)
    monkeypatch.delenv("LOCAL_RANK")
    assert own_device(name) == torch.device("cuda", 0)


def test_more_processes_than_gpus(gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="LOCAL_RANK: got 2, expected less than 2, the GPUs that this process sees"):
        own_device("auto")
    assert own_device("cuda:1") == torch.device("cuda", 1)
    assert usable_device("cpu") == CPU


@pytest.mark.parametrize("value", ["", "two", "-1", "1.5"])
def test_a_rank_that_is_no_number(value: str, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    monkeypatch.setenv("LOCAL_RANK", value)
    with pytest.raises(ValueError, match=rf"LOCAL_RANK: got '{value}' in the environment, expected a whole number"):
        own_device("auto")


@pytest.mark.parametrize("value", ["", "two", "0", "-2"])
def test_a_number_of_processes_that_is_none(
    value: str, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(ValueError, match=rf"WORLD_SIZE: got '{value}' in the environment"), joined(CPU):
        pass


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RANK", "two", "0 to 1"),
        ("RANK", "-1", "0 to 1"),
        ("RANK", "2", "0 to 1"),
        ("MASTER_PORT", "http", "0 to 65535"),
        ("MASTER_PORT", "65536", "0 to 65535"),
    ],
)
def test_a_place_among_the_processes_that_is_none(
    name: str, value: str, expected: str, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for other, usual in (("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(other, usual)
    monkeypatch.setenv(name, value)
    said = f"{name}: got '{value}' in the environment, expected a whole number of {expected}, as torchrun sets it"
    with pytest.raises(ValueError, match=re.escape(said)), joined(CPU):
        pass


def test_a_number_of_thousands_of_digits(gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of thousands of digits is refused in a short message, though Python cannot convert it."""
    monkeypatch.setenv("WORLD_SIZE", "9" * 5000)
    with pytest.raises(ValueError, match=r"WORLD_SIZE: got '99.*, expected a whole number") as caught, joined(CPU):
        pass
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "error",
    [
        ValueError("environment variable RANK expected, but not set"),
        dist.DistNetworkError("The client socket has timed out after 3600000ms\nmore"),
        RuntimeError("Address already in use"),
    ],
)
def test_processes_that_do_not_come_together(
    error: Exception, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", fail)
    with pytest.raises(ValueError, match="WORLD_SIZE: got 2 processes that don't come together") as caught, joined(CPU):
        pass
    assert "\n" not in str(caught.value)
    assert "without WORLD_SIZE this process runs alone" in str(caught.value)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([("a", "1"), ("a", "2"), ("b", "1")], None),  # GPUs of two machines may have equal numbers
        ([("a", "1"), ("a", "2"), ("a", "1")], "device: got one GPU of a for the processes 0 and 2"),
    ],
)
def test_two_processes_on_one_gpu(
    found: list[tuple[str, str]], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes on one GPU are refused here. NCCL would wait, or fail with a message of its own."""

    def gather(every: list[Any], here: Any, group: object) -> None:
        assert (here, group) == (("a", "1"), "control")
        every[:] = found

    monkeypatch.setattr(dist, "all_gather_object", gather)
    monkeypatch.setattr(parallel.socket, "gethostname", lambda: "a")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=1))
    world = World(0, 3, control="control")  # type: ignore[arg-type]
    if said is None:
        parallel._check_own_gpus(world, torch.device("cuda", 0))
        return
    with pytest.raises(ValueError, match=said):
        parallel._check_own_gpus(world, torch.device("cuda", 0))
