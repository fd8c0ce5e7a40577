"""Programs with a time limit. Their output goes to the log, and no process that they start outlives them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

_TAIL_BYTES = 2**18  # 2000 lines of pytest -v
_POLL_SECONDS = 0.1
KILLED_SECONDS = 5.0  # a program that waits for its GPU's driver may outlive SIGKILL
# A process group but no session, so that the end of the driver's session ends the program too. The older way runs code
# between fork and exec, which may hang if the driver has threads.
_OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"preexec_fn": os.setpgrp}


@dataclass(frozen=True)
class Job:
    """A command with its variables, and the way to end it."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside the driver's own."""
    stop: signal.Signals = signal.SIGINT
    """The signal that asks the program to end. pytest and the benchmarks then print the results that they have."""
    grace: float = 5.0
    """Seconds from that signal to SIGKILL, within the program's limit."""


@dataclass(frozen=True)
class Ended:
    """The end of a program: its exit status, and the last bytes that it printed."""

    status: int | None
    """The exit status, negative for a signal. None: the program did not start, or no signal ended it."""
    output: str
    """The last bytes that the program printed."""
    asked: str | None = None
    """The last line that the program had printed when it was told to end. None: it ended by itself."""


class Log(Protocol):
    """A place to which a program's output is written."""

    def write(self, data: bytes) -> None:
        """Keep the bytes at once."""


Tick = Callable[[float, str], None]
"""Called every few moments with the seconds so far and the latest line."""


class Running(Protocol):
    """A program that was started."""

    def wait(self, limit: float, tick: Tick | None = None) -> Ended:
        """Wait for the program, and return how it ended.

        Args:
            limit: Seconds from now. The program is asked to end before, and killed then.
            tick: Called every few moments.
        """

    def kill(self) -> None:
        """Kill the program, and all processes that it started."""


class Machine(Protocol):
    """A place where programs run, with its clock. The tests have a made-up one."""

    def now(self) -> float:
        """Return the seconds on a clock that only goes forward."""

    def start(self, job: Job, log: Log) -> Running:
        """Start a program in a process group of its own."""


class ThisMachine:
    """The machine that this program runs on.

    Args:
        folder: The folder in which programs run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def now(self) -> float:
        return time.monotonic()

    def start(self, job: Job, log: Log) -> Running:
        return _Process(job, log, self._folder)


class _Process:
    def __init__(self, job: Job, log: Log, folder: Path) -> None:
        self._job, self._log = job, log
        self._tail = b""
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                list(job.command),
                cwd=folder,
                env={**os.environ, **job.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                **_OWN_GROUP,
            )
        except OSError as error:
            self._keep(f"{job.command[0]}: {error.strerror}\n".encode())
            return
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while data := os.read(descriptor, 2**16):
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        self._log.write(data)

    def _output(self) -> str:
        return self._tail.decode(errors="replace")

    def wait(self, limit: float, tick: Tick | None = None) -> Ended:
        if self._process is None:
            return Ended(None, self._output())
        began = time.monotonic()
        ended = self._ends_by(began + max(0.0, limit - self._job.grace), began, tick)
        asked = None
        if not ended:
            asked = _last_line(self._output())
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self._job.stop)
            self._ends_by(began + limit, began, tick)
        self.kill()
        return Ended(self._process.returncode, self._output(), asked)

    def _ends_by(self, deadline: float, began: float, tick: Tick | None) -> bool:
        assert self._process is not None
        while self._process.poll() is None:
            now = time.monotonic()
            if now >= deadline:
                return False
            if tick is not None:
                tick(now - began, _last_line(self._output()))
            time.sleep(min(_POLL_SECONDS, deadline - now))
        return True

    def kill(self) -> None:
        if self._process is None:
            return
        # The group also holds processes that the program left behind. They would keep the GPU, and the pipe open.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILLED_SECONDS)
        self._reader.join(timeout=2.0)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
