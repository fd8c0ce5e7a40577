"""The definition of every op, in plain differentiable torch, as the paper writes it.

Every other backend is tested against this file, evaluated in float64. A reader should be able to check it by eye
against Zhao, Mathieu and LeCun, "Energy-Based Generative Adversarial Networks" (2016, arXiv:1609.03126). So it is short
and uses none of the closed-form algebra that makes the kernels fast. The paper leaves some cases open, and this file
defines them:

* Gradients are 0 at an l2 energy of 0, at an l1 difference of 0 or NaN (as in torch), and at E = m of a hinge.
* A closed hinge passes no gradient. A fake of infinite energy is past every margin: it adds 0 to the loss and gets
  gradient 0. NaN is past no margin: it leaves the hinge open, and loss and gradient are NaN.
* A code of length 0 has cosine 0 with every other code, and gets gradient 0. Any other code, however small or large its
  numbers, has the cosines of its direction. An infinite or NaN number in a code makes the term NaN.
* A batch without samples contributes 0 to a mean, and the pulling-away term of fewer than two codes is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tensors import Coefficient, accumulation_dtype, row_scales, sample_rows, without_autocast

__all__ = [
    "discriminator_loss",
    "generator_loss",
    "hinge_margin_loss",
    "pulling_away_term",
    "reconstruction_energy",
]


def _root(squares: Tensor) -> Tensor:
    """Return the square roots, with derivative 0 at 0. NaN stays NaN."""
    at_zero = squares == 0
    return torch.where(at_zero, 0.0, torch.where(at_zero, 1.0, squares).sqrt())


def batch_mean(per_sample: Tensor) -> Tensor:
    """Return the mean of [N] values as a scalar, 0 for an empty batch."""
    return per_sample.sum() / max(per_sample.shape[0], 1)


def reconstruction_energy(recon: Tensor, target: Tensor, norm: str) -> Tensor:
    """Return D(x) = ||Dec(Enc(x)) - x|| of each sample, [N] (equation 13).

    Args:
        recon: [N, ...] reconstructions.
        target: [N, ...] samples.
        norm: the kind of energy: "l2", "sse", "mse" or "l1".

    Example:
        >>> import torch
        >>> from ebgan_fast.ops import reference
        >>> recon, target = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> reference.reconstruction_energy(recon, target, norm="l2")
        tensor([5., 0.])
    """
    residual = sample_rows(recon) - sample_rows(target)
    if norm == "l1":
        return residual.abs().sum(1)
    squares = residual.square().sum(1)
    if norm == "sse":
        return squares
    if norm == "mse":
        return squares / residual.shape[1]
    return _root(squares)


def hinge_margin_loss(energy_real: Tensor, energy_fake: Tensor, margin: Coefficient) -> Tensor:
    """Return the mean of L_D = D(x) + [m - D(G(z))]+ over two batches, a scalar (equation 1). The hinge is per sample.

    Args:
        energy_real: [N] energies of real samples.
        energy_fake: [M] energies of generated samples.
        margin: m, in units of the energy.

    Example:
        >>> import torch
        >>> from ebgan_fast.ops import reference
        >>> energy_real, energy_fake = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 12.0])
        >>> reference.hinge_margin_loss(energy_real, energy_fake, margin=10)  # (1 + 3) / 2 + (6 + 0) / 2
        tensor(5.)
    """
    real = energy_real.to(accumulation_dtype(energy_real.dtype))
    fake = energy_fake.to(accumulation_dtype(energy_fake.dtype))
    return batch_mean(real) + batch_mean(torch.relu(margin - fake))


def pulling_away_term(code: Tensor) -> Tensor:
    """Return f_PT(S) = 1/(N(N-1)) sum_i sum_{j != i} (S_i.S_j / (|S_i| |S_j|))^2, a scalar (equation 14).

    Args:
        code: S, [N, ...], the encoder's output for generated samples.

    Example:
        >>> import torch
        >>> from ebgan_fast.ops import reference
        >>> reference.pulling_away_term(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))  # parallel codes
        tensor(1.)
        >>> reference.pulling_away_term(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))  # orthogonal ones
        tensor(0.)
    """
    rows = sample_rows(code)
    rows = rows * row_scales(rows)
    n = rows.shape[0]
    lengths = _root(rows.square().sum(1, keepdim=True))
    is_zero = lengths == 0
    unit = torch.where(is_zero, 0.0, rows / torch.where(is_zero, 1.0, lengths))
    with without_autocast(code.device):
        cosines = unit @ unit.T
    itself = torch.eye(n, dtype=torch.bool, device=code.device)
    return cosines.masked_fill(itself, 0.0).square().sum() / max(n * (n - 1), 1)


def weighed(pt_weight: Coefficient, pulling_away: Tensor) -> Tensor:
    """Return the weighted term in the term's dtype. torch would widen it to the dtype of a weight that is a tensor."""
    if isinstance(pt_weight, Tensor):
        pt_weight = pt_weight.to(pulling_away.dtype)
    return pt_weight * pulling_away


