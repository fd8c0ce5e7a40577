"""Margins and weights as parts of a Module: they move with its device, are in its state_dict, and keep their dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from . import _checks, functional
from .ops.tensors import Coefficient

_NAMES = frozenset(("margin", "pt_weight"))


def _buffer(value: Coefficient, like: Tensor) -> Tensor:
    """Return a tensor that can be saved for backward and changed in place, for a coefficient that becomes a buffer.

    A number becomes a new tensor like `like`. An inference tensor is copied. Any other tensor is returned itself. The
    caller must leave inference mode first, or the new tensors would be inference tensors too.
    """
    if not isinstance(value, Tensor):
        return torch.full_like(like, float(value))
    return value.clone() if not is_compiling() and value.is_inference() else value


class WithCoefficients(nn.Module):
    """A Module whose margin or weight is a 0-d buffer, or the Parameter that was given for it.

    A number becomes a float64 buffer, so that the losses use exactly that number. A tensor is stored as it is.
    `.half()` and similar calls move coefficients to a device but never round them. A schedule changes a coefficient
    between steps in one of two ways. In place (`module.margin.fill_(5.0)`), nothing is recompiled. By assignment of a
    number, the Module makes a new buffer with the old buffer's dtype and device.
    """

    def _register_coefficient(self, name: str, value: Coefficient) -> None:
        """Check and register a margin or weight: a number >= 0, a 0-d tensor or a 0-d Parameter."""
        value = _checks.coefficient(name, value)
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        else:
            with torch.inference_mode(False):
                self.register_buffer(name, _buffer(value, torch.zeros((), dtype=torch.float64)))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _NAMES and "_buffers" in self.__dict__ and (name in self._buffers or name in self._parameters):
            value = _checks.coefficient(name, value)
            if name in self._parameters:
                if not isinstance(value, nn.Parameter):
                    raise TypeError(
                        f"{name}: got {type(value).__name__} for a Parameter, expected a Parameter. In place: "
                        f"with torch.no_grad(): module.{name}.fill_(value)"
                    )
            elif isinstance(value, nn.Parameter):
                del self._buffers[name]
            else:
                with torch.inference_mode(False):
                    value = _buffer(value, getattr(self, name))
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WithCoefficients:
        """Apply `fn` to the coefficients without changing their dtype, and to child Modules with no such limit."""

        def moved(tensor: Tensor) -> Tensor:
            try:
                after = fn(tensor)
            except TypeError:  # Apple's GPUs have no float64
                tensor = tensor.float()
                after = fn(tensor)
            if after.dtype == tensor.dtype:
                return after
            try:
                return tensor.to(after.device)
            except TypeError:
                return tensor.float().to(after.device)

        if recurse:
            for module in self.children():
                module._apply(fn)
        super()._apply(moved, recurse=False)  # type: ignore[no-untyped-call]
        return self

    def _shown(self, name: str) -> str:
        """Return "name=value" for a representation. Reads the value, which waits for the coefficient's device."""
        value: Tensor = getattr(self, name)
        number = "without a value" if value.is_meta else repr(value.item())
        return f"{name}={number}" + (", trained" if isinstance(value, nn.Parameter) else "")


class WithWeight(WithCoefficients):
    """A Module with a weight of the pulling-away term: the user's, or the paper's if the user gave none."""

    pt_weight: Tensor

    def _register_weight(self, pt_weight: Coefficient | None) -> None:
        """Register the weight. None: the paper's weight, which is used only with a code."""
        self._register_coefficient("pt_weight", functional.PT_WEIGHT if pt_weight is None else pt_weight)
        self._is_weighed = pt_weight is not None and _checks.weighs(pt_weight)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "pt_weight":
            self._is_weighed = _checks.weighs(value)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        before = self._is_weighed
        super()._load_from_state_dict(*arguments, **options)
        self._is_weighed = before  # a load with assign=True calls __setattr__, which would change it

    def _weight_for(self, code: Tensor | None) -> Tensor | None:
        """Return the weight for `functional.generator_loss`: None if there is no code and the user gave no weight or 0.

        Without a code, `generator_loss` refuses any other weight that the user gave.
        """
        return None if code is None and not self._is_weighed else self.pt_weight
