"""The energy as an anomaly score.

An EBGAN's discriminator gives low energy to samples like its training data and high energy to others. The auto-encoder
learns to reconstruct normal samples, and the hinge keeps it from reconstructing the generator's samples near them.
`reconstruction_energy` then gives each new sample a score. Training uses no anomalies.

Normal images hold one bright disc. Anomalies are rings, and pairs of smaller discs. Pairs are harder to detect, because
each half looks like a normal image. (On shapes this simple, an auto-encoder without the hinge, `MARGIN = 0`, detects
anomalies equally well.)

    python examples/anomaly_score.py --steps 300
"""

from __future__ import annotations

import argparse
import itertools

import torch
from torch import Tensor, nn

import ebgan_fast

SIZE, NOISE, BATCH = 16, 16, 64
MARGIN = 2.0  # in units of the l2 energy: a black image and an image with a disc are about 11 apart


def shapes(count: int, kind: str) -> Tensor:
    """Return [count, SIZE * SIZE] images in [-1, 1] with a soft "disc", "ring" or "pair" of discs at random places."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    radius = torch.rand(count, 1, 1) * 1.5 + 2

    def distance() -> Tensor:
        place = torch.rand(count, 2, 1, 1) * 6 + 5
        return ((x - place[:, 0]).square() + (y - place[:, 1]).square()).sqrt()

    if kind == "disc":
        inside = radius - distance()
    elif kind == "ring":
        inside = 1 - (distance() - radius - 0.5).abs()
    else:
        inside = 0.7 * radius - torch.minimum(distance(), distance())
    return torch.tanh(2 * inside).flatten(1)


def layers(*widths: int) -> nn.Sequential:
    """Return linear layers with ReLU between them and tanh, whose range is that of the pixels, at the end."""
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts[:-1], nn.Tanh())


def auroc(normal: Tensor, anomalous: Tensor) -> float:
    """Return the probability that an anomaly scores above a normal sample (Mann and Whitney's rank statistic).

    Ties count half.
    """
    above = (anomalous[:, None] > normal[None, :]).double().mean()
    equal = (anomalous[:, None] == normal[None, :]).double().mean()
    return (above + equal / 2).item()


@torch.no_grad()
def scores(D: nn.Module, samples: Tensor) -> Tensor:
    return ebgan_fast.reconstruction_energy(D(samples), samples)


def train(D: nn.Module, G: nn.Module, steps: int) -> None:
    optimizer_d = torch.optim.Adam(D.parameters(), lr=1e-3)
    optimizer_g = torch.optim.Adam(G.parameters(), lr=1e-3)
    game = ebgan_fast.EBGAN(MARGIN)
    for _ in range(steps):
        real, fake = shapes(BATCH, "disc"), G(torch.randn(BATCH, NOISE))
        recon_real, recon_fake = D(torch.cat([real, fake.detach()])).chunk(2)
        of_d = game.discriminator(recon_real, real, recon_fake, fake.detach())
        optimizer_d.zero_grad()
        of_d.loss.backward()
        optimizer_d.step()

        of_g = game.generator(D(fake), fake)
        optimizer_g.zero_grad()
        of_g.loss.backward()
        optimizer_g.step()


def main(*, steps: int = 300, seed: int = 0) -> dict[str, float]:
    """Train on discs alone. Returns mean energies, and the AUROC of each kind of anomaly before and after training."""
    torch.manual_seed(seed)
    D = layers(SIZE * SIZE, 128, 24, 128, SIZE * SIZE)
    G = layers(NOISE, 128, SIZE * SIZE)
    held_out = {kind: shapes(1000, kind) for kind in ("disc", "ring", "pair")}  # training draws other discs
    before = {kind: scores(D, images) for kind, images in held_out.items()}
    train(D, G, steps)
    after = {kind: scores(D, images) for kind, images in held_out.items()}
    figures = {f"mean energy, {kind}": energies.mean().item() for kind, energies in after.items()}
    for kind in ("ring", "pair"):
        figures[f"AUROC before, {kind}"] = auroc(before["disc"], before[kind])
        figures[f"AUROC after, {kind}"] = auroc(after["disc"], after[kind])
    for name, value in figures.items():
        print(f"{name:18s} {value:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