def discriminator_loss(
    recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor, margin: Coefficient, norm: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (loss, energy_real [N], energy_fake [M]) of both batches (equation 1). The energies are detached.

    Args:
        recon_real: [N, ...] reconstructions of the real samples.
        real: [N, ...] real samples.
        recon_fake: [M, ...] reconstructions of the generated samples.
        fake: [M, ...] generated samples.
        margin: m, in units of the energy.
        norm: the kind of energy: "l2", "sse", "mse" or "l1".

    Example:
        >>> import torch
        >>> from ebgan_fast.ops import reference
        >>> real = fake = torch.zeros(1, 2)
        >>> recon_real, recon_fake = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 4.0]])
        >>> reference.discriminator_loss(recon_real, real, recon_fake, fake, margin=10, norm="l2")  # 1 + (10 - 5)
        (tensor(6.), tensor([1.]), tensor([5.]))
    """
    energy_real = reconstruction_energy(recon_real, real, norm)
    energy_fake = reconstruction_energy(recon_fake, fake, norm)
    closed = margin - energy_fake <= 0
    # Samples behind a closed hinge are set to 0 before the energy, because 0 times the derivative of an infinite energy
    # would be NaN.
    left_out = closed.reshape(-1, *(1 for _ in fake.shape[1:]))
    open_energy = reconstruction_energy(recon_fake.masked_fill(left_out, 0), fake.masked_fill(left_out, 0), norm)
    hinge = torch.where(closed, 0.0, margin - open_energy)
    return batch_mean(energy_real) + batch_mean(hinge), energy_real.detach(), energy_fake.detach()


def generator_loss(
    recon_fake: Tensor, fake: Tensor, code: Tensor | None, pt_weight: Coefficient, norm: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (loss, energy [N], pulling_away) of L_G = D(G(z)) plus the weighted pulling-away term (equations 2 and
    14).

    Energy and pulling_away are detached.

    Args:
        recon_fake: [N, ...] reconstructions of the generated samples.
        fake: [N, ...] generated samples.
        code: [N, ...] the encoder's output for the generated samples. None: no pulling-away term.
        pt_weight: weight of the pulling-away term.
        norm: the kind of energy: "l2", "sse", "mse" or "l1".

    Example:
        >>> import torch
        >>> from ebgan_fast.ops import reference
        >>> fake, recon_fake = torch.zeros(2, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> code = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
        >>> reference.generator_loss(recon_fake, fake, code, pt_weight=0.5, norm="l2")  # (5 + 1) / 2 + 0.5 * 1
        (tensor(3.5000), tensor([5., 1.]), tensor(1.))
    """
    energy = reconstruction_energy(recon_fake, fake, norm)
    loss = batch_mean(energy)
    if code is None:
        return loss, energy.detach(), energy.new_zeros(())
    pulling_away = pulling_away_term(code)
    return loss + weighed(pt_weight, pulling_away), energy.detach(), pulling_away.detach()
