"""The images that a config names."""

from __future__ import annotations

from pathlib import Path

from ..data.errors import DataError
from ..data.image_set import ImageSet, TensorImages, pad_to_square
from ..data.mnist import load_mnist
from ..data.packed import PackedImages, is_packed
from .config import TrainConfig


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
