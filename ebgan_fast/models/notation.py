"""Read the paper's notation for convolutional networks, such as "(64)4c2s-(128)4c2s-(256)4c2s" (appendix F)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LAYER = re.compile(r"\((\d+)\)(\d+)c(?:(\d+)s)?")


@dataclass(frozen=True)
class ConvLayer:
    """One convolutional layer. Its notation is "(maps)kernel c stride s"; a stride of 1 is left out, as in "(3)3c".

    Example:
        >>> from ebgan_fast.models import ConvLayer
        >>> layer = ConvLayer(maps=64, kernel=4, stride=2)
        >>> str(layer), layer.padding
        ('(64)4c2s', 1)
    """

    maps: int
    """The number of feature maps that the layer makes."""
    kernel: int
    """The side of the layer's square kernel."""
    stride: int = 1
    """The factor by which a layer divides the side of its input in an encoder, and multiplies it elsewhere."""

    def __str__(self) -> str:
        stride = "" if self.stride == 1 else f"{self.stride}s"
        return f"({self.maps}){self.kernel}c{stride}"

    @property
    def padding(self) -> int:
        """The padding on each side by which the image's side changes by exactly the factor `stride`.

        Raises:
            ValueError: no padding does this, because kernel - stride is odd or negative.
        """
        surplus = self.kernel - self.stride
        if surplus < 0 or surplus % 2:
            raise ValueError(
                f"layer {self}: got kernel {self.kernel} with stride {self.stride}, expected a kernel larger by "
                "0 or an even number, such as 4c2s or 3c; only a generator's first layer may differ"
            )
        return surplus // 2


def parse_layers(text: str) -> tuple[ConvLayer, ...]:
    """Return the layers that a string describes in the paper's notation (appendix F).

    Args:
        text: layers joined by hyphens, each with its maps, kernel and stride, such as "(64)4c2s-(128)4c2s".

    Raises:
        ValueError: a part can't be read, or has a size of 0. The message names the part.

    Example:
        >>> from ebgan_fast.models import parse_layers
        >>> parse_layers("(64)4c2s-(3)3c")
        (ConvLayer(maps=64, kernel=4, stride=2), ConvLayer(maps=3, kernel=3, stride=1))
    """
    return tuple(_parse_layer(part, text) for part in text.split("-"))


def _parse_layer(part: str, text: str) -> ConvLayer:
    found = _LAYER.fullmatch(part.strip())
    if found is None:
        raise ValueError(
            f"layers {text!r}: got {part!r}, expected (maps)kernel c stride s, such as (64)4c2s, joined by hyphens"
        )
    maps, kernel, stride = (int(number or 1) for number in found.groups())
    if min(maps, kernel, stride) < 1:
        raise ValueError(f"layers {text!r}: got a 0 in {part!r}, expected sizes of at least 1")
    return ConvLayer(maps, kernel, stride)


def parse_noise(text: str) -> tuple[int, ...]:
    """Return the numbers of noise planes that a string lists, one for each of the generator's first layers.

    Args:
        text: numbers joined by hyphens. "100-64-32" means a vector of 100 for the first layer, 64 planes for the second
            and 32 planes for the third.

    Raises:
        ValueError: the text isn't whole numbers joined by hyphens, or the first is 0.

    Example:
        >>> from ebgan_fast.models import parse_noise
        >>> parse_noise("100-64-32")
        (100, 64, 32)
    """
    parts = text.split("-")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts) or int(parts[0]) < 1:
        raise ValueError(
            f"noise {text!r}: got something else than whole numbers joined by hyphens, the first at least 1, expected "
            "such as 100 or 100-64-32"
        )
    return tuple(int(part) for part in parts)


def widened(layers: tuple[ConvLayer, ...], width: float, *, keep_last: bool) -> tuple[ConvLayer, ...]:
    """Return the layers with `width` times as many maps, but at least 1 each.

    Args:
        layers: the layers.
        width: the factor on their maps.
        keep_last: True to leave the last layer unchanged, if its maps are an image's channels.
    """
    last = len(layers) - 1
    return tuple(
        layer
        if keep_last and index == last
        else ConvLayer(max(1, round(layer.maps * width)), layer.kernel, layer.stride)
        for index, layer in enumerate(layers)
    )
