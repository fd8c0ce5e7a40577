"""The energies and losses: reconstruction_energy, hinge_margin_loss, discriminator_loss and generator_loss.

Each op consists of a launch, which prepares memory and calls a backend's kernels, and a specification, an `Op`.
Launches take tensors of float64, float32, bfloat16 or float16 in any layout. They check nothing, write no input and
never wait for a GPU. "acc" is the dtype of sums, energies and losses: float64 for float64, and float32 for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from . import pulling_away, reference
from .op import Op, energy_like, gradient_like, scalar_like
from .tensors import Batch, Coefficient, accumulation_dtype, product, readable

if TYPE_CHECKING:
    from .backends.protocol import Kernels

Norm = Literal["mse", "sse", "l2", "l1"]
NORMS = {name: number for number, name in enumerate(get_args(Norm))}
"""The number of each norm in the kernels: `csrc/norm.h`, `backends/triton/norm_kernels.py`."""


@dataclass(slots=True, eq=False)  # takes two thirds of a named tuple's time to make and read
class Loss:
    """The loss mean(E_real) + mean([margin - E_fake]+), both energies, and the gradients that the batches need."""

    norm: str
    real: Batch
    fake: Batch | None
    """The batch whose energies go into the hinge. None: the loss is the mean energy of `real`."""
    margin: Coefficient
    upstream: Coefficient
    """The factor of the gradients, applied in acc before they are rounded. The loss is not multiplied."""
    value: Tensor | None
    """The memory of the loss, acc []. None: compute the energies only."""

    def packed(self, margin: tuple[int, float], upstream: tuple[int, float]) -> tuple[object, ...]:
        """Return the loss as `ebgan_fast._C` takes it: the members of Loss in csrc/kernels.h."""
        fake = () if self.fake is None else self.fake.packed()
        value = 0 if self.value is None else self.value.data_ptr()
        return NORMS[self.norm], self.real.packed(), fake, *margin, *upstream, value


def _reconstruction_energy(kernels: Kernels, recon: Tensor, target: Tensor, norm: str) -> Tensor:
    """Return the energy of each sample, acc [N]."""
    batch = Batch(recon, target)
    kernels.loss(Loss(norm, batch, None, 0.0, 1.0, None))
    return batch.energy


def _reconstruction_energy_backward(
    kernels: Kernels, upstream: Tensor, recon: Tensor, target: Tensor, energy: Tensor, norm: str, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of `reconstruction_energy`. `upstream` is [N] of any stride; `energy` is the forward's
    result.

    A sample with upstream gradient 0 gets exact zeros and is not read.
    """
    batch = Batch(recon, target, need[0], need[1], energy.contiguous())
    kernels.gradient(batch, upstream if upstream.data_ptr() and not upstream.is_neg() else readable(upstream), norm)
    return batch.gradients()


