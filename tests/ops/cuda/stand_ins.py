"""Stand-ins for a GPU: backend cuda on CPU tensors, its kernels in one of the simulators.

All code from `ebgan_fast.ops.backends.cuda` down to the launches is the real one. This needs the compiled module.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ebgan_fast import _C
from ebgan_fast.ops.backends import cuda
from gpuless.guard_pages import guarded, guarded_allocations
from gpuless.ptx import Report, Struct, simulate

from ..launches import Launches
from . import building

needs_nvcc = pytest.mark.skipif(building.missing_nvcc() is not None, reason=building.missing_nvcc() or "")


on_cuda = Launches("cuda")


@contextlib.contextmanager
def _in_place(kernels: Any) -> Iterator[None]:
    with (
        mock.patch.object(_C, "cuda", kernels, create=True),
        mock.patch.object(cuda, "here", return_value=contextlib.nullcontext()),
        mock.patch.object(cuda, "stream", return_value=0),
    ):
        yield


@contextlib.contextmanager
def in_simt(inputs: Sequence[Tensor], seed: int = 0, folder: Path | None = None) -> Iterator[None]:
    """Run backend cuda's kernels as C++, with threads and blocks in an order drawn from `seed`.

    What the ops allocate is filled with NaN, or with -1, and ends at a guard page. `inputs` should be `guarded`, and
    must not change. Counters must return to zero.
    """
    kernels = building.load((folder or building.simulated()) / "_simulated.so").cuda
    handed_out: list[Tensor] = []
    before = [tensor.clone() for tensor in inputs]

    def counters(device: torch.device, count: int) -> Tensor:
        handed_out.append(guarded(torch.zeros(count, dtype=torch.int32)))
        return handed_out[-1]

    with (
        _in_place(kernels),
        mock.patch.dict(os.environ, SIMT_SEED=str(seed)),
        mock.patch.object(cuda, "counters", counters),
        guarded_allocations(),
    ):
        yield
    assert not any(map(torch.any, handed_out)), "a counter is not zero"
    assert _are_same(before, inputs), "an input was written"


def _are_same(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    return all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in zip(before, after, strict=True))


class _Launch(ctypes.Structure):
    """The struct simt::Launch of record.h."""

    _fields_ = (
        ("kernel", ctypes.c_char_p),
        ("grid", ctypes.c_uint32 * 3),
        ("threads", ctypes.c_uint32 * 3),
        ("shared", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_uint64)),
    )


_RECORDER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Launch))


class _Tensors(TorchDispatchMode):
    """Keep every tensor that is allocated in this mode."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == "cpu":
                self.kept.append(torch.empty(0, dtype=leaf.dtype).set_(leaf.untyped_storage()))
        return result


