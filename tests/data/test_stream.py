from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.data import ImageStream, TensorImages
from ebgan_fast.data.prefetch import Prefetcher

CPU = torch.device("cpu")


class OnDisk:
    """A set that isn't in memory, as far as a stream can tell: read by a thread, image i of byte 10 i."""

    shape = (3, 2, 2)
    fingerprint = "made up"

    def __init__(self) -> None:
        self.readers: set[str] = set()
        self.broken_at: int | None = None
        self.reads = 0

    def __len__(self) -> int:
        return 23

    def gather(self, indices: Tensor) -> Tensor:
        self.readers.add(threading.current_thread().name)
        self.reads += 1
        if self.reads == self.broken_at:
            raise OSError("the disk is gone")
        return (indices * 10).to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)


@pytest.fixture(params=["memory", "disk"])
def numbered(request: pytest.FixtureRequest) -> Any:
    """23 images; image i is filled with the byte 10 i, so a batch tells which images it holds."""
    if request.param == "disk":
        return OnDisk()
    return TensorImages((torch.arange(23, dtype=torch.uint8) * 10)[:, None, None, None].expand(23, 3, 2, 2).clone())


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    for stream in OPEN:
        stream.close()
    OPEN.clear()
    assert not [thread for thread in threading.enumerate() if "image reader" in thread.name]


OPEN: list[ImageStream] = []


def make(images: Any, batch_size: int, seed: int, **options: Any) -> ImageStream:
    OPEN.append(ImageStream(images, batch_size, seed, device=CPU, **options))
    return OPEN[-1]


def ids(batch: Tensor) -> list[int]:
    return ((batch[:, 0, 0, 0] + 1) * 127.5 / 10).round().int().tolist()


def take(batches: ImageStream, count: int) -> list[list[int]]:
    return [ids(batches.next()) for _ in range(count)]


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_an_epoch_is_a_permutation_less_the_short_batch(numbered: Any, batch_size: int) -> None:
    batches = make(numbered, batch_size, seed=0)
    assert batches.batches_per_epoch == 23 // batch_size
    orders = []
    for _ in range(4):
        order = [image for batch in take(batches, batches.batches_per_epoch) for image in batch]
        assert len(set(order)) == len(order) == 23 // batch_size * batch_size
        assert set(order) <= set(range(23))
        orders.append(tuple(order))
    assert len(set(orders)) == 4


def test_the_same_seed_repeats_and_another_differs(numbered: Any) -> None:
    runs = {seed: take(make(numbered, 5, seed), 9) for seed in (0, 1, 2, -1, 2**32, 2**63)}
    assert take(make(numbered, 5, 0), 9) == runs[0]
    assert len({str(run) for run in runs.values()}) == len(runs)


def test_one_seeds_epoch_is_not_the_next_seeds(numbered: Any) -> None:
    epochs = {seed: take(make(numbered, 23, seed), 8) for seed in range(8)}
    flat = [str(epoch) for run in epochs.values() for epoch in run]
    assert len(set(flat)) == len(flat)


def test_the_global_generator_neither_matters_nor_moves(numbered: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = take(make(numbered, 5, 7), 9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert take(make(numbered, 5, 7), 9) == first


@pytest.mark.parametrize("taken", range(10))
def test_resuming_gives_the_same_batches(numbered: Any, taken: int) -> None:
    straight = make(numbered, 5, seed=4)
    take(straight, taken)
    state = json.loads(json.dumps(straight.state_dict()))
    resumed = make(numbered, 5, seed=4)
    take(resumed, 6)
    resumed.load_state_dict(state)
    assert take(resumed, 9) == take(straight, 9)


def test_changing_a_batch_leaves_the_set_alone(numbered: Any) -> None:
    batches = make(numbered, 23, 0)
    batches.next().zero_()
    assert sorted(ids(batches.next())) == list(range(23))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "got a state with seed 5, expected 4"),
        ({"batch_size": 6}, "got a state with batch_size 6, expected 5"),
        ({"images": 24}, "got a state with images 24, expected 23"),
        ({"flip": 1}, "got a state with flip 1, expected 0"),
        ({"position": 5}, "got epoch 0, position 5, expected epoch >= 0, position 0 to 4"),
        ({"epoch": -1}, "got epoch -1"),
        ({"surplus": 1}, "got state keys .*'surplus'"),
    ],
)
def test_a_foreign_state_is_refused(numbered: Any, change: dict[str, int], message: str) -> None:
    batches = make(numbered, 5, seed=4)
    with pytest.raises(ValueError, match=message):
        batches.load_state_dict({**batches.state_dict(), **change})


