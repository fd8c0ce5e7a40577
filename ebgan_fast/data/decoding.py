"""Decode stored images to RGB, and give the reason if an image can't be decoded."""

from __future__ import annotations

import functools
import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import DataError, ImageError
from .sources.names import image_formats
from .sources.reading import is_lfs_pointer
from .sources.source import Pixels

_TO_BE_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_USUAL = ("JPEG", "PNG", "BMP", "GIF", "PPM")  # formats that Pillow loads at once; loading all others takes 0.1 s
_ORIENTATION = 0x0112  # the tag's number in EXIF
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_WHITE, _WHITE_OF_12 = 65_535, 4_095  # the values of white in gray of 16 bits and of 12 bits
_TILE = 1 << 16  # pixels that are converted at once: as Pillow holds RGB they take 256 kB, which fit a cache

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS = 24  # the offset of the byte that holds the number of bits of a sample
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_JPEG = b"\xff\xd8"
# Comments and the segments of applications, except for Adobe's segment, which names the color space.
_JPEG_ASIDE = frozenset({*range(0xE0, 0xEE), 0xEF, 0xFE})
_EXIF = b"Exif\0\0"  # the start of a JPEG's segment of EXIF

_OWN = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")  # names and numbers: images with the same fault differ in these
_LONGEST = 200  # characters of a reason


def decode(stored: bytes | Pixels) -> Image.Image:
    """Return the first frame of a stored image as RGB, upright, with white where it is transparent.

    Gray of 16 bits is scaled to 8 bits. Text, profiles and EXIF beside the pixels may be damaged or large: the image
    is decoded all the same. An image whose EXIF is damaged isn't turned.

    Args:
        stored: the bytes of a file, or uint8 pixels [H, W], or [H, W, C] with C = 1, 3 or 4.

    Raises:
        DataError: the file is empty or a pointer of Git LFS, or its pixels are of a kind that defines no value as
            white, such as floats.
        Exception: any error that Pillow raises for a file that it can't decode.
    """
    if isinstance(stored, np.ndarray):
        pixels = stored[:, :, 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
        return _on_white(Image.fromarray(np.ascontiguousarray(pixels)))
    exifs: list[bytes] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF, and of images of 90 million pixels
        try:
            image = _loaded(stored)
        except Exception as error:  # Pillow may raise any error for a damaged file
            if not stored:
                raise DataError("an empty file") from error
            if is_lfs_pointer(stored):
                raise DataError("a pointer of Git LFS in place of the file; git lfs pull fetches it") from error
            # Pillow also refuses files whose pixels are whole, for text of more than a megabyte or damaged EXIF.
            pixels_alone, exifs = _png_parts(stored) or _jpeg_parts(stored) or (b"", [])
            if not pixels_alone:
                raise
            image = _loaded(pixels_alone)
        turn = _turn(image, exifs)
        if image.format == "PNG" and "transparency" in image.info:
            _scale_clear_color(image, stored[_PNG_BITS])
        image = _on_white(image)  # frees the decoded image before the turned one takes memory
        return image if turn is None else image.transpose(turn)


def trouble_of(error: Exception) -> tuple[str, str]:
    """Return why an image can't be taken: a reason that images share, and this image's own text, each in one line."""
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, ImageError):
        return error.reason, text
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image that Pillow knows", "no image that Pillow knows"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or text, error.strerror or text
    if not isinstance(error, DataError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _OWN.sub("...", text), text


def _loaded(content: bytes) -> Image.Image:
    # Only these formats: Pillow would give a file of PostScript, whatever its name, to another program that runs it.
    try:
        image = Image.open(io.BytesIO(content), formats=_USUAL)
    except Image.UnidentifiedImageError:
        image = Image.open(io.BytesIO(content), formats=image_formats())
    image.load()
    return image


def _png_parts(content: bytes) -> tuple[bytes, list[bytes]] | None:
    """Return a PNG without the chunks that don't describe its pixels, and its blocks of EXIF; None for another file."""
    if not content.startswith(_PNG):
        return None
    kept, exifs, place = [_PNG], [], len(_PNG)
    while place + 12 <= len(content):  # length, name and checksum
        length, name = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + length]
        if name in _PNG_PIXELS:
            kept.append(chunk)
        elif name == b"eXIf" and zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]:
            exifs.append(chunk[8:-4])
        place += 12 + length
    return b"".join(kept), exifs


