"""The images that live in the memory of the device that trains on them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .image_set import ImageSet, TensorImages

_SHARE = 4  # a set may take one part in so many of the free memory: the rest is for the networks and their maps


def on_device(
    images: ImageSet,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    piece: int = 1 << 26,
) -> TensorImages | None:
    """The set in the device's memory, or None where its batches are to be read one by one.

    A GPU holds what fits a quarter of its free memory. A device that has no memory of its own, or doesn't tell how much
    is free, takes what lies in memory already and nothing from the disk.

    Args:
        images: any set. It is read in order, piece by piece; one in memory is sent as a whole.
        device: where batches are wanted.
        progress: told after each piece the bytes sent and all bytes. What it raises ends the load.
        piece: bytes that are read and sent at once, 64 MB by default; an image at least.

    Returns:
        The same images in the same order, with the same fingerprint; `images` itself if it is there.
    """
    if isinstance(images, TensorImages) and _is_same(images.device, device):
        return images
    free = free_memory(device)
    fits = isinstance(images, TensorImages) if free is None else size_in_bytes(images) <= free // _SHARE
    if not fits:
        return None
    return images.to(device) if isinstance(images, TensorImages) else _loaded(images, device, progress, piece)


def free_memory(device: torch.device) -> int | None:
    """Bytes of the device's own memory that are free, or None if it has none or doesn't tell."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def size_in_bytes(images: ImageSet) -> int:
    """The bytes of all pixels of a set."""
    return len(images) * math.prod(images.shape)


def _loaded(images: ImageSet, device: torch.device, progress: Callable[[int, int], None], piece: int) -> TensorImages:
    # A signal is heard between two pieces.
    held = _empty(images, len(images), device)
    each = math.prod(images.shape)
    for numbers in torch.arange(len(images)).split(max(1, piece // each)):
        first, end = int(numbers[0]), int(numbers[-1]) + 1
        held[first:end] = images.gather(numbers, _empty(images, len(numbers), torch.device("cpu")))
        progress(end * each, len(images) * each)
    return TensorImages(held, images.fingerprint)


def _empty(images: ImageSet, count: int, device: torch.device) -> Tensor:
    """Room for so many images, in the layout of a batch."""
    channels, height, width = images.shape
    layout = torch.channels_last if channels > 1 else torch.contiguous_format
    return torch.empty((count, channels, height, width), dtype=torch.uint8, device=device, memory_format=layout)


def _is_same(one: torch.device, other: torch.device) -> bool:
    """Return True for the same device; a name without a number is the current one of its kind."""
    return torch.empty(0, device=one).device == torch.empty(0, device=other).device
