"""Compiled code that is kept between runs. Measurements and simulation results are never kept.

Entries are files in the user's cache folder, whose total size is bounded. GPULESS_CACHE names another folder. An empty
GPULESS_CACHE turns the cache off.

Parallel processes share the folder. Only one of them makes an entry that they get by `once`. An entry ends with the
digest of its content. An entry that was cut short or changed counts as missing.
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
except ImportError:  # Windows has no fcntl: there, each process makes its own entry
    fcntl = None  # type: ignore[assignment]

UNUSED_AFTER = 30 * 24 * 3600  # seconds
MOST_BYTES = 1 << 30
PATIENCE = 600  # seconds that a process waits for another one to make an entry, before it makes the entry itself
_LOOK_AGAIN_AFTER = 3600  # seconds between two searches for entries to remove
_LOCK = ".lock-"
_DIGEST = hashlib.sha256


def folder() -> Path | None:
    """Return the folder of the entries, which may not exist yet; None if the cache is off."""
    named = os.environ.get("GPULESS_CACHE")
    if named is not None:
        return Path(named) if named else None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "gpuless"


def key(*parts: str | bytes) -> str:
    """Return a name that is different for different parts. Each part counts with its length: "ab", "c" is not "a",
    "bc".
    """
    digest = _DIGEST()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def read(name: str) -> bytes | None:
    """Return the content that was written under this key; None if there is none, or if it is incomplete."""
    path = _path(name)
    if path is None:
        return None
    try:
        data = path.read_bytes()
        os.utime(path)  # entries are removed by the time of their last use
    except OSError:
        return None
    content, digest = data[: -_DIGEST().digest_size], data[-_DIGEST().digest_size :]
    if _DIGEST(content).digest() != digest:
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return content


def write(name: str, content: bytes) -> None:
    """Keep the content under this key. If the folder cannot be written, keep nothing and raise no error."""
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
    """Return the content under this key, or make it and keep it. If several processes ask at once, one of them makes
    it.

    `make` must not ask for another entry: it could wait for its own lock until PATIENCE ends.
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
    """Let one process at a time work on an entry. The system frees the lock when its process ends, in whatever way.

    Where the file system has no locks, no process waits. There are only 256 lock files, so different entries can share
    a lock.
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
    """Lock a file, or give up after PATIENCE. Raise OSError where the file system has no locks."""
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
    """Remove the entries that were not used for UNUSED_AFTER. While the rest is over MOST_BYTES, remove the least
    recently used.
    """
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
