"""The error that a result may have: measured in each test, never chosen by hand.

The truth is the reference in float64 on the same rounded inputs. The budget of a sample has two parts: twice the error
of the same formula in eager torch at that dtype, and a few units in the last place of the sample's largest value. The
units are those of the type that sums run in: float32, or float64 for float64.

A result in a narrower type has a unit of that type in its budget too. Its final rounding costs half a unit, and
multiplying a loss's gradient by its upstream rounds once more. A GPU, simulated or real, may round two factors of a
product to tf32, whose unit is as large as float16's. There the narrow unit is that of the terms instead of the result.

float64 has no wider truth: the reference is off by as many units as the result, so the units count twice.

Some formulas take the difference of larger terms: the hinge subtracts an energy from the margin, and the pulling-away
term's gradient, which is 0 for parallel codes, subtracts two vectors. Their units are those of the terms.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .simulated_cuda import SIMULATED

ULPS = 4
"""Units in the last place for roundings outside of sums: 4, as no result has more than eight roundings of half a unit.

An l2 gradient has seven and a half. The difference is rounded once but counts twice, under the root and in the product.
Its square counts half. Root, quotient, 1/N, upstream and product count one each.

A loss has seven. The difference, which is squared, counts two. The square, 1/K, 1/N, the margin or weight, and the
addition count one each.
"""


def _rows(values: Tensor) -> Tensor:
    """Return values as [samples, elements] in float64; a scalar is one sample, a vector of N energies N samples."""
    values = values.detach().double()
    return values.reshape(1, 1) if values.dim() == 0 else values.reshape(values.shape[0], values[:1].numel())


CHAIN = 64
"""The number of products in the longest chain of any backend: a kernel adds them one after another, then joins chains
in pairs."""


def sums_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums over values of `dtype` run in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def assert_within_budget(
    got: Tensor,
    truth: Tensor,
    eager: Tensor,
    what: str,
    terms: Tensor | float | None = None,
    sums: float = 0,
    sides: int = 1,
) -> None:
    """Fail if a sample of `got` is further from `truth` than its budget.

    In all three tensors a number beyond the dtype's range counts as the largest number of the dtype. So an infinity is
    no error where the truth overflows, and it makes no budget infinite where the truth does not.

    Args:
        got: the backend's result, [samples, ...].
        truth: the reference's result in float64, [samples, ...].
        eager: the result of eager torch, [samples, ...].
        what: a name for the message.
        terms: the size of the terms that cancel in each sample, [samples], or one for all.
        sums: units that the sums in the formula are off by: `energy_sums` or `pulling_away_sums`.
        sides: 2 if `truth` has roundings like `got`. In float64 the function takes 2 by itself.
    """
    assert got.shape == truth.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(truth.shape)}"
    if got.numel() == 0:
        return
    wide, limits = torch.finfo(sums_dtype(got.dtype)), torch.finfo(got.dtype)
    # The smallest step that the dtype can make near zero.
    floor = limits.smallest_normal * limits.eps
    got_rows, truth_rows, eager_rows = (_rows(values).clamp(-limits.max, limits.max) for values in (got, truth, eager))
    eager_error = (eager_rows - truth_rows).abs().amax(1)
    error = (got_rows - truth_rows).abs().amax(1)
    size = own_size = truth_rows.abs().amax(1)
    if terms is not None:
        size = torch.maximum(size, torch.as_tensor(terms, dtype=size.dtype))
    if got.dtype == torch.float64:
        sides = 2
    if got.is_cuda or SIMULATED:
        own_size = size
    own = limits.eps * own_size if limits.eps > wide.eps else 0.0
    budget = 2 * eager_error + sides * ((ULPS + sums) * wide.eps * size + own + ULPS * floor)
    worst = int((error - budget).argmax())
    assert bool((error <= budget).all()), (
        f"{what}: sample {worst} is off by {error[worst]:.3e}, budget {budget[worst]:.3e} "
        f"(eager torch is off by {eager_error[worst]:.3e}, size {size[worst]:.3e})"
    )


def energy_sums(recon: Tensor) -> float:
    """Return the first-order bound on the error of the pairwise sums over samples and batch: log2(elements)/2 units.

    A single eager run may happen to be far below this bound.
    """
    return math.log2(max(recon.numel(), 1)) / 2


def pulling_away_sums(code: Tensor) -> float:
    """Return the first-order bound on the error of cos^2, in units.

    The error of cos^2 is twice that of the product of two unit codes, and four times that of their elements. An
    element's error is half of the sum's, and one unit each for root and quotient. When all codes are alike, these
    roundings are alike in every term, and nothing averages out.

    The sums are pairwise: they are log2(d)/2 units off, or more where `_chained` measures more.

    float64 has no wider truth, and the reference's matrix products need not add in pairs: a library may add one term
    after another. In cos^2 the sums over d elements are then off by d more units. In the gradient the sums over N codes
    are off by N/2 more.
    """
    n, d = code.shape[0], code[:1].numel()
    rows = _rows(code)
    sums = max(math.log2(max(d, 2)) / 2, _chained(rows), _chained(rows.T) if d < n else 0.0)
    chains = d + n / 2 if code.dtype == torch.float64 else 0
    return 2 * sums + 4 * (sums / 2 + 2) + chains


def _chained(rows: Tensor) -> float:
    """Return the largest error of products of two rows that float32 adds in chains, in units of the product of both
    lengths.

    The error is measured, as it depends on the numbers. In codes of one repeated number all products are alike, so
    every addition rounds the same way, by up to 3/16 of a unit: 12 units in a chain of 64. In random codes the
    roundings average out.
    """
    largest = rows.abs().amax(1, keepdim=True) if rows.numel() else rows.sum(1, keepdim=True)
    scaled = rows / torch.exp2(torch.where(largest > 0, largest, 1.0).log2().floor())  # the rounding stays what it was
    values, worst = scaled.cpu().numpy(), 0.0
    starts = range(0, values.shape[1], CHAIN)
    lengths = np.sqrt(np.square(values).sum(1))
    for row, length in zip(values, lengths, strict=True):
        products = (row * values).astype(np.float32)
        ends = sum(np.cumsum(products[:, k : k + CHAIN], 1)[:, -1].astype(np.float64) for k in starts)
        errors = np.abs(ends - products.astype(np.float64).sum(1))
        worst = max(worst, float((errors / np.maximum(length * lengths, 1e-300)).max(initial=0.0)))
    return worst / torch.finfo(torch.float32).eps


def pulling_away_diagonal(code: Tensor) -> float:
    """Return what the i = j terms would add to the value; eager torch and the form on d x d products subtract them."""
    n = code.shape[0]
    return int(_rows(code).any(1).sum()) / max(n * (n - 1), 1)


def pulling_away_terms(code: Tensor) -> Tensor:
    """Return the length of the second of the two vectors that cancel in the gradient of each row, [N].

    The gradient of row i is 4/(N(N-1)|s_i|) times the difference of sum_j cos_ij u_j and (sum_j cos_ij^2) u_i. Both
    sums contain the j = i term, which is u_i.
    """
    n = code.shape[0]
    rows = _rows(code)
    lengths = rows.norm(dim=1)
    unit = torch.where(lengths[:, None] == 0, 0.0, rows / lengths[:, None])
    radial = (unit @ unit.T).square().sum(1)
    return torch.where(lengths == 0, 0.0, 4.0 * radial / (max(n * (n - 1), 1) * lengths))