def _jpeg_parts(content: bytes) -> tuple[bytes, list[bytes]] | None:
    """Return a JPEG without the segments that don't describe its pixels, and its EXIF; None for another file."""
    if not content.startswith(_JPEG):
        return None
    kept, exifs, place = [_JPEG], [], len(_JPEG)
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, length = struct.unpack_from(">xBH", content, place)
        if marker == 0xDA:  # the pixels
            break
        segment = content[place : place + 2 + length]
        if marker not in _JPEG_ASIDE:
            kept.append(segment)
        elif marker == 0xE1 and segment.startswith(_EXIF, 4):
            exifs.append(segment[4 + len(_EXIF) :])
        place += 2 + length
    return b"".join([*kept, content[place:]]), exifs


def _turn(image: Image.Image, exifs: Sequence[bytes]) -> Image.Transpose | None:
    """Return the turn that makes an image upright.

    Args:
        image: the decoded image. Its own EXIF is read first.
        exifs: EXIF that was removed from its file: the parts of one block that was too long for a segment, or several
            blocks, some of them damaged.
    """
    reads: list[Callable[[], Image.Exif]] = [image.getexif]
    if exifs:
        reads += [functools.partial(_parsed, block) for block in (b"".join(exifs), *exifs)]
    for read in reads:
        try:
            orientation = read().get(_ORIENTATION)
        except Exception:  # Pillow may raise any error for damaged EXIF
            continue
        if isinstance(orientation, int) and 1 <= orientation <= 8:
            return _TO_BE_UPRIGHT.get(orientation)
    return None


def _parsed(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def _scale_clear_color(image: Image.Image, bits: int) -> None:
    """Scale the color that a PNG names as transparent to 8 bits: Pillow scales the pixels but not this color."""
    color = image.info["transparency"]
    if image.mode == "RGB" and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in color)
    elif image.mode in ("1", "L") and color < 1 << bits < 256:  # some versions of Pillow scale a color of one bit
        image.info["transparency"] = color * 255 // ((1 << bits) - 1)


def _on_white(image: Image.Image) -> Image.Image:
    """Return an image as RGB: gray of 16 bits is scaled to 8 bits, and transparent parts are laid on white.

    Images of these two kinds are converted tile by tile, because the conversion needs several copies. Any other image
    is returned itself, or as its one converted copy.
    """
    is_deep = image.mode in ("F", "I") or image.mode.startswith("I;16")
    if not is_deep and not _is_seen_through(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    convert = functools.partial(_scaled, table=_grays_of(image)) if is_deep else _laid_on_white
    made = Image.new("RGB", image.size)
    columns = min(image.width, _TILE)
    rows = _TILE // columns
    for top in range(0, image.height, rows):
        for left in range(0, image.width, columns):
            box = left, top, min(left + columns, image.width), min(top + rows, image.height)
            made.paste(convert(image.crop(box)), box)  # pasting opaque RGBA copies its colors
    return made


def _grays_of(image: Image.Image) -> NDArray[np.uint8]:
    """Return the table of 8-bit grays for an image of 16-bit grays; Pillow's own conversion would cut large values off.

    Raises:
        ImageError: the image holds other numbers than 16-bit grays.
    """
    if image.mode in ("F", "I"):
        low, high = cast(tuple[float, float], image.getextrema())
        # In some formats and versions Pillow turns 16-bit grays into 32-bit integers.
        if image.mode == "F" or image.format not in ("PNG", "PPM") or low < 0 or high > _WHITE:
            kind = "floats" if image.mode == "F" else "integers of 32 bits"
            raise ImageError(
                f"{kind} (mode {image.mode}), of which no value is said to be white; expected 8 or 16 bits",
                f"{low:g} to {high:g}",
            )
    tags = getattr(image, "tag_v2", {})
    white = _WHITE_OF_12 if tags.get(_TIFF_BITS) == (12,) else _WHITE
    return _table(white, tags.get(_TIFF_PHOTOMETRIC) == 0)


@functools.cache
def _table(white: int, zero_is_white: bool) -> NDArray[np.uint8]:
    values = np.arange(_WHITE + 1).clip(0, white)
    if zero_is_white:
        values = white - values
    return ((values * 510 + white) // (2 * white)).astype(np.uint8)


def _scaled(tile: Image.Image, table: NDArray[np.uint8]) -> Image.Image:
    stored = np.asarray(tile)
    grays = table[stored]
    if "transparency" in tile.info:  # compared before scaling: several of the 65,536 grays share one of the 256
        grays[stored == tile.info["transparency"]] = 255
    return Image.fromarray(grays)


def _is_seen_through(image: Image.Image) -> bool:
    bands = image.getbands()
    # In some versions of Pillow the palette's mode doesn't say if it has alpha.
    palette = image.getpalette("RGBA") if image.mode == "P" else None
    seen_through = palette is not None and min(palette[3::4], default=255) < 255
    return "A" in bands or "a" in bands or seen_through or "transparency" in image.info


def _laid_on_white(tile: Image.Image) -> Image.Image:
    colors = tile if tile.mode == "RGBA" else tile.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors)
