"""The formulas that public EBGAN code uses for these losses, named by what they compute.

Those that compute another number (no square, the hinge of the mean: docs/deviations.md) have no place here: only
formulas of one value are timed against each other.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .formulas import widened


def mean_squared_error(recon: Tensor, target: Tensor) -> Tensor:
    """One mean over the batch and all pixels, which is the mean energy; there are no energies per sample."""
    return F.mse_loss(widened(recon), widened(target))


def full_gram(code: Tensor) -> Tensor:
    """[N, d] -> scalar: the whole matrix of cosines, squared and summed, less N for its diagonal."""
    wide = widened(code)
    n = len(wide)
    unit = wide / wide.square().sum(1, keepdim=True).sqrt()
    return ((unit @ unit.T).square().sum() - n) / (n * (n - 1))


def broadcast(code: Tensor) -> Tensor:
    """[N, d] -> scalar: the same by a product of [N, N, d] elements."""
    wide = widened(code)
    n = len(wide)
    cosines = F.cosine_similarity(wide.unsqueeze(0), wide.unsqueeze(1), dim=2)
    return (cosines.square().sum() - n) / (n * (n - 1))


def python_loop(code: Tensor) -> Tensor:
    """[N, d] -> scalar: pair by pair."""
    wide = widened(code)
    n = len(wide)
    total = wide.new_zeros(())
    for i in range(n):
        for j in range(n):
            if i != j:
                total = total + F.cosine_similarity(wide[i], wide[j], dim=0).square()
    return total / (n * (n - 1))
