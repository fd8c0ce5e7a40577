"""The owners of trials: whether the process that does one still lives, as far as another one can tell.

On the same system the kernel says so. From elsewhere there is a sign of life, which the owner changes while it works.
An owner is dead once a looker has seen the same sign for minutes. No clock is read but the looker's own: it doesn't
matter what time or zone either machine believes in.
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
        token: of this process alone.
        host: name of its machine.
        kernel: an identifier of this boot of the kernel; None outside Linux, or where /proc shows another namespace.
        pids: the kernel's namespaces that the two numbers below are of: containers have their own.
        pid: the process's number.
        born: when it began, in the kernel's ticks, which tells it from a later one of the same number.
    """

    token: str
    host: str
    kernel: str | None
    pids: str | None
    pid: int
    born: str | None


def this_process() -> Owner:
    """This process, told from every other."""
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
    """Return what the kernel says of a process, "unknown" if it is another kernel's or in another namespace."""
    me = this_process()
    about = {"host": me["host"], "kernel": me["kernel"], "pids": me["pids"]}
    same_kernel = all(found is not None and found == owner.get(name) for name, found in about.items())
    if not same_kernel or not isinstance(owner.get("pid"), int) or owner.get("born") is None:
        return "unknown"
    return _life_of(owner["pid"], owner["born"])


@functools.cache
def _token(pid: int) -> str:
    """A name for this process. A process that was forked off has another number, and so another name."""
    return uuid.uuid4().hex


def _kernel() -> tuple[str | None, str | None]:
    """The running kernel, and the namespace of this process's number; None where /proc shows another namespace."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None, None
        namespaces = os.readlink("/proc/self/ns/pid")
        with contextlib.suppress(FileNotFoundError):  # of a kernel before 5.6
            namespaces += os.readlink("/proc/self/ns/time")
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), namespaces
    except OSError:
        return None, None


def _birth(pid: int) -> str | None:
    """The time at which a process began, in the kernel's ticks; None if it isn't seen, or the system isn't Linux."""
    try:
        return _stat(pid)[19]
    except OSError:
        return None


def _life_of(pid: int, born: str) -> Life:
    """Return what this kernel says of the process of a number that began then."""
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return "dead" if _is_gone(pid) else "unknown"
    except OSError:  # such as of a looker that may open no more files
        return "unknown"
    # One that was killed stays a zombie until its parent asks for it, which a container's first process may never do.
    return "lives" if fields[19] == born and fields[0] not in "ZX" else "dead"


def _stat(pid: int) -> list[str]:
    """The fields of a process's line in /proc, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _is_gone(pid: int) -> bool:
    """Return True if there is no process of a number: /proc may hide those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class Pulse:
    """A thread that gives a sign of life now and then, from its making until `stop`.

    It is a thread because one step of a trial may take longer than the time between two signs.

    Args:
        sign: gives one, and returns quickly. What it raises is left to the next time.
    """

    def __init__(self, sign: Callable[[int], None]) -> None:
        self._sign = sign
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="sign of life", daemon=True).start()

    def stop(self) -> None:
        """Give no sign any more."""
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
    """The signs of life that a looker has seen."""

    def __init__(self) -> None:
        self._looks: dict[int, _Look] = {}

    def life(self, number: int, sign: Any) -> Life:
        """Return what a sign of life says, seen now.

        Args:
            number: of the trial that it is given for.
            sign: what changes while the trial's owner lives.
        """
        now = time.monotonic()
        look = self._looks.setdefault(number, _Look(sign, now))
        if sign != look.sign:
            self._looks[number] = _Look(sign, now, changed=True)
            return "lives"
        # A look that hung, as on a locked database, says nothing of the time that it hung: the owner hung with it.
        look.silent += min(now - look.at, SECONDS_BETWEEN_SIGNS)
        look.at = now
        if look.silent >= SECONDS_TO_DEATH:
            return "dead"
        return "lives" if look.changed and look.silent < 2 * SECONDS_BETWEEN_SIGNS else "unknown"
