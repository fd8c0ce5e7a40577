"""The pulling-away term and the gradient of the global batch under DistributedDataParallel.

Each process has a share of the batch. With `process_group=` the term compares each code with the codes of all
processes. After DistributedDataParallel has averaged the gradients, they equal those of one process on the whole batch.
Without `process_group=`, each process compares only its own codes: the term and the gradient are different ones.

    torchrun --nproc-per-node 2 examples/distributed.py
    python examples/distributed.py            # starts its own two processes
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import ebgan_fast

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

PIXELS, NOISE, CODE, BATCH = 64, 8, 24, 16
PT_WEIGHT = 10.0  # a hundred times the paper's, so that its gradient is visible beside that of the energy


def step(G: nn.Module, D: nn.ModuleDict, noise: Tensor, group: ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """Compute the generator's gradients. Returns the pulling-away term, and all gradients of G in one vector."""
    G.zero_grad()
    fake = G(noise)
    code = D["encode"](fake)
    result = ebgan_fast.generator_loss(D["decode"](code), fake, code, pt_weight=PT_WEIGHT, process_group=group)
    result.loss.backward()
    return result.pulling_away, torch.cat([p.grad.flatten() for p in G.parameters() if p.grad is not None])


def relative(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()


def compare(seed: int) -> dict[str, float]:
    """Compare, on every process, its share under DistributedDataParallel with one process on the whole batch."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    backend = dist.get_backend()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if backend == "nccl" else torch.device("cpu")
    torch.manual_seed(seed)  # the same weights and noise in every process
    G = nn.Sequential(nn.Linear(NOISE, 64), nn.ReLU(), nn.Linear(64, PIXELS), nn.Tanh()).double().to(device)
    encode = nn.Sequential(nn.Linear(PIXELS, CODE), nn.ReLU())
    D = nn.ModuleDict({"encode": encode, "decode": nn.Linear(CODE, PIXELS)}).double().to(device)
    D.requires_grad_(False)
    noise = torch.randn(BATCH * ranks, NOISE, dtype=torch.float64).to(device)

    whole_term, whole_gradient = step(copy.deepcopy(G), D, noise, None)
    share = noise.chunk(ranks)[rank]
    parallel = DistributedDataParallel(G)
    # DistributedDataParallel (torch 2.13) keeps the default group's threads after the group's end. A thread that still
    # holds a Python tensor then aborts the process. So the codes use a separate group.
    codes = dist.new_group()
    term, gradient = step(parallel, D, share, codes)
    local_term, local_gradient = step(parallel, D, share, None)
    dist.all_reduce(local_term, group=codes)
    return {
        "term, whole batch": whole_term.item(),
        "term, process_group": term.item(),
        "term, each alone": local_term.item() / ranks,
        "gradient off, process_group": relative(gradient, whole_gradient),
        "gradient off, each alone": relative(local_gradient, whole_gradient),
    }


def report(seed: int) -> dict[str, float]:
    """Compare in a started process group, and print the figures from its first process."""
    figures = compare(seed)
    if dist.get_rank() == 0:
        for name, value in figures.items():
            print(f"{name:28s} {value:.3g}" if "off" in name else f"{name:28s} {value:.15f}")
    dist.destroy_process_group()
    return figures


def run(rank: int, seed: int, ranks: int, folder: str) -> None:
    """Run one of the processes that this program starts itself."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    torch.save(report(seed), f"{folder}/{rank}.pt")


def main(*, seed: int = 0, processes: int = 2) -> dict[str, float]:
    """Return the figures of `compare`, as one of torchrun's processes, or from `processes` started here."""
    if "RANK" in os.environ:
        enough = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
        dist.init_process_group("nccl" if enough else "gloo")
        return report(seed)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, (seed, processes, folder), nprocs=processes)
        return torch.load(f"{folder}/0.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    main(**vars(parser.parse_args()))
