"""The raw ops joined to autograd, one ctx-style Function per op.

A ctx-style Function costs 38 us forward and backward at tiny sizes where `custom_op` + `register_autograd` costs 68
(torch 2.13, two cores). Its `backward` uses the kernel, except when a graph of the gradient itself is wanted
(create_graph): then it differentiates the reference formula, so second derivatives are right and never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from . import library, reference

_raw = torch.ops.ebgan_fast

Gradients = tuple[Tensor | None, ...]


def _differentiable_gradients(
    formula: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor | None], upstream: Tensor, ctx: Any
) -> Gradients:
    """The gradients of a reference formula, themselves part of the graph. `inputs` are the op's leading arguments."""
    # Views, so that one tensor passed twice is told apart.
    views = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
    result = formula(*views)
    value = result[0] if isinstance(result, tuple) else result
    wanted = [view for view, needed in zip(views, ctx.needs_input_grad, strict=False) if needed and view is not None]
    found = iter(torch.autograd.grad(value, wanted, upstream, create_graph=True))
    return tuple(
        next(found) if needed and view is not None else None
        for view, needed in zip(views, ctx.needs_input_grad, strict=False)
    )


def _scaled(gradients: Sequence[Tensor], upstream: Tensor, ctx: Any) -> Gradients:
    return tuple(
        gradient * upstream if needed else None
        for gradient, needed in zip(gradients, ctx.needs_input_grad, strict=False)
    )


class ReconstructionEnergy(torch.autograd.Function):
    """(recon, target, norm, backend) -> energy [N]."""

    @staticmethod
    def forward(ctx: FunctionCtx, recon: Tensor, target: Tensor, norm: str, backend: str) -> Tensor:
        energy = _raw.reconstruction_energy(recon, target, norm, backend)
        ctx.save_for_backward(recon, target, energy)
        ctx.norm, ctx.backend = norm, backend  # type: ignore[attr-defined]
        return energy

    @staticmethod
    def backward(ctx: Any, grad_energy: Tensor) -> Gradients:
        recon, target, energy = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = lambda r, t: reference.reconstruction_energy(r, t, ctx.norm)  # noqa: E731
            return *_differentiable_gradients(formula, (recon, target), grad_energy, ctx), None, None
        need_recon, need_target = ctx.needs_input_grad[:2]
        grad_recon, grad_target = _raw.reconstruction_energy_backward(
            grad_energy, recon, target, energy, ctx.norm, need_recon, need_target, ctx.backend
        )
        return grad_recon if need_recon else None, grad_target if need_target else None, None, None


class HingeMarginLoss(torch.autograd.Function):
    """(energy_real, energy_fake, margin, backend) -> loss."""

    @staticmethod
    def forward(ctx: FunctionCtx, energy_real: Tensor, energy_fake: Tensor, margin: Tensor, backend: str) -> Tensor:
        loss, *gradients = _raw.hinge_margin_loss(energy_real, energy_fake, margin, backend)
        ctx.save_for_backward(energy_real, energy_fake, margin, *gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Gradients:
        energy_real, energy_fake, margin, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = lambda real, fake: reference.hinge_margin_loss(real, fake, margin)  # noqa: E731
            return *_differentiable_gradients(formula, (energy_real, energy_fake), grad_loss, ctx), None, None
        return *_scaled(gradients, grad_loss, ctx), None, None


class PullingAwayTerm(torch.autograd.Function):
    """(code, backend) -> value."""

    @staticmethod
    def forward(ctx: FunctionCtx, code: Tensor, backend: str) -> Tensor:
        value, norms, gram = _raw.pulling_away_term(code, backend)
        ctx.save_for_backward(code, norms, gram)
        ctx.backend = backend  # type: ignore[attr-defined]
        return value

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> Gradients:
        code, norms, gram = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable_gradients(reference.pulling_away_term, (code,), grad_value, ctx), None
        return _raw.pulling_away_term_backward(grad_value, code, norms, gram, ctx.backend), None


class DiscriminatorLoss(torch.autograd.Function):
    """(recon_real, real, recon_fake, fake, margin, norm, backend) -> (loss, energy_real, energy_fake)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        recon_real: Tensor,
        real: Tensor,
        recon_fake: Tensor,
        fake: Tensor,
        margin: Tensor,
        norm: str,
        backend: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        need = list(ctx.needs_input_grad[:4])  # type: ignore[attr-defined]
        loss, energy_real, energy_fake, *gradients = _raw.discriminator_loss(
            recon_real, real, recon_fake, fake, margin, norm, need, backend
        )
        ctx.save_for_backward(recon_real, real, recon_fake, fake, margin, *gradients)
        ctx.norm = norm  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(energy_real, energy_fake)
        return loss, energy_real, energy_fake

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> Gradients:
        recon_real, real, recon_fake, fake, margin, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = lambda a, b, c, d: reference.discriminator_loss(a, b, c, d, margin, ctx.norm)  # noqa: E731
            batches = (recon_real, real, recon_fake, fake)
            return *_differentiable_gradients(formula, batches, grad_loss, ctx), None, None, None
        return *_scaled(gradients, grad_loss, ctx), None, None, None


class GeneratorLoss(torch.autograd.Function):
    """(recon_fake, fake, code or None, pt_weight, norm, backend) -> (loss, energy, pulling_away)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        recon_fake: Tensor,
        fake: Tensor,
        code: Tensor | None,
        pt_weight: Tensor,
        norm: str,
        backend: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        need = list(ctx.needs_input_grad[:3])  # type: ignore[attr-defined]
        loss, energy, pulling_away, *gradients = _raw.generator_loss(
            recon_fake, fake, code, pt_weight, norm, need, backend
        )
        ctx.save_for_backward(recon_fake, fake, code, pt_weight, *gradients)  # type: ignore[arg-type]
        ctx.norm = norm  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(energy, pulling_away)
        return loss, energy, pulling_away

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> Gradients:
        recon_fake, fake, code, pt_weight, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = lambda r, x, s: reference.generator_loss(r, x, s, pt_weight, ctx.norm)  # noqa: E731
            return *_differentiable_gradients(formula, (recon_fake, fake, code), grad_loss, ctx), None, None, None
        return *_scaled(gradients, grad_loss, ctx), None, None, None


def needs_reference() -> bool:
    """Whether a function transform (vmap, grad, jvp) or forward-mode differentiation is active: kernels cannot be
    transformed, the reference formulas can."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


__all__ = [
    "DiscriminatorLoss",
    "GeneratorLoss",
    "HingeMarginLoss",
    "PullingAwayTerm",
    "ReconstructionEnergy",
    "library",
    "needs_reference",
]
