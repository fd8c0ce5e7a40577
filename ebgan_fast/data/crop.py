"""From an encoded image to the square of pixels that training sees."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def decode(content: bytes) -> Image.Image:
    """An encoded image as RGB: turned upright as its EXIF says, what is transparent on white, the first of many frames.

    Raises:
        OSError, ValueError, SyntaxError: Pillow can't read it.
    """
    image = Image.open(io.BytesIO(content))
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        # 16-bit grey: Pillow's conversion would cut instead of scaling.
        values = np.asarray(upright).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if "A" in upright.getbands() or "transparency" in upright.info:
        colours = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return upright.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The middle square, scaled to `size` pixels a side: uint8 [size, size, 3].

    The crop of Dhariwal and Nichol (ADM, 2021), by which published ImageNet figures are made: the image is halved by
    averaging while its shorter side is at least twice the size, then scaled by a bicubic filter until the shorter side
    is the size, and cropped.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]
