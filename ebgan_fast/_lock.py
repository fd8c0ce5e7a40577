"""The lock of a folder, so that only one process at a time writes there."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows lacks the flag, and lets few users make links


class FolderLock:
    """A lock on a folder that ends with its process. While the lock is held, its file names the process.

    It uses the system's own locks (flock, or byte ranges on Windows) and not the package filelock. Before version 4,
    filelock empties the file when a second process asks for the lock. From version 4 on, it leaves a killed process's
    file behind on file systems without locks.

    Args:
        path: the lock's file, which exists while the lock is held. Its folder must exist.
        otherwise: what the user can do instead of waiting for another process, such as "train in another folder".
    """

    def __init__(self, path: Path, otherwise: str) -> None:
        self.path = path
        self._otherwise = otherwise
        self._handle: int | None = None

    def acquire(self) -> str | None:
        """Take the lock without waiting.

        Returns:
            None if the lock is held now. Otherwise the reason why there is no lock, such as a read-only disk or a file
            system without locks. The caller then goes on without a lock.

        Raises:
            ValueError: if another process holds the lock (the message names the process and host), or a link is in its
                place.
            FileNotFoundError: if the folder doesn't exist.
        """
        while True:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o644)
            except FileNotFoundError:
                raise
            except OSError as error:  # on a full or read-only disk, the caller's own writes raise the error
                if self.path.is_symlink():
                    raise self._astray() from error
                return error.strerror or str(error)
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                os.close(handle)
                raise self._astray()
            try:
                _take(handle)
            except BlockingIOError:
                owner = _owner(handle)
                os.close(handle)
                raise ValueError(
                    f"{self.path.parent}: got a folder in use by {owner or 'another process'}, expected one that no "
                    f"other is writing: wait for its end, or {self._otherwise}"
                ) from None
            except OSError as error:
                os.close(handle)
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)
                return error.strerror or str(error)
            if self._is_in_its_place(handle):
                break
            os.close(handle)  # another process released the lock and removed this file after it was opened here
        self._handle = handle
        with contextlib.suppress(OSError):  # on a full disk the file stays empty
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        return None

    def release(self) -> None:
        """Release the lock and remove its file. Does nothing if the lock isn't held."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        is_own = self._is_in_its_place(handle)  # False if the folder was deleted and made again
        if fcntl is None:  # Windows can't remove an open file
            os.close(handle)
        with contextlib.suppress(OSError):
            if is_own:
                self.path.unlink(missing_ok=True)
        if fcntl is not None:
            os.close(handle)

    def _astray(self) -> ValueError:
        """Return the error for a link or device in the lock's place. Writing would change the file behind the link."""
        return ValueError(f"{self.path}: got a link or device, expected a file of the folder itself: remove it")

    def _is_in_its_place(self, handle: int) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(handle), self.path.stat())
        return False


def _owner(handle: int) -> str:
    """Return the text that the holder wrote into the file, or "". The holder writes it right after it takes the lock.

    On Windows the result is always "", because the lock also keeps others from reading the file.
    """
    for _ in range(10 if fcntl is not None else 0):
        if text := os.pread(handle, 1000, 0).decode(errors="replace").strip():
            return text
        time.sleep(0.02)
    return ""


def _take(handle: int) -> None:
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(*error.args) from error
