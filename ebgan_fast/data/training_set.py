"""The images that a run learns: open them by the content of their folder, and move them where the steps read them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from . import residence
from .errors import DataError
from .image_set import ImageSet, TensorImages, pad_to_square
from .mnist import Mnist, load_mnist
from .packed import PackedImages, is_packed

Kind = Literal["digits", "images"]
"""The kind of a training set. A classifier can judge digits: they are gray, in ten classes. Images are any others.

`ebgan-fast prepare` makes the folders of images.
"""

_IDX = "*-ubyte*"
_QUIET = 5.0  # seconds between two lines of a long load


def kind_of(data: Path | None, size: int) -> Kind:
    """Return the kind of the data that a folder holds.

    Args:
        data: a folder that `ebgan-fast prepare` made, or a folder of MNIST's IDX files. None: the digits of an
            installed package.
        size: the side of the images in pixels, for the command that an error names.

    Raises:
        DataError: the path is no folder, or the folder holds something else.
    """
    if data is None:
        return "digits"
    if is_packed(data):
        return "images"
    if any(data.glob(_IDX)):
        return "digits"
    if not data.exists():
        raise DataError(
            f"{data}: got no such folder, expected one that ebgan-fast prepare made, or one of MNIST's four IDX files"
        )
    if not data.is_dir():
        raise DataError(
            f"{data}: got a file, expected a folder that ebgan-fast prepare made, or one of MNIST's four IDX files"
        )
    if any((data / "raw").glob(_IDX)):  # torchvision stores them there
        raise DataError(f"{data}: got a folder around MNIST's files, expected the one that holds them: {data / 'raw'}")
    raise DataError(
        f"{data}: got something else than prepared images, expected a folder that ebgan-fast prepare made: "
        f"ebgan-fast prepare {data} FOLDER --size {size}"
    )


def open_images(data: Path | None, size: int, channels: int | None = None) -> ImageSet:
    """Open the training images. Digits are padded to squares of the size.

    Args:
        data: a folder, or None for the digits of an installed package; see `kind_of`.
        size: the side in pixels that the images must have.
        channels: the number of channels of the images that the networks make. None: the networks take any number.

    Raises:
        DataError: the images are missing, damaged, or of another size or number of channels, or the folder holds
            something else.
    """
    if kind_of(data, size) == "digits":
        return open_digits(data, size, channels)[1]
    assert data is not None
    packed = PackedImages(data)
    if packed.shape[0] not in (1, 3):
        raise DataError(f"{data}: got images of {packed.shape[0]} channels, expected 1 or 3, so that they can be shown")
    if channels not in (None, packed.shape[0]):
        raise DataError(f"{data}: got images of {packed.shape[0]} channels, expected {channels} as the networks make")
    if packed.shape[1:] != (size, size):
        _, height, width = packed.shape
        raise DataError(
            f"{data}: got images of {height} x {width}, expected {size} x {size}: prepare them with --size {size}, or "
            "train with --image-size"
        )
    return packed


def open_digits(data: Path | None, size: int, channels: int | None = None) -> tuple[Mnist, TensorImages]:
    """Open digits with their labels, and the training images among them padded to squares.

    Args:
        data: a folder of MNIST's IDX files, or None for the digits of an installed package.
        size: the side of the squares in pixels.
        channels: the number of channels of the images that the networks make. None: the networks take any number.

    Returns:
        The digits as published, and the padded training images [M, 1, size, size].

    Raises:
        DataError: the digits are missing, damaged or larger than `size`, or the networks make images of colors.
    """
    if channels not in (None, 1):
        got = "data: got nothing" if data is None else f"{data}: got gray digits"
        raise DataError(
            f"{got}, expected images of {channels} channels, as the networks make, in a folder that ebgan-fast "
            f"prepare made: ebgan-fast prepare IMAGES FOLDER --size {size}; for digits, let generator and decoder "
            "end in a layer of (1) map"
        )
    digits = load_mnist(data)
    side = digits.train_images.shape[-1]
    if size < side:
        raise DataError(f"image_size: got {size}, expected at least {side}, MNIST's side")
    return digits, TensorImages(pad_to_square(digits.train_images, size))


def settled(
    images: ImageSet,
    device: torch.device,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> ImageSet:
    """Return the images in the device's memory if they fit there, else `images` itself, and report the place.

    Nothing is reported for a device without memory of its own, such as the CPU.

    Args:
        images: the training images.
        device: the device of the networks.
        say: called with a line for the run's log: where the images are, and the progress of a load of more than five
            seconds.
        check: called between two pieces of the load. An error that it raises ends the load.
    """
    free = residence.free_memory(device)
    if free is None:
        return images
    spoke = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal spoke
        check()
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
    """Return a number of bytes in words, such as "2.4 MB" or "2.5 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.{0 if count >= 1e7 else 1}f} MB"
