"""The losses under Hugging Face Accelerate: two models, two optimizers, any mixed precision, and unchanged losses.

`prepare` wraps the networks (autocast, and DistributedDataParallel with several processes) and the optimizers. The
losses need no wrapping. They take the networks' outputs and sum in float32 or wider. With several processes they get
the process group, so that the pulling-away term is that of the global batch.

    python examples/with_accelerate.py --mixed-precision bf16
    torchrun --nproc-per-node 2 examples/with_accelerate.py   # or accelerate launch, after accelerate config
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn

from ebgan_fast.nn import DiscriminatorLoss, GeneratorLoss

PIXELS, NOISE, BATCH = 256, 16, 32


class AutoEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(PIXELS, 128), nn.ReLU())
        self.decode = nn.Sequential(nn.Linear(128, PIXELS), nn.Tanh())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encode(images)
        return self.decode(code), code


def waves(count: int, device: torch.device) -> Tensor:
    """Return sine waves of random frequency and phase, [count, PIXELS]."""
    frequency = torch.rand(count, 1, device=device) * 3 + 1
    phase = torch.rand(count, 1, device=device)
    return torch.sin(6.2832 * (frequency * torch.linspace(0, 1, PIXELS, device=device) + phase))


def main(*, steps: int = 100, seed: int = 0, mixed_precision: str = "no", cpu: bool = True) -> dict[str, object]:
    """Train, and return the first and last mean energy of real samples, the last losses, and their dtypes."""
    accelerator = Accelerator(cpu=cpu, mixed_precision=mixed_precision)
    torch.manual_seed(seed)  # the same weights in every process
    D, G = AutoEncoder(), nn.Sequential(nn.Linear(NOISE, 128), nn.ReLU(), nn.Linear(128, PIXELS), nn.Tanh())
    optimizer_d = torch.optim.Adam(D.parameters(), lr=1e-3)
    optimizer_g = torch.optim.Adam(G.parameters(), lr=1e-3)
    D, G, optimizer_d, optimizer_g = accelerator.prepare(D, G, optimizer_d, optimizer_g)
    # The generator's step does not train the discriminator. Unwrapped, it does not average gradients that nothing uses.
    bare_d = accelerator.unwrap_model(D)
    # A separate group for the codes: docs/one-pass.md gives the reason, and the same loop with one pass.
    everyone = dist.new_group() if accelerator.num_processes > 1 else None
    loss_of_d = DiscriminatorLoss(margin=5.0)
    loss_of_g = GeneratorLoss(pt_weight=0.1, process_group=everyone)

    torch.manual_seed(seed + 1 + accelerator.process_index)  # each process draws its own samples
    energies = []
    for _ in range(steps):
        real = waves(BATCH, accelerator.device)
        fake = G(torch.randn(BATCH, NOISE, device=accelerator.device))

        # One pass over both halves, because DistributedDataParallel needs one forward for each backward.
        recon, _ = D(torch.cat([real, fake.detach()]))
        recon_real, recon_fake = recon.chunk(2)
        with accelerator.autocast():  # has no effect on the losses, which don't need it
            of_d = loss_of_d(recon_real, real, recon_fake, fake.detach())
        optimizer_d.zero_grad()
        accelerator.backward(of_d.loss)
        optimizer_d.step()

        recon_fake, code = bare_d(fake)
        with accelerator.autocast():
            of_g = loss_of_g(recon_fake, fake, code)
        optimizer_g.zero_grad()
        accelerator.backward(of_g.loss)
        optimizer_g.step()
        energies.append(of_d.energy_real.mean())

    first, last = accelerator.reduce(torch.stack([energies[0], energies[-1]]), reduction="mean").tolist()
    accelerator.print(f"processes {accelerator.num_processes}, mixed precision {accelerator.mixed_precision}")
    accelerator.print(f"mean energy of real samples: {first:.3f} at first, {last:.3f} after {steps} steps")
    loss_d, loss_g = of_d.loss, of_g.loss
    accelerator.print(f"losses: {loss_d.item():.3f} ({loss_d.dtype}) and {loss_g.item():.3f} ({loss_g.dtype})")
    accelerator.end_training()
    return {
        "first energy": first,
        "last energy": last,
        "loss_d": loss_d.item(),
        "loss_g": loss_g.item(),
        "dtypes": (loss_d.dtype, loss_g.dtype, of_d.energy_real.dtype),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mixed-precision", choices=["no", "bf16", "fp16"], default="no")
    parser.add_argument("--gpu", dest="cpu", action="store_false", help="let Accelerate choose the device")
    main(**vars(parser.parse_args()))
