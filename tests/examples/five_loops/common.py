"""The networks, data, seeds and settings that the five programs share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

PIXELS, CODE, NOISE, BATCH, STEPS = 32, 12, 6, 16, 10
MARGIN = 3.3  # for l2: amid the generated samples' energies, so that the hinge divides the batch


class AutoEncoder(nn.Module):
    """The discriminator, which returns the reconstruction and the code for the pulling-away term."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(PIXELS, CODE), nn.Tanh())
        self.decode = nn.Linear(CODE, PIXELS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encode(images)
        return self.decode(code), code


@dataclass(frozen=True)
class Outcome:
    """A run's final weights (the discriminator's, then the generator's), and both losses of each step, [STEPS, 2]."""

    weights: Tensor
    losses: Tensor


def networks(dtype: torch.dtype) -> tuple[AutoEncoder, nn.Sequential]:
    """Return the discriminator and the generator, with the same weights in every program."""
    torch.manual_seed(1)
    D = AutoEncoder()
    G = nn.Sequential(nn.Linear(NOISE, 24), nn.Tanh(), nn.Linear(24, PIXELS), nn.Tanh())
    with torch.no_grad():
        G[2].weight.mul_(3.0)  # makes the samples, and so their energies, differ in length
    return D.to(dtype), G.to(dtype)


def optimizers(D: nn.Module, G: nn.Module) -> tuple[torch.optim.Adam, torch.optim.Adam]:
    """Return an Adam optimizer for each network."""
    return torch.optim.Adam(D.parameters(), lr=3e-3), torch.optim.Adam(G.parameters(), lr=3e-3)


def batches(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Return the real samples and the generator's noise of every step."""
    drawn = torch.Generator().manual_seed(2)
    steps = []
    for _ in range(STEPS):
        phase = 6.28 * torch.rand(BATCH, 1, generator=drawn)
        real = torch.sin(torch.linspace(0, 6.28, PIXELS) + phase)
        steps.append((real.to(dtype), torch.randn(BATCH, NOISE, generator=drawn).to(dtype)))
    return steps


def weights(*networks: nn.Module) -> Tensor:
    """Return all parameters of the networks as one vector."""
    return torch.cat([p.detach().flatten() for network in networks for p in network.parameters()])


def outcome(D: nn.Module, G: nn.Module, losses: list[tuple[Tensor, Tensor]], name: str) -> Outcome:
    """Print the last losses; return all losses with the weights."""
    curve = torch.stack([torch.stack(pair).detach() for pair in losses])
    loss_d, loss_g = curve[-1].tolist()
    print(f"{name}: after {STEPS} steps loss_d {loss_d:.6f}, loss_g {loss_g:.6f}")
    return Outcome(weights(D, G), curve)
