"""A limit on memory that holds: in a process that has nothing to reuse.

In a worker of pytest it holds by luck alone. Of what earlier tests took and gave back, gigabytes stay with the process
(between live blocks the C library keeps them), and an allocation that finds room there needs nothing new.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .forked import Child

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are of Linux")

Fork = Callable[..., Child]


def error_within(fork: Fork, room: int, function: Callable[..., object], *arguments: object) -> tuple[str, str]:
    """Run a function in a process with a limit on its memory, for two minutes at most.

    Args:
        fork: the fixture.
        room: bytes that the process may take besides what it begins with, address space included.
        function: a function of a module.
        arguments: its arguments, which pickle can carry.

    Returns:
        The name of the class of the error that ended it, and its text; two empty strings if none did.
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
