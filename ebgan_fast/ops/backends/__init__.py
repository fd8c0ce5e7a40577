"""The choice of the backend that runs an op: by name, by the environment, or the fastest that can run."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from .availability import (
    NO_TRITON,
    BackendStatus,
    cpu_status,
    cuda_lacks,
    cuda_status,
    interprets,
    triton_lacks,
    triton_status,
)
from .gpu import architecture

__all__ = [
    "BackendName",
    "BackendStatus",
    "BackendUnavailableError",
    "backends",
    "choose",
    "refresh",
    "requested",
    "use_backend",
]

BackendName = Literal["auto", "reference", "cpu", "triton", "cuda"]

ENVIRONMENT_VARIABLE = "EBGAN_FAST_BACKEND"

FIRST_CHOICE = Path(__file__).with_name("first_choice.json")
"""The file of the faster backend on each GPU architecture, and by how much. `python -m bench page` writes it."""


class BackendUnavailableError(RuntimeError):
    """The error raised if a backend is requested by name and cannot run on this machine.

    Example:
        >>> from ebgan_fast import BackendUnavailableError, backends, use_backend
        >>> status = backends()["cuda"]
        >>> try:
        ...     with use_backend("cuda"):
        ...         ran = True
        ... except BackendUnavailableError as error:
        ...     ran = False
        ...     assert status.reason in str(error)  # the message says why
        >>> ran == status.available
        True
    """


_CPU_STATUS, _CPU_MISTAKE = cpu_status()


_log = logging.getLogger("ebgan_fast")


class Backend(NamedTuple):
    """The functions that describe a backend."""

    status: Callable[[], BackendStatus]
    takes: Callable[[], str]
    """A function that returns the type of device whose tensors the backend takes, such as "cpu"; "" for any."""
    lacks: Callable[[int], str | None] = lambda index: None
    """A function of a GPU's number that returns why the backend can't run on that GPU, or None if it can."""


KNOWN: dict[str, Backend] = {
    "reference": Backend(lambda: BackendStatus(True, "plain torch on any device"), lambda: ""),
    "cpu": Backend(lambda: _CPU_STATUS, lambda: "cpu"),
    "triton": Backend(triton_status, lambda: "cpu" if interprets() else "cuda", triton_lacks),
    "cuda": Backend(cuda_status, lambda: "cuda", cuda_lacks),
}
"""The backends by name. A program whose kernels run elsewhere, for example in a simulator, may replace an entry."""

if not _CPU_STATUS.available and _CPU_MISTAKE is None:
    _log.warning("ebgan_fast runs on plain torch: %s", _CPU_STATUS.reason)

# The choice outside of all blocks.
_ENVIRONMENT: str = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
# A global, not a thread-local, because autograd runs backward on other threads, and torch.compile guards on a global.
_requested: str = _ENVIRONMENT


@dataclass(frozen=True, eq=False)  # two blocks are never equal
class _Block:
    """An open block of `use_backend`."""

    name: str
    thread: int


# In the order in which they were entered. The last one decides.
_blocks: list[_Block] = []
_blocks_lock = threading.Lock()


def _in_a_fork() -> None:
    """Forget the blocks of other threads in a forked process, which does not have those threads."""
    global _blocks_lock, _requested
    _blocks_lock = threading.Lock()
    _blocks[:] = [block for block in _blocks if block.thread == threading.get_ident()]
    _requested = _blocks[-1].name if _blocks else _ENVIRONMENT


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_fork)


def backends() -> dict[str, BackendStatus]:
    """Return the status of each backend by name: if it can run on this machine, and the reason.

    Example:
        >>> import ebgan_fast
        >>> list(ebgan_fast.backends())
        ['reference', 'cpu', 'triton', 'cuda']
        >>> [name for name, status in ebgan_fast.backends().items() if status.available]  # doctest: +ELLIPSIS
        ['reference'...]
    """
    return {name: backend.status() for name, backend in KNOWN.items()}


def requested() -> str:
    """Return the name of the backend that `use_backend` or the environment requests, or "auto".

    Example:
        >>> import ebgan_fast
        >>> from ebgan_fast.ops import backends
        >>> with ebgan_fast.use_backend("reference"):
        ...     backends.requested()
        'reference'
    """
    return _requested


def refresh() -> None:
    """Forget which backends can run, so that the next op checks again.

    Example:
        >>> from ebgan_fast.ops import backends
        >>> backends.refresh()
        >>> backends.backends()["reference"].available
        True
    """
    for found in (triton_status, cuda_status, _first_there, _lack):
        found.cache_clear()
    _warned.clear()


def _is_available(name: str) -> bool:
    return KNOWN[name].status().available


# With this mark torch.compile takes the result as a constant, and does not trace into the search for devices.
# torch.compiler.assume_constant_result sets the same mark, but imports the compiler.
_is_available._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _checked(name: str, source: str) -> str:
    if name == "auto":
        return name
    if name not in KNOWN:
        raise ValueError(f"{source}: got backend {name!r}, expected one of 'auto', {', '.join(map(repr, KNOWN))}")
    status = KNOWN[name].status()
    if not status.available:
        raise BackendUnavailableError(
            f"{source}: got backend {name!r}, which cannot run here: {status.reason}; expected 'auto', or one of those "
            "that ebgan-fast doctor lists with yes"
        )
    return name


# Marked as above: a status may call a compiled module.
_checked._dynamo_marked_constant = True  # type: ignore[attr-defined]


@contextlib.contextmanager
def use_backend(name: BackendName) -> Iterator[None]:
    """Run every op inside the `with` block on one backend, in the whole process.

    The choice holds for all threads, because backward passes run on other threads. Blocks may be nested. Blocks of
    several threads may overlap if they request the same backend. Tasks of one thread, such as asyncio's, share the
    choice.

    Args:
        name: "reference", "cpu", "triton", "cuda", or "auto" (the fastest that can run the tensors).

    Raises:
        ValueError: if the name is unknown.
        BackendUnavailableError: if that backend cannot run on this machine. The message says why.
        RuntimeError: if another thread's block is open and requests another backend.

    Example:
        >>> import torch, ebgan_fast
        >>> with ebgan_fast.use_backend("reference"):
        ...     ebgan_fast.reconstruction_energy(torch.ones(2, 4), torch.zeros(2, 4))
        tensor([2., 2.])
    """
    global _requested
    chosen = _checked(name, "use_backend")
    # A block inside a traced function affects only the graph. A lock can't be traced.
    if torch.compiler.is_compiling():
        before, _requested = _requested, chosen
        try:
            yield
        finally:
            _requested = before
        return
    block = _Block(chosen, threading.get_ident())
    _enter(block)
    try:
        yield
    finally:
        _leave(block)


def _enter(block: _Block) -> None:
    global _requested
    with _blocks_lock:
        others = {it.name for it in _blocks if it.thread != block.thread} - {block.name}
        if others:
            raise RuntimeError(
                f"use_backend: got {block.name!r} while a block of another thread asks for {others.pop()!r}, expected "
                "one backend at a time, as the choice holds for the whole process. Open one block around both threads"
            )
        _blocks.append(block)
        _requested = block.name


def _leave(block: _Block) -> None:
    global _requested
    with _blocks_lock:
        _blocks.remove(block)
        _requested = _blocks[-1].name if _blocks else _ENVIRONMENT


def choose(device_type: str, index: int | None = None) -> str:
    """Return the name of the backend that runs an op on tensors of this device.

    Args:
        device_type: the type of torch's device, such as "cpu".
        index: the index of torch's device. None: the current device of the type.

    Raises:
        ValueError: if the requested backend cannot take tensors of this device, or the environment names no known
            backend.
        BackendUnavailableError: if the requested backend cannot run on this machine, or not on this GPU.

    Example:
        >>> import ebgan_fast
        >>> from ebgan_fast.ops import backends
        >>> with ebgan_fast.use_backend("reference"):
        ...     backends.choose("cpu")
        'reference'
        >>> with ebgan_fast.use_backend("auto"):
        ...     backends.choose("meta")
        'reference'
    """
    name = _requested
    if name == "auto":
        return _automatic(device_type, index)
    if name == "reference":
        return name
    _checked(name, ENVIRONMENT_VARIABLE)
    wanted = _taken_by(name)
    if device_type != wanted:
        raise ValueError(
            f"backend {name!r}: got a tensor on {device_type!r}, expected one on {wanted!r} (or use_backend('auto'))"
        )
    if device_type == "cuda" and (why := _lack_on(name, torch.cuda.current_device() if index is None else index)):
        raise BackendUnavailableError(f"got backend {name!r}, which cannot run on this GPU: {why}; expected 'auto'")
    return name


def _taken_by(name: str) -> str:
    """Return the type of device whose tensors a backend takes."""
    return KNOWN[name].takes()


# Marked as above: the result is the same as long as the process runs.
_taken_by._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _automatic(device_type: str, index: int | None) -> str:
    if device_type == "cuda":
        return _on_the_gpu(torch.cuda.current_device() if index is None else index)
    if device_type != "cpu":
        return "reference"
    if _CPU_MISTAKE is not None:
        raise ValueError(_CPU_MISTAKE)
    return "cpu" if _CPU_STATUS.available else "reference"


def _on_the_gpu(index: int) -> str:
    return _first_there(index)


# As above, and torch.compile would trace into a cached function too.
_on_the_gpu._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _lack(name: str, index: int) -> str | None:
    """Return why a backend can't run on the GPU of that number, or None if it can."""
    status = KNOWN[name].status()
    return KNOWN[name].lacks(index) if status.available else status.reason


