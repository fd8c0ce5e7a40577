"""CPU tensors beside forbidden memory: one element too far, read or written, ends the process with SIGSEGV.

Triton's interpreter (TRITON_INTERPRET=1) runs kernels on CPU tensors and would read past the end of an ordinary one
without a word. `interpreted` runs functions under it in a process of their own and tells how each ended.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from .memory import Memory
from .sparse import contiguous_strides, extent, sparse, tensor_at

_SPARSE_FROM = 256 << 20  # bytes
_ALL_ONES = 0xFF  # the byte of a NaN in every floating-point dtype; of -1 in an integer


def poisoned(
    shape: Sequence[int], dtype: torch.dtype, strides: Sequence[int] | None = None, *, begins: bool = False
) -> Tensor:
    """A tensor whose last element touches forbidden memory: or the first, if it `begins` there. It holds NaN, or -1,
    also between its elements; what lies on its other side, up to the next page, can be touched unseen.

    Its address is a multiple of 16 where its size is, or where it begins at the page: of its element size elsewhere.
    """
    strides = contiguous_strides(shape) if strides is None else strides
    nbytes = extent(shape, strides) * dtype.itemsize
    if nbytes > _SPARSE_FROM:
        return sparse(shape, dtype, strides)
    inside = max(1, -(-nbytes // mmap.PAGESIZE)) * mmap.PAGESIZE
    memory = Memory()
    start = memory.guarded(inside)  # whole pages have a guard at either end
    ctypes.memset(start, _ALL_ONES, inside)
    return tensor_at(memory, start if begins else start + inside - nbytes, shape, dtype, strides)


def guarded(values: Tensor, *, begins: bool = False) -> Tensor:
    """A copy with the same strides, placed as by `poisoned`: NaN lies between its elements."""
    copy = poisoned(values.shape, values.dtype, values.stride(), begins=begins)
    distinct = [slice(0, 1) if stride == 0 else slice(None) for stride in values.stride()]  # expanded dimensions
    copy[tuple(distinct)] = values.detach()[tuple(distinct)]
    return copy


def faults(touch: Callable[[], object]) -> bool:
    """Whether it touches forbidden memory: in a child process, which ends there."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        touch()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def is_forbidden(tensor: Tensor, offset: int) -> bool:
    """Whether a byte so many elements from the tensor's first cannot be read."""
    address = tensor.data_ptr() + offset * tensor.element_size()
    return faults(lambda: ctypes.c_byte.from_address(address).value)


_UNFILLED = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.empty_permuted.default,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.new_empty_strided.default,
}


class _GuardedAllocations(TorchDispatchMode):
    """Replaces the result of every operator that allocates: what it has in memory that none of its arguments has."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given: set[int] = set()
        tree_map(lambda value: given.add(_storage(value)) if isinstance(value, Tensor) else None, (args, kwargs))

        def guard(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.device.type != "cpu" or _storage(value) in given:
                return value
            return poisoned(value.shape, value.dtype, value.stride()) if func in _UNFILLED else guarded(value)

        return tree_map(guard, func(*args, **kwargs))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def guarded_allocations() -> Iterator[None]:
    """Every CPU tensor that is made meanwhile ends at forbidden memory, with the strides that it would have had. What
    is allocated without a value (torch.empty and its kin) is NaN, or -1: an output that nobody writes shows."""
    with _GuardedAllocations():
        yield


@dataclass(frozen=True)
class Outcome:
    """`fault`: touched forbidden memory. `wrong`: an assertion failed. `report` is what it printed."""

    kind: Literal["fine", "wrong", "fault"]
    report: str


def interpreted(*calls: tuple[Any, ...]) -> list[Outcome]:
    """How each call, a module's function and its arguments (of what JSON holds), ends under Triton's interpreter.

    One process imports the modules, which takes torch and triton 5 seconds, and forks for every call: 0.1 seconds.
    """
    named = [(function.__module__, function.__qualname__, arguments) for function, *arguments in calls]
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(named),
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"neither fine nor wrong nor a fault:\n{done.stdout}{done.stderr}")
    return [Outcome(**outcome) for outcome in json.loads(done.stdout)]


def _forked(function: Callable[..., None], case: Sequence[Any]) -> dict[str, str]:
    """Run in a child: its signal or exit status tells the outcome."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(_status(function, case))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        report = output.read().decode(errors="replace")
    kinds = {0: "fine", 1: "wrong", -signal.SIGSEGV: "fault", -signal.SIGBUS: "fault"}
    if status not in kinds:
        raise RuntimeError(f"{function.__qualname__}{tuple(case)} ended with {status}: {report}")
    return {"kind": kinds[status], "report": report}


def _status(function: Callable[..., None], case: Sequence[Any]) -> int:
    try:
        function(*case)
    except BaseException as error:
        traceback.print_exc()
        return 1 if isinstance(error, AssertionError) else 2
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    calls = [(getattr(importlib.import_module(module), name), case) for module, name, case in json.load(sys.stdin)]
    with guarded_allocations():
        torch.empty(1)  # the first operator of a dispatch mode imports torch._dynamo: once, before the forks
    print(json.dumps([_forked(function, case) for function, case in calls]))


if __name__ == "__main__":
    main()