def _hinge_margin_loss(
    kernels: Kernels, energy_real: Tensor, energy_fake: Tensor, margin: Coefficient
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (loss, grad_real [N], grad_fake [M]). The gradients are for upstream 1, in the dtypes of the energies."""
    wide = accumulation_dtype(energy_real.dtype)
    if not (energy_real.dtype is wide and energy_fake.dtype is wide):  # four .to() without a change take 2 us
        loss, grad_real, grad_fake = _hinge_margin_loss(kernels, energy_real.to(wide), energy_fake.to(wide), margin)
        return loss, grad_real.to(energy_real.dtype), grad_fake.to(energy_fake.dtype)
    real, fake = readable(energy_real).contiguous(), readable(energy_fake).contiguous()
    loss = torch.empty_strided((), (), dtype=wide, device=real.device)
    grad_real, grad_fake = torch.empty_like(real), torch.empty_like(fake)
    kernels.hinge(real, fake, margin, loss, grad_real, grad_fake)
    return loss, grad_real, grad_fake


def _discriminator_loss(
    kernels: Kernels,
    recon_real: Tensor,
    real: Tensor,
    recon_fake: Tensor,
    fake: Tensor,
    margin: Coefficient,
    norm: str,
    upstream: Coefficient,
    need: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return (loss, energy_real, energy_fake, and the gradients to the four tensors).

    Each sample is read only once where that is possible.
    """
    of_real = Batch(recon_real, real, need[0], need[1])
    of_fake = Batch(recon_fake, fake, need[2], need[3])
    value = torch.empty_strided((), (), dtype=of_real.energy.dtype, device=recon_real.device)
    kernels.loss(Loss(norm, of_real, of_fake, margin, upstream, value))
    return value, of_real.energy, of_fake.energy, *of_real.gradients(), *of_fake.gradients()


def _generator_loss(
    kernels: Kernels,
    recon: Tensor,
    fake: Tensor,
    code: Tensor | None,
    weight: Coefficient,
    norm: str,
    upstream: Coefficient,
    need: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return mean(E) + weight * PT(code) as (loss, energy, pulling_away, and the gradients to the three tensors).

    Without a code, PT is 0.
    """
    batch = Batch(recon, fake, need[0], need[1])
    value = torch.empty_strided((), (), dtype=batch.energy.dtype, device=recon.device)
    kernels.loss(Loss(norm, batch, None, 0.0, upstream, value))
    if code is None:
        return value, batch.energy, torch.zeros_like(value), *batch.gradients(), None
    term = pulling_away.launch(kernels, code, value, weight)
    grad_code = None
    if need[2]:
        grad_code = pulling_away.launch_gradient(kernels, term, code, product(weight, upstream, value.dtype))
    return value, batch.energy, term.value, *batch.gradients(), grad_code


RECONSTRUCTION_ENERGY = Op(
    schema="reconstruction_energy(Tensor recon, Tensor target, str norm) -> Tensor",
    launch=_reconstruction_energy,
    shapes=lambda recon, target, norm: energy_like(recon),
    tensors=2,
    formula=reference.reconstruction_energy,
    backward=Op(
        schema="reconstruction_energy_backward(Tensor upstream, Tensor recon, Tensor target, Tensor energy, str norm, "
        "int[] need) -> (Tensor grad_recon, Tensor grad_target)",
        launch=_reconstruction_energy_backward,
        shapes=lambda upstream, recon, target, energy, norm, need: (
            gradient_like(recon, need[0]),
            gradient_like(target, need[1]),
        ),
    ),
)

HINGE_MARGIN_LOSS = Op(
    schema="hinge_margin_loss(Tensor energy_real, Tensor energy_fake, Tensor margin) "
    "-> (Tensor loss, Tensor grad_real, Tensor grad_fake)",
    launch=_hinge_margin_loss,
    shapes=lambda real, fake, margin: (scalar_like(real), torch.empty_like(real), torch.empty_like(fake)),
    tensors=2,
    formula=reference.hinge_margin_loss,
)

DISCRIMINATOR_LOSS = Op(
    schema="discriminator_loss(Tensor recon_real, Tensor real, Tensor recon_fake, Tensor fake, Tensor margin, "
    "str norm, Tensor upstream, int[] need) -> (Tensor loss, Tensor energy_real, Tensor energy_fake, "
    "Tensor grad_recon_real, Tensor grad_real, Tensor grad_recon_fake, Tensor grad_fake)",
    launch=_discriminator_loss,
    shapes=lambda *it: (
        scalar_like(it[0]),
        energy_like(it[0]),
        energy_like(it[2]),
        *map(gradient_like, it[:4], it[-1]),
    ),
    tensors=4,
    formula=reference.discriminator_loss,
    logs=2,
)

GENERATOR_LOSS = Op(
    schema="generator_loss(Tensor recon, Tensor fake, Tensor? code, Tensor weight, str norm, Tensor upstream, "
    "int[] need) -> (Tensor loss, Tensor energy, Tensor pulling_away, Tensor grad_recon, Tensor grad_fake, "
    "Tensor grad_code)",
    launch=_generator_loss,
    shapes=lambda recon, fake, code, *rest: (
        scalar_like(recon),
        energy_like(recon),
        scalar_like(recon),
        gradient_like(recon, rest[-1][0]),
        gradient_like(fake, rest[-1][1]),
        recon.new_empty(0) if code is None else gradient_like(code, rest[-1][2]),
    ),
    tensors=3,
    formula=reference.generator_loss,
    logs=2,
    flops=lambda recon, fake, code, *rest: 0 if code is None else pulling_away.products(code, 2 if rest[-1][2] else 1),
)
