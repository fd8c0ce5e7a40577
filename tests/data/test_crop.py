from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ebgan_fast.data.crop import centre_crop

from .layouts import picture


def test_the_middle_of_an_image_of_the_right_height_is_cut_out() -> None:
    wide = picture(0, width=31, height=8)
    assert (centre_crop(wide, 8) == np.asarray(wide)[:, 11:19]).all()  # 23 columns too many: 11 left, 12 right
    tall = picture(0, width=8, height=31)
    assert (centre_crop(tall, 8) == np.asarray(tall)[11:19]).all()


def test_halving_averages_four_pixels() -> None:
    image = picture(1, width=16, height=16)
    pixels = np.asarray(image).astype(np.float64)
    means = pixels.reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(centre_crop(image, 8) - means).max() <= 1  # Pillow rounds rows, then columns
    fours = pixels.reshape(4, 4, 4, 4, 3).mean((1, 3))
    assert np.abs(centre_crop(image, 4) - fours).max() <= 2


def test_the_rest_of_the_way_is_bicubic() -> None:
    image = picture(2, width=30, height=45)
    halved = image.resize((15, 22), Image.Resampling.BOX)
    expected = np.asarray(halved.resize((12, 18), Image.Resampling.BICUBIC))[3:15]
    assert (centre_crop(image, 12) == expected).all()


def test_small_images_grow() -> None:
    assert centre_crop(picture(0, 5, 3), 16).shape == (16, 16, 3)
    assert centre_crop(picture(0, 1, 1), 4).shape == (4, 4, 3)


def scaled_whole(image: Image.Image, size: int) -> np.ndarray:
    """The crop by its definition: halved, scaled as a whole, then cut."""
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
    """Also one of extremes, whose scaled values go beyond a byte."""
    width, height = (short, long) if upright else (long, short)
    noise = picture(4, width, height)
    black_or_white = noise.point(lambda value: 255 * (value > 127))
    for image in (noise, black_or_white):
        assert (centre_crop(image, size) == scaled_whole(image, size)).all()


def test_a_line_of_pixels_takes_the_memory_of_its_square() -> None:
    """Scaled as a whole it would be 256 x 1,024,000: 786 MB, and as much again on the way."""
    line = picture(5, 1, 4000)
    shares = []
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *args: object, **named: object) -> Image.Image:
        shares.append(size[0] * size[1])
        return resize(image, size, *args, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", watched)
        tracemalloc.start()
        assert centre_crop(line, 256).shape == (256, 256, 3)
        assert centre_crop(line.transpose(Image.Transpose.TRANSPOSE), 256).shape == (256, 256, 3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(shares) <= 256 * 4000
    assert peak < 64 << 20
