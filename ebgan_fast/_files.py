"""Reading of files that other people may have made, and writing of files, each whole or not at all.

Each error of the disk names the file.
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

# Errors of fsync on file systems that lack it: CIFS, and some of FUSE and network drives.
_NO_SYNC = frozenset(
    getattr(errno, name) for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EBADF", "EACCES", "EPERM", "ENOTTY")
)
_PIECE = 1 << 20  # bytes in one read


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to an OSError of the block that has none, such as the error of a write to a full disk.

    Raises:
        OSError: the error of the block, with a name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


@contextlib.contextmanager
def opened(path: Path, most: int) -> Iterator[BinaryIO]:
    """Open a plain file of at most `most` bytes for reading.

    A folder from someone else may hold anything. Reading a pipe would wait forever, and a sparse file of zeros, which
    takes no place on the disk, would fill the memory.

    Raises:
        ValueError: if it is a folder, pipe or device, or too large. The message names the file.
        OSError: if it can't be read. Names the file.
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
    """Return the bytes of a plain file of at most `most` bytes. Raises as `opened` does."""
    with opened(path, most) as file:
        pieces = []  # one read of `most` bytes would allocate that many
        while most > 0 and (piece := file.read(min(most, _PIECE))):
            pieces.append(piece)
            most -= len(piece)
        return b"".join(pieces)


def temporary_name(path: Path) -> Path:
    """Return the path where `replacing` writes the new file before it renames it to `path`."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` once its bytes have reached the disk.

    After an error in the block, or a crash, the old file is still there. `sync_folder` makes the new name durable too.

    Raises:
        OSError: if the file can't be written, for example on a full disk. Names the file.
    """
    partial = temporary_name(path)
    try:
        # A folder from someone else may hold a link of this name, and the file behind the link must not be overwritten.
        partial.unlink(missing_ok=True)
        with naming(path), partial.open("xb") as file:
            yield file
            file.flush()
            _sync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        # The error names `path`, which the user knows. It names the temporary file only if that file is still there, as
        # something else in its place may be the cause.
        if isinstance(error, OSError) and error.filename == str(partial) and not os.path.lexists(partial):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk, where the system can. Windows opens no folder, and CIFS syncs none."""
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
    """Write an open file or folder to the disk. Does nothing on a file system without fsync.

    Raises:
        OSError: if the disk is full or failing.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all. Makes the folder of `target` if it is missing.

    Raises:
        OSError: if a file can't be read or written. Names the file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as content, replacing(target) as file:
        shutil.copyfileobj(content, file, 1 << 24)


def rename_or_copy(source: Path, target: Path) -> None:
    """Give the content of `source` a second name, `target`. `source` stays, until the caller replaces it.

    Makes a hard link, or a copy on file systems without links, such as FAT. Makes the folder of `target` if it is
    missing.

    Raises:
        OSError: if a file can't be read or written. Names the file.
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
    partial.unlink(missing_ok=True)  # os.replace does nothing if both are links to the same file
