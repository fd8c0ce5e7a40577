"""A simulated CUDA graph on the CPU. It records the operations of a step and runs them again on the same tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ebgan_fast.training import graph
from ebgan_fast.training.graph import Compute

_aten = torch.ops.aten
_ASKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_PICKS = (_aten.index, _aten.index_put, _aten.index_put_)  # they wait for a value only if they get a mask
_MASKS = (torch.bool, torch.uint8)


class CannotBeRecordedError(Exception):
    """Raised for an operation that a CUDA graph cannot hold."""


class Recordable(TorchDispatchMode):
    """A dispatch mode that raises CannotBeRecordedError for an operation that is not the device's own work.

    There are three kinds of such operations. The first makes the host wait for a value, or for a shape that depends on
    values. The second makes a tensor of the host's own numbers. The third takes a tensor of another device.

    Args:
        device: The type of the device.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in _PICKS:
            asks = any(it.dtype in _MASKS for it in _tensors(args[1]))
        else:
            asks = bool(_ASKS & set(func.tags))
        if asks:
            raise CannotBeRecordedError(f"{func}: the host would wait for a value")
        if func is _aten.lift_fresh.default:
            raise CannotBeRecordedError(f"{func}: the host makes a tensor of its own numbers")
        results = func(*args, **(kwargs or {}))
        others = {it.device.type for it in _tensors((args, kwargs, results))} - {self._device}
        if others:
            raise CannotBeRecordedError(f"{func}: got a tensor on {', '.join(others)}, expected all on {self._device}")
        return results


def _tensors(values: Any) -> Iterator[Tensor]:
    """Return the tensors in nested tuples, lists and dicts."""
    return (it for it in _pytree.tree_leaves(values) if isinstance(it, Tensor))


@dataclass
class _Call:
    func: Any
    args: Any
    kwargs: Any
    made: list[tuple[int, Tensor]]
    """The results in new memory, each with its place among all results."""


class Tape(TorchDispatchMode):
    """A dispatch mode that records operations, with the tensors that they read, write and make.

    As after a capture, nothing has happened when the block ends. Tensors that were written have their old values again,
    and the random numbers their old state. New tensors hold no values yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: dict[int, torch.UntypedStorage] = {}

    def __enter__(self) -> Tape:
        self._rng = torch.get_rng_state()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_rng_state(self._rng)
        for storage, as_it_was in self._before.values():
            storage.copy_(as_it_was)
        for storage in self._made.values():
            storage.fill_(255)  # type: ignore[attr-defined]  # NaN, or -1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for it in _tensors((args, kwargs)):
            storage = it.untyped_storage()
            if storage._cdata not in self._made and storage._cdata not in self._before:
                self._before[storage._cdata] = storage, storage.clone()
        results = func(*args, **kwargs)
        made: list[tuple[int, Tensor]] = []
        for place, it in enumerate(_pytree.tree_leaves(results)):
            if isinstance(it, Tensor) and it.untyped_storage()._cdata not in self._before | self._made:
                made.append((place, it.detach()))
        self._made |= {it.untyped_storage()._cdata: it.untyped_storage() for _, it in made}
        # Detach from autograd's graph, which would never be freed.
        args, kwargs = _pytree.tree_map_only(Tensor, Tensor.detach, (args, kwargs))
        self.calls.append(_Call(func, args, kwargs, made))
        return results

    @torch.no_grad()
    def replay(self) -> None:
        """Run the recorded operations again, in their order."""
        for call in self.calls:
            results = _pytree.tree_leaves(call.func(*call.args, **call.kwargs))
            for place, kept in call.made:
                kept.copy_(results[place])


def in_place_of_cuda(monkeypatch: pytest.MonkeyPatch) -> list[TapeRecorder]:
    """Let runs record on tapes. Return the list of their recorders, which grows as runs make them."""
    made: list[TapeRecorder] = []

    def tape(device: torch.device, processes: int) -> TapeRecorder:
        made.append(TapeRecorder())
        return made[-1]

    monkeypatch.setattr(graph, "recorder_of", tape)
    return made


@dataclass
class TapeRecorder:
    """A recorder that records steps on tapes.

    Attributes:
        strict: If True, a step that a CUDA graph couldn't hold raises CannotBeRecordedError.
        events: "warm up", "record" and "replay", in order.
        tapes: The recordings.
    """

    strict: bool = True
    events: list[str] = field(default_factory=list)
    tapes: list[Tape] = field(default_factory=list)

    def warm_up(self, compute: Compute) -> None:
        """Run the step without recording it."""
        self.events.append("warm up")
        compute()

    def record(self, compute: Compute) -> Compute:
        """Record the step, and undo its effects."""
        self.events.append("record")
        tape = Tape()
        self.tapes.append(tape)
        with Recordable() if self.strict else contextlib.nullcontext(), tape:
            compute()

        def replay() -> None:
            self.events.append("replay")
            tape.replay()

        return replay
