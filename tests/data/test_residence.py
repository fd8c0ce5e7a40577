"""Sets that fit are loaded into a device's memory, and give the same images there.

The tests need no GPU: they let the CPU report free memory of its own, as a GPU does.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ebgan_fast.data import ImageStream, PackedImages, TensorImages, residence
from ebgan_fast.data.residence import on_device

from ..conftest import Fork
from .test_packed import COUNTS, write_packed

CPU, META = torch.device("cpu"), torch.device("meta")
SIZE = sum(COUNTS) * 3 * 5 * 4


@pytest.fixture(params=[(11,), COUNTS], ids=["one shard", "three shards"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> PackedImages:
    write_packed(tmp_path / "set", request.param)
    return PackedImages(tmp_path / "set")


def give(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    """Let every device report this number of free bytes; None for a device that can't report it."""
    monkeypatch.setattr(residence, "free_memory", lambda device: free)


def every(images: TensorImages | PackedImages) -> Tensor:
    return images.gather(torch.arange(len(images)))


@pytest.mark.parametrize("piece", [1, 2 * 60 + 1, 1 << 20], ids=["one by one", "two at once", "all at once"])
def test_it_is_the_same_set_there(packed: PackedImages, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    give(monkeypatch, 4 * SIZE)
    told: list[tuple[int, int]] = []
    held = on_device(packed, CPU, lambda done, total: told.append((done, total)), piece=piece)
    assert held is not None
    assert torch.equal(every(held), every(packed))
    assert every(held).dtype == torch.uint8
    assert (len(held), held.shape, held.device) == (len(packed), packed.shape, CPU)
    assert held.fingerprint == packed.fingerprint == held.to(CPU).fingerprint
    each = max(1, piece // 60)
    assert told == [(60 * min(11, first + each), SIZE) for first in range(0, 11, each)]
    place = torch.zeros(3, 3, 5, 4, dtype=torch.uint8).to(memory_format=torch.channels_last)
    assert held.gather(torch.tensor([9, 0, 4]), place) is place
    assert torch.equal(place, every(packed)[[9, 0, 4]])
    assert on_device(held, CPU) is held


def test_a_quarter_of_the_free_memory_is_the_limit(packed: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = TensorImages(every(packed))
    for free, fits in ((4 * SIZE, True), (4 * SIZE + 3, True), (4 * SIZE - 1, False), (0, False)):
        give(monkeypatch, free)
        assert (on_device(packed, CPU) is not None) == fits
        assert (on_device(in_memory, META) is not None) == fits
        assert on_device(in_memory, CPU) is in_memory  # a set that is on the device already stays as it is


def test_a_device_that_does_not_tell_takes_what_is_in_memory(packed: PackedImages) -> None:
    for device in (CPU, META):
        assert on_device(packed, device) is None
    moved = on_device(TensorImages(every(packed)), META)
    assert moved is not None
    assert moved.device == META


def test_a_gpu_is_asked_and_the_cpu_has_no_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def answer(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 5, 9

    monkeypatch.setattr(torch.cuda, "mem_get_info", answer)
    assert residence.free_memory(torch.device("cuda", 1)) == 5
    assert residence.free_memory(CPU) is None
    assert asked == [torch.device("cuda", 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_are_the_readers_bit_for_bit(
    packed: PackedImages, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """The batches cover two epochs with flips; a stream that resumed another's state gives the second half."""

    def batches(stream: ImageStream, count: int) -> list[Tensor]:
        return [stream.next() for _ in range(count)]

    def make(images: PackedImages | TensorImages = packed) -> ImageStream:
        return ImageStream(images, 4, seed=3, device=CPU, dtype=dtype, flip=True)

    with make() as reader:
        expected = batches(reader, 2)
        middle = reader.state_dict()
        expected += batches(reader, 3)
        assert reader.reads_ahead
        give(monkeypatch, 4 * SIZE)
        loaded = on_device(packed, CPU)
        assert loaded is not None
        with make(loaded) as held, make(loaded) as resumed:
            resumed.load_state_dict(middle)
            found = batches(held, 2)
            assert held.state_dict() == middle
            found += batches(resumed, 3)
            assert not any(stream.reads_ahead for stream in (held, resumed))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype == dtype
        assert one.stride() == other.stride()


def test_a_batch_is_made_on_the_device_alone(packed: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within an epoch nothing is copied to the device, since a step would wait for it. The device meta stands in."""

    class Places(TorchDispatchMode):
        seen: set[torch.device] = set()  # noqa: RUF012

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            self.seen.update(value.device for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor))
            return result

    give(monkeypatch, 4 * SIZE)
    with ImageStream(TensorImages(every(packed)), 4, seed=3, device=META, flip=True) as stream:
        stream.next()
        with Places() as places:
            batch = stream.next()
        assert not stream.reads_ahead
    assert places.seen == {META}
    assert (batch.shape, batch.device, batch.dtype) == ((4, 3, 5, 4), META, torch.float32)


def test_a_stream_loads_nothing_from_the_disk(packed: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a run loads a set from the disk into a device's memory, and the run says so."""
    give(monkeypatch, 4 * SIZE)
    read: list[int] = []
    gather = PackedImages.gather

    def noted(images: PackedImages, indices: Tensor, out: Tensor | None = None) -> Tensor:
        read.append(len(indices))
        return gather(images, indices, out)

    monkeypatch.setattr(PackedImages, "gather", noted)
    with ImageStream(packed, 4, seed=3, device=CPU) as stream:
        assert read == []
        stream.next()
        assert stream.reads_ahead
    assert set(read) == {4}  # the stream read batch by batch


def test_an_interrupt_ends_a_load(packed: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 4 * SIZE)
    pieces = []

    def interrupted(done: int, total: int) -> None:
        pieces.append(done)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            on_device(packed, CPU, interrupted, piece=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pieces == [60]


class Slow:
    """A set of 10,000 images, each of which takes a tenth of a second to read."""

    shape, fingerprint = (1, 2, 2), "made up"

    def __len__(self) -> int:
        return 10_000

    def gather(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        assert out is not None
        time.sleep(0.1)
        return out.zero_()


def load_slowly() -> None:
    residence.free_memory = lambda device: 1 << 30
    on_device(Slow(), CPU, lambda done, total: print(done), piece=1)


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_a_signal_ends_a_load_at_once(fork: Fork) -> None:
    child = fork(load_slowly)
    assert child.wait_for_line() == "4"
    child.send_signal(signal.SIGTERM)
    assert child.status() == -signal.SIGTERM
    assert len(child.said.splitlines()) < 1000
