"""Check an op's value and gradients against the float64 reference, within the budget of tests/ops/budget.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import reference

from . import eager
from .budget import (
    assert_within_budget,
    energy_sums,
    pulling_away_diagonal,
    pulling_away_sums,
    pulling_away_terms,
    sums_dtype,
)


def _value_and_gradients(
    op: Callable[..., Tensor], tensors: Sequence[Tensor], upstream: Tensor | None
) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    value = op(*leaves)
    upstream = torch.ones_like(value) if upstream is None else upstream.to(value.dtype)
    return value, *torch.autograd.grad(value, leaves, upstream)


def check(
    op: Callable[..., Tensor],
    truth_op: Callable[..., Tensor],
    eager_op: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    upstream: Tensor | None = None,
    terms: Sequence[Tensor | float | None] = (),
    sums: float = 0,
) -> None:
    """Fail unless the value and gradients of `op` lie within their budget around those of `truth_op` in float64.

    The inputs must stay unchanged, and the dtypes of the results must be those that the op documents.

    Args:
        op: the op of the package, called with `tensors`.
        truth_op: the reference formula, called with `tensors` in float64.
        eager_op: the same formula in eager torch, whose error scales the budget.
        tensors: the inputs; each gets a gradient.
        upstream: the gradient of the op's value, or None for ones.
        terms: for the value and then each gradient, the size of the terms that cancel in it, or None.
        sums: units that the sums of the formula may be off by, as in `assert_within_budget`.
    """
    before = [tensor.clone() for tensor in tensors]
    got = _value_and_gradients(op, tensors, upstream)
    assert all(map(torch.equal, before, tensors)), "an input was written"
    truth = _value_and_gradients(truth_op, [tensor.double() for tensor in tensors], upstream)
    yardstick = _value_and_gradients(eager_op, tensors, upstream)
    assert got[0].dtype == sums_dtype(tensors[0].dtype)
    for tensor, gradient in zip(tensors, got[1:], strict=True):
        assert gradient.dtype == tensor.dtype
    names = ("value", *(f"gradient {index}" for index in range(len(tensors))))
    scales = terms or [None] * len(names)
    for name, scale, *values in zip(names, scales, got, truth, yardstick, strict=True):
        assert_within_budget(*values, name, scale, sums)


def check_reconstruction_energy(recon: Tensor, target: Tensor, norm: str, upstream: Tensor) -> None:
    """Check `reconstruction_energy` on one pair of batches; `upstream` has shape [N]."""
    check(
        lambda r, t: ebgan_fast.reconstruction_energy(r, t, norm=norm),
        lambda r, t: reference.reconstruction_energy(r, t, norm),
        lambda r, t: eager.reconstruction_energy(r, t, norm),
        (recon, target),
        upstream,
        sums=energy_sums(recon),
    )


def check_pulling_away_term(code: Tensor, upstream: Tensor) -> None:
    check(
        ebgan_fast.pulling_away_term,
        reference.pulling_away_term,
        eager.pulling_away_term,
        (code,),
        upstream,
        [pulling_away_diagonal(code), upstream.abs() * pulling_away_terms(code)],
        pulling_away_sums(code),
    )


def check_discriminator_loss(batches: Sequence[Tensor], margin: float, norm: str) -> None:
    """Check `discriminator_loss` on `batches`: recon_real, real, recon_fake, fake."""
    check(
        lambda *leaves: ebgan_fast.discriminator_loss(*leaves, margin, norm=norm)[0],
        lambda *leaves: reference.discriminator_loss(*leaves, margin, norm)[0],
        lambda *leaves: eager.discriminator_loss(*leaves, margin, norm),
        batches,
        torch.tensor(1.0),
        [2 * margin, *[None] * 4],
        energy_sums(batches[2]),
    )


def check_generator_loss(recon: Tensor, fake: Tensor, code: Tensor) -> None:
    check(
        lambda r, f, s: ebgan_fast.generator_loss(r, f, s, pt_weight=0.3, norm="mse")[0],
        lambda r, f, s: reference.generator_loss(r, f, s, 0.3, "mse")[0],
        lambda r, f, s: eager.generator_loss(r, f, s, 0.3, "mse"),
        (recon, fake, code),
        torch.tensor(1.0),
        [0.3 * pulling_away_diagonal(code), None, None, 0.3 * pulling_away_terms(code)],
        max(energy_sums(recon), pulling_away_sums(code)),
    )
