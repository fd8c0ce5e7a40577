"""The first training step from given weights: both losses are held against float64 before any step is timed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import public_loop, tf32
from .rounding import allowance
from .trainer import Trainer

if TYPE_CHECKING:  # names alone: another commit's package may lack them
    from ebgan_fast.data import ImageSet
    from ebgan_fast.models.families import AnyDiscriminator, AnyGenerator
    from ebgan_fast.training import TrainConfig

Losses = tuple[float, float]
"""The discriminator's and the generator's."""


@dataclass(frozen=True)
class Begin:
    """The weights, images and noise that a plain loop begins with."""

    config: TrainConfig
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    real: Tensor
    noise: Tensor
    """The first step's; later ones draw their own."""

    @classmethod
    def of(cls, config: TrainConfig, images: ImageSet) -> Begin:
        """The trainer's weights, first batch and first noise, on its device."""
        with contextlib.closing(Trainer(config, images)) as trainer:
            shape = config.batch_size, trainer.generator.noise_size
            rng = torch.Generator(trainer.device).manual_seed(config.seed)
            return cls(
                config,
                trainer.generator.state_dict(),
                trainer.discriminator.state_dict(),
                trainer.batches.next().contiguous(),
                torch.randn(shape, generator=rng, device=trainer.device),
            )

    def networks(self) -> tuple[AnyGenerator, AnyDiscriminator]:
        """The generator and the discriminator in torch's default layout, whatever that of the weights is."""
        channels, height, width = self.real.shape[1:]
        generator = self.config.networks.generator((channels, height, width))
        discriminator = self.config.networks.discriminator((channels, height, width))
        generator.load_state_dict(self.generator)
        discriminator.load_state_dict(self.discriminator)
        return generator.to(self.real.device), discriminator.to(self.real.device)

    def public_steps(self) -> Callable[[], Losses]:
        """The plain loop's next step, on one batch, which costs it nothing to read, and on new noise each time."""
        config = self.config
        loop = public_loop.PublicLoop(
            *self.networks(),
            learning_rate=config.lr_g,
            beta1=config.beta1,
            margin=float(config.margin),
            pt_weight=config.pt_weight,
        )
        noise = self.noise

        def step() -> Losses:
            nonlocal noise
            losses = loop.step(self.real, noise)
            noise = torch.randn(noise.shape, device=noise.device)
            return losses

        return step


def check(begin: Begin, images: ImageSet, public: Callable[[], Losses] | None = None) -> None:
    """Refuse to time a trainer, or a plain loop by its first step, whose first losses are not right.

    Float32 without tf32, in which the yardstick would be a thousand times as long.

    Raises:
        ValueError: as `check_agreement` says.
    """
    with tf32.switched(False):
        with contextlib.closing(Trainer(begin.config, images)) as trainer:
            trainer.step()
            told = trainer.statistics()
        found = {"ebgan_fast": (told["loss_d"], told["loss_g"])}
        if public is not None:
            found["public loop"] = public()
        check_agreement(begin, found)


def check_agreement(begin: Begin, found: Mapping[str, Losses]) -> None:
    """Hold first losses, by who found them, against float64's.

    Eager torch is asked in both layouts, in which convolutions add in different orders. The yardstick is its largest
    error of both losses in both: at half width loss_g was off by 1 unit in the last place in one of them, by luck,
    where the program's was off by 6.

    Raises:
        ValueError: a loss is off by more than twice the error of eager torch in float32, and a few units.
    """
    truth = _first_losses(begin, torch.float64, torch.contiguous_format)
    layouts = (torch.contiguous_format, torch.channels_last)
    eager = [_first_losses(begin, torch.float32, layout) for layout in layouts]
    error = max(abs(one / exact - 1) for near in eager for one, exact in zip(near, truth, strict=True))
    for who, losses in found.items():
        for name, one, exact in zip(("loss_d", "loss_g"), losses, truth, strict=True):
            budget = allowance(error * abs(exact), exact)
            if not abs(one - exact) <= budget:  # NaN too
                raise ValueError(f"{name} of the first step, {who}: got {one}, expected {exact} within {budget:.1e}")


@torch.no_grad()
def _first_losses(begin: Begin, dtype: torch.dtype, layout: torch.memory_format) -> Losses:
    """The first step's losses at a dtype, in eager torch, with networks and images in a layout."""
    config, real = begin.config, begin.real.to(dtype).contiguous(memory_format=layout)
    generator, discriminator = begin.networks()
    for network in (generator, discriminator):
        network.to(dtype)
        network.to(memory_format=layout)  # type: ignore[call-overload]
    fakes = generator(begin.noise.to(dtype))
    recon_fake, code = discriminator(fakes)
    energy_fake = public_loop.energy(recon_fake, fakes)
    energy_real = public_loop.energy(discriminator(real)[0], real)
    loss_d = energy_real.mean() + (float(config.margin) - energy_fake).relu().mean()
    loss_g = energy_fake.mean() + config.pt_weight * public_loop.pulling_away(code.flatten(1))
    return loss_d.item(), loss_g.item()
