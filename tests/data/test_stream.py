from __future__ import annotations

import gc
import hashlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.data import ImageStream, TensorImages, residence, to_pixels
from ebgan_fast.data.prefetch import Prefetcher

CPU = torch.device("cpu")


class OnDisk:
    """A set that a stream takes for one on the disk; image i is filled with the byte 10 i."""

    shape = (3, 2, 2)
    fingerprint = "made up"

    def __init__(self, count: int = 23) -> None:
        self.count = count
        self.readers: set[str] = set()
        self.broken_at: int | None = None
        self.reads = 0

    def __len__(self) -> int:
        return self.count

    def gather(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        assert out is not None
        self.readers.add(threading.current_thread().name)
        self.reads += 1
        if self.reads == self.broken_at:
            raise OSError("the disk is gone")
        return out.copy_((indices * 10).to(torch.uint8)[:, None, None, None].expand(-1, *self.shape))


class SlantedOnDisk(OnDisk):
    """A set as on the disk, of images dark on the left and bright on the right."""

    shape = (1, 1, 2)

    def gather(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        assert out is not None
        return out.copy_(torch.tensor([0, 255], dtype=torch.uint8).expand(len(indices), 1, 1, 2))


@pytest.fixture(params=["memory", "disk", "loaded"])
def numbered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a set of 23 images in memory, on the disk, or loaded into a device's memory.

    Image i is filled with the byte 10 i, so a batch shows which images it holds. The CPU stands in for the device.
    """
    if request.param == "loaded":
        monkeypatch.setattr(residence, "free_memory", lambda device: 1 << 20)
        return residence.on_device(OnDisk(), torch.device("cpu"))
    if request.param == "disk":
        return OnDisk()
    return TensorImages((torch.arange(23, dtype=torch.uint8) * 10)[:, None, None, None].expand(23, 3, 2, 2).clone())


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "image reader" in thread.name]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    for stream in OPEN:
        stream.close()
    OPEN.clear()
    assert not readers()


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
        ({"position": 5}, "position: got 5, expected 0 to 4"),
        ({"epoch": -1}, "epoch: got -1, expected a whole number of at least 0"),
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
    for rank in (-1, 2):
        with pytest.raises(ValueError, match=f"got rank {rank}, expected 0 to 1"):
            make(numbered, 6, 0, rank=rank, ranks=2)
    with pytest.raises(ValueError, match="got prefetch -1, expected at least 0"):
        make(numbered, 6, 0, prefetch=-1)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_processes_share_a_batch_out(numbered: Any, ranks: int) -> None:
    alone = take(make(numbered, 6, 3), 9)
    shares = [take(make(numbered, 6, 3, rank=rank, ranks=ranks), 9) for rank in range(ranks)]
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
    """Return eight images in memory, each dark on the left and bright on the right."""
    return TensorImages(torch.tensor([0, 255], dtype=torch.uint8).expand(8, 1, 1, 2).clone())


def mirrored(stream: ImageStream, batches: int) -> list[bool]:
    return [left for batch in mirrored_by_batch(stream, batches) for left in batch]


def mirrored_by_batch(stream: ImageStream, batches: int) -> list[list[bool]]:
    return [(stream.next()[:, 0, 0, 0] > 0).tolist() for _ in range(batches)]


def test_half_of_the_images_are_mirrored_anew_in_each_epoch() -> None:
    first, second = (mirrored(make(slanted(), 4, seed=0, flip=True), 400) for _ in range(2))
    assert first == second
    n = len(first)
    assert abs(sum(first) - n / 2) < 5 * (n / 4) ** 0.5  # five standard deviations of n fair coins
    epochs = [tuple(first[start : start + 8]) for start in range(0, n, 8)]
    assert len(set(epochs)) > 100  # of 200 epochs, each one of 256 patterns
    assert not any(mirrored(make(slanted(), 4, seed=0), 4))


def test_processes_mirror_the_same_images_however_many_they_are() -> None:
    alone = mirrored_by_batch(make(slanted(), 4, 3, flip=True), 9)
    pair = [mirrored_by_batch(make(SlantedOnDisk(8), 4, 3, flip=True, rank=rank, ranks=2), 9) for rank in range(2)]
    assert [first + second for first, second in zip(*pair, strict=True)] == alone
    assert len({str(batch) for batch in alone}) > 1


def test_resuming_mirrors_the_same_images() -> None:
    straight = make(slanted(), 2, 3, flip=True)
    mirrored(straight, 5)
    resumed = make(SlantedOnDisk(8), 2, 3, flip=True)
    resumed.load_state_dict(straight.state_dict())
    assert mirrored(resumed, 20) == mirrored(straight, 20)


def test_every_image_is_mirrored_whole() -> None:
    images = torch.randint(256, (8, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    seen = to_pixels(make(TensorImages(images), 8, 0, flip=True).next())
    plain = to_pixels(make(TensorImages(images), 8, 0).next())
    turned = [torch.equal(after, before.flip(2)) for after, before in zip(seen, plain, strict=True)]
    kept = [torch.equal(after, before) for after, before in zip(seen, plain, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True))
    assert 0 < sum(turned) < 8


def test_an_epochs_order_is_that_of_earlier_releases(numbered: Any) -> None:
    """A resumed run keeps its order of images: torch's permutation, seeded by BLAKE2b of "seed/epoch"."""
    stream = make(numbered, 23, seed=-7)
    for epoch in range(2):
        seed = int.from_bytes(hashlib.blake2b(f"-7/{epoch}".encode(), digest_size=8).digest(), "little") >> 1
        assert take(stream, 1)[0] == torch.randperm(23, generator=torch.Generator().manual_seed(seed)).tolist()


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
    assert images.reads == 4  # batches: one taken, two waiting in the queue, one that the thread holds
    assert images.readers == {"ebgan_fast image reader"}
    assert stream.state_dict()["position"] == 1  # counts the batches that were taken, not those that were read


def test_a_closed_stream_goes_on_where_it_stood() -> None:
    straight = take(make(OnDisk(), 5, 0, prefetch=0), 6)
    with make(OnDisk(), 5, 0) as stream:
        first = take(stream, 3)
        assert readers()
    assert not readers()
    stream.close()  # a second close is allowed
    assert first + take(stream, 3) == straight


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_how_far_ahead_is_read(prefetch: int) -> None:
    images = OnDisk()
    stream = make(images, 5, 0, prefetch=prefetch)
    assert take(stream, 9) == take(make(OnDisk(), 5, 0), 9)
    name = "ebgan_fast image reader" if prefetch else threading.current_thread().name
    assert images.readers == {name}


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_failure_of_the_disk_reaches_the_step(prefetch: int) -> None:
    images = OnDisk()
    images.broken_at = 3
    stream = make(images, 5, 0, prefetch=prefetch)
    taken = take(stream, 2)
    with pytest.raises(OSError, match="the disk is gone"):
        stream.next()
    assert not readers()
    assert stream.state_dict()["position"] == 2
    assert taken + take(stream, 1) == take(make(OnDisk(), 5, 0), 3)  # the disk works again


def test_a_set_in_memory_needs_no_thread() -> None:
    make(slanted(), 4, 0).next()
    assert not readers()


def test_a_stream_that_is_forgotten_ends_its_thread() -> None:
    stream = ImageStream(OnDisk(), 5, 0, device=CPU)
    stream.next()
    assert len(readers()) == 1
    del stream
    gc.collect()
    assert not readers()


# A program that never closes its stream, which a module's variable holds to the end.
FORGETFUL = """
import torch
from tests.data.test_stream import OnDisk
from ebgan_fast.data import ImageStream

stream = ImageStream(OnDisk(), 5, 0, device=torch.device("cpu"))
stream.next()
print("done")
"""


@pytest.mark.slow
def test_an_open_stream_does_not_hold_up_the_end() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORGETFUL], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_closing_does_not_wait_for_a_full_queue() -> None:
    fetcher = Prefetcher(iter(range(1000)), 1)
    assert fetcher.next() == 0
    started = time.monotonic()
    fetcher.close()
    assert time.monotonic() - started < 5
