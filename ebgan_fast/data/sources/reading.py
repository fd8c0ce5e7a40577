"""Reading what is stored, and no more than an image can be."""

from __future__ import annotations

import os

from ..errors import DataError

LARGEST = 1 << 30
"""Bytes of the largest encoded image: a file of more is something else, or is meant to fill the memory."""

_LFS = b"version https://git-lfs"


def check_size(size: int) -> None:
    """Raise a DataError for more bytes than an encoded image has."""
    if size > LARGEST:
        raise DataError(f"got {size} bytes, expected an encoded image of at most {LARGEST}")


def whole_file(path: str) -> bytes:
    """Return the bytes of a file. Raises a DataError if they are too many, an OSError if they can't be read."""
    with open(path, "rb", buffering=0) as file:
        check_size(os.fstat(file.fileno()).st_size)
        return file.readall()


def is_lfs_pointer(head: bytes) -> bool:
    """Return True if a file begins as what Git LFS leaves in place of a file that wasn't fetched."""
    return head.startswith(_LFS)
