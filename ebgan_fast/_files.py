"""Writing files, each whole or not at all, and reading those that others may have made.

An error of the disk says which file it is about.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# What file systems without an fsync answer: CIFS, some of FUSE, and of network drives.
_NO_SYNC = frozenset(
    getattr(errno, name) for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EBADF", "EACCES", "EPERM", "ENOTTY")
)
_PIECE = 1 << 20  # bytes that are read at once


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError raised inside the file's name, if it has none: a write to a full disk has only a number.

    Raises:
        OSError: with the name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


@contextlib.contextmanager
def opened(path: Path, most: int) -> Iterator[BinaryIO]:
    """A plain file of at most `most` bytes, to read from its beginning.

    What lies in a folder that was passed on may be anything: a pipe would be waited for without end, and a file of
    zeros that takes no place on the disk would fill the memory.

    Raises:
        ValueError: a folder, pipe or device, or a larger file; the message names it.
        OSError: it can't be read; names the file.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or device"
        raise ValueError(f"{path}: got {kind}, expected a file")
    if found.st_size > most:
        raise ValueError(f"{path}: got {found.st_size:,} bytes, expected at most {most:,}")
    with naming(path), path.open("rb") as file:
        yield file


def content_of(path: Path, most: int) -> bytes:
    """Return the bytes of a file as `opened` takes it."""
    with opened(path, most) as file:
        pieces = []  # a read of `most` bytes would make room for as many
        while most > 0 and (piece := file.read(min(most, _PIECE))):
            pieces.append(piece)
            most -= len(piece)
        return b"".join(pieces)


def temporary_name(path: Path) -> Path:
    """The place in which `replacing` builds the file before it takes that of `path`."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once its bytes have reached the disk.

    An error inside, or a crash, leaves the old file. `sync_folder` makes the new one's name last as well.

    Raises:
        OSError: it can't be written, such as on a full disk; names the file.
    """
    partial = temporary_name(path)
    try:
        # A folder may come from others: what a link of that name leads to isn't to be overwritten.
        partial.unlink(missing_ok=True)
        with naming(path), partial.open("xb") as file:
            yield file
            file.flush()
            _sync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        # Under the name that the user knows, unless what lies in the other's place is the trouble.
        if isinstance(error, OSError) and error.filename == str(partial) and not os.path.lexists(partial):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can: Windows opens no folder, and CIFS syncs none."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows
        return
    try:
        with naming(folder):
            _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    """Bring an open file or folder to the disk; a file system that knows no such thing is left to itself.

    Raises:
        OSError: the disk is full or failing.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all; the folder of `target` is made.

    Raises:
        OSError: it can't be read or written; names the file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as content, replacing(target) as file:
        shutil.copyfileobj(content, file, 1 << 24)


def rename_or_copy(source: Path, target: Path) -> None:
    """Give the content of `source`, which is about to be replaced, another name; `source` keeps it until then.

    By a hard link, or a copy on file systems without, such as FAT. The folder of `target` is made.

    Raises:
        OSError: it can't be read or written; names the file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_name(target)
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        copy(source, target)
        return
    os.replace(partial, target)
    partial.unlink(missing_ok=True)  # replacing a link by one to the same file leaves both
