"""The images that a config names, and where a run keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..data import residence
from ..data.errors import DataError
from ..data.image_set import ImageSet, TensorImages, pad_to_square
from ..data.mnist import load_mnist
from ..data.packed import PackedImages, is_packed
from .config import TrainConfig

_QUIET = 5.0  # seconds between two lines of a long load


def load_images(config: TrainConfig) -> ImageSet:
    """The training images: of a folder that `ebgan-fast prepare` made, or MNIST's padded to the config's size.

    Raises:
        DataError: missing, damaged, of another size than the config's, or a folder of something else.
    """
    if config.data is not None and is_packed(config.data):
        packed = PackedImages(config.data)
        if packed.shape[1:] != (config.image_size, config.image_size):
            _, height, width = packed.shape
            raise DataError(
                f"{config.data}: got images of {height} x {width}, expected {config.image_size} x {config.image_size}: "
                f"prepare them with --size {config.image_size}, or train with --image-size"
            )
        return packed
    if config.preset != "mnist":
        raise DataError(_needs_preparing(config.data, config.image_size))
    digits = load_mnist(config.data).train_images
    if config.image_size < digits.shape[-1]:
        raise DataError(f"image_size: got {config.image_size}, expected at least {digits.shape[-1]}, MNIST's side")
    return TensorImages(pad_to_square(digits, config.image_size))


def settled(images: ImageSet, device: torch.device, say: Callable[[str], None]) -> ImageSet:
    """The images in the device's memory if they fit there, else as they are; for a run's log, in a line where.

    Nothing is said where the device has no memory of its own, as the CPU.

    Args:
        images: the training images.
        device: of the networks.
        say: told the line, and how far a load of more than five seconds is.
    """
    free = residence.free_memory(device)
    if free is None:
        return images
    spoke = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal spoke
        if done < total and time.monotonic() - spoke >= _QUIET:
            spoke = time.monotonic()
            say(f"images: {amount_text(done)} of {amount_text(total)} on {device}")

    held, size = residence.on_device(images, device, progress), amount_text(residence.size_in_bytes(images))
    if held is None:
        say(f"images: {size} read in the background, more than a quarter of the {amount_text(free)} free on {device}")
        return images
    say(f"images: {size} on {device}")
    return held


def amount_text(count: int) -> str:
    """A number of bytes as a log has it, such as "2.4 MB" or "2.5 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.{0 if count >= 1e7 else 1}f} MB"


def _needs_preparing(data: Path | None, size: int) -> str:
    if data is None:
        return (
            "data: got nothing, expected a folder that ebgan-fast prepare made: "
            f"ebgan-fast prepare IMAGES FOLDER --size {size}"
        )
    if not data.exists():
        return f"{data}: no such folder"
    return (
        f"{data}: got something else than prepared images, expected a folder that ebgan-fast prepare made: "
        f"ebgan-fast prepare {data} FOLDER --size {size}"
    )
