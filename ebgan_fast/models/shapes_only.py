"""Build networks only for their shapes: without memory for their weights, and without drawing random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLS = frozenset(("fill_", "kaiming_uniform_", "normal_", "uniform_", "zero_", "zeros_", "ones_"))


class _Unfilled(TorchFunctionMode):
    """A mode in which functions that fill a tensor with initial weights leave it unchanged.

    To draw weights on the meta device, torch would ask its compiler, which takes two seconds to import.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", "") in _FILLS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Put the tensors of networks that are built inside the block on the meta device, where they only have shapes."""
    with torch.device("meta"), _Unfilled():
        yield
