"""Programs with a limit: what they print goes to the log, and nothing of them outlives them."""

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
# A group but no session: whatever ends the driver's session ends this too. Code between fork and exec, the older way,
# may hang where threads run.
_OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"preexec_fn": os.setpgrp}


@dataclass(frozen=True)
class Job:
    """The words of a command, and how the program is told to end."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside the driver's own."""
    stop: signal.Signals = signal.SIGINT
    """The signal that asks it to end: pytest and the benchmarks then print what they have."""
    grace: float = 5.0
    """Seconds from being asked to being killed, of its limit."""


@dataclass(frozen=True)
class Ended:
    """The exit status of a program, and the end of what it printed."""

    status: int | None
    """Its exit status, negative for a signal; None for a program that did not start, or that no signal ended."""
    output: str
    """The end of what it printed."""
    asked: str | None = None
    """The last line that it had printed when it was told to end; None for one that ended by itself."""


class Log(Protocol):
    """A place that a program's output is written to."""

    def write(self, data: bytes) -> None:
        """Keep it, at once."""


Tick = Callable[[float, str], None]
"""Told the seconds so far and the latest line, every few moments."""


class Running(Protocol):
    """One program that was started, to wait for or to kill."""

    def wait(self, limit: float, tick: Tick | None = None) -> Ended:
        """Return how it ended, within `limit` seconds from now: then it is asked to end, and killed."""

    def kill(self) -> None:
        """End it at once, with all that it started."""


class Machine(Protocol):
    """A place where programs run and time goes by; made up in the tests."""

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""

    def start(self, job: Job, log: Log) -> Running:
        """Start a program in a process group of its own."""


class ThisMachine:
    """The real one.

    Args:
        folder: where programs run.
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
        # Also what the program itself left behind: it would keep the GPU, and the pipe open.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILLED_SECONDS)
        self._reader.join(timeout=2.0)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
