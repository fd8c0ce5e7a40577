"""The ops as Modules, for code that builds its losses once and calls them each step.

Each calls the function of its name in `functional`, which has the equations, and the same dtypes: float64, float32,
bfloat16 and float16 in, float32 out (float64 for float64). A margin, weight or norm that cannot be is refused when the
Module is built, tensors that do not fit when it is called, by ValueError or TypeError.

Margins and weights are 0-d buffers. They follow the device and never the dtype, so that `.half()` rounds none; they
stand in `state_dict`; a schedule changes them in place. A Parameter that is given for one stays one, and is trained.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from . import _checks, functional
from ._coefficients import WithCoefficients, WithWeight
from .functional import Norm, Reduction
from .ops.tensors import Coefficient
from .results import DiscriminatorResult, GeneratorResult

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "DiscriminatorLoss",
    "GeneratorLoss",
    "HingeMarginLoss",
    "PullingAwayTerm",
    "ReconstructionEnergy",
]


class _WithGroup(nn.Module):
    """A Module with a process group, which belongs to the process: copies share it, and it can't be pickled."""

    process_group: ProcessGroup | None

    def __copy__(self) -> Any:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.process_group is not None:
            memo[id(self.process_group)] = self.process_group
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        if self.process_group is not None:
            raise TypeError(
                f"{type(self).__name__}: got a process group to pickle, which is of this process alone, expected none. "
                "Save state_dict(), or set .process_group = None before pickling and the group again after loading"
            )
        return self.__dict__.copy()


