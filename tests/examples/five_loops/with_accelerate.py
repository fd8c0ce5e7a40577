"""Train with Hugging Face Accelerate: two networks, two optimizers, mixed precision.

python -m tests.examples.five_loops.with_accelerate
"""

from __future__ import annotations

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor

from ebgan_fast.nn import DiscriminatorLoss, GeneratorLoss

from .common import MARGIN, Outcome, batches, networks, optimizers, outcome


def main(*, with_code: bool = True, mixed_precision: str = "no", dtype: torch.dtype = torch.float64) -> Outcome:
    """Train both networks, which Accelerate's `prepare` has wrapped."""
    accelerator = Accelerator(cpu=True, mixed_precision=mixed_precision)
    D, G = networks(dtype)
    D, G, optimizer_d, optimizer_g = accelerator.prepare(D, G, *optimizers(D, G))
    loss_of_d, loss_of_g = DiscriminatorLoss(margin=MARGIN), GeneratorLoss()
    losses: list[tuple[Tensor, Tensor]] = []

    for real, noise in batches(dtype):
        fake = G(noise)
        optimizer_g.zero_grad()
        recon, code = D(fake)
        loss_g, _, _ = loss_of_g(recon, fake, code if with_code else None)
        accelerator.backward(loss_g)

        fake = fake.detach()
        optimizer_d.zero_grad()  # also removes the gradients of the generator's loss
        recon_real, recon_fake = D(torch.cat([real, fake]))[0].chunk(2)
        loss_d, _, _ = loss_of_d(recon_real, real, recon_fake, fake)
        accelerator.backward(loss_d)

        optimizer_d.step()
        optimizer_g.step()
        losses.append((loss_d, loss_g))

    accelerator.end_training()
    D, G = accelerator.unwrap_model(D), accelerator.unwrap_model(G)
    return outcome(D, G, losses, f"Accelerate, mixed precision {mixed_precision}")


if __name__ == "__main__":
    main()
