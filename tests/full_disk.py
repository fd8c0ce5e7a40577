"""A limit on the size of files as a stand-in for a full disk: a write beyond the limit fails in the same way."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Limit every file that this process and its children write to `size` bytes.

    Under the limit no process writes bytecode. Python 3.11 would take a short write for a whole one, and every later
    process that reads the file would fail ("EOFError: marshal data too short").
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with (
        mock.patch.object(sys, "dont_write_bytecode", True),
        mock.patch.dict(os.environ, {"PYTHONDONTWRITEBYTECODE": "1"}),
    ):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
