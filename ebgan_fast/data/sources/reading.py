"""Reading what is stored, and no more than an image can be."""

from __future__ import annotations

import os

from ..._console import shortened
from ..errors import ImageError

LARGEST = 1 << 30
"""Bytes of the largest encoded image: a file of more is something else, or is meant to fill the memory."""

_LFS = b"version https://git-lfs"


def check_size(size: int) -> None:
    """Raise an ImageError for more bytes than an encoded image has."""
    if size > LARGEST:
        raise ImageError("more bytes than an encoded image has", f"{size}, expected at most {LARGEST}")


def whole_file(path: str) -> bytes:
    """Return the bytes of a file. Raises an ImageError if they are too many, an OSError if they can't be read."""
    with open(path, "rb", buffering=0) as file:
        check_size(os.fstat(file.fileno()).st_size)
        return file.readall()


def head_of(path: str | os.PathLike[str], count: int) -> bytes:
    """Return the first bytes of a file. Raises an OSError if it can't be read."""
    with open(path, "rb", buffering=0) as file:
        return file.read(count)


def quoted(error: Exception, longest: int = 200) -> str:
    """Return the reason that a library gives: one line of at most so many signs, as a file has a say in it."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shortened(reason or type(error).__name__, longest)


def is_lfs_pointer(head: bytes) -> bool:
    """Return True if a file begins as what Git LFS leaves in place of a file that wasn't fetched."""
    return head.startswith(_LFS)
