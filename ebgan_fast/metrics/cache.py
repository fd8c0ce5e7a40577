"""Files computed once and shared by processes: checked when read, whole when written, locked between."""

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
    """Return `chosen`, else what the environment variable EBGAN_FAST_CACHE names, else ~/.cache/ebgan_fast.

    It is made if it isn't there, for this user alone to write.

    Raises:
        ValueError: it can't be made, or this user has no home folder for it.
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
    if not home.is_absolute():  # no HOME, and a user that the system doesn't know; or HOME is empty
        raise ValueError(f"got no home folder for the cache, expected one; {_VARIABLE} names a folder of its own")
    return home / ".cache" / "ebgan_fast"


def _unusable(folder: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{folder}: got a cache folder that can't be written ({error.strerror}), expected one that can; {_VARIABLE} "
        "names another"
    )


def check_folder(chosen: Path | None) -> None:
    """Make the folder that `cache_folder` gives, and try to write a file there.

    Raises:
        ValueError: it can't be made or written.
    """
    folder = cache_folder(chosen)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"0")
    except OSError as error:
        raise _unusable(folder, error) from error


def locked(path: Path, on_wait: Callable[[], None], *, every: float = 0.5) -> AbstractContextManager[Any]:
    """Hold the lock of `path`. A dead process has none, nor has anybody on a file system without locks.

    While another process has it, `on_wait` is called again after each `every` seconds; what it raises ends the waiting.
    """
    lock = FileLock(f"{path}.lock")
    seconds = 0.0
    while True:
        with contextlib.suppress(Timeout):
            try:
                return lock.acquire(timeout=seconds)
            except NotImplementedError:  # two processes may then compute the same, and the last one's file stays
                return nullcontext()
        on_wait()
        seconds = every


def read(path: Path, check: Callable[[Any], None] = lambda content: None) -> dict[str, Any] | None:
    """Return what `write` put there; None if there is no file or, with a warning, one that isn't to be used.

    A file is used only if this user or root owns it and nobody else may write it, as whoever writes it decides the
    scores, and if it is as it was written.

    Args:
        path: the file.
        check: called with the content; raises a ValueError if it isn't what the caller wrote.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            unsafe = _is_unsafe(os.fstat(file.fileno()))
            content = b"" if unsafe else file.read()
    except FileNotFoundError:
        return None
    if unsafe:
        why = "that another user may have written, or no plain file"
        warnings.warn(f"{path}: got a cache file {why}, which is made anew", stacklevel=3)
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    try:
        if hashlib.sha256(payload).digest() != digest:
            raise ValueError("another digest")
        loaded: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        check(loaded)
    except Exception:  # whatever torch raises, as of a file of another version
        warnings.warn(f"{path}: got a damaged cache file, which is made anew", stacklevel=3)
        return None
    return loaded


def _without_waiting(path: str, flags: int) -> int:
    """Open a file as `open` does, and a pipe that nobody writes to at once."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_unsafe(status: os.stat_result) -> bool:
    """Return True for a file that another user than this one and root owns or may write, and for a pipe or device.

    Windows doesn't tell.
    """
    if os.name != "posix":
        return False
    others = status.st_uid not in (os.geteuid(), 0) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return others or not stat.S_ISREG(status.st_mode)


def write(path: Path, content: dict[str, Any]) -> None:
    """Store tensors and plain values after their digest. Readers see the old file or the new one, no part."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(payload).digest() + payload)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
