"""Images are decoded to RGB from every mode, and the reason is reported where there is no image."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from ebgan_fast.data import DataError, decoding
from ebgan_fast.data.decoding import _on_white, decode, trouble_of
from ebgan_fast.data.errors import ImageError

from .layouts import encoded, picture
from .pngs import chunk, png_of


def test_transparency_lies_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0] = [(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 102)]
    shown = np.asarray(decode(encoded(Image.fromarray(pixels))))
    assert shown.tolist() == [[[255, 0, 0], [255, 255, 255], [153, 153, 153]]]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.info["transparency"] = 1
    assert np.asarray(decode(encoded(palette))).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def test_a_transparent_gray_of_16_bits_lies_on_white() -> None:
    """Neighboring grays, which are equal to the transparent gray in 8 bits, stay as they are."""
    for seen in (1000, 0):
        row = struct.pack(">3H", seen, seen + 1, 65535)
        png = png_of(16, 0, row, 3, chunk(b"tRNS", struct.pack(">H", seen)))
        assert np.asarray(decode(png))[0, :, 0].tolist() == [255, round((seen + 1) / 257), 255]


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
    """A color that matches the transparent color in its lower bytes alone stays as it is."""
    row = struct.pack(">9H", 1000, 2000, 3000, 0, 0, 0, 232 << 8, 208 << 8, 184 << 8)
    png = png_of(16, 2, row, 3, chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))
    assert np.asarray(decode(png))[0].tolist() == [[255, 255, 255], [0, 0, 0], [232, 208, 184]]


def test_a_palette_with_alpha_lies_on_white() -> None:
    """A TGA may have such a palette."""
    head = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 3, 32, 0, 0, 3, 1, 8, 0x20)
    palette = bytes([7, 8, 9, 255, 3, 2, 1, 0, 0, 0, 0, 102])  # each entry is blue, green, red, alpha
    tga = head + palette + bytes([0, 1, 2])
    try:
        Image.open(io.BytesIO(tga)).load()
    except ValueError:
        pytest.skip("this version of Pillow reads no such file")
    assert np.asarray(decode(tga))[0].tolist() == [[9, 8, 7], [255, 255, 255], [153, 153, 153]]


def test_the_alpha_of_a_palette_or_beside_it_lies_on_white() -> None:
    """The modes are those of Pillow for such images; which file formats give these modes depends on its version."""
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
    """Every kind of transparency is tested, on images below a tile, of some tiles, and with rows longer than a tile."""
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
    """Pillow reads such files as integers of 32 bits, scaled to 65535 whatever the file's own white is."""
    big = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 77 * 257, 65535)
    of_12_bits = b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095)
    assert np.asarray(decode(big))[0, :, 0].tolist() == [0, 77, 255]
    assert np.asarray(decode(of_12_bits))[0, :, 0].tolist() == [0, 128, 255]


def tiff(bits: int, photometric: int, strip: bytes, width: int) -> bytes:
    """Return a gray TIFF of one row."""
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
    of_12 = bytes([0x00, 0x08, 0x00, 0xFF, 0xFF, 0xFF])  # 0, 2048, 4095, 4095: two values in three bytes
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
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns above this number, and refuses above twice it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encoded(picture(0, 15, 10))).size == (15, 10)
    with pytest.raises(Image.DecompressionBombError):
        decode(encoded(picture(0, 15, 20)))


def test_postscript_under_the_name_of_an_image_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow alone would start Ghostscript for such a file."""
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
