"""The choice of the backend that runs an op: by name, by the environment, or the fastest that can."""

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
"""By architecture, the backend that was faster there, and by how much. `python -m bench page` writes it."""


class BackendUnavailableError(RuntimeError):
    """The error of a backend that was asked for by name and cannot run on this machine.

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
    """The questions that are asked of a backend."""

    status: Callable[[], BackendStatus]
    takes: Callable[[], str]
    """The type of device whose tensors it takes, such as "cpu"; "" for any."""
    lacks: Callable[[int], str | None] = lambda index: None
    """The reason why it can't run on the GPU of that number, where it can run on another; None if it can."""


KNOWN: dict[str, Backend] = {
    "reference": Backend(lambda: BackendStatus(True, "plain torch on any device"), lambda: ""),
    "cpu": Backend(lambda: _CPU_STATUS, lambda: "cpu"),
    "triton": Backend(triton_status, lambda: "cpu" if interprets() else "cuda", triton_lacks),
    "cuda": Backend(cuda_status, lambda: "cuda", cuda_lacks),
}
"""Every backend by its name. Kernels that run elsewhere, in a simulator for example, take the place of an entry."""

if not _CPU_STATUS.available and _CPU_MISTAKE is None:
    _log.warning("ebgan_fast runs on plain torch: %s", _CPU_STATUS.reason)

# What no block asks for.
_ENVIRONMENT: str = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
# A plain global, not a thread-local: autograd runs backward on threads of its own, and torch.compile guards on it.
_requested: str = _ENVIRONMENT


@dataclass(frozen=True, eq=False)  # each is itself alone
class _Block:
    """An open block of `use_backend`."""

    name: str
    thread: int


# In the order in which they were entered; the last one is in force.
_blocks: list[_Block] = []
_blocks_lock = threading.Lock()


def _in_a_fork() -> None:
    """Forget the blocks of threads that a forked process does not have."""
    global _blocks_lock, _requested
    _blocks_lock = threading.Lock()
    _blocks[:] = [block for block in _blocks if block.thread == threading.get_ident()]
    _requested = _blocks[-1].name if _blocks else _ENVIRONMENT


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_fork)


def backends() -> dict[str, BackendStatus]:
    """Return the status of each backend by its name: whether it can run on this machine, and why (not).

    Example:
        >>> import ebgan_fast
        >>> list(ebgan_fast.backends())
        ['reference', 'cpu', 'triton', 'cuda']
        >>> [name for name, status in ebgan_fast.backends().items() if status.available]  # doctest: +ELLIPSIS
        ['reference'...]
    """
    return {name: backend.status() for name, backend in KNOWN.items()}


def requested() -> str:
    """Return the backend that `use_backend` or the environment asks for, or "auto".

    Example:
        >>> import ebgan_fast
        >>> from ebgan_fast.ops import backends
        >>> with ebgan_fast.use_backend("reference"):
        ...     backends.requested()
        'reference'
    """
    return _requested


def refresh() -> None:
    """Forget which backends were found: the next op looks for them anew.

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


# torch.compile takes the answer for a constant, where it would trace into the search for devices. What
# torch.compiler.assume_constant_result does, without its import of the compiler.
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


# As above: a status may ask a compiled module.
_checked._dynamo_marked_constant = True  # type: ignore[attr-defined]


@contextlib.contextmanager
def use_backend(name: BackendName) -> Iterator[None]:
    """Run every op inside the `with` block on one backend, for the whole process: backward passes run on other threads.

    Blocks may be nested. Blocks of several threads may overlap while they ask for the same backend. Tasks of one
    thread, such as asyncio's, see each other's choice.

    Args:
        name: "reference", "cpu", "triton", "cuda", or "auto" (the fastest that can run the tensors at hand).

    Raises:
        ValueError: the name is unknown.
        BackendUnavailableError: that backend cannot run on this machine; the message says why.
        RuntimeError: a block of another thread is open and asks for another backend.

    Example:
        >>> import torch, ebgan_fast
        >>> with ebgan_fast.use_backend("reference"):
        ...     ebgan_fast.reconstruction_energy(torch.ones(2, 4), torch.zeros(2, 4))
        tensor([2., 2.])
    """
    global _requested
    chosen = _checked(name, "use_backend")
    if torch.compiler.is_compiling():  # a block within what is traced: of the graph alone, and no lock can be traced
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
    """The backend that runs an op on tensors of this device.

    Args:
        device_type: of torch's device.
        index: of torch's device; None: the current one of the type.

    Raises:
        ValueError: the requested backend cannot take tensors of this device, or the environment names no backend.
        BackendUnavailableError: the requested backend cannot run here, or not on this GPU.

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
    """The type of device whose tensors a backend takes."""
    return KNOWN[name].takes()


# As above: the answer is the same for the life of the process.
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
    """Return why a backend can't run on that GPU, or None if it can."""
    status = KNOWN[name].status()
    return KNOWN[name].lacks(index) if status.available else status.reason


def _lack_on(name: str, index: int) -> str | None:
    return _lack(name, index)


# As above, and torch.compile would trace into a cached function too.
_lack_on._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _first_there(index: int) -> str:
    """The kernels that run first on that GPU: the faster ones where that was measured on its architecture, else
    Triton's."""
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
    """Tell once what runs on a GPU in place of the kernels that can't."""
    reasons = "; ".join(f"{name}: {why}" for name, why in lacks.items())
    text = f"ebgan_fast runs tensors of a GPU on backend {runs!r} ({reasons})"
    if text not in _warned:
        _warned.add(text)
        _log.warning("%s", text)
