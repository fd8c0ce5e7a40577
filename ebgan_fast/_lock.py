"""The lock of a folder: one process at a time writes there."""

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

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has none, and lets few users make links


class FolderLock:
    """A lock that dies with its process, and whose file names the process meanwhile.

    It is the system's own (flock, or Windows' byte ranges), in place of the package filelock's. Before version 4,
    filelock empties the file when a second process asks. From 4 on, it leaves the file of a killed process on file
    systems without locks.

    Args:
        path: the file, which is there as long as the lock is held. Its folder must be there.
        otherwise: what to do in place of waiting for another process, such as "train in another folder".
    """

    def __init__(self, path: Path, otherwise: str) -> None:
        self.path = path
        self._otherwise = otherwise
        self._handle: int | None = None

    def acquire(self) -> str | None:
        """Take the lock, without waiting.

        Returns:
            None, or why there is none here, in which case the work goes on without.

        Raises:
            ValueError: another process has it, with the process and host; or a link is in its place.
            FileNotFoundError: there is no such folder.
        """
        while True:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o644)
            except FileNotFoundError:
                raise
            except OSError as error:  # a disk that is full or only to be read: what is to be written says so
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
            os.close(handle)  # of a process that ended between the two calls, which took the file away
        self._handle = handle
        with contextlib.suppress(OSError):  # on a full disk the lock names nobody
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        return None

    def release(self) -> None:
        """Let the next process in. Nothing happens where the lock isn't held."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        is_own = self._is_in_its_place(handle)  # not in a folder that was deleted and begun anew
        if fcntl is None:  # Windows removes no open file
            os.close(handle)
        with contextlib.suppress(OSError):
            if is_own:
                self.path.unlink(missing_ok=True)
        if fcntl is not None:
            os.close(handle)

    def _astray(self) -> ValueError:
        """The error of a folder that came with a link in the lock's place: the file behind it would be overwritten."""
        return ValueError(f"{self.path}: got a link or device, expected a file of the folder itself: remove it")

    def _is_in_its_place(self, handle: int) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(handle), self.path.stat())
        return False


def _owner(handle: int) -> str:
    """Return what the holder wrote, which it does right after it has the lock; nothing on Windows, which locks that."""
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
