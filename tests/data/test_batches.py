from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from ebgan_fast.data import ShuffledBatches, to_signed_unit


@pytest.fixture
def numbered() -> Tensor:
    """23 images; image i is filled with the byte 10 i, so a batch tells which images it holds."""
    return (torch.arange(23, dtype=torch.uint8) * 10)[:, None, None].expand(23, 28, 28).contiguous()


def ids(batch: Tensor) -> list[int]:
    centre = batch.view(-1, 32, 32)[:, 16, 16]
    return ((centre + 1) * 127.5 / 10).round().int().tolist()


def take(batches: ShuffledBatches, count: int) -> list[list[int]]:
    return [ids(batches.next()) for _ in range(count)]


def test_bytes_map_onto_the_signed_unit() -> None:
    values = to_signed_unit(torch.arange(256, dtype=torch.uint8))
    assert values.dtype == torch.float32
    assert values[0].item() == -1
    assert values[255].item() == 1
    exact = torch.arange(256, dtype=torch.float64) / 255 * 2 - 1
    # Two float32 roundings of values below 2: half an ulp of 2**-23 each.
    assert (values.double() - exact).abs().max() <= 2**-23
    assert ((values + 1) * 127.5).round().to(torch.uint8).tolist() == list(range(256))


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_an_epoch_is_a_permutation_less_the_short_batch(numbered: Tensor, batch_size: int) -> None:
    batches = ShuffledBatches(numbered, batch_size, seed=0)
    assert batches.batches_per_epoch == 23 // batch_size
    orders = []
    for _ in range(4):
        order = [image for batch in take(batches, batches.batches_per_epoch) for image in batch]
        assert len(set(order)) == len(order) == 23 // batch_size * batch_size
        assert set(order) <= set(range(23))
        orders.append(tuple(order))
    assert len(set(orders)) == 4


def test_padding_is_black_and_the_centre_is_the_image() -> None:
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0] = 255
    batches = ShuffledBatches(images, 3, seed=1)
    batch = batches.next()
    assert batch.shape == (3, 1024)
    assert batch.dtype == torch.float32
    square = batch.view(3, 32, 32)
    expected = {tuple(row) for row in (images.float() / 127.5 - 1).flatten(1).tolist()}
    assert {tuple(row) for row in square[:, 2:30, 2:30].flatten(1).tolist()} == expected
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:30, 2:30] = False
    assert (square[:, border] == -1).all()


def test_an_odd_margin_is_wider_below_and_right() -> None:
    images = torch.full((1, 2, 4), 255, dtype=torch.uint8)
    square = ShuffledBatches(images, 1, 0, image_size=7).next().view(7, 7)
    assert (square == 1).nonzero().tolist() == [[row, column] for row in (2, 3) for column in (1, 2, 3, 4)]


def test_no_margin(numbered: Tensor) -> None:
    assert ShuffledBatches(numbered, 2, 0, image_size=28).next().shape == (2, 784)


def test_the_same_seed_repeats_and_another_differs(numbered: Tensor) -> None:
    runs = {seed: take(ShuffledBatches(numbered, 5, seed), 9) for seed in (0, 1, 2, -1, 2**32, 2**63)}
    assert take(ShuffledBatches(numbered, 5, 0), 9) == runs[0]
    assert len({str(run) for run in runs.values()}) == len(runs)


def test_one_seeds_epoch_is_not_the_next_seeds(numbered: Tensor) -> None:
    epochs = {seed: take(ShuffledBatches(numbered, 23, seed), 8) for seed in range(8)}
    flat = [str(epoch) for run in epochs.values() for epoch in run]
    assert len(set(flat)) == len(flat)


def test_the_global_generator_neither_matters_nor_moves(numbered: Tensor) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = take(ShuffledBatches(numbered, 5, 7), 9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert take(ShuffledBatches(numbered, 5, 7), 9) == first


@pytest.mark.parametrize("taken", range(10))
def test_resuming_gives_the_same_batches(numbered: Tensor, taken: int) -> None:
    straight = ShuffledBatches(numbered, 5, seed=4)
    take(straight, taken)
    state = json.loads(json.dumps(straight.state_dict()))
    resumed = ShuffledBatches(numbered, 5, seed=4)
    take(resumed, 6)
    resumed.load_state_dict(state)
    assert take(resumed, 9) == take(straight, 9)


def test_changing_a_batch_leaves_the_set_alone(numbered: Tensor) -> None:
    batches = ShuffledBatches(numbered, 23, 0)
    batches.next().zero_()
    assert sorted(ids(batches.next())) == list(range(23))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "got a state with seed 5, expected 4"),
        ({"batch_size": 6}, "got a state with batch_size 6, expected 5"),
        ({"images": 24}, "got a state with images 24, expected 23"),
        ({"position": 5}, "got epoch 0, position 5, expected epoch >= 0, position 0 to 4"),
        ({"epoch": -1}, "got epoch -1"),
        ({"surplus": 1}, "got state keys .*'surplus'"),
    ],
)
def test_a_foreign_state_is_refused(numbered: Tensor, change: dict[str, int], message: str) -> None:
    batches = ShuffledBatches(numbered, 5, seed=4)
    with pytest.raises(ValueError, match=message):
        batches.load_state_dict({**batches.state_dict(), **change})


@pytest.mark.parametrize(
    ("images", "arguments", "error", "message"),
    [
        (torch.zeros(3, 28, 28, dtype=torch.uint8), (4, 0), ValueError, "got batch_size 4, expected 1 to 3"),
        (torch.zeros(3, 28, 28, dtype=torch.uint8), (0, 0), ValueError, "got batch_size 0, expected 1 to 3"),
        (
            torch.zeros(3, 784, dtype=torch.uint8),
            (1, 0),
            ValueError,
            r"got images of shape \[3, 784\], expected \[M",
        ),
        (
            torch.zeros(3, 28, 33, dtype=torch.uint8),
            (1, 0),
            ValueError,
            "got image_size 32, expected at least 33",
        ),
        (torch.zeros(3, 28, 28), (1, 0), TypeError, "got images of torch.float32, expected a uint8 tensor"),
        ([[1]], (1, 0), TypeError, "got images of <class 'list'>, expected a uint8 tensor"),
    ],
)
def test_refuses(images: Tensor, arguments: tuple[int, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ShuffledBatches(images, *arguments)
