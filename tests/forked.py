"""Processes for tests that kill a process, send it a signal, or need several.

A new interpreter needs 2 to 6 s of a core for its imports: torch, then all that a first optimizer and
DistributedDataParallel load. Here each worker of pytest has one server, which imports once. A test's processes are
forks of the server, which begin after some 20 ms. Each has memory, threads, signals and an exit status of its own.

A fork ends without the shutdown of its interpreter. Tests of that shutdown, of imports, or of the environment that
imports read start an interpreter (`programs.py`).
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
    """Let the server import one more module, which many processes need. A server that runs already ignores this."""
    if module not in _preloaded:
        _preloaded.insert(0, module)  # before the last module, which must end the imports
        _context.set_forkserver_preload(_preloaded)


class Child:
    """A process that runs one function and writes both of its output streams into a file.

    Args:
        output: the file for the output.
        target: a function of a module, run from the root of the repository. An exception ends the process with status
            1, SystemExit with its own status.
        arguments: the function's arguments, which must be picklable.
        environment: environment variables to set before the function runs.
    """

    def __init__(
        self, output: Path, target: Callable[..., object], *arguments: object, environment: dict[str, str] | None = None
    ) -> None:
        self._output = output
        self._process: ForkServerProcess = _context.Process(
            target=_run, args=(output, environment or {}, target, arguments)
        )
        here = Path.cwd()
        os.chdir(_ROOT)  # the first process starts the server, which imports modules from there
        try:
            self._process.start()
        finally:
            os.chdir(here)

    @property
    def said(self) -> str:
        """The process's output so far."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """True until the process has ended."""
        return self._process.is_alive()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_for_line(self) -> str:
        """Wait for the first line of output, and return it; fail if the process ends without one."""
        until = time.monotonic() + _PATIENCE
        while "\n" not in self.said:
            assert self._process.is_alive(), self.said
            assert time.monotonic() < until, "no line in two minutes"
            time.sleep(0.02)
        return self.said.partition("\n")[0]

    def status(self) -> int:
        """Wait for the end; return the exit status, or the negative number of the signal that killed the process."""
        self._process.join(_PATIENCE)
        assert self._process.exitcode is not None, f"still running after two minutes: {self.said}"
        return self._process.exitcode

    def kill(self) -> None:
        """Kill the process unless it has ended."""
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server has none if a study started it
    os.environ.update(environment)
    os.chdir(_ROOT)
    target(*arguments)