class ReconstructionEnergy(nn.Module):
    """(recon [N, ...], target [N, ...]) -> energy [N]: `functional.reconstruction_energy`.

    Args:
        norm: the kind of energy, one of `functional.Norm`.
        reduction: "none" for the energies [N], or "mean" or "sum" for a scalar.

    Example:
        >>> import torch, ebgan_fast
        >>> energy_of = ebgan_fast.nn.ReconstructionEnergy()
        >>> energy_of(torch.ones(2, 4), torch.zeros(2, 4))
        tensor([2., 2.])
    """

    def __init__(self, norm: Norm = "l2", reduction: Reduction = "none") -> None:
        super().__init__()
        _checks.check_norm(norm)
        _checks.check_reduction(reduction)
        self.norm = norm
        self.reduction = reduction

    def forward(self, recon: Tensor, target: Tensor) -> Tensor:
        """Return the energies [N] of [N, ...] and [N, ...], or their mean or sum, in squared or plain pixel units by
        norm (equation 13)."""
        return functional.reconstruction_energy(recon, target, norm=self.norm, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"norm={self.norm!r}" + ("" if self.reduction == "none" else f", reduction={self.reduction!r}")


class HingeMarginLoss(WithCoefficients):
    """(energy_real [N] or None, energy_fake [M]) -> scalar loss: `functional.hinge_margin_loss`.

    Args:
        margin: m >= 0 in units of the energy: a number, a 0-d tensor, or a Parameter to be trained.

    Example:
        >>> import torch, ebgan_fast
        >>> hinge = ebgan_fast.nn.HingeMarginLoss(margin=10.0)
        >>> hinge(torch.tensor([1.0]), torch.tensor([4.0]))
        tensor(7.)
        >>> _ = hinge.margin.fill_(5.0)
        >>> hinge(None, torch.tensor([4.0]))
        tensor(1.)
    """

    margin: Tensor

    def __init__(self, margin: Coefficient) -> None:
        super().__init__()
        self._register_coefficient("margin", margin)

    def forward(self, energy_real: Tensor | None, energy_fake: Tensor) -> Tensor:
        """Return the scalar loss of [N] and [M], in units of the energy (equation 1)."""
        return functional.hinge_margin_loss(energy_real, energy_fake, self.margin)

    def extra_repr(self) -> str:
        return self._shown("margin")


class PullingAwayTerm(_WithGroup):
    """code [N, ...] -> scalar in [0, 1]: `functional.pulling_away_term`.

    Args:
        process_group: take the term over the batches of all ranks of this group. Copies of the Module share the group;
            a Module with a group can't be pickled.

    Example:
        >>> import torch, ebgan_fast
        >>> ebgan_fast.nn.PullingAwayTerm()(torch.tensor([[2.0, 0.0], [-4.0, 0.0]]))
        tensor(1.)
    """

    def __init__(self, process_group: ProcessGroup | None = None) -> None:
        super().__init__()
        self.process_group = process_group

    def forward(self, code: Tensor) -> Tensor:
        """Return the term of [N, ...], a scalar in [0, 1] (equation 14)."""
        return functional.pulling_away_term(code, process_group=self.process_group)


class DiscriminatorLoss(WithCoefficients):
    """(recon_real, real, recon_fake, fake) -> `DiscriminatorResult`: `functional.discriminator_loss`.

    Args:
        margin: m >= 0 in units of the energy: a number, a 0-d tensor, or a Parameter to be trained.
        norm: the kind of energy, one of `functional.Norm`.

    Example:
        >>> import torch, ebgan_fast
        >>> loss_of_d = ebgan_fast.nn.DiscriminatorLoss(margin=10.0)
        >>> real, fake = torch.zeros(2, 4), torch.ones(3, 4)
        >>> loss_of_d(real + 0.5, real, fake * 0.0, fake).loss  # 1 + (10 - 2)
        tensor(9.)
    """

    margin: Tensor

    def __init__(self, margin: Coefficient, norm: Norm = "l2") -> None:
        super().__init__()
        _checks.check_norm(norm)
        self._register_coefficient("margin", margin)
        self.norm = norm

    def forward(
        self,
        recon_real: Tensor,
        real: Tensor,
        recon_fake: Tensor,
        fake: Tensor,
        *,
        upstream: Coefficient | None = None,
    ) -> DiscriminatorResult:
        """Return the loss and the energies [N] and [M] of [N, ...] twice and [M, ...] twice, the energies without
        gradient (equation 1)."""
        batches = recon_real, real, recon_fake, fake
        return functional.discriminator_loss(*batches, self.margin, norm=self.norm, upstream=upstream)

    def extra_repr(self) -> str:
        return f"{self._shown('margin')}, norm={self.norm!r}"


class GeneratorLoss(WithWeight, _WithGroup):
    """(recon_fake, fake, code or None) -> `GeneratorResult`: `functional.generator_loss`.

    Args:
        pt_weight: weight >= 0 of the pulling-away term: a number, a 0-d tensor, or a Parameter to be trained. None: the
            paper's 0.1 with a code, and nothing without.
        norm: the kind of energy, one of `functional.Norm`.
        process_group: take the pulling-away term over all ranks of this group. Copies of the Module share the group; a
            Module with a group can't be pickled.

    Example:
        >>> import torch, ebgan_fast
        >>> loss_of_g = ebgan_fast.nn.GeneratorLoss(pt_weight=0.5)
        >>> fake = torch.zeros(2, 4)
        >>> loss_of_g(fake + 1.0, fake, code=torch.ones(2, 3)).loss  # 2 + 0.5 * 1
        tensor(2.5000)
    """

    def __init__(
        self, pt_weight: Coefficient | None = None, norm: Norm = "l2", process_group: ProcessGroup | None = None
    ) -> None:
        super().__init__()
        _checks.check_norm(norm)
        self._register_weight(pt_weight)
        self.norm = norm
        self.process_group = process_group

    def forward(
        self, recon_fake: Tensor, fake: Tensor, code: Tensor | None = None, *, upstream: Coefficient | None = None
    ) -> GeneratorResult:
        """Return the loss, the energies [N] and the pulling-away term of [N, ...] twice and codes [N, ...], the last
        two without gradient (equations 2 and 14)."""
        return functional.generator_loss(
            recon_fake,
            fake,
            code,
            pt_weight=self._weight_for(code),
            norm=self.norm,
            upstream=upstream,
            process_group=self.process_group,
        )

    def extra_repr(self) -> str:
        return f"{self._shown('pt_weight')}, norm={self.norm!r}"
