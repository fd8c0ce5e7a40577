"""Formulas with which torch's FlopCounterMode counts the matrix products in fused ops.

Importing `torch.utils.flop_counter` takes 0.3 s and imports Triton. So this module doesn't import it: a finder of
modules registers the formulas when the program imports the counter.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["register"]

_COUNTER = "torch.utils.flop_counter"
_waiting: list[tuple[Any, Callable[..., int]]] = []


def register(op: Any, formula: Callable[..., int]) -> None:
    """Make torch's counter count an op of `torch.ops`, now or once the counter is imported.

    Args:
        op: an op whose last argument is the backend.
        formula: called with the op's other arguments, shapes in place of tensors. Returns the number of operations.
    """
    counter = sys.modules.get(_COUNTER)
    if counter is not None:
        _register(counter, op, formula)
        return
    if not _waiting:
        sys.meta_path.insert(0, _Finder())
    _waiting.append((op, formula))


def _register(counter: ModuleType, op: Any, formula: Callable[..., int]) -> None:
    def count(*arguments: object, out_shape: object = None) -> int:
        return formula(*arguments[:-1])

    counter.register_flop_formula(op)(count)


class _Finder(MetaPathFinder):
    """A finder that leaves the search for the counter to others, and makes its loader register the waiting formulas."""

    _is_asking = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _COUNTER or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._loader.exec_module(module)
        for op, formula in _waiting:
            _register(module, op, formula)
        _waiting.clear()
