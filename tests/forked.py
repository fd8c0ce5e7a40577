"""Processes that a test needs for their own sake: to be killed, to be sent a signal, to be one of several.

A new interpreter takes 2 to 6 s of a core for its imports: torch, then all that a first optimizer and
DistributedDataParallel load. Here one server in each worker of pytest imports once. A test's processes are its forks,
which begin after some 20 ms. Each has memory, threads, signals and an exit status of its own.

A fork ends without tearing down its interpreter. What is about that end, or about imports and the environment that they
read, starts an interpreter (`programs.py`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PATIENCE = 120.0  # seconds

_context = multiprocessing.get_context("forkserver")
_preloaded = ["tests.forked_imports"]
_context.set_forkserver_preload(_preloaded)


def preload(module: str) -> None:
    """Let the server, if it hasn't begun, import this module too, which many processes need."""
    if module not in _preloaded:
        _preloaded.insert(0, module)  # before the last, which closes the imports
        _context.set_forkserver_preload(_preloaded)


class Child:
    """A process that runs one function; its output, both streams of it, goes into a file.

    Args:
        output: the file.
        target: a function of a module, run from the root of the repository; what it raises ends the process with
            status 1, and SystemExit with its own.
        arguments: the function's, which pickle can carry.
        environment: variables to set first.
    """

    def __init__(
        self, output: Path, target: Callable[..., object], *arguments: object, environment: dict[str, str] | None = None
    ) -> None:
        self._output = output
        self._process: ForkServerProcess = _context.Process(
            target=_run, args=(output, environment or {}, target, arguments)
        )
        here = Path.cwd()
        os.chdir(_ROOT)  # the server, which the first process starts, finds what it imports there
        try:
            self._process.start()
        finally:
            os.chdir(here)

    @property
    def said(self) -> str:
        """The output so far."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self._process.is_alive()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_for_line(self) -> str:
        """The first line of output; fails if the process ends without one."""
        until = time.monotonic() + _PATIENCE
        while "\n" not in self.said:
            assert self._process.is_alive(), self.said
            assert time.monotonic() < until, "no line in two minutes"
            time.sleep(0.02)
        return self.said.partition("\n")[0]

    def status(self) -> int:
        """Wait for the end; returns the exit status, or less the number of the signal that killed it."""
        self._process.join(_PATIENCE)
        assert self._process.exitcode is not None, f"still running after two minutes: {self.said}"
        return self._process.exitcode

    def kill(self) -> None:
        """End it, if it hasn't ended."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


def _run(
    output: Path, environment: dict[str, str], target: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    with output.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a study may have started the server, which then has none
    os.environ.update(environment)
    os.chdir(_ROOT)
    target(*arguments)
