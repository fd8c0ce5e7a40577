"""The raw ops joined to autograd: a function per op, and behind it, where a graph is wanted, a ctx-style Function.

A ctx-style Function costs 38 us forward and backward at tiny sizes where `custom_op` + `register_autograd` costs 68
(torch 2.13, two cores). Its `backward` uses the kernel, except when a graph of the gradient itself is wanted
(create_graph): then it differentiates the reference formula, so second derivatives are right and never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx
from torch.compiler import is_compiling

from . import reference
from .library import call

Gradients = tuple[Tensor | None, ...]


def _gradients_of_formula(
    formula: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor | None], upstream: Tensor, ctx: Any
) -> Gradients:
    """The gradients of a reference formula, part of the graph where one is wanted (create_graph). `inputs` are the op's
    leading arguments."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that one tensor passed twice is told apart.
        views = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        if not create_graph:
            views = [None if view is None else view.detach().requires_grad_() for view in views]
        result = formula(*views)
    value = result[0] if isinstance(result, tuple) else result
    wanted = [view for view, needed in zip(views, ctx.needs_input_grad, strict=False) if needed and view is not None]
    found = iter(torch.autograd.grad(value, wanted, upstream, create_graph=create_graph))
    return tuple(
        next(found) if needed and view is not None else None
        for view, needed in zip(views, ctx.needs_input_grad, strict=False)
    )


# A lookup of each name on the way takes as long as the question.
_in_transform = torch._C._are_functorch_transforms_active
_is_legacy_batch = torch._C._functorch.is_legacy_batchedtensor
_is_graph_kept = torch._C._autograd._get_current_graph_task_keep_graph


def _is_batched(tensor: Tensor) -> bool:
    """Return True for many upstream gradients at once, as `torch.autograd.grad(is_grads_batched=True)` sends them."""
    return not is_compiling() and (_in_transform() or _is_legacy_batch(tensor))


def _is_plain(tensor: Tensor) -> bool:
    """Return True if a kernel may read the tensor's memory."""
    return type(tensor) is Tensor and not (is_compiling() or _is_batched(tensor))


def _multiplied(gradient: Tensor, upstream: Tensor) -> Tensor:
    """The product in the upstream's dtype, rounded once: on a GPU, torch rounds a 0-d factor to 16 bits first."""
    return (gradient.to(upstream.dtype) * upstream).to(gradient.dtype)


def in_capture(device: torch.device) -> bool:
    """Return True if what runs now goes into a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


# torch 2.8
top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def _is_hooked() -> bool | None:
    """Return True if a hook takes what is saved for backward, and may own what comes back; None if torch can't say."""
    if is_compiling():
        return True
    return None if top_hooks is None else top_hooks(True) is not None


def _scaled(gradients: Sequence[Tensor | None], upstream: Tensor, ctx: Any) -> Gradients:
    """The gradients of upstream 1 for each of the op's leading inputs, multiplied by the upstream they got.

    The forward made them and gave them to nobody. So where they will not be met again, they are multiplied where they
    lie, and not even touched for an upstream of 1. On a GPU only the kernel knows the upstream. They are met again
    where the graph is kept, and where a CUDA graph holds this backward without its forward. A compiled graph multiplies
    by itself: its compiler puts the product into whatever comes next.
    """
    # zip ends with the gradients: behind them come inputs that are no tensors. What is not needed may be an empty
    # tensor.
    needed = [gradient if it else None for gradient, it in zip(gradients, ctx.needs_input_grad, strict=False)]
    is_readable = not ctx.is_hooked and _is_plain(upstream)
    is_kept = is_readable and _is_graph_kept()
    if is_readable and ctx.backend == "cpu" and not is_kept and upstream.item() == 1:
        return tuple(needed)
    if not is_readable or ctx.is_hooked is None:
        return tuple([None if gradient is None else _multiplied(gradient, upstream) for gradient in needed])
    present = [gradient for gradient in needed if gradient is not None]
    if not is_kept and (ctx.backend == "cpu" or ctx.in_capture == in_capture(upstream.device)):
        call("scale_gradients_", ctx.backend, present, upstream)
        return tuple(needed)
    scaled = iter(call("scale_gradients", ctx.backend, present, upstream))
    return tuple([None if gradient is None else next(scaled) for gradient in needed])


