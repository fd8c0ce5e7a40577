"""Record what a process does to its run's files as events, and kill the process at one of them."""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import io
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .cases import AFTER, BEFORE, HALF, Kill

# The size in bytes of a written file's buffer. The usual one, 4 to 128 KB, would split each checkpoint into a dozen
# writes.
_BUFFER = 1 << 16
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_RANDOM = re.compile(r"\.[a-z0-9_]{8}$|#\d+( \(deleted\))?$|(?<=/)tmp[a-z0-9_]{8}$")

# What each function of os does to its first argument, a path or file, or to its first two arguments.
_ON_ONE = {
    "unlink": "remove",
    "remove": "remove",
    "rmdir": "remove",
    "mkdir": "mkdir",
    "ftruncate": "truncate",
    "truncate": "truncate",
}
_ON_TWO = {"replace": "rename", "rename": "rename", "link": "link"}


class Watch:
    """Records each change that this process makes in a run's folder or in the cache beside it, and can kill the process
    there.

    An event has a title: what is done, its number among the events of the same kind and names, and the names relative
    to the run's folder. Examples are "write 2 of metrics.jsonl" and "rename 1 of .checkpoint.pt.partial to
    checkpoint.pt". A write is one system call that writes a buffer. Between two writes the disk doesn't change.

    Args:
        run: The folder of the run. The folder "cache" lies beside it.
        note: A function that gets each title before the event.
        kill: The kill, or None. If it is at an event, it names the title.
    """

    def __init__(self, run: Path, note: Callable[[str], object], kill: Kill | None) -> None:
        self._run, self._note, self._kill = run, note, kill
        self._counts: Counter[str] = Counter()
        self._open = io.open

    def install(self) -> None:
        """Watch this process from now on."""
        for name, kind in _ON_ONE.items():
            setattr(os, name, self._on_one(kind, getattr(os, name)))
        for name, kind in _ON_TWO.items():
            setattr(os, name, self._on_two(kind, getattr(os, name)))
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._on_one("flush", _nothing))
        for name in ("flock", "lockf"):
            setattr(fcntl, name, self._on_lock(getattr(fcntl, name)))
        os.open = self._on_open(os.open)
        os.write = self._on_write(os.write)
        io.open = builtins.open = self._opened

    def name(self, target: Any) -> str | None:
        """Return the path, relative to the run's folder, of a path or of an open file's number; None if it isn't
        watched.
        """
        if isinstance(target, int):
            with contextlib.suppress(OSError):
                return self.name(os.readlink(f"/proc/self/fd/{target}"))
            return None
        name = os.path.relpath(os.fsdecode(target), self._run)
        if name.startswith("..") and not name.startswith("../cache"):
            return None
        return _RANDOM.sub("*", name)

    @contextlib.contextmanager
    def event(self, kind: str, names: str, half: Callable[[], object] | None = None) -> Iterator[None]:
        """Do what the block does as an event, unless the process is killed at this event.

        Args:
            kind: What is done.
            names: The file or files.
            half: A function that does half of it.
        """
        self._counts[f"{kind} {names}"] += 1
        title = f"{kind} {self._counts[f'{kind} {names}']} of {names}"
        self._note(title)
        kill = self._kill if self._kill is not None and self._kill.what == title else None
        if kill is not None and kill.when == HALF and half is not None:
            half()
        if kill is not None and kill.when in (BEFORE, HALF):
            send(kill.signal)
        try:
            yield
        finally:  # the block may raise, as the removal of a missing file does
            if kill is not None and kill.when == AFTER:
                send(kill.signal)

    def _on_one(self, kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(target: Any, *args: Any, **named: Any) -> Any:
            name = self.name(target)
            if name is None:
                return original(target, *args, **named)
            with self.event(kind, name):
                return original(target, *args, **named)

        return watched

    def _on_two(self, kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(source: Any, target: Any, *args: Any, **named: Any) -> Any:
            names = self.name(source), self.name(target)
            if None in names:
                return original(source, target, *args, **named)
            with self.event(kind, " to ".join(map(str, names))):
                return original(source, target, *args, **named)

        return watched

    def _on_write(self, original: Callable[[int, Any], int]) -> Callable[[int, Any], int]:
        def watched(file: int, data: Any) -> int:
            name = self.name(file)
            if name is None:
                return original(file, data)
            content = memoryview(data).cast("B")
            with self.event("write", name, lambda: original(file, content[: len(content) // 2])):
                return original(file, content)

        return watched

    def _on_lock(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(file: Any, operation: int, *args: Any) -> Any:
            name = self.name(file if isinstance(file, int) else file.fileno())
            if name is None:
                return original(file, operation, *args)
            with self.event("unlock" if operation & fcntl.LOCK_UN else "lock", name):
                return original(file, operation, *args)

        return watched

    def _on_open(self, original: Callable[..., int]) -> Callable[..., int]:
        def watched(path: Any, flags: int, *args: Any, **named: Any) -> int:
            name = self.name(path) if flags & _WRITING else None
            if name is None:
                return original(path, flags, *args, **named)
            with self.event("open", name):
                return original(path, flags, *args, **named)

        return watched

    def _opened(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """Open a file as `open` does, with the same layers, of which the lowest is watched."""
        name = self.name(file) if set(mode) & set("wax+") else None
        if name is None:
            return self._open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        with contextlib.nullcontext() if isinstance(file, int) else self.event("open", name):
            raw = _Watched(self, name, file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw, _BUFFER) if "+" in mode else io.BufferedWriter(raw, _BUFFER)
        if "b" in mode:
            return buffer
        text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode  # type: ignore[misc]
        return text


class _Watched(io.FileIO):
    """The lowest layer of a file. Bytes that it has written are with the system and outlive the process."""

    def __init__(self, watch: Watch, title: str, *args: Any) -> None:
        super().__init__(*args)
        self._watch, self._title = watch, title

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")
        write = super().write
        with self._watch.event("write", self._title, lambda: write(content[: len(content) // 2])):
            return write(content)

    def truncate(self, size: int | None = None) -> int:
        with self._watch.event("truncate", self._title):
            return super().truncate(size)


def noting(path: Path) -> Callable[[str, str], object]:
    """Return a function that adds a line to a file of notes: the time, the kind of note, and its text. The file isn't
    watched.
    """
    handle, write = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.write
    return lambda kind, text: write(handle, f"{time.monotonic():.6f} {kind} {text}\n".encode())


def _nothing(file: int) -> None:
    """Replace a flush to the disk, which is slow. A killed process loses nothing that the system already has."""


def send(number: int) -> None:
    """Send this process the signal. Return when the signal has been handled."""
    if number == signal.SIGKILL:
        os.kill(os.getpid(), number)
    signal.raise_signal(number)
