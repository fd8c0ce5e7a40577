"""The kernel distance (KID) of two sets of features: maximum mean discrepancy, squared, by (x.y/d + 1)^3, unbiased."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .batches import most_at_once

SUBSETS = 100

_DEGREE = 3
_MOST_ON_GPU = 20  # subsets at a time; one fills a CPU's caches


def kernel_distance(
    real: Tensor,
    generated: Tensor,
    size: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[float, float]:
    """Mean and standard deviation of the distance over 100 pairs of random subsets.

    Subsets and formula are torchmetrics', so figures compare with its.

    Args:
        real: [n, d].
        generated: [m, d], on the same device.
        size: rows of each set in a subset, 2 to the smaller of n and m.
        seed: of the subsets, which are the same on any device.
        progress: told the subsets done and all subsets, before each part of them and at the end. What it raises ends
            the work.
    """
    if size == len(real) == len(generated):  # all subsets are the whole sets
        return float(discrepancies(real[None], generated[None])), 0.0
    chance = torch.Generator().manual_seed(seed)
    chosen = torch.stack(
        [
            torch.randperm(len(features), generator=chance)[:size]
            for _ in range(SUBSETS)
            for features in (real, generated)
        ]
    )
    chosen = chosen.to(real.device).unflatten(0, (SUBSETS, 2))
    # Both sets' rows, and two kernels of the three at a time.
    bytes_each = 8 * size * (2 * real.shape[1] + 2 * size)
    at_once = most_at_once(real.device, bytes_each, _MOST_ON_GPU if real.device.type == "cuda" else 1)
    found: list[Tensor] = []
    for part in chosen.split(at_once):
        progress(len(found) * at_once, SUBSETS)
        found.append(discrepancies(real[part[:, 0]], generated[part[:, 1]]))
    progress(SUBSETS, SUBSETS)
    distances = torch.cat(found)
    return float(distances.mean()), float(distances.std(correction=0))


def discrepancies(real: Tensor, generated: Tensor) -> Tensor:
    """The kernel distance of each pair of sets of features, [s, n, d] and [s, n, d]: float64 [s].

    It is taken of all pairs between two sets, and of those of different rows within one.
    """
    x, y = real.double(), generated.double()
    n = x.shape[1]
    within = (_kernel(x, x, True) + _kernel(y, y, True)) / (n * (n - 1))
    return within - 2 * _kernel(x, y, False) / n**2


def _kernel(x: Tensor, y: Tensor, different: bool) -> Tensor:
    """float64 [s]: the kernel's sum over all pairs of rows of [s, n, d], or over those of different places."""
    values = (x @ y.transpose(1, 2)).div_(x.shape[2]).add_(1).pow_(_DEGREE)
    if different:
        values.diagonal(dim1=1, dim2=2).zero_()
    return values.sum((1, 2))
