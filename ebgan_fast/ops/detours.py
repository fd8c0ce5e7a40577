"""Slower paths of an op, for what kernels lack: derivatives of gradients, transforms, hooks, and unusual tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from .tensors import Coefficient, order_of, readable

if TYPE_CHECKING:
    from .op import Op

__all__ = [
    "Gradients",
    "Kind",
    "gradients_of_formula",
    "in_transform",
    "is_traced",
    "is_wrapped",
    "kinds",
    "mended",
    "multiplied",
    "told_apart",
    "unpacked",
    "with_coefficients",
]

Gradients = tuple[Tensor | None, ...]
Kind = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]

in_transform = torch._C._are_functorch_transforms_active
is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


def is_traced() -> bool:
    """Return True while `make_fx` traces. Its graph may not depend on the value of a tensor."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def with_coefficients(options: Sequence[Any], saved: Sequence[Tensor]) -> list[Any]:
    """Return the options of an op, with saved coefficients in the places that hold None."""
    coefficients = iter(saved)
    return [next(coefficients) if option is None else option for option in options]


def gradients_of_formula(
    op: Op, tensors: Sequence[Tensor | None], options: Sequence[Any], upstream: Tensor, needed: Sequence[bool]
) -> Gradients:
    """Return the gradients of the reference formula. With create_graph they are part of the graph themselves."""
    assert op.formula is not None
    formula, given = op.formula, options[:-1] if op.takes_upstream else options

    def value(*some: Tensor | None) -> Tensor:
        result = formula(*some, *given)
        first: Tensor = result[0] if isinstance(result, tuple) else result
        return first

    places = [place for place, tensor in enumerate(tensors) if tensor is not None and needed[place]]
    if in_transform():
        # Inside a transform, what was recorded outside counts as constant. So `vjp` records the formula again, at a new
        # level.
        def of_wanted(*wanted: Tensor) -> Tensor:
            every = list(tensors)
            for place, tensor in zip(places, wanted, strict=True):
                every[place] = tensor
            return value(*every)

        found = torch.func.vjp(of_wanted, *(tensors[place] for place in places))[1](upstream)
    else:
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            # Views, because a tensor that is passed twice needs two separate gradients.
            views = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
            if not create_graph:
                views = [None if view is None else view.detach().requires_grad_() for view in views]
            result = value(*views)
        wanted = [view for view, it in zip(views, needed, strict=True) if it and view is not None]
        found = torch.autograd.grad(result, wanted, upstream, create_graph=create_graph)
    gradients: list[Tensor | None] = [None] * len(tensors)
    for place, gradient in zip(places, found, strict=True):
        gradients[place] = gradient
    return tuple(gradients)


def multiplied(gradient: Tensor, upstream: Tensor, expected: Coefficient) -> Tensor:
    """Return gradient times upstream / expected, multiplied in the upstream's dtype and rounded once.

    On a GPU, torch would round a 0-d factor to 16 bits before a product with 16-bit numbers.
    """
    factor = upstream
    if isinstance(expected, Tensor) or expected != 1:
        factor = upstream / expected
        # The factor is 1 where the two are equal, also if both are infinite. This choice has no derivative, so a
        # transform or forward mode, which may need one, skips it.
        if not (in_transform() or forward_ad._current_level >= 0):
            factor = torch.where(upstream == expected, torch.ones_like(factor), factor)
    return (gradient.to(factor.dtype) * factor).to(gradient.dtype)


# ---- Saved tensors that hooks return


def kinds(saved: Sequence[Tensor | None]) -> list[Kind | None] | None:
    """Return the shape, strides, dtype and device of each tensor that a hook is about to take.

    Returns None in a compiled graph: the compiler chooses how to save tensors.
    """
    if is_compiling():
        return None
    return [None if it is None else (it.shape, it.stride(), it.dtype, it.device) for it in saved]


def unpacked(name: str, saved: Sequence[Tensor | None], before: Sequence[Kind | None]) -> Sequence[Tensor | None]:
    """Return the saved tensors with their former layouts, dtypes and devices, as a kernel reads them.

    The layout matters: the meaning of a code's residual depends on it.

    Raises:
        RuntimeError: if a hook returned a tensor of another shape.
    """
    as_before: list[Tensor | None] = []
    for tensor, kind in zip(saved, before, strict=True):
        if tensor is not None and kind is not None:
            shape, strides, dtype, device = kind
            if tensor.shape != shape:
                raise RuntimeError(
                    f"{name}: got a saved tensor of shape {tuple(tensor.shape)} from a hook's unpack, expected "
                    f"{tuple(shape)}, the shape that its pack was given. Let unpack give back what pack took"
                )
            tensor = _laid_out(readable(tensor.to(device, dtype)), strides)
        as_before.append(tensor)
    return as_before


def _laid_out(tensor: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Return the tensor with these strides, or contiguous if kernels would copy a tensor of these strides."""
    if tensor.stride() == strides:
        return tensor
    if order_of(torch.empty_strided(tensor.shape, strides, device="meta")) is None:
        return tensor.contiguous()
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


# ---- Tensors that torch cannot record, or kernels cannot read


def told_apart(arguments: Sequence[Any]) -> list[Any]:
    """Return the arguments with a view in place of each repeated tensor, because Dynamo takes each tensor once only."""
    return [
        it.view_as(it) if isinstance(it, Tensor) and any([it is other for other in arguments[:place]]) else it
        for place, it in enumerate(arguments)
    ]


def mended(name: str, arguments: Sequence[Any]) -> list[Any] | None:
    """Return arguments that can run in place of those that failed, or None if the arguments were not the reason.

    Tensors of inference mode, which torch does not save for backward, are replaced by copies.

    Raises:
        ValueError: if a tensor has left a function transform, so that a kernel can't read its memory.
    """
    tensors = [it for it in arguments if isinstance(it, Tensor)]
    if not in_transform() and any(map(is_wrapped, tensors)):
        raise ValueError(
            f"{name}: got a tensor that has left a transform of torch.func (vmap, grad, jvp), expected one that was "
            "made outside. Call the op inside the transformed function, or let that return the tensor"
        )
    # In inference mode, a copy is an inference tensor too.
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return None
    if not any(it.is_inference() for it in tensors):
        return None
    return [it.clone() if isinstance(it, Tensor) and it.is_inference() else it for it in arguments]
