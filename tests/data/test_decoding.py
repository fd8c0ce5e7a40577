"""From a stored image to RGB: every mode, whatever lies beside the pixels, and why there is no image."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ebgan_fast.data import DataError, decoding
from ebgan_fast.data.decoding import _on_white, decode, trouble_of
from ebgan_fast.data.errors import ImageError

from .layouts import encoded, picture


def test_transparency_lies_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0] = [(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 102)]
    shown = np.asarray(decode(encoded(Image.fromarray(pixels))))
    assert shown.tolist() == [[[255, 0, 0], [255, 255, 255], [153, 153, 153]]]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.info["transparency"] = 1
    assert np.asarray(decode(encoded(palette))).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def png_of(bits: int, kind: int, row: bytes, width: int, *chunks: bytes) -> bytes:
    """A PNG of one row; its kind is 0 for gray, 2 for RGB and 3 for a palette."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", head, *chunks, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    )


def test_a_transparent_gray_of_16_bits_lies_on_white() -> None:
    """But not its neighbors, which are the same gray in 8 bits."""
    for seen in (1000, 0):
        row = struct.pack(">3H", seen, seen + 1, 65535)
        png = png_of(16, 0, row, 3, chunk(b"tRNS", struct.pack(">H", seen)))
        assert np.asarray(decode(png))[0, :, 0].tolist() == [255, round((seen + 1) / 257), 255]


def test_a_transparent_gray_of_16_bits_is_turned_too() -> None:
    exif = oriented(6).removeprefix(b"Exif\0\0")
    row = struct.pack(">2H", 1000, 1001)
    png = png_of(16, 0, row, 2, chunk(b"eXIf", exif), chunk(b"tRNS", struct.pack(">H", 1000)))
    assert np.asarray(decode(png))[:, :, 0].tolist() == [[255], [4]]


@pytest.mark.parametrize("seen", [0, 1, 2, 3])
def test_a_transparent_gray_of_2_bits_lies_on_white(seen: int) -> None:
    png = png_of(2, 0, bytes([0b00_01_10_11]), 4, chunk(b"tRNS", struct.pack(">H", seen)))
    grays = [0, 85, 170, 255]
    grays[seen] = 255
    assert np.asarray(decode(png))[0, :, 0].tolist() == grays


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_black_is_transparent_at_every_depth_and_white_stays_white(bits: int) -> None:
    both = 0x00FF if bits == 8 else (1 << bits) - 1 << 8 + (8 - 2 * bits)
    for seen, expected in ((0, [255, 255]), ((1 << bits) - 1, [0, 255])):
        png = png_of(bits, 0, struct.pack(">H", both), 2, chunk(b"tRNS", struct.pack(">H", seen)))
        assert np.asarray(decode(png))[0, :, 0].tolist() == expected


def test_a_transparent_color_of_16_bits_lies_on_white() -> None:
    """And not that of its lower bytes."""
    row = struct.pack(">9H", 1000, 2000, 3000, 0, 0, 0, 232 << 8, 208 << 8, 184 << 8)
    png = png_of(16, 2, row, 3, chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))
    assert np.asarray(decode(png))[0].tolist() == [[255, 255, 255], [0, 0, 0], [232, 208, 184]]


def test_a_palette_with_alpha_lies_on_white() -> None:
    """A TGA's."""
    head = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 3, 32, 0, 0, 3, 1, 8, 0x20)
    palette = bytes([7, 8, 9, 255, 3, 2, 1, 0, 0, 0, 0, 102])  # blue first
    tga = head + palette + bytes([0, 1, 2])
    try:
        Image.open(io.BytesIO(tga)).load()
    except ValueError:
        pytest.skip("this version of Pillow reads no such file")
    assert np.asarray(decode(tga))[0].tolist() == [[9, 8, 7], [255, 255, 255], [153, 153, 153]]


def test_the_alpha_of_a_palette_or_beside_it_lies_on_white() -> None:
    """In the modes in which Pillow hands out such images: their formats differ by its version."""
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([9, 8, 7, 255, 1, 2, 3, 0], "RGBA")
    assert np.asarray(_on_white(palette)).tolist() == [[[9, 8, 7], [255, 255, 255]]]
    beside = Image.new("PA", (2, 1))
    beside.putpalette([9, 8, 7, 1, 2, 3])
    beside.putpixel((0, 0), (1, 255))
    assert np.asarray(_on_white(beside)).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_a_tiff_of_a_palette_with_alpha_lies_on_white() -> None:
    palette = Image.new("PA", (2, 1))
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.putpixel((0, 0), (1, 255))
    buffer = io.BytesIO()
    palette.save(buffer, "TIFF")
    assert np.asarray(decode(buffer.getvalue())).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_a_palette_with_alphas_of_a_png_lies_on_white() -> None:
    colors = [chunk(b"PLTE", bytes([9, 8, 7, 1, 2, 3, 0, 0, 0])), chunk(b"tRNS", bytes([255, 0, 102]))]
    png = png_of(8, 3, bytes([0, 1, 2]), 3, *colors)
    assert np.asarray(decode(png))[0].tolist() == [[9, 8, 7], [255, 255, 255], [153, 153, 153]]


