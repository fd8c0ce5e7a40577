"""Read stored bytes, and never more than an image can have."""

from __future__ import annotations

import os
import zipfile
from typing import IO

from ..._console import shortened
from ..errors import ImageError

LARGEST = 1 << 30
"""Bytes of the largest encoded image. A larger file is something else, or was made to fill the memory."""

# Compression methods of a zip's members: those that zipfile unpacks no further than asked for, and the others.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_OTHERS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ"}

_ENCRYPTED = 1  # a bit in the flags of a member

_LFS = b"version https://git-lfs"


def check_size(size: int) -> None:
    """Raise an ImageError if a number of bytes is larger than an encoded image can be."""
    if size > LARGEST:
        raise ImageError("more bytes than an encoded image has", f"{size}, expected at most {LARGEST}")


def whole_file(path: str) -> bytes:
    """Return the bytes of a file.

    Raises:
        ImageError: the file is larger than an encoded image can be.
        OSError: the file can't be read.
    """
    with open(path, "rb", buffering=0) as file:
        check_size(os.fstat(file.fileno()).st_size)
        return file.readall()


def packed_otherwise(info: zipfile.ZipInfo) -> str | None:
    """Return the name of the method by which a zip's member is packed, if it isn't read here; None if it is.

    With bzip2, LZMA and Zstandard, zipfile unpacks all that a piece of the file holds, even to return one byte: a piece
    of 2.6 kB gave 3 GB. LZMA's dictionary alone may take 4 GiB.
    """
    method = info.compress_type
    return None if method in _BOUNDED else _OTHERS.get(method, f"method {method}")


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """Open a zip's member, so that the caller reads as many bytes as it wants.

    `ZipFile.read` isn't used, because it may unpack more bytes than the zip's table says.

    Raises:
        ImageError: the member is packed by a method that isn't read here, or needs a password.
    """
    if (method := packed_otherwise(info)) is not None:
        raise ImageError(f"packed by {method}, expected deflate or no packing: pack the zip again")
    if info.flag_bits & _ENCRYPTED:
        raise ImageError("encrypted, expected no password: unpack the zip by its password, and prepare the folder")
    return archive.open(info)


def head_of(path: str | os.PathLike[str], count: int) -> bytes:
    """Return the first `count` bytes of a file. Raise an OSError if the file can't be read."""
    with open(path, "rb", buffering=0) as file:
        return file.read(count)


def quoted(error: Exception, longest: int = 200) -> str:
    """Return the reason in a library's error as one line of at most `longest` characters.

    The line is shortened and made printable, because the error may quote a stranger's file.
    """
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shortened(reason or type(error).__name__, longest)


def is_lfs_pointer(head: bytes) -> bool:
    """Return True if these first bytes are those of the pointer that Git LFS leaves for a file that wasn't fetched."""
    return head.startswith(_LFS)
