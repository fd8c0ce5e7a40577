"""Files computed once and shared by processes: checked when read, whole when written, locked between."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder(chosen: Path | None) -> Path:
    """Return `chosen`, else what the environment variable EBGAN_FAST_CACHE names, else ~/.cache/ebgan_fast.

    It is made if it isn't there.
    """
    folder = _named(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _named(chosen: Path | None) -> Path:
    return chosen or Path(os.environ.get("EBGAN_FAST_CACHE") or Path.home() / ".cache" / "ebgan_fast")


def check_folder(chosen: Path | None) -> None:
    """Make the folder that `cache_folder` gives, and try to write a file there.

    Raises:
        ValueError: it can't be made or written.
    """
    try:
        with tempfile.TemporaryFile(dir=cache_folder(chosen), buffering=0) as file:
            file.write(b"0")
    except OSError as error:
        raise ValueError(
            f"{_named(chosen)}: got a cache folder that can't be written ({error.strerror}), expected one that can; "
            "EBGAN_FAST_CACHE names another"
        ) from error


def locked(path: Path, on_wait: Callable[[], None], *, every: float = 0.5) -> AbstractContextManager[Any]:
    """Hold the lock of `path`. A dead process has none.

    While another process has it, `on_wait` is called again after each `every` seconds; what it raises ends the waiting.
    """
    lock = FileLock(f"{path}.lock")
    seconds = 0.0
    while True:
        with contextlib.suppress(Timeout):
            return lock.acquire(timeout=seconds)
        on_wait()
        seconds = every


def read(path: Path) -> dict[str, Any] | None:
    """Return what `write` put there; None if there is no file or, with a warning, if it has changed since."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        warnings.warn(f"{path}: got a damaged cache file, which is made anew", stacklevel=3)
        return None
    loaded: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return loaded


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
