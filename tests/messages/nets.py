"""Nets that score no images, each for a reason of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


class Square(nn.Module):
    """Takes no images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.matmul(images[:, :, :1])


class Same(nn.Module):
    """Gives images in place of features."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class OfOneSize(nn.Module):
    """Takes images of 64 x 64 alone, the size that a net is tried on."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().view(images.size(0), 3 * 64 * 64)


class OneRow(nn.Module):
    """Gives a row of features less for other sizes."""

    def forward(self, images: Tensor) -> Tensor:
        rows = images.float().flatten(1)
        return rows if images.size(2) == 64 else rows[1:]


class Infinite(nn.Module):
    """Gives features that aren't finite."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1) / 0


def scripted(net: nn.Module) -> Callable[[Path], object]:
    """Return what writes the net to net.pt in a folder."""
    return lambda folder: torch.jit.script(net).save(str(folder / "net.pt"))