def _save(
    ctx: Any, backend: str, coefficient: Tensor | float, inputs: Sequence[Tensor | None], gradients: Sequence[Tensor]
) -> None:
    """Keep for backward: the coefficient (margin or weight; a number or a 0-d tensor), and the tensors."""
    ctx.set_materialize_grads(False)  # no zeros for the outputs that carry no gradient
    is_tensor = isinstance(coefficient, Tensor)
    ctx.coefficient = None if is_tensor else coefficient
    ctx.save_for_backward(coefficient if is_tensor else None, *inputs, *gradients)
    ctx.backend, ctx.is_hooked = backend, _is_hooked()
    if backend != "cpu":
        ctx.in_capture = inputs[0] is not None and in_capture(inputs[0].device)


def _saved(ctx: Any) -> tuple[Any, ...]:
    coefficient, *tensors = ctx.saved_tensors
    return ctx.coefficient if coefficient is None else coefficient, *tensors


class Function(torch.autograd.Function):
    """torch's, with types."""

    if TYPE_CHECKING:

        @classmethod
        def apply(cls, *arguments: Any) -> Any: ...


class ReconstructionEnergy(Function):
    """(recon, target, norm, backend) -> energy [N]."""

    @staticmethod
    def forward(ctx: FunctionCtx, recon: Tensor, target: Tensor, norm: str, backend: str) -> Tensor:
        energy: Tensor = call("reconstruction_energy", backend, recon, target, norm)
        ctx.save_for_backward(recon, target, energy)
        ctx.norm, ctx.backend = norm, backend  # type: ignore[attr-defined]
        return energy

    @staticmethod
    def backward(ctx: Any, grad_energy: Tensor) -> Gradients:
        recon, target, energy = ctx.saved_tensors
        if torch.is_grad_enabled() or _is_batched(grad_energy):
            formula = lambda r, t: reference.reconstruction_energy(r, t, ctx.norm)  # noqa: E731
            return *_gradients_of_formula(formula, (recon, target), grad_energy, ctx), None, None
        need_recon, need_target = ctx.needs_input_grad[:2]
        grad_recon, grad_target = call(
            "reconstruction_energy_backward",
            ctx.backend,
            *(grad_energy, recon, target, energy, ctx.norm, need_recon, need_target),
        )
        return grad_recon if need_recon else None, grad_target if need_target else None, None, None


class HingeMarginLoss(Function):
    """(energy_real, energy_fake, margin, backend) -> loss."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, energy_real: Tensor, energy_fake: Tensor, margin: Tensor | float, backend: str
    ) -> Tensor:
        loss: Tensor
        loss, *gradients = call("hinge_margin_loss", backend, energy_real, energy_fake, margin)
        _save(ctx, backend, margin, (energy_real, energy_fake), gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None) -> Gradients:
        if grad_loss is None:
            return (None,) * len(ctx.needs_input_grad)
        margin, energy_real, energy_fake, *gradients = _saved(ctx)
        if torch.is_grad_enabled():
            formula = lambda real, fake: reference.hinge_margin_loss(real, fake, margin)  # noqa: E731
            return *_gradients_of_formula(formula, (energy_real, energy_fake), grad_loss, ctx), None, None
        return *_scaled(gradients, grad_loss, ctx), None, None


class PullingAwayTerm(Function):
    """(code, backend) -> value."""

    @staticmethod
    def forward(ctx: FunctionCtx, code: Tensor, backend: str) -> Tensor:
        value: Tensor
        value, norms, gram = call("pulling_away_term", backend, code)
        ctx.save_for_backward(code, norms, gram)
        ctx.backend = backend  # type: ignore[attr-defined]
        return value

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> Gradients:
        code, norms, gram = ctx.saved_tensors
        if torch.is_grad_enabled() or _is_batched(grad_value):
            return *_gradients_of_formula(reference.pulling_away_term, (code,), grad_value, ctx), None
        return call("pulling_away_term_backward", ctx.backend, grad_value, code, norms, gram), None


class DiscriminatorLoss(Function):
    """(recon_real, real, recon_fake, fake, margin, norm, backend) -> (loss, energy_real, energy_fake)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        recon_real: Tensor,
        real: Tensor,
        recon_fake: Tensor,
        fake: Tensor,
        margin: Tensor | float,
        norm: str,
        backend: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        need = list(ctx.needs_input_grad[:4])  # type: ignore[attr-defined]
        batches = (recon_real, real, recon_fake, fake)
        loss, energy_real, energy_fake, *gradients = call("discriminator_loss", backend, *batches, margin, norm, need)
        _save(ctx, backend, margin, batches, gradients)
        ctx.norm = norm  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(energy_real, energy_fake)
        return loss, energy_real, energy_fake

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Tensor | None) -> Gradients:
        if grad_loss is None:
            return (None,) * len(ctx.needs_input_grad)
        margin, recon_real, real, recon_fake, fake, *gradients = _saved(ctx)
        if torch.is_grad_enabled():
            formula = lambda a, b, c, d: reference.discriminator_loss(a, b, c, d, margin, ctx.norm)  # noqa: E731
            batches = (recon_real, real, recon_fake, fake)
            return *_gradients_of_formula(formula, batches, grad_loss, ctx), None, None, None
        return *_scaled(gradients, grad_loss, ctx), None, None, None


