from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ebgan_fast.data.crop import center_crop

from ..limited_memory import Fork, error_within, needs_linux
from .layouts import picture


def test_the_middle_of_an_image_of_the_right_height_is_cut_out() -> None:
    wide = picture(0, width=31, height=8)
    assert (center_crop(wide, 8) == np.asarray(wide)[:, 11:19]).all()  # 23 columns too many: 11 left, 12 right
    tall = picture(0, width=8, height=31)
    assert (center_crop(tall, 8) == np.asarray(tall)[11:19]).all()


def test_halving_averages_four_pixels() -> None:
    image = picture(1, width=16, height=16)
    pixels = np.asarray(image).astype(np.float64)
    means = pixels.reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(center_crop(image, 8) - means).max() <= 1  # Pillow rounds rows, then columns
    fours = pixels.reshape(4, 4, 4, 4, 3).mean((1, 3))
    assert np.abs(center_crop(image, 4) - fours).max() <= 2


def test_the_rest_of_the_way_is_bicubic() -> None:
    image = picture(2, width=30, height=45)
    halved = image.resize((15, 22), Image.Resampling.BOX)
    expected = np.asarray(halved.resize((12, 18), Image.Resampling.BICUBIC))[3:15]
    assert (center_crop(image, 12) == expected).all()


def test_small_images_grow() -> None:
    assert center_crop(picture(0, 5, 3), 16).shape == (16, 16, 3)
    assert center_crop(picture(0, 1, 1), 4).shape == (4, 4, 3)


def scaled_whole(image: Image.Image, size: int) -> np.ndarray:
    """Return the crop by its definition: halve the image, scale all of it, then cut the square."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize(
    ("short", "long", "size"),
    [(1, 9, 8), (1, 300, 16), (2, 333, 16), (3, 100, 7), (5, 41, 6), (5, 400, 48), (7, 57, 8), (7, 200, 14)],
)
def test_a_long_image_gives_the_same_pixels(short: int, long: int, size: int, upright: bool) -> None:
    """The crop equals its definition, also for black and white pixels, whose scaled values go beyond a byte."""
    width, height = (short, long) if upright else (long, short)
    noise = picture(4, width, height)
    black_or_white = noise.point(lambda value: 255 * (value > 127))
    for image in (noise, black_or_white):
        assert (center_crop(image, size) == scaled_whole(image, size)).all()


LINES = [(3, 50_000, 256), (1, 400_000, 64), (255, 4000, 256)]
either_way = pytest.mark.parametrize("upright", [False, True])


@either_way
@pytest.mark.parametrize(("short", "long", "size"), LINES)
def test_no_more_of_a_long_image_is_scaled_than_the_square_shows(
    short: int, long: int, size: int, upright: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image within the crop has a side more than 4 pixels longer than the square's."""
    sizes = []
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *args: object, **named: object) -> Image.Image:
        sizes.extend([image.size, size])
        return resize(image, size, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", watched)
    line = Image.new("RGB", (short, long) if upright else (long, short))
    assert center_crop(line, size).shape == (size, size, 3)
    assert sizes
    assert max(max(size) for size in sizes) <= size + 4  # the filter reads two lines beyond each edge


def crop_a_line(width: int, height: int, size: int) -> None:
    assert center_crop(Image.new("RGB", (width, height)), size).shape == (size, size, 3)


@pytest.mark.slow
@needs_linux
@either_way
@pytest.mark.parametrize(("short", "long", "size"), [(3, 500_000, 256), (1, 4_000_000, 64)])
def test_a_long_image_takes_the_memory_of_its_square(
    fork: Fork, short: int, long: int, size: int, upright: bool
) -> None:
    """Scaling all of the image would take 512 MB or 1 GB in one direction, and 43 or 66 GB in both.

    tracemalloc does not see Pillow's memory, so the process gets a limit.
    """
    width, height = (short, long) if upright else (long, short)
    assert error_within(fork, 64 << 20, crop_a_line, width, height, size) == ("", "")