SIZES = [(1, 1), (7, 9), (64, 2), (65, 3), (1, 200), (301, 1), (301, 7)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L", "1"])
def test_tiles_hold_the_pixels_of_the_whole(mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Transparency of every kind, in images of less than a tile, of a few, and of lines that are longer than one."""
    draw = np.random.default_rng(size)
    image = Image.fromarray(draw.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8))
    if mode in ("P", "PA"):
        index = Image.fromarray(draw.integers(0, 4, size[::-1], dtype=np.uint8), mode="P")
        index.putpalette(draw.integers(0, 256, 12).tolist())
        alpha = image.getchannel("A")
        image = index
        if mode == "PA":
            image = index.convert("PA")
            image.putalpha(alpha)
    else:
        image = image.convert(mode)
    if mode in ("P", "RGB", "L", "1"):
        image.info["transparency"] = image.getpixel((0, 0))
    whole = Image.alpha_composite(Image.new("RGBA", size, "white"), image.convert("RGBA")).convert("RGB")
    monkeypatch.setattr(decoding, "_TILE", 64)
    assert np.array_equal(np.asarray(_on_white(image)), np.asarray(whole))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["I;16", "I;16B", "I"])
def test_tiles_hold_the_grays_of_the_whole(form: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stored = np.random.default_rng(size).integers(0, 65_536, size[::-1])
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[form]
    image = Image.frombytes(form, size, stored.astype(dtype).tobytes())
    image.format = "PNG"
    seen = int(stored[0, 0])
    gray = np.round(stored / 257)
    monkeypatch.setattr(decoding, "_TILE", 64)
    for transparency in (None, seen):
        if transparency is not None:
            image.info["transparency"] = transparency
            gray[stored == seen] = 255
        assert np.array_equal(np.asarray(_on_white(image)), np.repeat(gray[:, :, None], 3, 2))


def oriented(orientation: int) -> bytes:
    """EXIF as a JPEG holds it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = exif.tobytes()
    assert content.startswith(b"Exif\0\0")
    return content


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
    ids=["gray", "16 bit", "16 bit, to the nearest", "1 bit", "gray with alpha"],
)
def test_other_modes_become_colors(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert decode(encoded(image)).getpixel((0, 0)) == expected


def test_print_colors_become_screens() -> None:
    red, green, blue = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), r"floats \(mode F\), .* \(0 to 1\)"),
        (np.array([[-5, 70_000, 65_535]], dtype=np.int32), r"integers of 32 bits \(mode I\), .* \(-5 to 70000\)"),
        (np.array([[0, 200]], dtype=np.int32), r"integers of 32 bits \(mode I\), .* \(0 to 200\)"),
    ],
)
def test_pixels_without_a_white_are_refused_with_their_mode(pixels: np.ndarray, words: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    with pytest.raises(DataError, match=words) as error:
        decode(buffer.getvalue())
    reason, text = trouble_of(error.value)
    assert text.startswith(reason)
    assert reason.endswith(", of which no value is said to be white; expected 8 or 16 bits")


def test_16_bits_of_a_portable_map_are_scaled() -> None:
    """Pillow reads them as integers of 32 bits, to 65535 whatever the file's own white is."""
    big = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 77 * 257, 65535)
    of_12_bits = b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095)
    assert np.asarray(decode(big))[0, :, 0].tolist() == [0, 77, 255]
    assert np.asarray(decode(of_12_bits))[0, :, 0].tolist() == [0, 128, 255]


def tiff(bits: int, photometric: int, strip: bytes, width: int) -> bytes:
    """A gray TIFF of one line."""
    entries = [
        (256, 3, width), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (277, 3, 1),
        (278, 3, 1), (279, 4, len(strip)),
    ]  # fmt: skip
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    directory = struct.pack("<H", len(entries)) + packed + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory


