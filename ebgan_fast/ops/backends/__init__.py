"""Which implementations of the ops exist on this machine, why the others don't, and which one runs."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from .gpu import architecture

if TYPE_CHECKING:
    from ..._C import BuildInfo

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


class BackendStatus(NamedTuple):
    """The status of a backend: whether it can run here, and the reason in one line.

    Example:
        >>> import ebgan_fast
        >>> status = ebgan_fast.backends()["reference"]
        >>> status.available
        True
        >>> status.reason
        'plain torch on any device'
    """

    available: bool
    """True if it can run on this machine."""
    reason: str
    """The kernels that run, or the thing that is missing."""


def _cpu_status() -> tuple[BackendStatus, str | None]:
    """The status, and what is wrong with the environment: a mistake to be told at the first op, where a missing
    extension is a circumstance to be lived with."""
    try:
        extension = importlib.import_module("ebgan_fast._C")
    except ImportError as error:
        return BackendStatus(False, f"the extension ebgan_fast._C is missing or does not load ({error})"), None
    try:
        info = extension.build_info()
    except ValueError as error:
        return BackendStatus(False, str(error)), str(error)
    return BackendStatus(True, f"compiled kernels, instruction set {info['isa']} ({_why(info)})"), None


def _why(info: BuildInfo) -> str:
    """Why that instruction set is the one in use."""
    if os.environ.get("EBGAN_FAST_CPU_ISA"):
        return "EBGAN_FAST_CPU_ISA asks for it"
    lacking = [isa for isa in info["isas_compiled"] if isa not in info["isas_supported"]]
    best = "the fastest of those compiled in"
    return f"{best} that this processor has: it lacks {', '.join(lacking)}" if lacking else best


def _interprets() -> bool:
    """Whether Triton runs its kernels in an interpreter, on CPU tensors (its own environment variable)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


@functools.cache
def _triton_status() -> BackendStatus:
    """Asked for at the first use only: importing the package must not look for devices."""
    if importlib.util.find_spec("triton") is None:
        return BackendStatus(False, "triton is not installed (pip install triton; Linux only)")
    version = triton_version()
    if _interprets():
        return BackendStatus(True, f"triton {version} in its interpreter, on CPU tensors: slow, for tests")
    if not torch.cuda.is_available():
        return BackendStatus(False, f"triton {version} is installed, but torch sees no GPU")
    return BackendStatus(True, f"triton {version}")


def triton_version() -> str:
    """The version of the Triton that is installed, under whichever name."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # installed under another name, such as pytorch-triton
        return str(getattr(importlib.import_module("triton"), "__version__", "of unknown version"))


@functools.cache
def _cuda_status() -> BackendStatus:
    """Asked for at the first use only, as Triton's is."""
    try:
        from ... import _C
    except ImportError:
        return BackendStatus(False, "the extension ebgan_fast._C, which would hold its kernels, is missing")
    cuda = getattr(_C, "cuda", None)
    if cuda is None:
        return BackendStatus(False, "the extension was built without it (EBGAN_FAST_CUDA=1 pip install . needs nvcc)")
    built = f"built for {_span(cuda.architectures.split())} ({cuda.compiler})"
    if error := cuda.device_error():
        missing = "no driver" if error == "cudaErrorInsufficientDriver" else f"no GPU ({error})"
        return BackendStatus(False, f"{built}, {missing}")
    if not torch.cuda.is_available():
        return BackendStatus(False, f"{built}, but torch {torch.__version__} sees no GPU")
    return BackendStatus(True, built)


def _span(architectures: list[str]) -> str:
    """ "sm_90", or "sm_75…120"."""
    first, last = architectures[0], architectures[-1]
    return f"sm_{first}" if first == last else f"sm_{first}…{last}"


_CPU_STATUS, _CPU_MISTAKE = _cpu_status()


class Backend(NamedTuple):
    """The two questions that are asked of a backend."""

    status: Callable[[], BackendStatus]
    takes: Callable[[], str]
    """The type of device whose tensors it takes, such as "cpu"; "" for any."""


KNOWN: dict[str, Backend] = {
    "reference": Backend(lambda: BackendStatus(True, "plain torch on any device"), lambda: ""),
    "cpu": Backend(lambda: _CPU_STATUS, lambda: "cpu"),
    "triton": Backend(_triton_status, lambda: "cpu" if _interprets() else "cuda"),
    "cuda": Backend(_cuda_status, lambda: "cuda"),
}
"""Every backend by its name. Kernels that run elsewhere, in a simulator for example, take the place of an entry."""

if not _CPU_STATUS.available and _CPU_MISTAKE is None:
    logging.getLogger("ebgan_fast").warning("ebgan_fast runs on plain torch: %s", _CPU_STATUS.reason)

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
    for found in (_triton_status, _cuda_status, _first_there):
        found.cache_clear()


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
            f"{source}: backend {name!r} cannot run here: {status.reason}. Use 'auto' or see ebgan_fast.backends()"
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
def _first_there(index: int) -> str:
    """The kernels that run first on that GPU: the faster ones where that was measured on its architecture, else
    Triton's."""
    can_run = [name for name in ("triton", "cuda") if _is_available(name) and _taken_by(name) == "cuda"]
    if len(can_run) < 2:
        return can_run[0] if can_run else "reference"
    measured = json.loads(FIRST_CHOICE.read_text(encoding="utf-8")).get(architecture(torch.device("cuda", index)), {})
    return str(measured.get("backend", "triton"))
