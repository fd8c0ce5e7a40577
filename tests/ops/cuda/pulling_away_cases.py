"""Codes where backend cuda reads them, and what it makes of them held against the reference in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ebgan_fast.ops import pulling_away, reference
from ebgan_fast.ops.backends import cuda
from ebgan_fast.ops.tensors import Coefficient

from .. import eager
from ..budget import assert_within_budget, pulling_away_diagonal, pulling_away_sums, pulling_away_terms
from .energy_cases import Simulator, laid_out, leaves_of, random


def code_of(n: int, d: int, dtype: torch.dtype, layout: str = "plain") -> Tensor:
    values = random(n, d, n + d, dtype)
    values[1] = 0
    return laid_out(values, layout)


def run(simulator: Simulator, code: Tensor, upstream: Coefficient = 1.0, seed: int = 0) -> list[Tensor]:
    """Value and gradient."""
    inputs = [code, upstream] if isinstance(upstream, Tensor) else [code]
    with simulator(inputs, seed):
        term = pulling_away.launch(cuda, code)
        gradient = pulling_away.launch_gradient(cuda, term, code, upstream)
    return [term.value, gradient]


def check(got: Sequence[Tensor], code: Tensor, upstream: float = 1.0) -> None:
    (leaf,), plain = leaves_of([code]), code.detach().clone().requires_grad_()
    truth = reference.pulling_away_term(leaf)
    yardstick = eager.pulling_away_term(plain)
    sums = pulling_away_sums(code)
    assert_within_budget(got[0], truth, yardstick, "value", pulling_away_diagonal(code), sums)
    exact = torch.autograd.grad(truth, leaf, torch.tensor(upstream, dtype=torch.float64))[0]
    plainly = torch.autograd.grad(yardstick, plain, torch.tensor(upstream, dtype=yardstick.dtype))[0]
    assert_within_budget(got[1], exact, plainly, "gradient", abs(upstream) * pulling_away_terms(code), sums)
    assert not got[1][1].any(), "a code of zeros has a gradient"
