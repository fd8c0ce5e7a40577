"""The ops as Modules, for code that builds its losses once and calls them in each step.

Each Module calls the function of the same name in `functional`, which has the equations. Inputs are float64, float32,
bfloat16 or float16. Outputs are float32 (float64 for float64 inputs). A ValueError or TypeError refuses a wrong margin,
weight or norm when the Module is built, and unsuitable tensors when it is called.

Margins and weights are 0-d buffers. They move with the Module's device, and `.half()` and similar calls never round
them. They are in `state_dict`. A schedule changes them in place. A Parameter that is given for a margin or weight stays
a Parameter, and is trained.
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
    """A Module with a process group. The group belongs to this process: copies share it, and it can't be pickled."""

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
    """The energy of each sample: `functional.reconstruction_energy` as a Module.

    Called with (recon [N, ...], target [N, ...]), it returns the energies [N].

    Args:
        norm: the kind of energy: "l2", "sse", "mse" or "l1".
        reduction: "none" for the energies [N], or "mean" or "sum" for a scalar.

    Raises:
        ValueError: if the norm or reduction is unknown.

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
        """Return the energies [N], or their mean or sum (equation 13).

        They are in pixel units for l2 and l1, and in squared pixel units for sse and mse.

        Args:
            recon: [N, ...] reconstructions.
            target: [N, ...] samples.

        Raises:
            ValueError, TypeError: as `functional.reconstruction_energy` does.
        """
        return functional.reconstruction_energy(recon, target, norm=self.norm, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"norm={self.norm!r}" + ("" if self.reduction == "none" else f", reduction={self.reduction!r}")


class HingeMarginLoss(WithCoefficients):
    """The discriminator's loss of given energies: `functional.hinge_margin_loss` as a Module.

    Called with (energy_real [N] or None, energy_fake [M]), it returns a scalar loss.

    Args:
        margin: m >= 0 in units of the energy: a number, a 0-d tensor, or a Parameter to be trained.

    Raises:
        ValueError: if the margin is negative or not 0-d.
        TypeError: if the margin is neither a number nor a floating-point tensor.

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
        """Return the scalar loss in units of the energy (equation 1).

        Args:
            energy_real: [N] energies of real samples. None: the loss is the hinge over generated samples alone.
            energy_fake: [M] energies of generated samples.

        Raises:
            ValueError, TypeError: as `functional.hinge_margin_loss` does.
        """
        return functional.hinge_margin_loss(energy_real, energy_fake, self.margin)

    def extra_repr(self) -> str:
        return self._shown("margin")


class PullingAwayTerm(_WithGroup):
    """The mean squared cosine of a batch's codes: `functional.pulling_away_term` as a Module.

    Called with a code [N, ...], it returns a scalar in [0, 1].

    Args:
        process_group: take the term over the batches of all ranks of this group, each with the same N. Copies of the
            Module share the group. A Module with a group can't be pickled.

    Example:
        >>> import torch, ebgan_fast
        >>> ebgan_fast.nn.PullingAwayTerm()(torch.tensor([[2.0, 0.0], [-4.0, 0.0]]))
        tensor(1.)
    """

    def __init__(self, process_group: ProcessGroup | None = None) -> None:
        super().__init__()
        self.process_group = process_group

    def forward(self, code: Tensor) -> Tensor:
        """Return the term, a scalar in [0, 1] (equation 14).

        Args:
            code: [N, ...] the encoder's output for generated samples.

        Raises:
            ValueError, TypeError, RuntimeError: as `functional.pulling_away_term` does.
        """
        return functional.pulling_away_term(code, process_group=self.process_group)


class DiscriminatorLoss(WithCoefficients):
    """The discriminator's loss of both batches: `functional.discriminator_loss` as a Module.

    Called with (recon_real, real, recon_fake, fake), it returns a `DiscriminatorResult`.

    Args:
        margin: m >= 0 in units of the energy: a number, a 0-d tensor, or a Parameter to be trained.
        norm: the kind of energy: "l2", "sse", "mse" or "l1".

    Raises:
        ValueError: if the margin is negative or not 0-d, or the norm is unknown.
        TypeError: if the margin is neither a number nor a floating-point tensor.

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
        """Return the loss, and the energies [N] and [M] without a gradient (equation 1).

        Args:
            recon_real: [N, ...] reconstructions of the real samples.
            real: [N, ...] real samples.
            recon_fake: [M, ...] reconstructions of the generated samples.
            fake: [M, ...] generated samples, detached.
            upstream: the gradient that the loss will get in backward, if you know it. See
                `functional.discriminator_loss`.

        Raises:
            ValueError, TypeError: as `functional.discriminator_loss` does.
        """
        batches = recon_real, real, recon_fake, fake
        return functional.discriminator_loss(*batches, self.margin, norm=self.norm, upstream=upstream)

    def extra_repr(self) -> str:
        return f"{self._shown('margin')}, norm={self.norm!r}"


class GeneratorLoss(WithWeight, _WithGroup):
    """The generator's loss: `functional.generator_loss` as a Module.

    Called with (recon_fake, fake, code or None), it returns a `GeneratorResult`.

    Args:
        pt_weight: weight >= 0 of the pulling-away term: a number, a 0-d tensor, or a Parameter to be trained. None: the
            paper's 0.1 with a code, and no term without a code. If you give a weight other than 0, each call needs a
            code.
        norm: the kind of energy: "l2", "sse", "mse" or "l1".
        process_group: take the pulling-away term over all ranks of this group, each with the same N. Copies of the
            Module share the group. A Module with a group can't be pickled.

    Raises:
        ValueError: if the weight is negative or not 0-d, or the norm is unknown.
        TypeError: if the weight is neither a number nor a floating-point tensor.

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
        """Return the loss, the energies [N] and the pulling-away term (equations 2 and 14).

        The energies and the term carry no gradient.

        Args:
            recon_fake: [N, ...] reconstructions of the generated samples.
            fake: [N, ...] generated samples, not detached.
            code: [N, ...] the encoder's output for the generated samples. None: an EBGAN without the pulling-away term.
            upstream: the gradient that the loss will get in backward, if you know it. See
                `functional.discriminator_loss`.

        Raises:
            ValueError, TypeError, RuntimeError: as `functional.generator_loss` does.
        """
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
