"""Margins and weights as parts of a Module: they follow its device, stand in its state_dict, and keep their dtype."""

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
    """A tensor itself, but a copy of one that inference mode made; a number as a new tensor like another.

    Made outside inference mode, it can be saved for backward and changed in place, whoever builds the Module.
    """
    if not isinstance(value, Tensor):
        return torch.full_like(like, float(value))
    return value.clone() if not is_compiling() and value.is_inference() else value


class WithCoefficients(nn.Module):
    """A Module whose margin or weight is a 0-d buffer, or the Parameter that was given for it.

    A number becomes a float64 buffer, so that the losses are those of the number itself, and a tensor is taken as it
    is. `.half()` and its like move coefficients and round none. A schedule changes them between steps: in place
    (`module.margin.fill_(5.0)`), which recompiles nothing, or by a number, which makes a new buffer of the old one's
    dtype and device.
    """

    def _register_coefficient(self, name: str, value: Coefficient) -> None:
        """Take a margin or weight: a checked number >= 0, a 0-d tensor or a 0-d Parameter."""
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
        """Let torch move the coefficients without a change of dtype, and other Modules within as it likes."""

        def moved(tensor: Tensor) -> Tensor:
            try:
                after = fn(tensor)
            except TypeError:  # a device without float64, as Apple's GPUs are
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
        """The coefficient for a representation, which waits for its device."""
        value: Tensor = getattr(self, name)
        number = "without a value" if value.is_meta else repr(value.item())
        return f"{name}={number}" + (", trained" if isinstance(value, nn.Parameter) else "")


class WithWeight(WithCoefficients):
    """A Module with a weight of the pulling-away term, which somebody gave or the paper did."""

    pt_weight: Tensor

    def _register_weight(self, pt_weight: Coefficient | None) -> None:
        """Take the weight; None: the paper's, with a code."""
        self._register_coefficient("pt_weight", functional.PT_WEIGHT if pt_weight is None else pt_weight)
        self._is_weighed = pt_weight is not None and _checks.weighs(pt_weight)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "pt_weight":
            self._is_weighed = _checks.weighs(value)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        before = self._is_weighed
        super()._load_from_state_dict(*arguments, **options)
        self._is_weighed = before  # which an assigning load would change

    def _weight_for(self, code: Tensor | None) -> Tensor | None:
        """The weight as `functional.generator_loss` takes it. Without a code it refuses one that somebody gave."""
        return None if code is None and not self._is_weighed else self.pt_weight
