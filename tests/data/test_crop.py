from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ebgan_fast.data.crop import centre_crop
from ebgan_fast.data.decoding import decode

from .layouts import encoded, picture


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


def test_transparency_lies_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0] = [(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 102)]
    shown = np.asarray(decode(encoded(Image.fromarray(pixels))))
    assert shown.tolist() == [[[255, 0, 0], [255, 255, 255], [153, 153, 153]]]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.info["transparency"] = 1
    assert np.asarray(decode(encoded(palette))).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def test_images_are_turned_upright() -> None:
    image = picture(3, 4, 2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    assert (np.asarray(decode(buffer.getvalue())) == np.rot90(np.asarray(image), -1)).all()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (1, 1), 77), (77, 77, 77)),
        (Image.fromarray(np.full((1, 1), 77 * 257, dtype=np.uint16)), (77, 77, 77)),
        (Image.fromarray(np.full((1, 1), 77 * 257 + 200, dtype=np.uint16)), (78, 78, 78)),
        (Image.new("1", (1, 1), 1), (255, 255, 255)),
        (Image.new("LA", (1, 1), (77, 255)), (77, 77, 77)),
    ],
    ids=["grey", "16 bit", "16 bit, to the nearest", "1 bit", "grey with alpha"],
)
def test_other_modes_become_colours(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert decode(encoded(image)).getpixel((0, 0)) == expected


def test_grey_of_more_than_16_bits_does_not_wrap_around() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[-5, 70_000, 65_535]], dtype=np.int32)).save(buffer, "TIFF")
    assert np.asarray(decode(buffer.getvalue()))[0, :, 0].tolist() == [0, 255, 255]


def test_print_colours_become_screens() -> None:
    red, green, blue = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60
