"""Codes in the layouts that backend cuda reads, and checks of its pulling-away term against the float64 reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ebgan_fast.ops import pulling_away, reference
from ebgan_fast.ops.backends import cuda
from ebgan_fast.ops.tensors import Coefficient

from .. import eager
from ..budget import assert_within_budget, pulling_away_diagonal, pulling_away_sums, pulling_away_terms, sums_dtype
from .energy_cases import Simulator, laid_out, leaves_of, random


def code_of(n: int, d: int, dtype: torch.dtype, layout: str = "plain") -> Tensor:
    values = random(n, d, n + d, dtype)
    values[1] = 0
    return laid_out(values, layout)


# Exponents on both sides of both ends of the range in which squares are summed unscaled (csrc/row_scale.h).
_AT_THE_ENDS = {
    torch.float32: (-47, 53, -39, 37, -70, 80),
    torch.float64: (-410, 453, -399, 437, -600, 700),
}


def scales_of(n: int, dtype: torch.dtype) -> Tensor:
    """Return a power of two for each of N rows, [N] in float64.

    The first and last rows get the least and the largest of the dtype and some at the ends of the range. The others get
    1.
    """
    limits = torch.finfo(dtype)
    least, largest = (math.frexp(it)[1] - 1 for it in (limits.tiny, limits.max))
    inside = [it for it in _AT_THE_ENDS[sums_dtype(dtype)] if least < it < largest]
    exponents = [*[least, 0, largest, *inside, *[0] * n][: n - 2], largest, least]
    return torch.tensor([2.0**it for it in exponents], dtype=torch.float64)


def code_to_scale(n: int, d: int, dtype: torch.dtype) -> Tensor:
    """Return a code of numbers of size 1 to 2. In row 0 only the last is not zero; row 1 is all zeros."""
    random = torch.rand((n, d), generator=torch.Generator().manual_seed(n + d), dtype=torch.float64) * 2 - 1
    values = (random + random.sign()).to(dtype)
    values = values.where(values.abs() < 2, values / 2)  # rounding may give 2
    values[0, :-1] = 0
    values[1] = 0
    return values


def scaled(code: Tensor, scales: Tensor, layout: str = "plain") -> Tensor:
    return laid_out((code.double() * scales[:, None]).to(code.dtype), layout)


def run(simulator: Simulator, code: Tensor, upstream: Coefficient = 1.0, seed: int = 0) -> list[Tensor]:
    """Return the value and the gradient of the pulling-away term on backend cuda."""
    inputs = [code, upstream] if isinstance(upstream, Tensor) else [code]
    with simulator(inputs, seed):
        term = pulling_away.launch(cuda, code)
        gradient = pulling_away.launch_gradient(cuda, term, code, upstream)
    return [term.value, gradient]


def check(got: Sequence[Tensor], code: Tensor, upstream: float = 1.0, scales: Tensor | None = None) -> None:
    """Fail unless the value and gradient in `got` lie within their budget.

    Args:
        got: value and gradient of the code, or of the code times `scales`.
        code: the code before it is scaled.
        upstream: the upstream gradient.
        scales: a power of two for each row, [N]; the expected gradients are divided by them.
    """
    scale = torch.ones(code.shape[0], dtype=torch.float64) if scales is None else scales
    (leaf,), plain = leaves_of([code]), code.detach().clone().requires_grad_()
    truth = reference.pulling_away_term(leaf)
    yardstick = eager.pulling_away_term(plain)
    sums = pulling_away_sums(code)
    assert_within_budget(got[0], truth, yardstick, "value", pulling_away_diagonal(code), sums)
    exact = torch.autograd.grad(truth, leaf, torch.tensor(upstream, dtype=torch.float64))[0]
    plainly = torch.autograd.grad(yardstick, plain, torch.tensor(upstream, dtype=yardstick.dtype))[0]
    truth, yardstick = (gradient.double() / scale[:, None] for gradient in (exact, plainly))
    assert_within_budget(got[1], truth, yardstick, "gradient", abs(upstream) * pulling_away_terms(code) / scale, sums)
    assert not got[1][1].any(), "a code of zeros has a gradient"
