"""Every op by name, at a size where finite differences are cheap, and comparisons of two ways to one result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import ebgan_fast

from .budget import assert_within_budget, energy_sums, pulling_away_sums, pulling_away_terms
from .cases import NORMS, normal

Op = tuple[Callable[..., Tensor], tuple[Tensor, ...]]

# The margins lie between the energies of the drawn samples (about 2.4 for 5 elements in l2), far from each. This is the
# largest margin.
MARGIN = 2.9
OPS: dict[str, Op] = {
    **{
        f"reconstruction_energy-{norm}": (
            lambda r, x, norm=norm: ebgan_fast.reconstruction_energy(r, x, norm=norm),
            (normal(3, 5), normal(3, 5, seed=1)),
        )
        for norm in NORMS
    },
    "hinge_margin_loss": (
        lambda real, fake: ebgan_fast.hinge_margin_loss(real, fake, 0.5),
        (normal(4).abs(), torch.tensor([0.1, 0.9, 0.3], dtype=torch.float64)),
    ),
    "pulling_away_term-primal": (ebgan_fast.pulling_away_term, (normal(3, 6),)),
    "pulling_away_term-dual": (ebgan_fast.pulling_away_term, (normal(6, 3),)),
    **{
        f"discriminator_loss-{norm}": (
            lambda a, b, c, d, norm=norm: ebgan_fast.discriminator_loss(a, b, c, d, MARGIN, norm=norm)[0],
            tuple(normal(3, 5, seed=seed) for seed in range(4)),
        )
        for norm in NORMS
    },
    **{
        f"generator_loss-{norm}": (
            lambda r, x, s, norm=norm: ebgan_fast.generator_loss(r, x, s, pt_weight=0.7, norm=norm)[0],
            (normal(3, 5), normal(3, 5, seed=1), normal(3, 6, seed=2)),
        )
        for norm in NORMS
    },
}


def assert_same(one: Tensor, other: Tensor, inputs: Sequence[Tensor], what: str, terms: float = 2 * MARGIN) -> None:
    """Fail if two ways to compute one result of `inputs` differ by more than the roundings of both."""
    sums = max(max(energy_sums(tensor), pulling_away_sums(tensor)) for tensor in inputs)
    assert_within_budget(one, other, other, what, terms, sums)


def assert_same_gradients(
    some: Sequence[Tensor], others: Sequence[Tensor], inputs: Sequence[Tensor], upstream: float = 1.0
) -> None:
    """Fail if two ways to compute the gradients of `inputs` differ by more than the roundings of both.

    The two vectors of the pulling-away term's gradient may cancel, so their size sets the budget.
    """
    terms = upstream * max(pulling_away_terms(tensor).max().item() for tensor in inputs)
    for index, (one, other) in enumerate(zip(some, others, strict=True)):
        assert_same(one, other, inputs, f"gradient {index}", terms)


def leaves_of(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)
