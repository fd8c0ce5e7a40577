"""Accumulate gradients over parts of unequal size, by an ordinary loop or by `EBGAN.backward`.

Each part's losses are means over the part. Weighted by each part's share of the batch, they add up to the losses of the
batch. The pulling-away term does not, since it compares only the codes within a part.

python -m tests.examples.five_loops.accumulation
"""

from __future__ import annotations

import torch
from torch import Tensor

import ebgan_fast

from .common import BATCH, MARGIN, Outcome, batches, networks, optimizers, outcome

PARTS = (7, 6, 3)


def main(*, with_code: bool = False, one_pass: bool = False, dtype: torch.dtype = torch.float64) -> Outcome:
    """Train both networks, each step with the gradients of all parts."""
    D, G = networks(dtype)
    optimizer_d, optimizer_g = optimizers(D, G)
    game = ebgan_fast.EBGAN(margin=MARGIN)
    losses: list[tuple[Tensor, Tensor]] = []

    for real, noise in batches(dtype):
        optimizer_d.zero_grad()
        optimizer_g.zero_grad()
        loss_d, loss_g = torch.zeros((), dtype=dtype), torch.zeros((), dtype=dtype)
        for images, draws in zip(real.split(PARTS), noise.split(PARTS), strict=True):
            share = len(images) / BATCH
            fake = G(draws)
            if one_pass:
                result = game.backward(D if with_code else lambda x: D(x)[0], fake, images, scale=share)
                loss_d += share * result.loss_d
                loss_g += share * result.loss_g
                continue
            D.requires_grad_(False)  # keeps the discriminator's accumulated gradients as they are
            recon, code = D(fake)
            of_g = game.generator(recon, fake, code if with_code else None)
            (share * of_g.loss).backward()
            D.requires_grad_(True)
            fake = fake.detach()
            of_d = game.discriminator(D(images)[0], images, D(fake)[0], fake)
            (share * of_d.loss).backward()
            loss_d += share * of_d.loss.detach()
            loss_g += share * of_g.loss.detach()
        optimizer_d.step()
        optimizer_g.step()
        losses.append((loss_d, loss_g))

    return outcome(D, G, losses, f"parts of {PARTS}, {'one pass' if one_pass else 'two passes'}")


if __name__ == "__main__":
    main()
    main(one_pass=True)
