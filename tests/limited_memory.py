"""A limit on memory, in a process of its own that has no freed memory to reuse.

In a worker of pytest a limit would hold only by luck. Gigabytes that earlier tests took and freed stay with the
process, since the C library keeps memory between live blocks. An allocation that fits there needs no new memory.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .forked import Child

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these limits on memory")

Fork = Callable[..., Child]


def error_within(fork: Fork, room: int, function: Callable[..., object], *arguments: object) -> tuple[str, str]:
    """Run a function in a process with a limit on its memory, for two minutes at most.

    Args:
        fork: the fixture `fork`.
        room: bytes of address space that the process may take in addition to what it has at its start.
        function: a function of a module.
        arguments: the function's arguments, which must be picklable.

    Returns:
        The name of the error's class and its text; two empty strings if the function raised no error.
    """
    child = fork(_limited, room, function, arguments)
    assert child.status() == 0, child.said
    name, text = json.loads(child.said.splitlines()[-1])
    return name, text


def _limited(room: int, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, limit[1]))
    end = "", ""
    try:
        function(*arguments)
    except Exception as error:
        end = type(error).__name__, str(error)
    resource.setrlimit(resource.RLIMIT_AS, limit)
    print("\n" + json.dumps(end))
