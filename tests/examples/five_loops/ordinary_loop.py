"""Train by an ordinary loop, with two passes of the discriminator over the generated batch.

python -m tests.examples.five_loops.ordinary_loop
"""

from __future__ import annotations

import torch
from torch import Tensor

import ebgan_fast

from .common import MARGIN, Outcome, batches, networks, optimizers, outcome


def main(*, with_code: bool = True, dtype: torch.dtype = torch.float64) -> Outcome:
    """Train both networks; both gradients of a step are taken at the weights before the step."""
    D, G = networks(dtype)
    optimizer_d, optimizer_g = optimizers(D, G)
    game = ebgan_fast.EBGAN(margin=MARGIN)
    losses: list[tuple[Tensor, Tensor]] = []

    for real, noise in batches(dtype):
        fake = G(noise)
        optimizer_g.zero_grad()
        recon, code = D(fake)
        of_g = game.generator(recon, fake, code if with_code else None)
        of_g.loss.backward()

        fake = fake.detach()
        optimizer_d.zero_grad()  # also removes the gradients of the generator's loss
        of_d = game.discriminator(D(real)[0], real, D(fake)[0], fake)
        of_d.loss.backward()

        optimizer_d.step()
        optimizer_g.step()
        losses.append((of_d.loss, of_g.loss))

    return outcome(D, G, losses, "an ordinary loop")


if __name__ == "__main__":
    main()
