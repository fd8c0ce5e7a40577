"""Feature nets that can't score images, each for another reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


class Square(nn.Module):
    """A net that takes no images: it multiplies matrices of shapes that don't fit."""

    def forward(self, images: Tensor) -> Tensor:
        return images.matmul(images[:, :, :1])


class Same(nn.Module):
    """A net that returns images in place of features."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class OfOneSize(nn.Module):
    """A net that takes only images of 64 x 64, the size on which the program first tries a net."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().view(images.size(0), 3 * 64 * 64)


class OneRow(nn.Module):
    """A net that returns one row of features too few for every size but 64 x 64."""

    def forward(self, images: Tensor) -> Tensor:
        rows = images.float().flatten(1)
        return rows if images.size(2) == 64 else rows[1:]


class Infinite(nn.Module):
    """A net that returns features that aren't finite."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1) / 0


def scripted(net: nn.Module) -> Callable[[Path], object]:
    """Return a function that writes the net to net.pt in a folder."""
    return lambda folder: torch.jit.script(net).save(str(folder / "net.pt"))
