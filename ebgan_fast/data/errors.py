"""The errors of data."""

from __future__ import annotations

import importlib
from typing import Any


class DataError(ValueError):
    """The error of data that are missing, damaged or not what they should be. The message names the file.

    Example:
        >>> from ebgan_fast.data import DataError, load_mnist
        >>> try:
        ...     load_mnist("no-such-folder")
        ... except DataError as error:
        ...     print(error)
        no-such-folder: got no such folder, expected one with the four MNIST IDX files
    """


class ImageError(DataError):
    """The error of an image that can't be taken.

    Args:
        reason: the same for all images with the same trouble, so that they are counted together.
        detail: what is this image's own.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}{detail and f' ({detail})'}")
        self.reason = reason


class NoImagesError(DataError):
    """The error of a file or folder that is whole and holds no images."""


def no_images(
    path: object, got: str, beside: str = "", expected: str = "images that Pillow can decode"
) -> NoImagesError:
    """Return the error of something without images.

    Args:
        path: of it.
        got: what it is, such as "a zip".
        beside: what it holds instead, or "".
        expected: what would do.
    """
    return NoImagesError(f"{path}: got {got} without images{beside and f', of {beside}'}; expected {expected}")


def needed(module: str, extra: str, what: str) -> Any:
    """A module that only some data need.

    Raises:
        DataError: it isn't installed; the message says what needs it, and the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DataError(f"{what} needs the package {package}: pip install 'ebgan_fast[{extra}]'") from error
