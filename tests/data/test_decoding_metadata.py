"""EXIF, profiles and texts beside an image's pixels: orientation counts, and damage there costs no image."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ebgan_fast.data.decoding import decode

from .layouts import encoded, picture
from .pngs import chunk, png_of


def test_a_transparent_gray_of_16_bits_is_turned_too() -> None:
    exif = oriented(6).removeprefix(b"Exif\0\0")
    row = struct.pack(">2H", 1000, 1001)
    png = png_of(16, 0, row, 2, chunk(b"eXIf", exif), chunk(b"tRNS", struct.pack(">H", 1000)))
    assert np.asarray(decode(png))[:, :, 0].tolist() == [[255], [4]]


def oriented(orientation: int) -> bytes:
    """Return a block of EXIF with this orientation, as a JPEG holds it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = exif.tobytes()
    assert content.startswith(b"Exif\0\0")
    return content


def test_images_are_turned_upright() -> None:
    image = picture(3, 4, 2)
    exif = Image.Exif()
    exif[0x0112] = 6  # the image is to be turned by 90 degrees clockwise
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    assert (np.asarray(decode(buffer.getvalue())) == np.rot90(np.asarray(image), -1)).all()


def with_chunk(png: bytes, name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """Return the PNG with one more chunk before its pixels."""
    place = png.index(b"IDAT") - 4
    return png[:place] + chunk(name, content, checksum) + png[place:]


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """Return the JPEG with one more segment at its start."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[2:]


def large_text(png: bytes) -> bytes:
    return with_chunk(png, b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20)))


def text_after_the_pixels(png: bytes) -> bytes:
    large = large_text(png)
    start = large.index(b"zTXt") - 4
    end = large.index(b"IDAT") - 4
    return png[:-12] + large[start:end] + png[-12:]


def large_profile(png: bytes) -> bytes:
    return with_chunk(png, b"iCCP", b"profile\0\0" + zlib.compress(bytes(3 << 20)))


def wrong_checksum(png: bytes) -> bytes:
    return with_chunk(png, b"tEXt", b"a\0b", checksum=1)


def short_time(png: bytes) -> bytes:
    return with_chunk(png, b"pHYs", b"\0")


def damaged_exif(png: bytes) -> bytes:
    return with_chunk(png, b"eXIf", b"no EXIF")


def broken_exif(png: bytes) -> bytes:
    return with_chunk(png, b"eXIf", oriented(6).removeprefix(b"Exif\0\0"), checksum=1)


BESIDE_PNG = [large_text, text_after_the_pixels, large_profile, wrong_checksum, short_time]
EXIF_OF_PNG = [damaged_exif, broken_exif]


@pytest.mark.parametrize("beside", [*BESIDE_PNG, *EXIF_OF_PNG])
def test_what_lies_beside_a_png_costs_no_image(beside: Callable[[bytes], bytes]) -> None:
    image = picture(0)
    assert (np.asarray(decode(beside(encoded(image)))) == np.asarray(image)).all()


@pytest.mark.parametrize("beside", [*BESIDE_PNG, broken_exif])
@pytest.mark.parametrize("place", ["first", "before the pixels", "after the pixels"])
def test_what_lies_beside_a_png_costs_no_turn(beside: Callable[[bytes], bytes], place: str) -> None:
    image = picture(0)
    exif = oriented(6).removeprefix(b"Exif\0\0")
    png = encoded(image)
    if place == "first":
        png = beside(with_chunk(png, b"eXIf", exif))
    elif place == "before the pixels":
        png = with_chunk(beside(png), b"eXIf", exif)
    else:
        png = beside(png)[:-12] + chunk(b"eXIf", exif) + png[-12:]
    assert np.array_equal(decode(png), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("beside", BESIDE_PNG)
@pytest.mark.parametrize("exif", EXIF_OF_PNG)
def test_a_png_whose_exif_is_damaged_too_is_not_turned(
    exif: Callable[[bytes], bytes], beside: Callable[[bytes], bytes]
) -> None:
    image = picture(0)
    for png in (exif(beside(encoded(image))), beside(exif(encoded(image)))):
        assert np.array_equal(decode(png), image)


def test_a_transparent_color_outlives_what_is_taken_away() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (1, 2, 3)).save(buffer, "PNG", transparency=(1, 2, 3))
    assert decode(large_text(buffer.getvalue())).getpixel((0, 0)) == (255, 255, 255)


DAMAGED_EXIF = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
BESIDE_JPEG = {
    "JFIF": (0xE0, b"JFIF\0"),
    "MPF": (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff\1\2\3"),
    "MPF of two images that aren't there": (
        0xE2,
        b"MPF\0II*\0\x08\0\0\0\2\0" + struct.pack("<HHIIHHIII", 0xB001, 4, 1, 2, 0xB002, 7, 4, 0, 0),
    ),
    "profile": (0xE2, b"ICC_PROFILE\0"),
    "Photoshop": (0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\0\2ab"),
}
every_beside_jpeg = pytest.mark.parametrize(("marker", "content"), BESIDE_JPEG.values(), ids=BESIDE_JPEG)


@pytest.mark.parametrize(
    ("marker", "content"), [*BESIDE_JPEG.values(), (0xE1, DAMAGED_EXIF)], ids=[*BESIDE_JPEG, "EXIF"]
)
def test_what_lies_beside_a_jpeg_costs_no_image(marker: int, content: bytes) -> None:
    jpeg = encoded(picture(0, 16, 16), "JPEG")
    assert (np.asarray(decode(with_segment(jpeg, marker, content))) == np.asarray(decode(jpeg))).all()


@every_beside_jpeg
def test_what_lies_beside_a_jpeg_costs_no_turn(marker: int, content: bytes) -> None:
    jpeg = encoded(picture(0, 16, 8), "JPEG")
    upright = np.rot90(np.asarray(decode(jpeg)), -1)
    before = with_segment(with_segment(jpeg, marker, content), 0xE1, oriented(6))
    after = with_segment(with_segment(jpeg, 0xE1, oriented(6)), marker, content)
    assert np.array_equal(decode(before), upright)
    assert np.array_equal(decode(after), upright)


@every_beside_jpeg
def test_a_jpeg_whose_exif_is_damaged_too_is_not_turned(marker: int, content: bytes) -> None:
    jpeg = encoded(picture(0, 16, 8), "JPEG")
    before = with_segment(with_segment(jpeg, marker, content), 0xE1, DAMAGED_EXIF)
    after = with_segment(with_segment(jpeg, 0xE1, DAMAGED_EXIF), marker, content)
    for damaged in (before, after):
        assert np.array_equal(decode(damaged), decode(jpeg))


def test_of_two_blocks_of_exif_a_damaged_one_hides_no_turn() -> None:
    """Pillow refuses this file. In a file that it opens, Pillow reads the two blocks as one."""
    for blocks in ((DAMAGED_EXIF, oriented(6)), (oriented(6), DAMAGED_EXIF)):
        jpeg = with_segment(encoded(picture(0, 16, 8), "JPEG"), *BESIDE_JPEG["profile"])
        for block in blocks:
            jpeg = with_segment(jpeg, 0xE1, block)
        assert decode(jpeg).size == (8, 16)


def test_exif_of_two_segments_is_one_block() -> None:
    """The EXIF starts with a text longer than a segment, and the orientation comes after it."""
    entries = struct.pack("<HHHII", 2, 0x010E, 2, 70_000, 38) + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)
    block = b"II*\0\x08\0\0\0" + entries + b"a" * 70_000
    jpeg = with_segment(encoded(picture(0, 16, 8), "JPEG"), *BESIDE_JPEG["profile"])
    for part in (block[60_000:], block[:60_000]):
        jpeg = with_segment(jpeg, 0xE1, b"Exif\0\0" + part)
    assert decode(jpeg).size == (8, 16)


def test_another_value_of_exif_that_pillow_refuses_costs_no_turn() -> None:
    """The value is the resolution, stored as text of one character, which Pillow reads when it opens a file."""
    tags = [(0x0112, 3, 1, 6), (0x011A, 2, 2, ord("5")), (0x0128, 3, 1, 2)]
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    jpeg = encoded(picture(0, 16, 8), "JPEG")
    without_resolution = jpeg[:2] + jpeg[2 + 2 + struct.unpack_from(">H", jpeg, 4)[0] :]  # the segment of JFIF holds it
    refused = with_segment(without_resolution, 0xE1, b"Exif\0\0" + block)
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(refused))
    assert decode(refused).size == (8, 16)


def test_a_damaged_orientation_turns_nothing_and_a_whole_one_does() -> None:
    jpeg = encoded(picture(0, 16, 8), "JPEG")
    damaged = with_segment(jpeg, 0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode(damaged).size == (16, 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = with_segment(jpeg, 0xE1, exif.tobytes())
    assert decode(whole).size == (8, 16)
    exif[0x0112] = 60
    assert decode(with_segment(jpeg, 0xE1, exif.tobytes())).size == (16, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_turn_is_pillows(orientation: int, kind: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    named = {"lossless": True} if kind == "WEBP" else {}
    picture(3, 4, 2).save(buffer, kind, exif=exif, **named)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue())))
    assert (np.asarray(decode(buffer.getvalue())) == np.asarray(upright.convert("RGB"))).all()


def test_16_bits_are_turned_too() -> None:
    pixels = np.arange(6, dtype=np.uint16).reshape(2, 3) * (257 * 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    assert (np.asarray(decode(buffer.getvalue()))[:, :, 0] == np.rot90(pixels // 257, -1)).all()


def test_the_limits_of_pillow_stay_as_they_are() -> None:
    """Pillow's limits hold for the whole process, so metadata is removed from the file's bytes instead."""
    before = PngImagePlugin.MAX_TEXT_CHUNK
    decode(large_text(encoded(picture(0))))
    assert before == PngImagePlugin.MAX_TEXT_CHUNK
