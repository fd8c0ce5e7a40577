"""The losses in eager torch: as a user writes them, and as public EBGAN code has them.

The package is timed and checked against the user's formulas. They widen 16-bit inputs first, as a usable loss must.

The formulas of public code are named by what they compute. Public formulas that compute another number are left out: a
missing square, or the hinge of the mean (docs/deviations.md). Only formulas of one value are timed against each other.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Norm = Literal["mse", "l2"]


def widened(tensor: Tensor) -> Tensor:
    """Return the tensor in the dtype that sums over it need: float64 stays, all others become float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def reconstruction_energy(recon: Tensor, target: Tensor, norm: Norm) -> Tensor:
    """Return each sample's energy: [N, ...] and [N, ...] -> [N].

    The energy is the mean of the squared differences for `mse`, and the root of their sum for `l2`.
    """
    if norm == "l2":
        return (widened(recon) - widened(target)).flatten(1).norm(dim=1)
    return F.mse_loss(widened(recon), widened(target), reduction="none").flatten(1).mean(1)


def mean_energy(recon: Tensor, target: Tensor, norm: Norm = "mse") -> Tensor:
    """Return the mean energy of a batch, a scalar."""
    return reconstruction_energy(recon, target, norm).mean()


def hinge_margin_loss(energy_real: Tensor, energy_fake: Tensor, margin: float) -> Tensor:
    """Return the mean real energy plus the mean hinge, which is per sample: [N] and [N] -> scalar."""
    return widened(energy_real).mean() + F.relu(margin - widened(energy_fake)).mean()


def pulling_away_term(code: Tensor) -> Tensor:
    """Return the mean of the squared cosines of different codes: [N, d] -> scalar."""
    n = code.shape[0]
    unit = F.normalize(widened(code), dim=1)
    squares = (unit @ unit.T) ** 2
    return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1))


def discriminator_loss(
    recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor, margin: float, norm: Norm
) -> Tensor:
    """Return the discriminator's loss, a scalar."""
    energy_real = reconstruction_energy(recon_real, real, norm)
    return hinge_margin_loss(energy_real, reconstruction_energy(recon_fake, fake, norm), margin)


def generator_loss(recon: Tensor, fake: Tensor, code: Tensor, pt_weight: float, norm: Norm) -> Tensor:
    """Return the generator's loss with the pulling-away term, a scalar."""
    return mean_energy(recon, fake, norm) + pt_weight * pulling_away_term(code)


# ---- Public code


def mean_squared_error(recon: Tensor, target: Tensor) -> Tensor:
    """Return one mean over the batch and all pixels. It equals the mean energy, and gives no energies per sample."""
    return F.mse_loss(widened(recon), widened(target))


def full_gram(code: Tensor) -> Tensor:
    """Return the term from the whole matrix of cosines, squared and summed, less N for its diagonal."""
    wide = widened(code)
    n = len(wide)
    unit = wide / wide.square().sum(1, keepdim=True).sqrt()
    return ((unit @ unit.T).square().sum() - n) / (n * (n - 1))


def broadcast(code: Tensor) -> Tensor:
    """Return the term from a broadcast product of [N, N, d] elements."""
    wide = widened(code)
    n = len(wide)
    cosines = F.cosine_similarity(wide.unsqueeze(0), wide.unsqueeze(1), dim=2)
    return (cosines.square().sum() - n) / (n * (n - 1))


def python_loop(code: Tensor) -> Tensor:
    """Return the term from a double loop over pairs of codes."""
    wide = widened(code)
    n = len(wide)
    total = wide.new_zeros(())
    for i in range(n):
        for j in range(n):
            if i != j:
                total = total + F.cosine_similarity(wide[i], wide[j], dim=0).square()
    return total / (n * (n - 1))
