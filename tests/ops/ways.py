"""Each way in which torch differentiates, by name: functions of an op and its inputs that return what they computed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.autograd.functional as over_functions
from torch import Tensor
from torch.autograd import forward_ad, graph
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import checkpoint

from .cases import normal
from .small_ops import leaves_of

Function = Callable[..., Tensor]
Way = Callable[[Function, tuple[Tensor, ...]], Any]

TOLD = 2.0
"""The first upstream gradient. An op that takes `upstream=TOLD` gets exactly this one."""


def tangents(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    # Each tangent has another seed: equal tangents on both sides of a difference would give a slope of 0.
    return tuple(normal(*tensor.shape, seed=9 + index) for index, tensor in enumerate(inputs))


def _stacked(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.stack([tensor, tensor * 1.1]) for tensor in inputs)


def _squared(op: Function) -> Function:
    return lambda *inputs: op(*inputs).square().sum()


def _upstreams(value: Tensor) -> Tensor:
    return torch.stack([torch.full_like(value.detach(), factor) for factor in (TOLD, -0.5)])


def _duals(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(map(forward_ad.make_dual, tensors, tangents(tensors)))


# ---- An upstream gradient that is more than numbers


def _recorded(op: Function, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    leaves = leaves_of(inputs)
    return leaves, op(*leaves)


def _many_upstreams(op: Function, inputs: tuple[Tensor, ...], **how: bool) -> Any:
    leaves, value = _recorded(op, inputs)
    return torch.autograd.grad(value, leaves, _upstreams(value), is_grads_batched=True, **how)


def _vmap_over_upstreams(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    leaves, value = _recorded(op, inputs)
    return torch.func.vmap(lambda upstream: torch.autograd.grad(value, leaves, upstream))(_upstreams(value))


def _jvp_over_an_upstream(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    leaves, value = _recorded(op, inputs)
    at, slope = torch.full_like(value.detach(), TOLD), torch.full_like(value.detach(), 3.0)
    return torch.func.jvp(lambda upstream: torch.autograd.grad(value, leaves, upstream), (at,), (slope,))


def _grad_over_an_upstream(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    leaves, value = _recorded(op, inputs)

    def size(upstream: Tensor) -> Tensor:
        found = torch.autograd.grad(value, leaves, upstream, create_graph=True)
        return torch.stack([gradient.square().sum() for gradient in found]).sum()

    return torch.func.grad(size)(torch.full_like(value.detach(), TOLD))


def _dual_upstream(op: Function, inputs: tuple[Tensor, ...], **how: bool) -> Any:
    leaves, value = _recorded(op, inputs)
    with forward_ad.dual_level():
        at, slope = torch.full_like(value.detach(), TOLD), torch.full_like(value.detach(), 3.0)
        found = torch.autograd.grad(value, leaves, forward_ad.make_dual(at, slope), **how)
        return [tuple(forward_ad.unpack_dual(gradient)) for gradient in found]


# ---- Forward mode


def _dual(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    with forward_ad.dual_level():
        return tuple(forward_ad.unpack_dual(op(*_duals(inputs))))


def _forward_over_reverse(op: Function, inputs: tuple[Tensor, ...], **how: bool) -> Any:
    leaves = leaves_of(inputs)
    with forward_ad.dual_level():
        duals = _duals(leaves)
        found = torch.autograd.grad(_squared(op)(*duals), duals, **how)
        return [tuple(forward_ad.unpack_dual(gradient)) for gradient in found]


def _reverse_over_forward(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    leaves = leaves_of(inputs)
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(_squared(op)(*_duals(leaves))).tangent
        return torch.autograd.grad(slope, leaves)


# ---- Transforms of torch.func


def _func(transform: Callable[..., Any]) -> Way:
    return lambda op, inputs: transform(op, argnums=tuple(range(len(inputs))))(*inputs)


def _grad_of(op: Function, inputs: Sequence[Tensor]) -> Function:
    return torch.func.grad(_squared(op), argnums=tuple(range(len(inputs))))


def _func_vjp(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    value, back = torch.func.vjp(op, *inputs)
    return value, torch.func.vmap(back)(_upstreams(value))


# ---- What watches a graph: hooks, checkpoints, anomaly mode, tracers


def _inside(context: Callable[[], contextlib.AbstractContextManager[Any]]) -> Way:
    """Return the way that computes, inside a context, the gradient, the gradient from the kept graph, and a second
    derivative."""

    def way(op: Function, inputs: tuple[Tensor, ...]) -> Any:
        leaves = leaves_of(inputs)
        with context():
            value = _squared(op)(*leaves)
            first = torch.autograd.grad(value, leaves, retain_graph=True)
            again = torch.autograd.grad(value, leaves, create_graph=True)
            size = torch.stack([gradient.square().sum() for gradient in again]).sum()
            return first, again, torch.autograd.grad(size, leaves)

    return way


def _checkpointed(**how: Any) -> Way:
    def way(op: Function, inputs: tuple[Tensor, ...]) -> Any:
        leaves = leaves_of(inputs)
        (3.0 * checkpoint.checkpoint(op, *leaves, **how)).sum().backward()
        return [leaf.grad for leaf in leaves]

    return way


def _choosing(policy: checkpoint.CheckpointPolicy) -> Callable[[], Any]:
    return functools.partial(checkpoint.create_selective_checkpoint_contexts, lambda *_, **__: policy)


def _hooked_gradients(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    leaves, seen = leaves_of(inputs), []
    graph.register_multi_grad_hook(
        leaves, lambda gradients: seen.append([it.clone() for it in gradients if it is not None])
    )
    value = op(*leaves)
    value.retain_grad()
    value.register_hook(lambda upstream: upstream * 2)
    (3.0 * value).sum().backward()
    return value.grad, [leaf.grad for leaf in leaves], seen


def _traced_backward(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    def step(*tensors: Tensor) -> Any:
        leaves = leaves_of(tensors)
        return torch.autograd.grad(op(*leaves).sum(), leaves)

    return make_fx(step)(*inputs)(*inputs)


def _beside_inference(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    with torch.inference_mode():
        others = tuple(tensor.clone() for tensor in inputs[1:])
    first = inputs[0].clone().requires_grad_()
    return torch.autograd.grad(op(first, *others).sum(), first)


def _in_inference(op: Function, inputs: tuple[Tensor, ...]) -> Any:
    with torch.inference_mode():
        return op(*leaves_of(inputs))


WAYS: dict[str, Way] = {
    "many upstreams": _many_upstreams,
    "many upstreams of a graph": functools.partial(_many_upstreams, create_graph=True),
    "vmap over upstreams": _vmap_over_upstreams,
    "jvp over an upstream": _jvp_over_an_upstream,
    "grad over an upstream": _grad_over_an_upstream,
    "a dual upstream": _dual_upstream,
    "a dual upstream, kept": functools.partial(_dual_upstream, retain_graph=True),
    "a dual upstream of a graph": functools.partial(_dual_upstream, create_graph=True),
    "dual inputs": _dual,
    "forward over reverse": _forward_over_reverse,
    "forward over a graph": functools.partial(_forward_over_reverse, create_graph=True),
    "reverse over forward": _reverse_over_forward,
    "jacobian": lambda op, inputs: over_functions.jacobian(op, inputs, vectorize=True),
    "jacobian, forward": lambda op, inputs: over_functions.jacobian(
        op, inputs, vectorize=True, strategy="forward-mode"
    ),
    "hessian, forward": lambda op, inputs: over_functions.hessian(
        _squared(op), inputs, vectorize=True, outer_jacobian_strategy="forward-mode"
    ),
    "func.vjp": _func_vjp,
    "func.jvp": lambda op, inputs: torch.func.jvp(op, inputs, tangents(inputs)),
    "func.jacrev": _func(torch.func.jacrev),
    "func.jacfwd": _func(torch.func.jacfwd),
    "func.hessian": lambda op, inputs: _func(torch.func.hessian)(_squared(op), inputs),
    "vmap of grad": lambda op, inputs: torch.func.vmap(_grad_of(op, inputs))(*_stacked(inputs)),
    "grad of vmap": lambda op, inputs: _grad_of(torch.func.vmap(op), inputs)(*_stacked(inputs)),
    "jvp of grad": lambda op, inputs: torch.func.jvp(_grad_of(op, inputs), inputs, tangents(inputs)),
    "anomaly mode": _inside(torch.autograd.detect_anomaly),
    "saved on the CPU": _inside(graph.save_on_cpu),
    "saved as NumPy": _inside(
        lambda: graph.saved_tensors_hooks(
            lambda it: it.detach().numpy().copy(), lambda it: torch.from_numpy(it).clone()
        )
    ),
    "no hooks": _inside(lambda: graph.disable_saved_tensors_hooks("none may be set here")),
    "checkpoint": _checkpointed(use_reentrant=False),
    "checkpoint, reentrant": _checkpointed(use_reentrant=True),
    "checkpoint that saves": _checkpointed(
        use_reentrant=False, context_fn=_choosing(checkpoint.CheckpointPolicy.MUST_SAVE)
    ),
    "checkpoint that recomputes": _checkpointed(
        use_reentrant=False, context_fn=_choosing(checkpoint.CheckpointPolicy.MUST_RECOMPUTE)
    ),
    "hooks on gradients": _hooked_gradients,
    "a traced backward": _traced_backward,
    "beside inference tensors": _beside_inference,
    "in inference mode": _in_inference,
}
