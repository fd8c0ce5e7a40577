"""Train by `EBGAN.backward`, with one pass of the discriminator over the generated batch.

python -m tests.examples.five_loops.one_pass
"""

from __future__ import annotations

import torch
from torch import Tensor

import ebgan_fast

from .common import MARGIN, Outcome, batches, networks, optimizers, outcome


def main(*, with_code: bool = True, dtype: torch.dtype = torch.float64) -> Outcome:
    """Train both networks, with one pass over the generated batch in each step."""
    D, G = networks(dtype)
    optimizer_d, optimizer_g = optimizers(D, G)
    game = ebgan_fast.EBGAN(margin=MARGIN)
    losses: list[tuple[Tensor, Tensor]] = []

    for real, noise in batches(dtype):
        optimizer_d.zero_grad()
        optimizer_g.zero_grad()
        result = game.backward(D if with_code else lambda images: D(images)[0], G(noise), real)
        optimizer_d.step()
        optimizer_g.step()
        losses.append((result.loss_d, result.loss_g))

    return outcome(D, G, losses, "one pass")


if __name__ == "__main__":
    main()
