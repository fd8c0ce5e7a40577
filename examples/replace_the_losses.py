"""An ordinary PyTorch EBGAN loop in which only the losses are replaced.

The loop, the networks and the optimizers are the same for both. `losses=` chooses the code that computes the two
losses. One choice is plain torch as people write it, here correctly: an energy per sample, a hinge per sample, squared
cosines without the diagonal. The other choice is ebgan_fast. The same seed gives the same training curve up to
rounding.

    python examples/replace_the_losses.py --steps 200
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Literal

import torch
from torch import Tensor, nn

import ebgan_fast

SIZE, NOISE, BATCH = 32, 32, 64
MARGIN, PT_WEIGHT = 10.0, 0.1


class AutoEncoder(nn.Module):
    """The discriminator, which returns its reconstruction and the code for the pulling-away term."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 256), nn.ReLU())
        self.decode = nn.Sequential(nn.Linear(256, SIZE * SIZE), nn.Tanh(), nn.Unflatten(1, (1, SIZE, SIZE)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encode(images)
        return self.decode(code), code


def generator() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(NOISE, 256), nn.ReLU(), nn.Linear(256, SIZE * SIZE), nn.Tanh(), nn.Unflatten(1, (1, SIZE, SIZE))
    )


def discs(count: int) -> Tensor:
    """Return images in [-1, 1] with one soft disc each, at a random place and with a random radius."""
    place = torch.rand(count, 2, 1, 1) * 16 + 8
    radius = torch.rand(count, 1, 1) * 4 + 3
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    distance = ((x - place[:, 0]) ** 2 + (y - place[:, 1]) ** 2).sqrt()
    return torch.tanh(radius - distance).unsqueeze(1)


def hand_written_loss_d(recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor) -> Tensor:
    energy_real = (recon_real - real).flatten(1).norm(dim=1)
    energy_fake = (recon_fake - fake).flatten(1).norm(dim=1)
    return energy_real.mean() + torch.relu(MARGIN - energy_fake).mean()


def hand_written_loss_g(recon_fake: Tensor, fake: Tensor, code: Tensor) -> Tensor:
    energy = (recon_fake - fake).flatten(1).norm(dim=1)
    unit = nn.functional.normalize(code, dim=1)
    squares = (unit @ unit.T).square()
    itself = torch.eye(len(code), dtype=torch.bool)
    pulling_away = squares.masked_fill(itself, 0.0).sum() / (len(code) * (len(code) - 1))
    return energy.mean() + PT_WEIGHT * pulling_away


def train(
    losses: Literal["hand-written", "ebgan_fast"], steps: int, seed: int, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """Return the curve [steps, 2] of (loss_d, loss_g), and the median seconds per step."""
    torch.manual_seed(seed)
    D, G = AutoEncoder().to(dtype), generator().to(dtype)
    optimizer_d = torch.optim.Adam(D.parameters(), lr=5e-4, betas=(0.5, 0.999))
    optimizer_g = torch.optim.Adam(G.parameters(), lr=5e-4, betas=(0.5, 0.999))
    game = ebgan_fast.EBGAN(MARGIN, pt_weight=PT_WEIGHT)
    curve, seconds = [], []
    for _ in range(steps):
        start = time.perf_counter()
        real = discs(BATCH).to(dtype)
        fake = G(torch.randn(BATCH, NOISE).to(dtype))

        (recon_real, _), (recon_fake, _) = D(real), D(fake.detach())
        if losses == "hand-written":
            loss_d = hand_written_loss_d(recon_real, real, recon_fake, fake.detach())
        else:
            loss_d = game.discriminator(recon_real, real, recon_fake, fake.detach()).loss
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()

        recon_fake, code = D(fake)
        if losses == "hand-written":
            loss_g = hand_written_loss_g(recon_fake, fake, code)
        else:
            loss_g = game.generator(recon_fake, fake, code).loss
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        curve.append(torch.stack([loss_d.detach(), loss_g.detach()]))
        seconds.append(time.perf_counter() - start)
    return torch.stack(curve), statistics.median(seconds)


def main(*, steps: int = 200, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Train twice from the same seed. Returns the curve [steps, 2] of each."""
    by_hand, seconds_by_hand = train("hand-written", steps, seed, dtype)
    ours, seconds_ours = train("ebgan_fast", steps, seed, dtype)
    print("step  loss_d by hand  ebgan_fast   loss_g by hand  ebgan_fast")
    for step in sorted({*range(0, steps, max(steps // 8, 1)), steps - 1}):
        (d0, g0), (d1, g1) = by_hand[step].tolist(), ours[step].tolist()
        print(f"{step:4d}  {d0:14.5f}  {d1:10.5f}   {g0:14.5f}  {g1:10.5f}")
    print(f"largest relative difference: {((ours - by_hand) / by_hand).abs().max().item():.1e}")
    print(f"whole step, networks included: {seconds_by_hand * 1e3:.2f} ms by hand, {seconds_ours * 1e3:.2f} ms here")
    return {"hand-written": by_hand, "ebgan_fast": ours}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
