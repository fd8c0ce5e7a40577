"""How far a result may be from the truth: measured, not picked.

The truth is the reference in float64 on the same rounded inputs. The budget of a sample is twice the error that the
same formula makes in eager torch at that dtype, plus a few units in the last place of the sample's largest value.
Units are those of the type that sums run in (float32, or float64 for float64). A result in a narrower type has one of
its own beside them. It is rounded to that type at the end, by half a unit, and once more where a loss's gradient is
multiplied by its upstream. On a GPU, a simulated one too, two factors of its products may be rounded to tf32, whose
unit is float16's: then its unit is that of the terms.
A result in float64 has no wider truth. There the units count twice, as the reference is off by as many.
Where the formula takes the difference of larger terms (the hinge's margin and energy; the pulling-away term's gradient,
which is 0 for parallel codes), the units are those of the terms.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .simulated_cuda import SIMULATED

ULPS = 4
"""Eight roundings, of half a unit each: no result meets more outside of sums.

An l2 gradient meets seven and a half: two for the difference (under the root and before the product), half of one for
its square, and one each for root, quotient, 1/N, upstream and product. A loss meets seven: two for the difference,
which is squared, and one each for the square, 1/K, 1/N, margin or weight, and the addition.
"""


def _rows(values: Tensor) -> Tensor:
    """[samples, elements]; a scalar is one sample, a vector of energies N samples."""
    values = values.detach().double()
    return values.reshape(1, 1) if values.dim() == 0 else values.reshape(values.shape[0], values[:1].numel())


CHAIN = 64
"""Products that a kernel adds one after another before it joins sums in pairs: the longest chain of any backend."""


def sums_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that sums over values of `dtype` run in."""
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

    A number beyond the dtype's range counts as the largest one in it, in all three: an infinity is no error where the
    truth overflows, and makes no budget infinite where it doesn't.

    Args:
        got, truth, eager: [samples, ...], of the backend, of the reference in float64, and of eager torch.
        what: a name for the message.
        terms: [samples], the size of what cancels in each sample.
        sums: units that the sums in the formula are off by: `energy_sums` or `pulling_away_sums`.
        sides: 2 if `truth` is rounded as `got` is. That is always so in float64.
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
    """The first-order bound for the pairwise sums over samples and batch: log2(elements)/2 units. One eager run may be
    far below it by luck."""
    return math.log2(max(recon.numel(), 1)) / 2


def pulling_away_sums(code: Tensor) -> float:
    """First-order bound for cos^2, whose error is twice that of the product of two unit codes and four times that of
    their elements (half of the sum's, and one each for root and quotient). When all codes are alike, so are these
    roundings in every term, and nothing averages out.

    The sums are pairwise, log2(d)/2 units off, or worse where `_chained` is.

    float64 has no wider truth, and the reference's sums in its matrix products are no pairwise ones: a library may add
    one term after another. In cos^2 those over d elements are off by d units more, in the gradient those over N codes
    by N/2.
    """
    n, d = code.shape[0], code[:1].numel()
    rows = _rows(code)
    sums = max(math.log2(max(d, 2)) / 2, _chained(rows), _chained(rows.T) if d < n else 0.0)
    chains = d + n / 2 if code.dtype == torch.float64 else 0
    return 2 * sums + 4 * (sums / 2 + 2) + chains


def _chained(rows: Tensor) -> float:
    """The error of products of two rows that float32 adds in chains: the largest, in units of the two lengths' product.

    It is measured, as it depends on the numbers. The products of codes of one repeated number are all alike. Then every
    addition rounds the same way, up to 3/16 of a unit: 12 units in a chain of 64. Those of random codes average out.
    """
    largest = rows.abs().amax(1, keepdim=True) if rows.numel() else rows.sum(1, keepdim=True)
    scaled = rows / torch.exp2(torch.where(largest > 0, largest, 1.0).log2().floor())  # rounding stays what it was
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
    """What the i = j terms would add to the value: eager torch and the form on d x d products subtract them."""
    n = code.shape[0]
    return int(_rows(code).any(1).sum()) / max(n * (n - 1), 1)


def pulling_away_terms(code: Tensor) -> Tensor:
    """[N]: the gradient of row i is 4/(N(N-1)|s_i|) times the difference of two vectors, sum_j cos_ij u_j and
    (sum_j cos_ij^2) u_i, both with the j = i term u_i; this is the length of the second."""
    n = code.shape[0]
    rows = _rows(code)
    lengths = rows.norm(dim=1)
    unit = torch.where(lengths[:, None] == 0, 0.0, rows / lengths[:, None])
    radial = (unit @ unit.T).square().sum(1)
    return torch.where(lengths == 0, 0.0, 4.0 * radial / (max(n * (n - 1), 1) * lengths))
