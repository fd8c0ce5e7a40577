"""A training step as public EBGAN code has it, with the project's own networks: `train` measures against this step.

The step runs in float32 and torch's default layout, with the paper's losses in eager torch. The discriminator runs
twice over the generated images. Every backward pass computes the gradients of all weights. Both losses are read back in
every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # names alone: another commit's package may lack them
    from ebgan_fast.models.families import AnyDiscriminator, AnyGenerator


def energy(recon: Tensor, images: Tensor) -> Tensor:
    """Return each sample's l2 energy: [N, C, H, W] and [N, C, H, W] -> [N]."""
    return torch.sqrt(torch.sum((recon - images) ** 2, dim=(1, 2, 3)))


def pulling_away(code: Tensor) -> Tensor:
    """Return the pulling-away term, [N, ...] -> scalar."""
    code = code.view(code.size(0), -1)
    normalized = code / torch.norm(code, dim=1, keepdim=True)
    similarity = torch.mm(normalized, normalized.t())
    n = code.size(0)
    return (torch.sum(similarity**2) - torch.sum(torch.diagonal(similarity) ** 2)) / (n * (n - 1))


class PublicLoop:
    """Two networks with their optimizers, and the step that updates them.

    Args:
        generator: The generator, which `step` updates.
        discriminator: The discriminator, which `step` updates.
        learning_rate: Adam's learning rate, for both networks.
        beta1: Adam's first moment decay, for both networks.
        margin: The margin of the discriminator's loss.
        pt_weight: The weight of the pulling-away term.
    """

    def __init__(
        self,
        generator: AnyGenerator,
        discriminator: AnyDiscriminator,
        *,
        learning_rate: float,
        beta1: float,
        margin: float,
        pt_weight: float,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.margin, self.pt_weight = margin, pt_weight
        self.optimizer_g = torch.optim.Adam(generator.parameters(), lr=learning_rate, betas=(beta1, 0.999))
        self.optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=learning_rate, betas=(beta1, 0.999))

    def step(self, real: Tensor, noise: Tensor) -> tuple[float, float]:
        """Update each network once, and return the discriminator's loss and the generator's."""
        self.optimizer_g.zero_grad()
        generated = self.generator(noise)
        recon, code = self.discriminator(generated)
        loss_g = energy(recon, generated).mean() + self.pt_weight * pulling_away(code)
        loss_g.backward()
        self.optimizer_g.step()

        self.optimizer_d.zero_grad()
        energy_real = energy(self.discriminator(real)[0], real)
        fakes = generated.detach()
        energy_fake = energy(self.discriminator(fakes)[0], fakes)
        loss_d = energy_real.mean() + nn.functional.relu(self.margin - energy_fake).mean()
        loss_d.backward()
        self.optimizer_d.step()
        return loss_d.item(), loss_g.item()
