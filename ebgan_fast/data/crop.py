"""From an image of any shape to the square that training sees."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LONG = 8  # squares that a scaled image may hold besides the one that is cut out
_BITS = 22  # of a weight, after the point: Pillow's, for 8 bits


def centre_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return the middle square of an RGB image, scaled to `size` pixels a side: uint8 [size, size, 3].

    The crop of Dhariwal and Nichol (ADM, 2021), by which published ImageNet figures are made: the image is halved by
    averaging while its shorter side is at least twice the size, then scaled by a bicubic filter until the shorter side
    is the size, and cropped. Of a long image that grows, only what the square shows is made; its pixels are the same.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    if scale > 1 and max(width, height) > _LONG * size:
        # Pillow makes a grown image wider, then higher.
        if width > height:
            middle = _rows(np.asarray(image).transpose(1, 0, 2), width, left, size).transpose(1, 0, 2)
            grown = Image.fromarray(np.ascontiguousarray(middle))
            return np.asarray(grown.resize((size, size), Image.Resampling.BICUBIC))
        grown = image.resize((size, image.height), Image.Resampling.BICUBIC)
        return _rows(np.asarray(grown), height, top, size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return pixels[top : top + size, left : left + size]


def _rows(pixels: NDArray[np.uint8], height: int, top: int, count: int) -> NDArray[np.uint8]:
    """Return rows of an image scaled by a bicubic filter to another height, to the bit as Pillow's would be.

    Args:
        pixels: uint8 [H, W, C].
        height: of the whole image, scaled.
        top: number of the first row.
        count: of rows.

    Returns:
        uint8 [count, W, C].
    """
    scale = len(pixels) / height
    stretch = max(scale, 1.0)
    rows = []
    for row in range(top, top + count):
        center = (row + 0.5) * scale
        first = max(int(center - 2 * stretch + 0.5), 0)
        last = min(int(center + 2 * stretch + 0.5), len(pixels))
        weights = [_bicubic((place + first - center + 0.5) * (1.0 / stretch)) for place in range(last - first)]
        total = sum(weights)
        whole = [math.trunc(weight / total * (1 << _BITS) + math.copysign(0.5, weight)) for weight in weights]
        values = np.tensordot(np.array(whole), pixels[first:last].astype(np.int64), 1)
        rows.append(((values + (1 << (_BITS - 1))) >> _BITS).clip(0, 255))
    return np.stack(rows).astype(np.uint8)


def _bicubic(x: float) -> float:
    """The value of Keys' filter with a = -0.5."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0
