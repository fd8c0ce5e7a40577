"""Find the processes that read images for a `prepare`, by a mark in the environment that they inherit."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "EBGAN_FAST_TEST_MARK"
_TICK = 0.005  # seconds


def marked(mark: str) -> list[int]:
    """Return the ids of the living processes that began with this mark, never of this process or its forks."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # the process has ended, or is another user's
            if place.name.isdigit() and wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def has_ended(pid: int) -> bool:
    """Return True if a process has ended and closed its files, even if no process has read its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except OSError:
        return True


def some(mark: str, count: int, seconds: float = 60.0) -> list[int]:
    """Wait until `count` processes have the mark, and return their ids; fail if that takes longer than `seconds`."""
    until = time.monotonic() + seconds
    while len(found := marked(mark)) < count:
        assert time.monotonic() < until, f"{len(found)} of {count} processes after {seconds:.0f} s"
        time.sleep(_TICK)
    return found


def left_after(mark: str, seconds: float) -> list[int]:
    """Wait until no process has the mark, at most `seconds`; kill the processes that live on and return their ids."""
    until = time.monotonic() + seconds
    while (found := marked(mark)) and time.monotonic() < until:
        time.sleep(_TICK)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found
