"""Reading what is stored, and no more than an image can be."""

from __future__ import annotations

import os
import zipfile
from typing import IO

from ..._console import shortened
from ..errors import ImageError

LARGEST = 1 << 30
"""Bytes of the largest encoded image: a file of more is something else, or is meant to fill the memory."""

# Methods by which a zip's members are packed: those that zipfile unpacks by as many bytes as are asked for, and others.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_OTHERS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ"}

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


def packed_otherwise(info: zipfile.ZipInfo) -> str | None:
    """Return how a zip's member is packed, if it isn't read; None if it is.

    Of bzip2, LZMA and Zstandard zipfile unpacks whatever a piece of the file holds, for a first byte too: 3 GB of a
    piece of 2.6 kB. LZMA's dictionary alone may have 4 GiB.
    """
    method = info.compress_type
    return None if method in _BOUNDED else _OTHERS.get(method, f"method {method}")


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """Open a zip's member, to be read by as many bytes as are wanted: `ZipFile.read` unpacks more than its table says.

    Raises:
        ImageError: it is packed by a method that isn't read.
    """
    if (method := packed_otherwise(info)) is not None:
        raise ImageError(f"packed by {method}, expected deflate or no packing: pack the zip anew")
    return archive.open(info)


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
