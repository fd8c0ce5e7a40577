"""From a stored image to RGB, whatever lies beside its pixels; and why there is none."""

from __future__ import annotations

import io
import re
import struct
import warnings

import numpy as np
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
_USUAL = ("JPEG", "PNG", "BMP", "GIF", "PPM")  # which Pillow loads by itself; all others take it 0.1 s once
_ORIENTATION = 0x0112  # of EXIF
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_WHITE, _WHITE_OF_12 = 65_535, 4_095  # of gray with 16 bits and with 12

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_JPEG = b"\xff\xd8"
_JPEG_ASIDE = frozenset({*range(0xE0, 0xEE), 0xEF, 0xFE})  # applications' but Adobe's, which names the colors; comments

_OWN = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")  # names and numbers, which differ between images with the same trouble
_LONGEST = 200  # signs of a reason


def decode(stored: bytes | Pixels) -> Image.Image:
    """Return a stored image as RGB: upright, what is transparent on white, the first of many frames.

    Gray of 16 bits is scaled to 8. What lies beside the pixels, such as text, profiles and EXIF, may be damaged or
    large: without it, an image isn't turned.

    Args:
        stored: the bytes of a file, or uint8 pixels [H, W], or [H, W, C] with C = 1, 3 or 4.

    Raises:
        DataError: pixels of a kind that has no black and white, such as floats; or a pointer of Git LFS.
        Exception: whatever Pillow raises for a file that it can't decode.
    """
    if isinstance(stored, np.ndarray):
        pixels = stored[:, :, 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
        return _on_white(Image.fromarray(np.ascontiguousarray(pixels)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF, and of images of 90 million pixels
        try:
            image = _loaded(stored)
        except Exception as error:  # whatever a damaged file makes Pillow raise
            if not stored:
                raise DataError("an empty file") from error
            if is_lfs_pointer(stored):
                raise DataError("a pointer of Git LFS in place of the file; git lfs pull fetches it") from error
            # Pillow refuses a file for what lies beside its pixels too: text of more than a megabyte, damaged EXIF.
            pixels_alone = _png_pixels(stored) or _jpeg_pixels(stored)
            if not pixels_alone:
                raise
            image = _loaded(pixels_alone)
        turn = _turn(image)
        image = _of_8_bits(image)
        return _on_white(image if turn is None else image.transpose(turn))


def trouble_of(error: Exception) -> tuple[str, str]:
    """Return why an image can't be taken: the reason, which images share, and all that there is to say, in one line."""
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
    # Not all that Pillow opens: it would let another program run what is PostScript under the name of an image.
    try:
        image = Image.open(io.BytesIO(content), formats=_USUAL)
    except Image.UnidentifiedImageError:
        image = Image.open(io.BytesIO(content), formats=image_formats())
    image.load()
    return image


def _png_pixels(content: bytes) -> bytes:
    """A PNG less the chunks that say nothing of its pixels; nothing if it is no PNG."""
    if not content.startswith(_PNG):
        return b""
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(content):  # length, name and checksum
        length, name = struct.unpack_from(">I4s", content, place)
        if name in _PNG_PIXELS:
            kept.append(content[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def _jpeg_pixels(content: bytes) -> bytes:
    """A JPEG less the segments before its pixels that say nothing of them; nothing if it is no JPEG."""
    if not content.startswith(_JPEG):
        return b""
    kept, place = [_JPEG], len(_JPEG)
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, length = struct.unpack_from(">xBH", content, place)
        if marker == 0xDA:  # the pixels
            break
        if marker not in _JPEG_ASIDE:
            kept.append(content[place : place + 2 + length])
        place += 2 + length
    return b"".join([*kept, content[place:]])


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 bits, scaled: Pillow's conversion would cut it off."""
    if image.mode in ("F", "I"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        # Integers of 32 bits are also what Pillow makes of 16 in some formats and versions.
        if image.mode == "F" or image.format not in ("PNG", "PPM") or low < 0 or high > _WHITE:
            kind = "floats" if image.mode == "F" else "integers of 32 bits"
            raise DataError(
                f"pixels that are {kind} (mode {image.mode}, {low:g} to {high:g}), which don't say what is white; "
                "expected 8 or 16 bits"
            )
    elif not image.mode.startswith("I;16"):
        return image
    tags = getattr(image, "tag_v2", {})
    white = _WHITE_OF_12 if tags.get(_TIFF_BITS) == (12,) else _WHITE
    values = np.asarray(image).astype(np.int64).clip(0, white)
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # zero is white
        values = white - values
    return Image.fromarray(((values * 510 + white) // (2 * white)).astype(np.uint8))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The turn that makes an image upright, as its EXIF says."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # whatever damaged EXIF makes Pillow raise
        return None
    return _TO_BE_UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _on_white(image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        colors = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors).convert("RGB")
    return image.convert("RGB")
