"""How far a result may be from the truth: measured, not picked.

The truth is the reference in float64 on the same rounded inputs. The budget of a sample is twice the error that the
same formula makes in eager torch at that dtype, plus a few units in the last place of the sample's largest value.
A result in float64 has no wider truth. There the units count twice, as the reference is off by as many.
Where the formula takes the difference of larger terms (the hinge's margin and energy; the pulling-away term's gradient,
which is 0 for parallel codes), the units are those of the terms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

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


def assert_within_budget(
    got: Tensor, truth: Tensor, eager: Tensor, what: str, terms: Tensor | float | None = None, ulps: int = ULPS
) -> None:
    """`terms` [samples]: the size of what cancels in each sample."""
    assert got.shape == truth.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(truth.shape)}"
    if got.numel() == 0:
        return
    unit = torch.finfo(got.dtype).eps
    # The smallest step that the dtype can make near zero.
    floor = torch.finfo(got.dtype).smallest_normal * unit
    truth_rows = _rows(truth)
    eager_error = (_rows(eager) - truth_rows).abs().amax(1)
    error = (_rows(got) - truth_rows).abs().amax(1)
    size = truth_rows.abs().amax(1)
    if terms is not None:
        size = torch.maximum(size, torch.as_tensor(terms, dtype=size.dtype))
    sides = 2 if got.dtype == torch.float64 else 1
    budget = 2 * eager_error + sides * ulps * (unit * size + floor)
    worst = int((error - budget).argmax())
    assert bool((error <= budget).all()), (
        f"{what}: sample {worst} is off by {error[worst]:.3e}, budget {budget[worst]:.3e} "
        f"(eager torch is off by {eager_error[worst]:.3e}, size {size[worst]:.3e})"
    )


def energy_ulps(recon: Tensor) -> int:
    """The few units, and the first-order bound for the pairwise sums over samples and batch: log2(elements)/2. One
    eager run may be far below it by luck."""
    return ULPS + math.ceil(math.log2(max(recon.numel(), 1)) / 2)


def pulling_away_ulps(code: Tensor) -> int:
    """First-order bound for cos^2 with pairwise sums, whose error is log2(d)/2 units: twice that of the product of two
    unit codes and four times that of their elements (half of the sum's, and one each for root and quotient). When all
    codes are alike, so are these roundings in every term, and nothing averages out.

    float64 has no wider truth, and the reference's sums in its matrix products are no pairwise ones: a library may add
    one term after another. In cos^2 those over d elements are off by d units more, in the gradient those over N codes
    by N/2.
    """
    n, d = code.shape[0], code[:1].numel()
    sums = math.log2(max(d, 2)) / 2
    chains = d + n / 2 if code.dtype == torch.float64 else 0
    return math.ceil(2 * sums + 4 * (sums / 2 + 2) + chains)


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
