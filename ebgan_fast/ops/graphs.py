"""Gradients of raw ops in graphs that are kept: exported, traced or saved. Such a graph may run elsewhere and be
trained.

`torch.export` and `torch.jit.trace` record an op of `torch.ops` by its name, without the Function around it. So the raw
op itself needs a gradient there. Eager mode and `torch.compile` use the Functions in `op.py`, which are faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import detours, energy, pulling_away  # noqa: F401  the last two define the ops
from .detours import Gradients, gradients_of_formula, in_transform, multiplied, with_coefficients
from .devices import check
from .op import LIBRARY, OPS, Function, Op, is_hooked, is_transformed, modes, raw

_BelowAutograd = torch._C._AutoDispatchBelowAutograd
# The dispatcher's keys below autograd and below its bookkeeping of aliases. These ops make no aliases.
_BELOW = torch._C._after_ADInplaceOrView_keyset
# If no other key is active, the kernel is called directly. That saves 3 of 16 us of a call to the dispatcher.
_DENSE = [torch._C.DispatchKeySet(key).raw_repr() for key in (torch._C.DispatchKey.CPU, torch._C.DispatchKey.CUDA)]


def _differentiable(op: Op) -> Callable[..., Any]:
    """Return the raw op as autograd calls it: (keys of the dispatcher, the arguments of its schema) -> its results.

    The value has a gradient, even if the graph was made without one. The other results have none.
    """
    n = op.tensors
    function = _function_of(op)
    redispatch, run = raw(op.name).default.redispatch, op.run

    def recorded(keys: torch._C.DispatchKeySet, *arguments: Any) -> Any:
        if modes() and torch.onnx.is_in_onnx_export():
            return _in_plain_ops(op, arguments[:-1])
        is_recorded = torch.is_grad_enabled()
        # Only the reference can run in transforms and forward mode. Only it has the gradient of a margin or weight that
        # was frozen when the graph was made.
        if (
            in_transform()
            or forward_ad._current_level >= 0
            or (is_recorded and any(isinstance(it, Tensor) and it.requires_grad for it in arguments[n:]))
        ):
            check(op.name, arguments[-1], arguments)
            return _in_plain_ops(op, arguments[:-1])
        if is_recorded and any(tensor is not None and tensor.requires_grad for tensor in arguments[:n]):
            try:
                return function.apply(*arguments)
            except RuntimeError:
                mended = detours.mended(op.name, arguments)
                if mended is None:
                    raise
                return function.apply(*mended)
        below = keys & _BELOW
        return run(*arguments) if below.raw_repr() in _DENSE else redispatch(below, *arguments)

    return recorded


def _in_plain_ops(op: Op, arguments: Sequence[Any]) -> Any:
    """Return the raw op's results, computed by the reference. Results that only a backward pass needs are empty."""
    assert op.formula is not None
    shown = op.formula(*arguments[: len(arguments) - op.takes_need - op.takes_upstream])
    shown = shown if isinstance(shown, tuple) else (shown,)
    count = len(raw(op.name).default._schema.returns)
    return shown[0] if count == 1 else (*shown, *(shown[0].new_empty(0) for _ in range(count - len(shown))))


def _function_of(op: Op) -> type[Function]:
    """Return the Function of a raw op: (the arguments of its schema) -> its results.

    It calls its kernels through the dispatcher, where devices are checked.
    """
    n, backward = op.tensors, op.backward
    # The arguments behind the options are `need`, if the op takes it, and the backend.
    end = -2 if op.takes_need else -1

    class Recorded(Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            values = 1 + op.logs
            asked: Sequence[object] = (True,) * n
            if op.takes_need:
                asked = arguments[-2]
                need = [bool(a or b) for a, b in zip(asked, ctx.needs_input_grad[:n], strict=True)]
                arguments = (*arguments[:end], need, arguments[-1])
            with _BelowAutograd():
                results = raw(op.name)(*arguments)
            left = results[values:] if isinstance(results, tuple) else (results,)
            ctx.set_materialize_grads(False)
            ctx.backend, options = arguments[-1], arguments[n:end]
            coefficients = [option for option in options if isinstance(option, Tensor)]
            ctx.options = [None if isinstance(option, Tensor) else option for option in options]
            ctx.coefficients = len(coefficients)
            saved = *arguments[:n], *coefficients, *left
            ctx.save_for_backward(*saved)
            ctx.kinds = None if is_hooked() is False else detours.kinds(saved)
            if not isinstance(results, tuple):
                return results
            if op.takes_need:
                gradients = [it if a else it.new_empty(0) for it, a in zip(left, asked, strict=True)]
                results = (*results[:values], *gradients)
            ctx.mark_non_differentiable(*results[1:])
            return results

        @staticmethod
        def backward(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> Gradients:
            nothing = (None,) * (len(ctx.needs_input_grad) - n)
            if upstream is None:
                return *(None,) * n, *nothing
            need = ctx.needs_input_grad[:n]
            saved = ctx.saved_tensors
            if ctx.kinds is not None:
                saved = detours.unpacked(op.name, saved, ctx.kinds)
            tensors, left = saved[:n], saved[n + ctx.coefficients :]
            options = with_coefficients(ctx.options, saved[n:])
            found: Sequence[Tensor | None]
            if torch.is_grad_enabled() or (backward is not None and is_transformed(upstream)):
                found = gradients_of_formula(op, tensors, options, upstream, need)
            elif backward is None:
                expected = options[-1] if op.takes_upstream else 1.0
                found = [multiplied(it, upstream, expected) if a else None for it, a in zip(left, need, strict=True)]
            else:
                rest = (list(need),) if backward.takes_need else ()
                result = raw(backward.name)(upstream, *tensors, *left, *options, *rest, ctx.backend)
                found = result if backward.takes_need else (result,)
            return *found, *nothing

    return Recorded


for _op in OPS.values():
    if _op.formula is not None:
        LIBRARY.impl(_op.name, _differentiable(_op), "Autograd", with_keyset=True)
