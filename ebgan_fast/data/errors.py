"""The errors of data: missing or damaged files, and images that can't be taken."""

from __future__ import annotations

import importlib
from typing import Any


class DataError(ValueError):
    """The error of data that are missing, damaged or of another kind than expected. The message names the file.

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
        reason: the fault in words that all images with this fault share, so that they are counted together.
        detail: the facts of this one image.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}{detail and f' ({detail})'}")
        self.reason = reason


class NoImagesError(DataError):
    """The error of a file or folder that is undamaged but holds no images."""


def no_images(
    path: object, got: str, beside: str = "", expected: str = "images that Pillow can decode"
) -> NoImagesError:
    """Return the error of a file or folder without images.

    Args:
        path: the file or folder.
        got: its kind in words, such as "a zip".
        beside: the things that it holds instead, or "".
        expected: words for what it should hold.
    """
    return NoImagesError(f"{path}: got {got} without images{beside and f', of {beside}'}; expected {expected}")


def needed(module: str, extra: str, what: str) -> Any:
    """Import and return a module that only some kinds of data need.

    Args:
        module: the module's full name.
        extra: the extra of ebgan_fast that installs it.
        what: the data that need it, for the message.

    Raises:
        DataError: the module isn't installed. The message names the data and the command that installs the module.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DataError(f"{what} needs the package {package}: pip install 'ebgan_fast[{extra}]'") from error
