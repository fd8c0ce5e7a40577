"""Sets of images from which training draws batches."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class ImageSet(Protocol):
    """A set of images of one shape, as bytes, each found by its number.

    Any object with these members is an image set, so your own class needs no base class.

    Example:
        >>> import torch
        >>> from ebgan_fast.data import ImageSet, ImageStream
        >>> class Grays:
        ...     shape, fingerprint = (1, 8, 8), "grays"
        ...     def __len__(self):
        ...         return 100
        ...     def gather(self, indices, out=None):  # image i is of brightness i
        ...         pixels = indices.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, *self.shape)
        ...         return pixels.clone() if out is None else out.copy_(pixels)
        >>> grays: ImageSet = Grays()
        >>> with ImageStream(grays, batch_size=10, seed=0, device=torch.device("cpu")) as stream:
        ...     stream.next().shape
        torch.Size([10, 1, 8, 8])
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image: (C, H, W)."""

    @property
    def fingerprint(self) -> str:
        """A text that differs between sets of different images."""

    def __len__(self) -> int: ...

    def gather(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        """Return images by number, uint8 [B, C, H, W]. Another thread may call it.

        Args:
            indices: the numbers of the images, int64 [B].
            out: a tensor to fill and return, contiguous if C is 1, and channels_last otherwise. None: a new one.
        """


class TensorImages:
    """An `ImageSet` that lies in memory, as one tensor.

    Args:
        images: uint8 [M, C, H, W] on any device.
        fingerprint: the fingerprint of the set from which the images were read. None: it is computed from the shape
            and the pixels.

    Attributes:
        device: the device of the tensor.

    Raises:
        TypeError: `images` isn't a uint8 tensor.
        ValueError: `images` has another number of dimensions.

    Example:
        >>> import torch
        >>> from ebgan_fast.data import TensorImages
        >>> images = TensorImages(torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 3, 64, 64))
        >>> len(images), images.shape
        (5, (3, 64, 64))
        >>> images.gather(torch.tensor([4, 0, 4]))[:, 0, 0, 0]
        tensor([4, 0, 4], dtype=torch.uint8)
    """

    def __init__(self, images: Tensor, fingerprint: str | None = None) -> None:
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            raise TypeError(f"got images of {getattr(images, 'dtype', type(images))}, expected a uint8 tensor")
        if images.dim() != 4:
            raise ValueError(f"got images of shape {list(images.shape)}, expected [M, C, H, W]")
        self._images = images
        self._given_fingerprint = fingerprint
        self.device = images.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image: (C, H, W)."""
        channels, height, width = self._images.shape[1:]
        return channels, height, width

    @functools.cached_property
    def fingerprint(self) -> str:
        """The fingerprint that was given, or 32 hex digits that differ between sets of different images."""
        if self._given_fingerprint is not None:
            return self._given_fingerprint
        # Computed once: every checkpoint holds it, and MNIST's 60,000 images take a tenth of a second.
        shape = json.dumps(list(self._images.shape)).encode()
        pixels = self._images.cpu().contiguous().numpy().tobytes()
        return hashlib.blake2b(shape + pixels, digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def gather(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        """Return images by number, uint8 [B, C, H, W]; see `ImageSet.gather`."""
        images, indices = self._images, indices.to(self.device)
        if out is None or not (_is_channels_last(images) and _is_channels_last(out)):
            return torch.index_select(images, 0, indices, out=out)
        # Both in the order of memory, so that an image is copied as one run of bytes.
        torch.index_select(images.permute(0, 2, 3, 1), 0, indices, out=out.permute(0, 2, 3, 1))
        return out

    def to(self, device: torch.device) -> TensorImages:
        """Return the set in a device's memory."""
        return TensorImages(self._images.to(device), self._given_fingerprint)


def _is_channels_last(images: Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last)


def pad_to_square(images: Tensor, size: int) -> Tensor:
    """Center gray images in black squares, as the paper's grid search pads MNIST to 32x32 (appendix C).

    Args:
        images: [M, H, W].
        size: the side of the squares in pixels, at least H and W. An odd margin is wider below and on the right.

    Returns:
        The squares, [M, 1, size, size].

    Raises:
        ValueError: the images have another number of dimensions, or are larger than the squares.

    Example:
        >>> import torch
        >>> from ebgan_fast.data import pad_to_square
        >>> pad_to_square(torch.full((1, 2, 2), 255, dtype=torch.uint8), size=4)
        tensor([[[[  0,   0,   0,   0],
                  [  0, 255, 255,   0],
                  [  0, 255, 255,   0],
                  [  0,   0,   0,   0]]]], dtype=torch.uint8)
    """
    if images.dim() != 3:
        raise ValueError(f"got images of shape {list(images.shape)}, expected [M, H, W]")
    height, width = images.shape[1:]
    if size < max(height, width):
        raise ValueError(f"got image_size {size}, expected at least {max(height, width)}")
    top, left = (size - height) // 2, (size - width) // 2
    margins = (left, size - width - left, top, size - height - top)
    return functional.pad(images, margins).unsqueeze(1)


def without_margin(images: Tensor, side: int = 28) -> Tensor:
    """Remove the margin that `pad_to_square` added.

    Args:
        images: [M, H, W].
        side: the side of the images before they were padded, at most H and W.

    Returns:
        The middle of each image, a view of [M, side, side].
    """
    top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
    return images[:, top : top + side, left : left + side]
