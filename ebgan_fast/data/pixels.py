"""Between bytes and the range that the networks work in."""

from __future__ import annotations

import torch
from torch import Tensor


def to_signed_unit(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes to [-1, 1], the paper's range (appendix C): 0 to -1, 255 to 1, exactly in float32.

    Args:
        images: uint8 of any shape.
        dtype: of the result, rounded to from float32.
    """
    return images.to(torch.float32).div_(127.5).sub_(1).to(dtype)


def to_pixels(images: Tensor) -> Tensor:
    """[-1, 1] to the nearest of uint8's 256 steps; what lies outside is cut off.

    Args:
        images: floating-point, of any shape.
    """
    return ((images.to(torch.float32) + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
