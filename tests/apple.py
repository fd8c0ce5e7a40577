"""A stand-in for tensors on Apple's GPUs, which have no float64; the values lie on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

DEVICE = torch.device("lazy")  # a device that every build of torch accepts for a tensor


class AppleTensor(Tensor):
    """A tensor that computes on the CPU and refuses float64, as torch 2.13 does on Apple's GPUs.

    A copy to the CPU that also converts to float64 is refused too. In torch 2.14 such a copy gives zeros, so the code
    that makes it is wrong with both versions.
    """

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> AppleTensor:
        made: AppleTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=DEVICE
        )
        made.values = values
        return made

    def item(self) -> Any:
        return self.values.item()

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"AppleTensor({self.values!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        target = torch.device(given.pop("device")) if given.get("device") is not None else None
        plain, named = _pytree.tree_map(lambda it: it.values if isinstance(it, cls) else it, (args, given))
        if given.get("dtype") is torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        found = func(*plain, **named)
        if target is not None and target.type == "cpu":
            return found
        return _pytree.tree_map(lambda it: cls(it) if isinstance(it, Tensor) else it, found)


class ThereToo(TorchFunctionMode):
    """A mode in which `.to(DEVICE)` of a tensor on the CPU gives an AppleTensor."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.to and args[1:] == (DEVICE,) and not isinstance(args[0], AppleTensor):
            return AppleTensor(args[0])
        return func(*args, **(kwargs or {}))
