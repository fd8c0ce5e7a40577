from __future__ import annotations

from typing import Any

import pytest
import torch

from ebgan_fast.data import TensorImages, pad_to_square, to_pixels, to_signed_unit


def test_bytes_map_onto_the_signed_unit() -> None:
    values = to_signed_unit(torch.arange(256, dtype=torch.uint8))
    assert values.dtype == torch.float32
    assert values[0].item() == -1
    assert values[255].item() == 1
    exact = torch.arange(256, dtype=torch.float64) / 255 * 2 - 1
    # Two roundings to float32 of values below 2, each by half a unit of 2**-23.
    assert (values.double() - exact).abs().max() <= 2**-23
    assert ((values + 1) * 127.5).round().to(torch.uint8).tolist() == list(range(256))


def test_pixels_are_the_nearest_bytes() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_pixels(to_signed_unit(every)), every)
    assert to_pixels(torch.tensor([-3.0, 3.0, 0.0, 0.003, 0.005], dtype=torch.float64)).tolist() == [
        0,
        255,
        128,
        128,
        128,
    ]
    assert to_pixels(torch.tensor([-0.5], dtype=torch.bfloat16)).tolist() == [64]


def test_padding_is_black_and_the_center_is_the_image() -> None:
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    square = pad_to_square(images, 32)
    assert square.shape == (3, 1, 32, 32)
    assert torch.equal(square[:, 0, 2:30, 2:30], images)
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:30, 2:30] = False
    assert (square[:, 0, border] == 0).all()
    assert torch.equal(pad_to_square(images, 28)[:, 0], images)


def test_an_odd_margin_is_wider_below_and_right() -> None:
    square = pad_to_square(torch.full((1, 2, 4), 255, dtype=torch.uint8), 7)[0, 0]
    assert square.nonzero().tolist() == [[row, column] for row in (2, 3) for column in (1, 2, 3, 4)]


def test_a_set_in_memory() -> None:
    images = torch.randint(256, (6, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    held = TensorImages(images)
    assert (len(held), held.shape) == (6, (3, 4, 5))
    assert torch.equal(held.gather(torch.tensor([4, 0, 4])), images[[4, 0, 4]])
    place = torch.zeros(3, 3, 4, 5, dtype=torch.uint8).to(memory_format=torch.channels_last)
    assert held.gather(torch.tensor([4, 0, 4]), place) is place
    assert torch.equal(place, images[[4, 0, 4]])
    other = images.clone()
    other[5, 2, 3, 4] ^= 1
    assert held.fingerprint == TensorImages(images.clone()).fingerprint != TensorImages(other).fingerprint
    assert held.fingerprint != TensorImages(images.reshape(6, 3, 5, 4)).fingerprint


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TensorImages(torch.zeros(2, 1, 3, 3)), TypeError, "got images of torch.float32, expected a uint8"),
        (lambda: TensorImages([[1]]), TypeError, "got images of <class 'list'>"),  # type: ignore[arg-type]
        (
            lambda: TensorImages(torch.zeros(2, 3, 3, dtype=torch.uint8)),
            ValueError,
            r"shape \[2, 3, 3\], expected \[M, C",
        ),
        (lambda: pad_to_square(torch.zeros(2, 9), 9), ValueError, r"shape \[2, 9\], expected \[M, H, W\]"),
        (lambda: pad_to_square(torch.zeros(2, 28, 33), 32), ValueError, "got image_size 32, expected at least 33"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
