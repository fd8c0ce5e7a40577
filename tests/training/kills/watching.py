"""What a process does to its run's files, one event after another, and a kill at one of them."""

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

# The buffer of a file that is written. The usual one, 4 to 128 KB, would make a dozen writes of each checkpoint.
_BUFFER = 1 << 16
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_RANDOM = re.compile(r"\.[a-z0-9_]{8}$|#\d+( \(deleted\))?$|(?<=/)tmp[a-z0-9_]{8}$")

# What a function of os does to the path or file that is its first argument, or to its first two.
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
    """Sees each change that this process makes in a run's folder or in the cache beside it, and can end it there.

    An event has a title: what is done, how many times it was before with the same names, and these, from the run's
    folder on; such as "write 2 of metrics.jsonl" or "rename 1 of .checkpoint.pt.partial to checkpoint.pt". A write is
    one of the system's, of what a buffer held: between two of them no disk can tell how far the process is.

    Args:
        run: the folder of the run, beside which is the folder "cache".
        note: told each title first.
        kill: what to do at one of them.
    """

    def __init__(self, run: Path, note: Callable[[str], object], kill: Kill | None) -> None:
        self._run, self._note, self._kill = run, note, kill
        self._counts: Counter[str] = Counter()
        self._open = io.open

    def install(self) -> None:
        """Watch this process from here on."""
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
        """Return the path from the run's folder, of a path or of an open file's number; None if it isn't watched."""
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
        """Do what the block does, as an event, unless this is the one at which the process ends.

        Args:
            kind: what is done.
            names: to which file.
            half: does the half of it.
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
        finally:  # what is removed may not be there
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
        """As `open`, in the layers that it has too; the lowest is watched."""
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
    """The lowest layer of a file: what it writes is with the system, and outlives the process."""

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
    """Return what adds a line to a file of notes, unwatched: the time, the kind of note, and its text."""
    handle, write = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.write
    return lambda kind, text: write(handle, f"{time.monotonic():.6f} {kind} {text}\n".encode())


def _nothing(file: int) -> None:
    """Take the place of a flush to the disk: the end of a process loses nothing that the system has, and it is slow."""


def send(number: int) -> None:
    """Send this process the signal; returns when it has been handled."""
    if number == signal.SIGKILL:
        os.kill(os.getpid(), number)
    signal.raise_signal(number)
