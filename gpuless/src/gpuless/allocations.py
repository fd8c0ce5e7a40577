"""A torch dispatch mode in which every new CPU tensor ends at forbidden memory."""

from __future__ import annotations

from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError("guarded_allocations needs torch: pip install torch") from error

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from .guard_pages import guarded, poisoned

_UNFILLED = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.empty_permuted.default,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.new_empty_strided.default,
}


class GuardedAllocations(TorchDispatchMode):
    """A dispatch mode that moves every newly allocated CPU tensor next to forbidden memory.

    A result is new if no argument of the operator shares its storage.
    """

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
    return int(tensor.untyped_storage()._cdata)