def test_batches_that_cannot_be(numbered: Any) -> None:
    for batch_size in (0, 24):
        with pytest.raises(ValueError, match=f"got batch_size {batch_size}, expected 1 to 23"):
            make(numbered, batch_size, 0)
    with pytest.raises(ValueError, match="got batch_size 5, expected a multiple of the number of processes, 2"):
        make(numbered, 5, 0, ranks=2)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_processes_share_a_batch_out(numbered: Any, ranks: int) -> None:
    alone = take(make(numbered, 6, 3, flip=True), 9)
    shares = [take(make(numbered, 6, 3, flip=True, rank=rank, ranks=ranks), 9) for rank in range(ranks)]
    assert [[*itertools.chain(*parts)] for parts in zip(*shares, strict=True)] == alone


def test_a_state_goes_on_in_any_number_of_processes(numbered: Any) -> None:
    straight = make(numbered, 6, 3)
    pair = [make(numbered, 6, 3, rank=rank, ranks=2) for rank in range(2)]
    for stream in (straight, *pair):
        take(stream, 4)
    alone = make(numbered, 6, 3)
    alone.load_state_dict(pair[1].state_dict())
    assert take(alone, 5) == take(straight, 5)


def test_images_lie_channels_last_and_in_the_dtype(numbered: Any) -> None:
    batch = make(numbered, 4, 0, dtype=torch.bfloat16).next()
    assert batch.shape == (4, 3, 2, 2)
    assert batch.dtype == torch.bfloat16
    assert batch.is_contiguous(memory_format=torch.channels_last)


def slanted() -> TensorImages:
    """Eight images, each dark on the left and bright on the right."""
    return TensorImages(torch.tensor([0, 255], dtype=torch.uint8).expand(8, 1, 1, 2).clone())


def mirrored(stream: ImageStream, batches: int) -> list[bool]:
    return [bool(left > 0) for _ in range(batches) for left in stream.next()[:, 0, 0, 0]]


def test_half_of_the_images_are_mirrored_anew_in_each_epoch() -> None:
    first, second = (mirrored(make(slanted(), 4, seed=0, flip=True), 400) for _ in range(2))
    assert first == second
    n = len(first)
    assert abs(sum(first) - n / 2) < 5 * (n / 4) ** 0.5  # standard deviations of fair coins
    epochs = [tuple(first[start : start + 8]) for start in range(0, n, 8)]
    assert len(set(epochs)) > 100  # of 200 drawn from 256
    assert not any(mirrored(make(slanted(), 4, seed=0), 4))


def test_mirroring_does_not_change_the_order(numbered: Any) -> None:
    assert take(make(numbered, 5, 7, flip=True), 9) == take(make(numbered, 5, 7), 9)


def test_the_disk_is_read_by_a_thread_ahead_of_the_steps() -> None:
    images = OnDisk()
    stream = make(images, 5, 0)
    stream.next()
    until = time.monotonic() + 10
    while images.reads < 4 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    assert images.reads == 4  # one taken, two waiting, one in the thread's hand
    assert images.readers == {"ebgan_fast image reader"}
    assert stream.state_dict()["position"] == 1  # what was taken, not what was read
    stream.close()
    assert take(stream, 1) != []


def test_a_failure_of_the_disk_reaches_the_step() -> None:
    images = OnDisk()
    images.broken_at = 3
    stream = make(images, 5, 0)
    assert len(take(stream, 2)) == 2
    with pytest.raises(OSError, match="the disk is gone"):
        stream.next()


def test_closing_does_not_wait_for_a_full_queue() -> None:
    fetcher = Prefetcher(iter(range(1000)), 1)
    assert fetcher.next() == 0
    started = time.monotonic()
    fetcher.close()
    assert time.monotonic() - started < 5
