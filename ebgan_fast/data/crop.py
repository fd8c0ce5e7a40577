"""Crop an image of any shape to the square that training uses."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LONG = 8  # a scaled image longer than so many squares isn't made as a whole
_BITS = 22  # binary digits of a weight after the point, as in Pillow for 8-bit images


def center_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return the middle square of an RGB image, scaled to `size` pixels a side: uint8 [size, size, 3].

    This is the crop of Dhariwal and Nichol (ADM, 2021), with which published ImageNet figures are made. The image is
    halved by averaging while its shorter side is at least twice the size. A bicubic filter then scales the image so
    that its shorter side is the size, and the middle is cut out. If a long image is enlarged, only the part in the
    square is computed; its pixels are the same.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    if scale > 1 and max(width, height) > _LONG * size:
        return _middle_of_wide(image, width, size) if width > height else _middle_of_tall(image, height, size)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return pixels[top : top + size, left : left + size]


# Pillow scales the width first, rounds to bytes, and then scales the height. Both functions below keep that order.


def _middle_of_wide(image: Image.Image, width: int, size: int) -> NDArray[np.uint8]:
    lines = _middle_lines(image.width, width, size)
    part = image.crop((lines[0].first, 0, lines[-1].end, image.height))
    columns = _blended(np.asarray(part).transpose(1, 0, 2), lines).transpose(1, 0, 2)
    narrow = Image.fromarray(np.ascontiguousarray(columns))
    return np.asarray(narrow.resize((size, size), Image.Resampling.BICUBIC))


def _middle_of_tall(image: Image.Image, height: int, size: int) -> NDArray[np.uint8]:
    lines = _middle_lines(image.height, height, size)
    part = image.crop((0, lines[0].first, image.width, lines[-1].end))
    wide = part.resize((size, part.height), Image.Resampling.BICUBIC)
    return _blended(np.asarray(wide), lines)


class _Line(NamedTuple):
    """A row or column of an enlarged image, as a weighted sum of the stored image's lines."""

    first: int  # the number of the first of these lines
    weights: list[int]  # the weights of that line and of those after it, in units of 2**-_BITS

    @property
    def end(self) -> int:
        return self.first + len(self.weights)


def _middle_lines(length: int, grown: int, size: int) -> list[_Line]:
    """Return the middle `size` lines of the `grown` lines that Pillow's bicubic filter makes of `length` lines."""
    start = (grown - size) // 2
    scale = length / grown
    lines = []
    for number in range(start, start + size):
        center = (number + 0.5) * scale
        first, end = max(int(center - 2 + 0.5), 0), min(int(center + 2 + 0.5), length)  # rounds as Pillow does
        weights = [_bicubic(place - center + 0.5) for place in range(first, end)]
        total = sum(weights)
        whole = [math.trunc(weight / total * (1 << _BITS) + math.copysign(0.5, weight)) for weight in weights]
        lines.append(_Line(first, whole))
    return lines


def _blended(pixels: NDArray[np.uint8], lines: list[_Line]) -> NDArray[np.uint8]:
    """Return lines of an enlarged image, equal bit for bit to Pillow's.

    Args:
        pixels: the stored image's lines from the first to the last that `lines` use, uint8 [n, W, C].
        lines: the lines to make.

    Returns:
        uint8 [number of lines, W, C].
    """
    before = lines[0].first
    made = np.empty((len(lines), *pixels.shape[1:]), dtype=np.uint8)
    for number, (first, weights) in enumerate(lines):
        needed = pixels[first - before : first - before + len(weights)].astype(np.int64)
        values = np.tensordot(np.array(weights), needed, 1)
        made[number] = ((values + (1 << (_BITS - 1))) >> _BITS).clip(0, 255)
    return made


def _bicubic(x: float) -> float:
    """Return the value of Keys' bicubic filter with a = -0.5 at `x` pixels from the center."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0
