"""Sets of images in the memory of the device that trains on them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .image_set import ImageSet, TensorImages

_SHARE = 4  # a set may take a quarter of the free memory: the rest is for the networks and their feature maps


def on_device(
    images: ImageSet,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    piece: int = 1 << 26,
) -> TensorImages | None:
    """Return the set in the device's memory, or None if its batches must be read one by one.

    A GPU takes a set of at most a quarter of its free memory. A device without memory of its own, or one that doesn't
    report its free memory, takes a set that lies in memory already, and none from the disk.

    Args:
        images: any set. A set on disk is read in order, piece by piece; a set in memory is sent as a whole.
        device: the device that needs the batches.
        progress: called after each piece with the bytes sent and the bytes of the whole set. An error that it raises
            ends the load.
        piece: bytes that are read and sent at once, 64 MB by default, but at least one image.

    Returns:
        The same images in the same order, with the same fingerprint; `images` itself if it lies there already.
    """
    if isinstance(images, TensorImages) and _is_same(images.device, device):
        return images
    free = free_memory(device)
    fits = isinstance(images, TensorImages) if free is None else size_in_bytes(images) <= free // _SHARE
    if not fits:
        return None
    return images.to(device) if isinstance(images, TensorImages) else _loaded(images, device, progress, piece)


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of the device's own memory, or None if it has none or doesn't report them."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def size_in_bytes(images: ImageSet) -> int:
    """Return the number of bytes of all pixels of a set."""
    return len(images) * math.prod(images.shape)


def _loaded(images: ImageSet, device: torch.device, progress: Callable[[int, int], None], piece: int) -> TensorImages:
    # In pieces, so that a signal can end the load between two of them.
    held = _empty(images, len(images), device)
    each = math.prod(images.shape)
    for numbers in torch.arange(len(images)).split(max(1, piece // each)):
        first, end = int(numbers[0]), int(numbers[-1]) + 1
        held[first:end] = images.gather(numbers, _empty(images, len(numbers), torch.device("cpu")))
        progress(end * each, len(images) * each)
    return TensorImages(held, images.fingerprint)


def _empty(images: ImageSet, count: int, device: torch.device) -> Tensor:
    """Return uninitialized memory for `count` images, in the layout of a batch."""
    channels, height, width = images.shape
    layout = torch.channels_last if channels > 1 else torch.contiguous_format
    return torch.empty((count, channels, height, width), dtype=torch.uint8, device=device, memory_format=layout)


def _is_same(one: torch.device, other: torch.device) -> bool:
    """Return True if both name the same device. A name without a number means the current device of its kind."""
    return torch.empty(0, device=one).device == torch.empty(0, device=other).device
