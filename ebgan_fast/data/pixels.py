"""Convert images between bytes and [-1, 1], the range of the networks."""

from __future__ import annotations

import torch
from torch import Tensor


def to_signed_unit(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale bytes to [-1, 1], the paper's range (appendix C). In float32, 0 becomes exactly -1 and 255 exactly 1.

    Args:
        images: uint8 of any shape.
        dtype: the dtype of the result. It is computed in float32 and then rounded to this dtype.

    Example:
        >>> import torch
        >>> from ebgan_fast.data import to_signed_unit
        >>> to_signed_unit(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return images.to(torch.float32).div_(127.5).sub_(1).to(dtype)


def to_pixels(images: Tensor) -> Tensor:
    """Turn values in [-1, 1] into the nearest of the 256 bytes. Values outside are clipped.

    Args:
        images: a floating-point tensor of any shape.

    Example:
        >>> import torch
        >>> from ebgan_fast.data import to_pixels
        >>> to_pixels(torch.tensor([-1.0, 0.2, 1.0, 3.0]))
        tensor([  0, 153, 255, 255], dtype=torch.uint8)
    """
    return ((images.to(torch.float32) + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