def test_a_tiff_says_what_is_white() -> None:
    of_16 = struct.pack("<3H", 0, 128 * 257, 65535)
    assert np.asarray(decode(tiff(16, 1, of_16, 3)))[0, :, 0].tolist() == [0, 128, 255]
    assert np.asarray(decode(tiff(16, 0, of_16, 3)))[0, :, 0].tolist() == [255, 127, 0]
    of_12 = bytes([0x00, 0x08, 0x00, 0xFF, 0xFF, 0xFF])  # 0, 2048, 4095, 4095: two in three bytes
    assert np.asarray(decode(tiff(12, 1, of_12, 4)))[0, :, 0].tolist() == [0, 128, 255, 255]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4)])
def test_pixels_are_taken_as_they_are(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if shape[2:] == (4,):
        pixels[:, :, 3] = 255
    shown = np.asarray(decode(pixels))
    expected = pixels.reshape(2, 3, -1)[:, :, :3]
    assert (shown == np.broadcast_to(expected, (2, 3, 3))).all()


def test_transparent_pixels_lie_on_white() -> None:
    assert np.asarray(decode(np.array([[[9, 9, 9, 0]]], dtype=np.uint8))).tolist() == [[[255, 255, 255]]]


def chunk(name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def with_chunk(png: bytes, name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """The PNG with a chunk more before its pixels."""
    place = png.index(b"IDAT") - 4
    return png[:place] + chunk(name, content, checksum) + png[place:]


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """The JPEG with a segment more at its start."""
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
    """The file is one that Pillow refuses. Of one that it takes, it reads the blocks as one."""
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
    """The resolution, which it reads on opening, as a text of one sign."""
    tags = [(0x0112, 3, 1, 6), (0x011A, 2, 2, ord("5")), (0x0128, 3, 1, 2)]
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    jpeg = encoded(picture(0, 16, 8), "JPEG")
    without_resolution = jpeg[:2] + jpeg[2 + 2 + struct.unpack_from(">H", jpeg, 4)[0] :]  # of JFIF
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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a pointer of Git LFS in place of the file; git lfs pull fetches it",
        ),
        (b"text", "no image that Pillow knows"),
    ],
)
def test_reasons(content: bytes, reason: str) -> None:
    with pytest.raises(Exception, match=r".") as error:
        decode(content)
    assert trouble_of(error.value) == (reason, reason)


def test_troubles_that_differ_by_numbers_have_one_reason() -> None:
    whole = encoded(picture(0, 60, 60), "JPEG")
    troubles = []
    for count in (1, 2):
        with pytest.raises(OSError, match="truncated") as error:
            decode(whole[: len(whole) * count // 3])
        troubles.append(trouble_of(error.value))
    (reason, text), (other_reason, other_text) = troubles
    assert text != other_text
    assert reason == other_reason == "OSError: image file is truncated (... bytes not processed)"


@pytest.mark.parametrize(
    ("error", "other", "reason"),
    [
        (zipfile.BadZipFile("Bad CRC-32 for file 'a.png'"), zipfile.BadZipFile("Bad CRC-32 for file 'b.png'"), None),
        (RuntimeError("File 'a' is encrypted"), RuntimeError("File 'b2' is encrypted"), None),
        (PermissionError(13, "Permission denied", "/a"), PermissionError(13, "Permission denied", "/b"), None),
        (ImageError("too much", "3 bytes"), ImageError("too much", "4"), "too much"),
        (ValueError(), ValueError(""), "ValueError"),
    ],
    ids=str,
)
def test_troubles_that_differ_by_names_have_one_reason(error: Exception, other: Exception, reason: str | None) -> None:
    one, two = trouble_of(error)[0], trouble_of(other)[0]
    assert one == two
    assert reason in (None, one)


def test_no_warning_reaches_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # warned of from here, refused from twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encoded(picture(0, 15, 10))).size == (15, 10)
    with pytest.raises(Image.DecompressionBombError):
        decode(encoded(picture(0, 15, 20)))


def test_the_limits_of_pillow_stay_as_they_are() -> None:
    """The limits are the whole process's. What lies beside the pixels is taken out of the file instead."""
    before = PngImagePlugin.MAX_TEXT_CHUNK
    decode(large_text(encoded(picture(0))))
    assert before == PngImagePlugin.MAX_TEXT_CHUNK


def test_postscript_under_the_name_of_an_image_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript."""
    from PIL import EpsImagePlugin

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **named: started.append(args))
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(script)).format == "EPS"
    with pytest.raises(Image.UnidentifiedImageError):
        decode(script)
    assert not started


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "TGA", "ICO", "PCX", "SGI", "JPEG2000"])
def test_formats_that_pillow_loads_later(kind: str) -> None:
    image = picture(0, 16, 16)
    buffer = io.BytesIO()
    image.save(buffer, kind, **{"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}.get(kind, {}))
    assert (np.asarray(decode(buffer.getvalue())) == np.asarray(image)).all()
