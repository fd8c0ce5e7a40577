"""The losses as a user writes them in eager torch: what the package is timed and checked against.

16-bit inputs are widened first, as anyone who wants a usable loss has to.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Norm = Literal["mse", "l2"]


def widened(tensor: Tensor) -> Tensor:
    """The dtype that sums over it need: float32, or float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def reconstruction_energy(recon: Tensor, target: Tensor, norm: Norm) -> Tensor:
    """[N, ...] and [N, ...] -> [N], the mean of the squared differences or the root of their sum."""
    if norm == "l2":
        return (widened(recon) - widened(target)).flatten(1).norm(dim=1)
    return F.mse_loss(widened(recon), widened(target), reduction="none").flatten(1).mean(1)


def mean_energy(recon: Tensor, target: Tensor, norm: Norm = "mse") -> Tensor:
    return reconstruction_energy(recon, target, norm).mean()


def hinge_margin_loss(energy_real: Tensor, energy_fake: Tensor, margin: float) -> Tensor:
    """[N] and [N] -> scalar; the hinge is per sample."""
    return widened(energy_real).mean() + F.relu(margin - widened(energy_fake)).mean()


def pulling_away_term(code: Tensor) -> Tensor:
    """[N, d] -> scalar, the mean of the squared cosines of different codes."""
    n = code.shape[0]
    unit = F.normalize(widened(code), dim=1)
    squares = (unit @ unit.T) ** 2
    return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1))


def discriminator_loss(
    recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor, margin: float, norm: Norm
) -> Tensor:
    energy_real = reconstruction_energy(recon_real, real, norm)
    return hinge_margin_loss(energy_real, reconstruction_energy(recon_fake, fake, norm), margin)


def generator_loss(recon: Tensor, fake: Tensor, code: Tensor, pt_weight: float, norm: Norm) -> Tensor:
    return mean_energy(recon, fake, norm) + pt_weight * pulling_away_term(code)
