"""The elements that a loss and its backward move on a simulated GPU.

The kernels run in the PTX simulator, with torch's own ops between them. The host may read no value of a tensor
meanwhile.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import ebgan_fast
from ebgan_fast import _C
from ebgan_fast.ops import op
from ebgan_fast.ops.backends.triton import launch as launching
from gpuless.triton import flattened
from tests import stand_in

from .cuda import stand_ins as cuda
from .triton import stand_ins as triton

_WRITTEN_UNREAD = ("copy_", "fill_", "zero_")


class Moved:
    """The elements read and written, counted by the number of elements of the tensor, and the resulting gradients."""

    def __init__(self) -> None:
        self.gradients: tuple[Tensor, ...] = ()
        self.read: Counter[int] = Counter()
        self.written: Counter[int] = Counter()

    def count(self, tensor: Tensor, read: int = 0, written: int = 0) -> None:
        """Add to the counts of this tensor; `read` and `written` are in bytes."""
        self.read[tensor.numel()] += read // tensor.element_size()
        self.written[tensor.numel()] += written // tensor.element_size()

    def passes(self, elements: int) -> tuple[float, float]:
        """Return how often the tensors of so many elements were read and written, in passes over one of them."""
        return self.read[elements] / elements, self.written[elements] / elements


class _TorchOps(TorchDispatchMode):
    """Count what torch's ops move; fail if one gives a value to the host."""

    def __init__(self, moved: Moved) -> None:
        super().__init__()
        self._moved = moved

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host asked for a value of the device"
        result = func(*args, **(kwargs or {}))
        schema = func._schema
        aliases = [it.alias_info for it in schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        if is_view or schema.name.rpartition("::")[2].startswith(("empty", "new_empty")):
            return result
        for argument, value in zip(schema.arguments, args, strict=False):
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            is_read = not (is_written and schema.name.rpartition("::")[2] in _WRITTEN_UNREAD)
            for tensor in tree_leaves(value):
                if isinstance(tensor, Tensor):
                    size = tensor.numel() * tensor.element_size()
                    self._moved.count(tensor, size * is_read, size * is_written)
        if not any(aliases):
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._moved.count(tensor, written=tensor.numel() * tensor.element_size())
        return result


def _unwatched(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, whose own torch ops are not counted: a simulator's tensors are not the program's."""

    def call(*arguments: Any) -> Any:
        with _disable_current_modes():
            return function(*arguments)

    return call


@contextlib.contextmanager
def _on_triton() -> Iterator[Callable[[Moved], None]]:
    with triton.simulated() as simulation:
        simulated_run = launching.run
        with mock.patch.object(launching, "run", _unwatched(simulated_run)):

            def count(moved: Moved) -> None:
                for index, launch in enumerate(simulation.launches):
                    arguments = flattened(launch.arguments)
                    for name, (read, written) in simulation.traffic(index).items():
                        tensor = arguments[name]
                        if isinstance(tensor, Tensor):
                            moved.count(tensor, read, written)

            yield count


@contextlib.contextmanager
def _on_cuda(inputs: Sequence[Tensor]) -> Iterator[Callable[[Moved], None]]:
    with (
        stand_in.backend("cuda"),
        cuda.in_ptx(inputs) as simulation,
    ):
        for name, function in list(vars(_C.cuda).items()):
            setattr(_C.cuda, name, _unwatched(function))
        with ebgan_fast.use_backend("cuda"):

            def count(moved: Moved) -> None:
                for launch in simulation.traffic:
                    for it in launch:
                        moved.count(it.tensor, it.bytes_read, it.bytes_written)

            yield count


def moved_by(
    backend: str, loss: Callable[..., Tensor], inputs: Sequence[Tensor], upstream: float = 1.0, keep: bool = False
) -> Moved:
    """Count what a loss and its gradients move, for an upstream gradient that lies on the device.

    Args:
        backend: "triton" or "cuda".
        loss: the function to measure; it takes the inputs.
        inputs: the tensors; gradients are taken for those that require one.
        upstream: the upstream gradient.
        keep: True if backward keeps the graph.
    """
    moved = Moved()
    leaves = [tensor for tensor in inputs if tensor.requires_grad]
    with _on_triton() if backend == "triton" else _on_cuda(inputs) as count:
        # The kernels are called directly, as in a program without a dispatch mode. Otherwise the mode would see one raw
        # op instead of what it does.
        direct = mock.patch.object(op, "call", lambda name, via, *each: op.kernel(name, via)(*each))
        with direct, _TorchOps(moved):
            value = loss(*inputs)
            moved.gradients = torch.autograd.grad(value, leaves, torch.full_like(value, upstream), retain_graph=keep)
    count(moved)
    return moved
