"""Compiled code kept between runs: never what was measured or simulated with it.

In the user's cache folder, bounded; GPULESS_CACHE names another folder, and GPULESS_CACHE= (nothing) keeps nothing.
Parallel processes share it; an entry by `once` is made by one of them. An entry ends with the digest of what stands
before it: one that was cut short, or changed, counts as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where each process makes its own
    fcntl = None  # type: ignore[assignment]

UNUSED_AFTER = 30 * 24 * 3600  # seconds
MOST_BYTES = 1 << 30
PATIENCE = 600  # seconds that a process waits for another one's entry before it makes its own
_LOOK_AGAIN_AFTER = 3600  # seconds between two searches for what can go
_LOCK = ".lock-"
_DIGEST = hashlib.sha256


def folder() -> Path | None:
    """The folder of the entries, which need not exist; None if nothing is to be kept."""
    named = os.environ.get("GPULESS_CACHE")
    if named is not None:
        return Path(named) if named else None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "gpuless"


def key(*parts: str | bytes) -> str:
    """A name for what these parts decide. Each counts with its length: "ab", "c" is another name than "a", "bc"."""
    digest = _DIGEST()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def read(name: str) -> bytes | None:
    """The content that was written under that key; None if nothing was, or not all of it is there."""
    path = _path(name)
    if path is None:
        return None
    try:
        data = path.read_bytes()
        os.utime(path)  # used: the time by which entries go
    except OSError:
        return None
    content, digest = data[: -_DIGEST().digest_size], data[-_DIGEST().digest_size :]
    if _DIGEST(content).digest() != digest:
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return content


def write(name: str, content: bytes) -> None:
    """Keep it under that key. A folder that can't be written keeps nothing, and that is no error."""
    path = _path(name)
    if path is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content + _DIGEST(content).digest())
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
        _drop_old(path.parent)


def once(name: str, make: Callable[[], bytes]) -> bytes:
    """Return the content under that key, or make it and keep it. Of several processes that ask, one makes it.

    `make` must ask for no other entry: it might wait for itself, until its patience ends.
    """
    if (kept := read(name)) is not None:
        return kept
    with _alone(name):
        if (kept := read(name)) is not None:
            return kept
        made = make()
        write(name, made)
        return made


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold processes back that want the same entry; a lock goes with its process, however that ends.

    Where there can be no lock, nobody is held back. Some other entries share the lock, so that there are 256 files.
    """
    where = folder()
    with contextlib.ExitStack() as stack:
        if where is not None and fcntl is not None:
            with contextlib.suppress(OSError):
                where.mkdir(parents=True, exist_ok=True, mode=0o700)
                file = stack.enter_context(open(where / f"{_LOCK}{name[:2]}", "ab"))
                _lock(file.fileno())
        yield


def _lock(file: int) -> None:
    """Lock a file, or give up after PATIENCE. OSError where the file system has no locks."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)


def _path(name: str) -> Path | None:
    where = folder()
    return where / name if where else None


def _drop_old(where: Path) -> None:
    """Remove what has not been used for long, and the longest unused while all is too large."""
    looked = where / ".looked"
    now = time.time()
    with contextlib.suppress(OSError):
        if now - looked.stat().st_mtime < _LOOK_AGAIN_AFTER:
            return
    looked.touch()
    entries = []
    for entry in os.scandir(where):
        with contextlib.suppress(OSError):  # another process may have removed it
            if entry.name != looked.name and not entry.name.startswith(_LOCK):
                entries.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in entries)
    for used, size, path in sorted(entries):
        if now - used <= UNUSED_AFTER and total <= MOST_BYTES:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
