"""The processes that read images for a `prepare`, found by a mark in the environment that they inherit."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "EBGAN_FAST_TEST_MARK"
_TICK = 0.005  # seconds


def marked(mark: str) -> list[int]:
    """Return the processes that began with this mark and live; this one and its forks didn't begin with it."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if place.name.isdigit() and wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def has_ended(pid: int) -> bool:
    """Return True once a process has closed what it had open, though nobody may have asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except OSError:
        return True


def some(mark: str, count: int, seconds: float = 60.0) -> list[int]:
    """Wait until so many processes have the mark, and return them. Fails if they don't come."""
    until = time.monotonic() + seconds
    while len(found := marked(mark)) < count:
        assert time.monotonic() < until, f"{len(found)} of {count} processes after {seconds:.0f} s"
        time.sleep(_TICK)
    return found


def left_after(mark: str, seconds: float) -> list[int]:
    """Wait until no process has the mark; return those that live on after so many seconds, and end them."""
    until = time.monotonic() + seconds
    while (found := marked(mark)) and time.monotonic() < until:
        time.sleep(_TICK)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found