def _lack_on(name: str, index: int) -> str | None:
    return _lack(name, index)


# As above, and torch.compile would trace into a cached function too.
_lack_on._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _first_there(index: int) -> str:
    """Return the backend that runs first on that GPU: the faster one if measured on its architecture, else Triton."""
    of_gpus = [name for name in ("triton", "cuda") if _taken_by(name) == "cuda"]
    lacks = {name: lack for name in of_gpus if (lack := _lack(name, index))}
    can_run = [name for name in of_gpus if name not in lacks]
    if not can_run or ("triton" in lacks and KNOWN["triton"].status() != NO_TRITON):
        _warn_once(can_run[0] if can_run else "reference", lacks)
    if len(can_run) < 2:
        return can_run[0] if can_run else "reference"
    measured = json.loads(FIRST_CHOICE.read_text(encoding="utf-8")).get(architecture(torch.device("cuda", index)), {})
    return str(measured.get("backend", "triton"))


_warned: set[str] = set()


def _warn_once(runs: str, lacks: dict[str, str]) -> None:
    """Log once which backend runs on a GPU in place of those that can't."""
    reasons = "; ".join(f"{name}: {why}" for name, why in lacks.items())
    text = f"ebgan_fast runs tensors of a GPU on backend {runs!r} ({reasons})"
    if text not in _warned:
        _warned.add(text)
        _log.warning("%s", text)
