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

from ebgan_fast.data import DataError
from ebgan_fast.data.decoding import decode, trouble_of
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


def test_print_colours_become_screens() -> None:
    red, green, blue = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), r"floats \(mode F, 0 to 1\)"),
        (np.array([[-5, 70_000, 65_535]], dtype=np.int32), r"integers of 32 bits \(mode I, -5 to 70000\)"),
        (np.array([[0, 200]], dtype=np.int32), r"integers of 32 bits \(mode I, 0 to 200\)"),
    ],
)
def test_pixels_without_a_white_are_refused_with_their_mode(pixels: np.ndarray, words: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    with pytest.raises(DataError, match=rf"{words}, which don't say what is white; expected 8 or 16 bits"):
        decode(buffer.getvalue())


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


def with_chunk(png: bytes, name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """The PNG with a chunk more before its pixels."""
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    place = png.index(b"IDAT") - 4
    return png[:place] + struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum) + png[place:]


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


@pytest.mark.parametrize(
    "beside", [large_text, text_after_the_pixels, large_profile, wrong_checksum, short_time, damaged_exif]
)
def test_what_lies_beside_a_png_costs_no_image(beside: Callable[[bytes], bytes]) -> None:
    image = picture(0)
    assert (np.asarray(decode(beside(encoded(image)))) == np.asarray(image)).all()


def test_a_transparent_color_outlives_what_is_taken_away() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (1, 2, 3)).save(buffer, "PNG", transparency=(1, 2, 3))
    assert decode(large_text(buffer.getvalue())).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (0xE0, b"JFIF\0"),
        (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
        (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff\1\2\3"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\0\2ab"),
    ],
)
def test_what_lies_beside_a_jpeg_costs_no_image(marker: int, content: bytes) -> None:
    jpeg = encoded(picture(0, 16, 16), "JPEG")
    assert (np.asarray(decode(with_segment(jpeg, marker, content))) == np.asarray(decode(jpeg))).all()


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
    """They are the process's: what lies beside the pixels is left out of the file instead."""
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
