"""The results of the losses: named tuples, to be unpacked or read by name."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.utils import _pytree

__all__ = ["DiscriminatorResult", "GameResult", "GeneratorResult"]


class DiscriminatorResult(NamedTuple):
    """The discriminator's loss, and the energies that it was computed from (equation 1).

    All values are float32 (float64 for float64 inputs), in units of the energy, for N real and M generated samples.

    Example:
        >>> import torch, ebgan_fast
        >>> real, fake = torch.zeros(2, 4), torch.ones(3, 4)
        >>> result = ebgan_fast.discriminator_loss(real + 1, real, fake, fake, margin=10.0)
        >>> result.loss
        tensor(12.)
        >>> result.energy_fake
        tensor([0., 0., 0.])
        >>> loss, energy_real, energy_fake = result
    """

    loss: Tensor
    """The loss, a scalar. Call `backward` on it."""
    energy_real: Tensor
    """The energy of each real sample, [N], without a gradient: for logs."""
    energy_fake: Tensor
    """The energy of each generated sample, [M], without a gradient: for logs."""


class GeneratorResult(NamedTuple):
    """The generator's loss, and the energies and the pulling-away term that it was computed from (equations 2 and 14).

    All values are float32 (float64 for float64 inputs), for N generated samples.

    Example:
        >>> import torch, ebgan_fast
        >>> fake, code = torch.zeros(2, 4), torch.tensor([[2.0, 0.0], [-4.0, 0.0]])
        >>> result = ebgan_fast.generator_loss(fake + 1, fake, code, pt_weight=0.5)
        >>> result.loss, result.pulling_away
        (tensor(2.5000), tensor(1.))
        >>> loss, energy, pulling_away = result
    """

    loss: Tensor
    """The loss, a scalar in units of the energy. Call `backward` on it."""
    energy: Tensor
    """The energy of each sample, [N], in units of the energy, without a gradient: for logs."""
    pulling_away: Tensor
    """The pulling-away term, a scalar in [0, 1], without weight or gradient: for logs. 0 without a code."""


class GameResult(NamedTuple):
    """Both losses of one step, and the values that they were computed from. No value has a gradient: all are for logs.

    All values are float32 (float64 for float64 inputs), for N real and M generated samples. Under a process group, the
    losses and energies are of this process's samples, and the pulling-away term is of all processes' samples.

    Example:
        >>> import torch, ebgan_fast
        >>> _ = torch.manual_seed(0)
        >>> D, G, game = torch.nn.Linear(4, 4), torch.nn.Linear(2, 4), ebgan_fast.EBGAN(margin=10.0)
        >>> result = game.backward(D, G(torch.randn(3, 2)), torch.randn(5, 4))
        >>> result.energy_real.shape, result.energy_fake.shape, result.loss_d.requires_grad
        (torch.Size([5]), torch.Size([3]), False)
    """

    loss_d: Tensor
    """The discriminator's loss (equation 1), a scalar in units of the energy."""
    loss_g: Tensor
    """The generator's loss (equations 2 and 14), a scalar in units of the energy."""
    energy_real: Tensor
    """The energy of each real sample, [N], in units of the energy."""
    energy_fake: Tensor
    """The energy of each generated sample, [M], in units of the energy."""
    pulling_away: Tensor
    """The pulling-away term, a scalar in [0, 1], without its weight. 0 without a code."""


# torch flattens named tuples without registration, but torch.export.save needs a name for each type.
for _result in (DiscriminatorResult, GeneratorResult, GameResult):
    _pytree._register_namedtuple(_result, serialized_type_name=f"{__package__}.{_result.__name__}")
