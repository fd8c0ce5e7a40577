"""Train with DistributedDataParallel: each of two processes has half of the batch; the term compares all codes.

python -m tests.examples.five_loops.data_parallel
"""

from __future__ import annotations

import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import ebgan_fast

from .common import MARGIN, Outcome, batches, networks, optimizers, outcome

PROCESSES = 2


def train(rank: int, with_code: bool, one_pass: bool, dtype: torch.dtype) -> Outcome:
    """Train on this process's half of each batch, in the default process group; return the outcome."""
    bare_d, bare_g = networks(dtype)
    D, G = DistributedDataParallel(bare_d), DistributedDataParallel(bare_g)
    optimizer_d, optimizer_g = optimizers(D, G)
    codes = dist.new_group()
    game = ebgan_fast.EBGAN(margin=MARGIN)
    losses: list[tuple[Tensor, Tensor]] = []

    for all_real, all_noise in batches(dtype):
        real, noise = all_real.chunk(PROCESSES)[rank], all_noise.chunk(PROCESSES)[rank]
        optimizer_d.zero_grad()
        optimizer_g.zero_grad()
        fake = G(noise)
        if one_pass:
            discriminator = D if with_code else lambda images: D(images)[0]
            result = game.backward(discriminator, fake, real, process_group=codes)
            mean = torch.stack([result.loss_d, result.loss_g])
        else:
            recon, code = bare_d(fake)  # not the wrapped D: its gradients are discarded and need no average
            of_g = game.generator(recon, fake, code if with_code else None, process_group=codes)
            of_g.loss.backward()
            optimizer_d.zero_grad()
            fake = fake.detach()
            # One pass over real and generated samples: DistributedDataParallel wants one forward for each backward.
            recon_real, recon_fake = D(torch.cat([real, fake]))[0].chunk(2)
            of_d = game.discriminator(recon_real, real, recon_fake, fake)
            of_d.loss.backward()
            mean = torch.stack([of_d.loss.detach(), of_g.loss.detach()])
        optimizer_d.step()
        optimizer_g.step()
        dist.all_reduce(mean, group=codes)  # sums over the processes
        mean /= PROCESSES
        losses.append((mean[0], mean[1]))

    return outcome(D, G, losses, f"process {rank} of {PROCESSES}, {'one pass' if one_pass else 'two passes'}")


def run(rank: int, folder: str, *options: object) -> None:
    """Run one of the processes: train, and save the outcome in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(minutes=1),
    )
    torch.save(train(rank, *options), f"{folder}/{rank}.pt")  # type: ignore[arg-type]
    dist.destroy_process_group()


def main(*, with_code: bool = True, one_pass: bool = False, dtype: torch.dtype = torch.float64) -> list[Outcome]:
    """Train in two processes; return the outcome of each."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(run, (folder, with_code, one_pass, dtype), nprocs=PROCESSES, start_method="forkserver")
        return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(PROCESSES)]


if __name__ == "__main__":
    main()
