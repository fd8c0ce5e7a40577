"""The energies and losses: reconstruction_energy, hinge_margin_loss, discriminator_loss and generator_loss.

Each op is a launch, which prepares memory and calls a backend's kernels, and a spec, an `Op`. Launches take tensors of
float64, float32, bfloat16 or float16 in any layout, check nothing, write no input and never wait for a GPU. "acc" is
float64 for float64 and float32 for the others: the dtype of sums, energies and losses.
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


@dataclass(slots=True, eq=False)  # made and read in two thirds of a named tuple's time
class Loss:
    """mean(E_real) + mean([margin - E_fake]+), both energies, and the gradients that the batches ask for."""

    norm: str
    real: Batch
    fake: Batch | None
    """The batch behind the hinge; None: the mean energy of the other."""
    margin: Coefficient
    upstream: Coefficient
    """The gradients are multiplied by it, in acc before they are rounded; the loss is not."""
    value: Tensor | None
    """acc [], to be filled in; None: energies alone."""

    def packed(self, margin: tuple[int, float], upstream: tuple[int, float]) -> tuple[object, ...]:
        """The loss as `ebgan_fast._C` takes it: the members of Loss in csrc/kernels.h."""
        fake = () if self.fake is None else self.fake.packed()
        value = 0 if self.value is None else self.value.data_ptr()
        return NORMS[self.norm], self.real.packed(), fake, *margin, *upstream, value


def _reconstruction_energy(kernels: Kernels, recon: Tensor, target: Tensor, norm: str) -> Tensor:
    """Per-sample energy: [N, ...] and [N, ...] -> acc [N]."""
    batch = Batch(recon, target)
    kernels.loss(Loss(norm, batch, None, 0.0, 1.0, None))
    return batch.energy


def _reconstruction_energy_backward(
    kernels: Kernels, upstream: Tensor, recon: Tensor, target: Tensor, energy: Tensor, norm: str, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `reconstruction_energy` for an upstream gradient [N] of any stride; energy is what it returned.

    A sample with upstream gradient 0 gets exact zeros and is not read.
    """
    batch = Batch(recon, target, need[0], need[1], energy.contiguous())
    kernels.gradient(batch, upstream if upstream.data_ptr() and not upstream.is_neg() else readable(upstream), norm)
    return batch.gradients()


def _hinge_margin_loss(
    kernels: Kernels, energy_real: Tensor, energy_fake: Tensor, margin: Coefficient
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, grad_real [N], grad_fake [M]); the gradients are for upstream 1 and have the dtypes of the energies."""
    wide = accumulation_dtype(energy_real.dtype)
    if not (energy_real.dtype is wide and energy_fake.dtype is wide):  # four .to() that change nothing take 2 us
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
    """(loss, energy_real, energy_fake, and the gradients to the four tensors), each sample read once where that is
    possible."""
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
    """mean(E) + weight * PT(code), with PT 0 without a code: (loss, energy, pulling_away, and the gradients to the
    three tensors)."""
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
