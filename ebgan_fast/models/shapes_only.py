"""Networks of which only the shapes are wanted: no memory is taken, and nothing is drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLS = frozenset(("fill_", "kaiming_uniform_", "normal_", "uniform_", "zero_", "zeros_", "ones_"))


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where initial weights would be drawn.

    On the meta device torch asks its compiler how to draw them, and that takes two seconds to import.
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
    """Let networks that are made inside have tensors of the meta device, which have shapes alone."""
    with torch.device("meta"), _Unfilled():
        yield
