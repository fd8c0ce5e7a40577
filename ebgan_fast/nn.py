"""The ops as Modules, for code that builds its losses once and calls them each step.

Each calls the function of its name in `functional`, which has the equations, and the same dtypes: float64, float32,
bfloat16 and float16 in, float32 out (float64 for float64). A margin, weight or norm that cannot be is refused when the
Module is built, tensors that do not fit when it is called, by ValueError or TypeError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from . import _checks, functional
from .functional import Norm
from .ops.tensors import Coefficient

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "DiscriminatorLoss",
    "GeneratorLoss",
    "HingeMarginLoss",
    "PullingAwayTerm",
    "ReconstructionEnergy",
]


class ReconstructionEnergy(nn.Module):
    """(recon [N, ...], target [N, ...]) -> energy [N]: `functional.reconstruction_energy`.

    Args:
        norm: the kind of energy, one of `functional.Norm`.
    """

    def __init__(self, norm: Norm = "l2") -> None:
        super().__init__()
        _checks.check_norm(norm)
        self.norm = norm

    def forward(self, recon: Tensor, target: Tensor) -> Tensor:
        """[N, ...] and [N, ...] -> energies [N], in squared or plain pixel units by norm (equation 13)."""
        return functional.reconstruction_energy(recon, target, norm=self.norm)

    def extra_repr(self) -> str:
        return f"norm={self.norm!r}"


class HingeMarginLoss(nn.Module):
    """(energy_real [N], energy_fake [M]) -> scalar loss: `functional.hinge_margin_loss`.

    Args:
        margin: m >= 0 in units of the energy; a plain attribute that a schedule may set between steps.
    """

    def __init__(self, margin: Coefficient) -> None:
        super().__init__()
        _checks.check_coefficient("margin", margin)
        self.margin = margin

    def forward(self, energy_real: Tensor, energy_fake: Tensor) -> Tensor:
        """[N] and [M] -> scalar, in units of the energy (equation 1)."""
        return functional.hinge_margin_loss(energy_real, energy_fake, self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}"


class PullingAwayTerm(nn.Module):
    """code [N, ...] -> scalar in [0, 1]: `functional.pulling_away_term`.

    Args:
        process_group: take the term over the batches of all ranks of this group.
    """

    def __init__(self, process_group: ProcessGroup | None = None) -> None:
        super().__init__()
        self.process_group = process_group

    def forward(self, code: Tensor) -> Tensor:
        """[N, ...] -> scalar in [0, 1] (equation 14)."""
        return functional.pulling_away_term(code, process_group=self.process_group)


class DiscriminatorLoss(nn.Module):
    """(recon_real, real, recon_fake, fake) -> (loss, energy_real, energy_fake): `functional.discriminator_loss`.

    Args:
        margin: m >= 0 in units of the energy; a plain attribute that a schedule may set between steps.
        norm: the kind of energy, one of `functional.Norm`.
    """

    def __init__(self, margin: Coefficient, norm: Norm = "l2") -> None:
        super().__init__()
        _checks.check_coefficient("margin", margin)
        _checks.check_norm(norm)
        self.margin = margin
        self.norm = norm

    def forward(
        self,
        recon_real: Tensor,
        real: Tensor,
        recon_fake: Tensor,
        fake: Tensor,
        *,
        upstream: Coefficient | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[N, ...] twice, [M, ...] twice -> (scalar, energies [N], energies [M]), the energies without gradient
        (equation 1)."""
        batches = recon_real, real, recon_fake, fake
        return functional.discriminator_loss(*batches, self.margin, norm=self.norm, upstream=upstream)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, norm={self.norm!r}"


class GeneratorLoss(nn.Module):
    """(recon_fake, fake, code or None) -> (loss, energy, pulling_away): `functional.generator_loss`.

    Args:
        pt_weight: weight >= 0 of the pulling-away term; a plain attribute that a schedule may set between steps.
        norm: the kind of energy, one of `functional.Norm`.
        process_group: take the pulling-away term over the batches of all ranks of this group.
    """

    def __init__(
        self, pt_weight: Coefficient = 0.1, norm: Norm = "l2", process_group: ProcessGroup | None = None
    ) -> None:
        super().__init__()
        _checks.check_coefficient("pt_weight", pt_weight)
        _checks.check_norm(norm)
        self.pt_weight = pt_weight
        self.norm = norm
        self.process_group = process_group

    def forward(
        self, recon_fake: Tensor, fake: Tensor, code: Tensor | None = None, *, upstream: Coefficient | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[N, ...] twice and codes [N, ...] -> (scalar, energies [N], pulling-away term), the last two without gradient
        (equations 2 and 14)."""
        return functional.generator_loss(
            recon_fake,
            fake,
            code,
            pt_weight=self.pt_weight,
            norm=self.norm,
            upstream=upstream,
            process_group=self.process_group,
        )

    def extra_repr(self) -> str:
        return f"pt_weight={self.pt_weight}, norm={self.norm!r}"
