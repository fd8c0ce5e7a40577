"""The owners of trials, and how one process finds out if the process that does a trial is still alive.

On the same system, the kernel knows. For other systems there is a sign of life, a number that the owner changes while
it works. A process that looks on takes an owner for dead after it has seen the same sign for minutes. It reads only its
own clock, so the times and time zones of the machines may differ.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

SECONDS_BETWEEN_SIGNS = 20.0
SECONDS_TO_DEATH = 180.0  # without a new sign

Life = Literal["lives", "dead", "unknown"]


class Owner(TypedDict):
    """The process that does a trial.

    Attributes:
        token: a text that this process alone has.
        host: the name of the machine.
        kernel: an identifier of this boot of the kernel. None outside Linux, or where /proc shows another namespace.
        pids: the kernel's namespaces in which `pid` and `born` count. Containers have namespaces of their own.
        pid: the number of the process.
        born: the time at which the process began, in the kernel's ticks. A later process with the same number has
            another time.
    """

    token: str
    host: str
    kernel: str | None
    pids: str | None
    pid: int
    born: str | None


def this_process() -> Owner:
    """Return the owner that stands for this process."""
    pid = os.getpid()
    kernel, pids = _kernel()
    return {
        "token": _token(pid),
        "host": socket.gethostname(),
        "kernel": kernel,
        "pids": pids,
        "pid": pid,
        "born": _birth(pid),
    }


def known_life(owner: Mapping[str, Any]) -> Life:
    """Return what the kernel says of a process: "unknown" if the process is on another kernel or in another
    namespace."""
    me = this_process()
    about = {"host": me["host"], "kernel": me["kernel"], "pids": me["pids"]}
    same_kernel = all(found is not None and found == owner.get(name) for name, found in about.items())
    if not same_kernel or not isinstance(owner.get("pid"), int) or owner.get("born") is None:
        return "unknown"
    return _life_of(owner["pid"], owner["born"])


@functools.cache
def _token(pid: int) -> str:
    """Return a unique name for this process. A forked process has another number, and so another name."""
    return uuid.uuid4().hex


def _kernel() -> tuple[str | None, str | None]:
    """Return the running kernel and the namespaces of this process. Both are None where /proc shows another
    namespace."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None, None
        namespaces = os.readlink("/proc/self/ns/pid")
        with contextlib.suppress(FileNotFoundError):  # kernels before 5.6 have no such file
            namespaces += os.readlink("/proc/self/ns/time")
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), namespaces
    except OSError:
        return None, None


def _birth(pid: int) -> str | None:
    """Return the time at which a process began, in kernel ticks. None: the process can't be seen, or this isn't
    Linux."""
    try:
        return _stat(pid)[19]
    except OSError:
        return None


def _life_of(pid: int, born: str) -> Life:
    """Return what this kernel says of the process with this number that began at this time."""
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return "dead" if _is_gone(pid) else "unknown"
    except OSError:  # this process may have too many open files, for example
        return "unknown"
    # A killed process stays a zombie until its parent waits for it. A container's first process may never do that.
    return "lives" if fields[19] == born and fields[0] not in "ZX" else "dead"


def _stat(pid: int) -> list[str]:
    """Return the fields of a process's line in /proc, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _is_gone(pid: int) -> bool:
    """Return True if there is no process with this number. /proc alone doesn't tell: it may hide other users'
    processes."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class Pulse:
    """A thread that gives a sign of life at intervals, from its creation until `stop`.

    It is a thread because one step of a trial may take longer than the time between two signs.

    Args:
        sign: called with the number of the sign, it gives the sign and returns quickly. An error that it raises is
            ignored, and the next sign is given as usual.
    """

    def __init__(self, sign: Callable[[int], None]) -> None:
        self._sign = sign
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="sign of life", daemon=True).start()

    def stop(self) -> None:
        """Give no more signs."""
        self._ended.set()

    def _beat(self) -> None:
        number = 0
        while not self._ended.wait(SECONDS_BETWEEN_SIGNS):
            number += 1
            try:
                self._sign(number)
            except Exception:
                continue


@dataclass
class _Look:
    sign: Any
    at: float
    silent: float = 0.0
    changed: bool = False


class Watch:
    """The signs of life that this process has seen."""

    def __init__(self) -> None:
        self._looks: dict[int, _Look] = {}

    def life(self, number: int, sign: Any) -> Life:
        """Return what a sign of life says that was seen just now.

        Args:
            number: the number of the trial.
            sign: the sign, which changes while the trial's owner is alive.
        """
        now = time.monotonic()
        look = self._looks.setdefault(number, _Look(sign, now))
        if sign != look.sign:
            self._looks[number] = _Look(sign, now, changed=True)
            return "lives"
        # A look may hang, such as on a locked database. That time doesn't count, as the owner's signs hung too.
        look.silent += min(now - look.at, SECONDS_BETWEEN_SIGNS)
        look.at = now
        if look.silent >= SECONDS_TO_DEATH:
            return "dead"
        return "lives" if look.changed and look.silent < 2 * SECONDS_BETWEEN_SIGNS else "unknown"
