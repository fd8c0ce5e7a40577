"""The losses as a user writes them in eager torch: what the package is timed and checked against.

16-bit inputs are widened first, as anyone who wants a usable loss has to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """The dtype that sums over it need: float32, or float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def reconstruction_energy(recon: Tensor, target: Tensor) -> Tensor:
    """[N, ...] and [N, ...] -> [N], the mean of the squared differences."""
    return F.mse_loss(widened(recon), widened(target), reduction="none").flatten(1).mean(1)


def mean_energy(recon: Tensor, target: Tensor) -> Tensor:
    return reconstruction_energy(recon, target).mean()


def hinge_margin_loss(energy_real: Tensor, energy_fake: Tensor, margin: float) -> Tensor:
    """[N] and [N] -> scalar; the hinge is per sample."""
    return widened(energy_real).mean() + F.relu(margin - widened(energy_fake)).mean()


def pulling_away_term(code: Tensor) -> Tensor:
    """[N, d] -> scalar, the mean of the squared cosines of different codes."""
    n = code.shape[0]
    unit = F.normalize(widened(code), dim=1)
    squares = (unit @ unit.T) ** 2
    return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1))


def discriminator_loss(recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor, margin: float) -> Tensor:
    return hinge_margin_loss(reconstruction_energy(recon_real, real), reconstruction_energy(recon_fake, fake), margin)


def generator_loss(recon: Tensor, fake: Tensor, code: Tensor, pt_weight: float) -> Tensor:
    return mean_energy(recon, fake) + pt_weight * pulling_away_term(code)