class GeneratorLoss(Function):
    """(recon_fake, fake, code or None, pt_weight, norm, backend) -> (loss, energy, pulling_away)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        recon_fake: Tensor,
        fake: Tensor,
        code: Tensor | None,
        pt_weight: Tensor | float,
        norm: str,
        backend: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        need = list(ctx.needs_input_grad[:3])  # type: ignore[attr-defined]
        inputs = (recon_fake, fake, code)
        loss, energy, pulling_away, *gradients = call("generator_loss", backend, *inputs, pt_weight, norm, need)
        _save(ctx, backend, pt_weight, inputs, gradients)
        ctx.norm = norm  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(energy, pulling_away)
        return loss, energy, pulling_away

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Tensor | None) -> Gradients:
        if grad_loss is None:
            return (None,) * len(ctx.needs_input_grad)
        pt_weight, recon_fake, fake, code, *gradients = _saved(ctx)
        if torch.is_grad_enabled():
            formula = lambda r, x, s: reference.generator_loss(r, x, s, pt_weight, ctx.norm)  # noqa: E731
            return *_gradients_of_formula(formula, (recon_fake, fake, code), grad_loss, ctx), None, None, None
        return *_scaled(gradients, grad_loss, ctx), None, None, None


def _is_recorded(*inputs: Tensor | None) -> bool:
    """Return True if autograd wants to know of an op: an energy of 8 x 16 takes 15 us by way of `apply`, 7 past it."""
    if torch.is_grad_enabled():
        for tensor in inputs:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def reconstruction_energy(recon: Tensor, target: Tensor, norm: str, backend: str) -> Tensor:
    energy: Tensor
    if _is_recorded(recon, target):
        energy = ReconstructionEnergy.apply(recon, target, norm, backend)
    else:
        energy = call("reconstruction_energy", backend, recon, target, norm)
    return energy


def hinge_margin_loss(energy_real: Tensor, energy_fake: Tensor, margin: Tensor | float, backend: str) -> Tensor:
    loss: Tensor
    if _is_recorded(energy_real, energy_fake):
        loss = HingeMarginLoss.apply(energy_real, energy_fake, margin, backend)
    else:
        loss, *_ = call("hinge_margin_loss", backend, energy_real, energy_fake, margin)
    return loss


def pulling_away_term(code: Tensor, backend: str) -> Tensor:
    value: Tensor
    if _is_recorded(code):
        value = PullingAwayTerm.apply(code, backend)
    else:
        value, *_ = call("pulling_away_term", backend, code)
    return value


def discriminator_loss(
    recon_real: Tensor,
    real: Tensor,
    recon_fake: Tensor,
    fake: Tensor,
    margin: Tensor | float,
    norm: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    batches = (recon_real, real, recon_fake, fake)
    if _is_recorded(*batches):
        loss, energy_real, energy_fake = DiscriminatorLoss.apply(*batches, margin, norm, backend)
    else:
        loss, energy_real, energy_fake, *_ = call("discriminator_loss", backend, *batches, margin, norm, [False] * 4)
    return loss, energy_real, energy_fake


def generator_loss(
    recon_fake: Tensor, fake: Tensor, code: Tensor | None, pt_weight: Tensor | float, norm: str, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = (recon_fake, fake, code)
    if _is_recorded(*inputs):
        loss, energy, pulling_away = GeneratorLoss.apply(*inputs, pt_weight, norm, backend)
    else:
        loss, energy, pulling_away, *_ = call("generator_loss", backend, *inputs, pt_weight, norm, [False] * 3)
    return loss, energy, pulling_away


def needs_reference() -> bool:
    """Return True if a function transform (vmap, grad, jvp) or forward-mode differentiation is active: kernels cannot
    be transformed, the reference formulas can."""
    return _in_transform() or forward_ad._current_level >= 0


__all__ = [
    "Function",
    "discriminator_loss",
    "generator_loss",
    "hinge_margin_loss",
    "needs_reference",
    "pulling_away_term",
    "reconstruction_energy",
]