def _extent(tensor: Tensor) -> int:
    """Return the number of bytes from the tensor's first element to the end of its last."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


@dataclass
class Traffic:
    tensor: Tensor
    bytes_read: int
    bytes_written: int


@dataclass
class Simulation:
    """The launches that ran, in order."""

    names: list[str] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    traffic: list[list[Traffic]] = field(default_factory=list)  # for each launch

    def moved(self, index: int, tensor: Tensor) -> tuple[int, int]:
        """Return the bytes of a tensor that a launch read, and those that it wrote."""
        found = [it for it in self.traffic[index] if it.tensor.data_ptr() == tensor.data_ptr()]
        return sum(it.bytes_read for it in found), sum(it.bytes_written for it in found)


class _Machine:
    """Receive launches and run them in the PTX simulator."""

    def __init__(self, inputs: Sequence[Tensor], seed: int, csrc: Path, last_block_only: bool) -> None:
        self.simulation = Simulation()
        self.allocated = _Tensors()
        self.error: BaseException | None = None
        self._inputs, self._seed, self._csrc, self._last_block_only = inputs, seed, csrc, last_block_only

    def launch(self, pointer: Any) -> None:
        """Run a launch. C++ calls this, and no exception may cross C++, so an error is kept."""
        if self.error is None:
            try:
                self._run(pointer.contents)
            except BaseException as error:
                self.error = error

    def raising(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            if self.error is not None:
                raise self.error
            return result

        return call

    def _run(self, launch: _Launch) -> None:
        assert launch.kernel, "a kernel has no name: is it in an anonymous namespace?"
        name = launch.kernel.decode()
        data = [ctypes.string_at(launch.arguments[i], launch.sizes[i]) for i in range(launch.count)]
        arguments = [Struct(each, self._pointers(each)) for each in data]
        report = simulate(
            next(text for text in map(self._ptx, building.KERNELS) if f".entry {name}(" in text),
            entry=name,
            grid=tuple(launch.grid),
            threads=tuple(launch.threads),
            arguments=arguments,
            shared_bytes=launch.shared,
            seed=self._seed,
            ctas=[(launch.grid[0] - 1, 0, 0)] if self._last_block_only else None,
        )
        tensors = [tensor for argument in arguments for tensor in argument.pointers.values()]
        buffers = (report.buffers[number] for number in range(len(arguments), len(arguments) + len(tensors)))
        self.simulation.names.append(name)
        self.simulation.reports.append(report)
        self.simulation.traffic.append(
            [Traffic(tensor, it.bytes_read, it.bytes_written) for tensor, it in zip(tensors, buffers, strict=True)]
        )

    def _ptx(self, source: str) -> str:
        return building.ptx(source, self._csrc)

    def _pointers(self, data: bytes) -> dict[int, Tensor]:
        """Return the words of a parameter that are addresses of a tensor's memory: tensors by their offset in the
        parameter."""
        words = {offset: int.from_bytes(data[offset : offset + 8], "little") for offset in range(0, len(data) - 7, 8)}
        found = {offset: self._at(word) for offset, word in words.items()}
        return {offset: tensor for offset, tensor in found.items() if tensor is not None}

    def _at(self, address: int) -> Tensor | None:
        """Return the tensor at an address, or the part of a tensor from there on; None if there is none.

        An input is returned as the view that was given, which may end before its memory does.
        """
        for tensor in (*self._inputs, *self.allocated.kept):
            if tensor.data_ptr() == address and tensor.numel():
                return tensor
        for tensor in (*self._inputs, *self.allocated.kept):
            offset, elements = address - tensor.data_ptr(), _extent(tensor) // tensor.element_size()
            if 0 < offset < _extent(tensor) and offset % tensor.element_size() == 0:
                first = offset // tensor.element_size()
                return tensor.as_strided((elements - first,), (1,), tensor.storage_offset() + first)
        return None


@contextlib.contextmanager
def in_ptx(
    inputs: Sequence[Tensor],
    seed: int = 0,
    folder: Path | None = None,
    *,
    csrc: Path = building.CSRC,
    last_block_only: bool = False,
) -> Iterator[Simulation]:
    """Run the kernels as nvcc's PTX for sm_80, and give the launches.

    What the ops allocate is NaN until a kernel writes it, and counters must return to zero.

    Args:
        inputs: the tensors that the kernels may read besides.
        seed: the seed of the order of the blocks.
        folder: the folder of the module with the kernels' host code; None for that of the unchanged sources.
        csrc: the sources of the kernels.
        last_block_only: run the last block of each launch alone, without the checks at the end.
    """
    folder = folder or building.simulated()
    library, kernels = ctypes.CDLL(str(folder / "libkernels.so")), building.load(folder / "_simulated.so").cuda
    before = [] if last_block_only else [tensor.clone() for tensor in inputs]
    machine = _Machine(inputs, seed, csrc, last_block_only)
    recorder = _RECORDER(machine.launch)
    names = [name for name in dir(kernels) if callable(getattr(kernels, name))]
    deterministic = torch.are_deterministic_algorithms_enabled()
    library.simt_record(recorder)
    # In deterministic mode torch fills fresh memory with NaN.
    torch.use_deterministic_algorithms(True)
    try:
        with (
            _in_place(SimpleNamespace(**{name: machine.raising(getattr(kernels, name)) for name in names})),
            machine.allocated,
        ):
            yield machine.simulation
    finally:
        library.simt_record(None)
        torch.use_deterministic_algorithms(deterministic)
    if last_block_only:
        return
    counters = [tensor for tensor in machine.allocated.kept if tensor.dtype == torch.int32]
    assert not any(map(torch.any, counters)), "a counter is not zero"
    assert _are_same(before, inputs), "an input was written"
