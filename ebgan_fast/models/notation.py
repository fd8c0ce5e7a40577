"""The paper's notation for convolutional networks, such as "(64)4c2s-(128)4c2s-(256)4c2s" (appendix F)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LAYER = re.compile(r"\((\d+)\)(\d+)c(?:(\d+)s)?")


@dataclass(frozen=True)
class ConvLayer:
    """One layer: "(maps)kernel c stride s", where a stride of 1 is left out, as in "(3)3c".

    Example:
        >>> from ebgan_fast.models import ConvLayer
        >>> layer = ConvLayer(maps=64, kernel=4, stride=2)
        >>> str(layer), layer.padding
        ('(64)4c2s', 1)
    """

    maps: int
    """Feature maps that it gives."""
    kernel: int
    """Side of its square kernel."""
    stride: int = 1
    """By which an encoder's layer divides the side of its input, and a decoder's or generator's multiplies it."""

    def __str__(self) -> str:
        stride = "" if self.stride == 1 else f"{self.stride}s"
        return f"({self.maps}){self.kernel}c{stride}"

    @property
    def padding(self) -> int:
        """Cut or added on each side, so that the side changes by exactly the stride.

        Raises:
            ValueError: no padding does that, because kernel - stride is odd or negative.
        """
        surplus = self.kernel - self.stride
        if surplus < 0 or surplus % 2:
            raise ValueError(
                f"layer {self}: got kernel {self.kernel} with stride {self.stride}, expected a kernel larger by "
                "0 or an even number, such as 4c2s or 3c; only a generator's first layer may differ"
            )
        return surplus // 2


def parse_layers(text: str) -> tuple[ConvLayer, ...]:
    """The layers that a string names, in the paper's notation (appendix F).

    Args:
        text: such as "(64)4c2s-(128)4c2s": maps, kernel, stride; layers joined by hyphens.

    Raises:
        ValueError: a part that can't be read, or a size of 0; the message names it.

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
    """The noise planes that a string names, one number per generator layer.

    Args:
        text: "100-64-32" is a vector of 100 into the first, 64 planes into the second, ...

    Raises:
        ValueError: not whole numbers joined by hyphens, or none for the first layer.

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
    """The layers with `width` times as many maps, at least 1 each; `keep_last` leaves the last, an image's channels."""
    last = len(layers) - 1
    return tuple(
        layer
        if keep_last and index == last
        else ConvLayer(max(1, round(layer.maps * width)), layer.kernel, layer.stride)
        for index, layer in enumerate(layers)
    )
