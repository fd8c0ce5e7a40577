"""Storages that are refused, and locks that another process holds."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebgan_fast.studies.framework.storage import StorageError

from .test_queue import opened


def refusal(address: str) -> str:
    """Return the one sentence that refuses a storage."""
    with pytest.raises((StorageError, OSError)) as raised:
        opened(address, 1)
    told = str(raised.value)
    assert len(told.splitlines()) == 1
    assert len(told) < 500
    assert told.isprintable()
    return told


_HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def held(lock: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds a lock, and yield the process."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, lock, str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def lock_of(storage: str) -> Path:
    return Path(f"{storage.removeprefix('sqlite:///')}{'.lock' if '://' in storage else '.flock'}")
