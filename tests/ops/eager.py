"""The ops as a user writes them in eager torch, whose error scales a result's budget.

Inputs are widened to the dtype that sums run in. The formulas are written independently of the package's reference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def reconstruction_energy(recon: Tensor, target: Tensor, norm: str) -> Tensor:
    recon, target = (widened(t).reshape(t.shape[0], t[:1].numel()) for t in (recon, target))
    if norm == "l1":
        return F.l1_loss(recon, target, reduction="none").sum(1)
    if norm == "l2":
        return torch.linalg.vector_norm(recon - target, dim=1)
    squares = F.mse_loss(recon, target, reduction="none")
    return squares.mean(1) if norm == "mse" else squares.sum(1)


def mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()


def hinge_margin_loss(energy_real: Tensor, energy_fake: Tensor, margin: float) -> Tensor:
    return mean(widened(energy_real)) + mean(F.relu(margin - widened(energy_fake)))


def pulling_away_term(code: Tensor) -> Tensor:
    n = code.shape[0]
    unit = F.normalize(widened(code).reshape(n, code[:1].numel()), dim=1, eps=1e-30)
    squares = (unit @ unit.T) ** 2
    return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1)) if n > 1 else squares.sum() * 0


def discriminator_loss(
    recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor, margin: float, norm: str
) -> Tensor:
    return hinge_margin_loss(
        reconstruction_energy(recon_real, real, norm), reconstruction_energy(recon_fake, fake, norm), margin
    )


def generator_loss(recon: Tensor, fake: Tensor, code: Tensor | None, pt_weight: float, norm: str) -> Tensor:
    loss = mean(reconstruction_energy(recon, fake, norm))
    return loss if code is None else loss + pt_weight * pulling_away_term(code)
