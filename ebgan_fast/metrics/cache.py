"""A cache of files that are computed once and shared by processes.

A file is checked when it is read. It is written as a whole or not at all. A lock lets one process at a time compute it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

_VARIABLE = "EBGAN_FAST_CACHE"
_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder(chosen: Path | None) -> Path:
    """Return `chosen`, else the folder that the environment variable EBGAN_FAST_CACHE names, else ~/.cache/ebgan_fast.

    The folder is made if it doesn't exist. Only this user may write to it.

    Raises:
        ValueError: the folder can't be made, or this user has no home folder.
    """
    folder = _named(chosen)
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    return folder


def _named(chosen: Path | None) -> Path:
    if chosen is not None:
        return chosen
    if named := os.environ.get(_VARIABLE):
        return Path(named).expanduser() if named.startswith("~/") else Path(named)
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():  # HOME is empty, or there is no HOME and the system doesn't know the user
        raise ValueError(f"got no home folder for the cache, expected one; {_VARIABLE} names a folder of its own")
    return home / ".cache" / "ebgan_fast"


def _unusable(folder: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{folder}: got a cache folder that can't be written ({error.strerror}), expected one that can; {_VARIABLE} "
        "names another"
    )


def check_folder(chosen: Path | None) -> None:
    """Make the folder that `cache_folder` returns, and try to write a file there.

    Raises:
        ValueError: the folder can't be made or written.
    """
    folder = cache_folder(chosen)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"0")
    except OSError as error:
        raise _unusable(folder, error) from error


def locked(path: Path, on_wait: Callable[[], None], *, every: float = 0.5) -> AbstractContextManager[Any]:
    """Take the lock of `path`, and return a context manager that releases it.

    The lock of a process that died is free. On a file system without locks, no lock is taken.

    Args:
        path: the file that the lock protects.
        on_wait: called while another process holds the lock. An error that it raises ends the waiting.
        every: seconds between two calls of `on_wait`.
    """
    lock = FileLock(f"{path}.lock")
    seconds = 0.0
    while True:
        with contextlib.suppress(Timeout):
            try:
                return lock.acquire(timeout=seconds)
            except NotImplementedError:  # no locks here: two processes may compute one file, and the later one stays
                return nullcontext()
        on_wait()
        seconds = every


def read(path: Path, check: Callable[[Any], None] = lambda content: None) -> dict[str, Any] | None:
    """Return the content that `write` has stored in a file, or None if there is none or it must not be used.

    A file is used only if its digest fits, this user or root owns it, and nobody else may write it: whoever writes the
    file decides the scores. A file that must not be used is reported by a warning.

    Args:
        path: the file.
        check: called with the content; raises a ValueError if the content isn't what the caller expects.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            unsafe = _is_unsafe(os.fstat(file.fileno()))
            content = b"" if unsafe else file.read()
    except FileNotFoundError:
        return None
    if unsafe:
        why = "that another user may have written, or no plain file"
        warnings.warn(f"{path}: got a cache file {why}, which is made again", stacklevel=3)
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    try:
        if hashlib.sha256(payload).digest() != digest:
            raise ValueError("another digest")
        loaded: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        check(loaded)
    except Exception:  # torch may raise any error, for example for a file of another version
        warnings.warn(f"{path}: got a damaged cache file, which is made again", stacklevel=3)
        return None
    return loaded


def _without_waiting(path: str, flags: int) -> int:
    """Open a file as `open` does, but without waiting at a pipe that no process writes to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_unsafe(status: os.stat_result) -> bool:
    """Return True if another user than this one and root owns a file or may write it, or if it is a pipe or device.

    On Windows the answer is always False.
    """
    if os.name != "posix":
        return False
    others = status.st_uid not in (os.geteuid(), 0) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return others or not stat.S_ISREG(status.st_mode)


def write(path: Path, content: dict[str, Any]) -> None:
    """Store tensors and plain values in a file, after their digest. Readers see the old file or the whole new one."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    # A name that no other process has, unlike `_files.replacing`'s: without locks, two may write the same file at once.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(payload).digest() + payload)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
