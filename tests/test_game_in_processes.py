"""Two processes, data-parallel or sharded, take the step of one; a static graph exchanges too early and is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ebgan_fast import EBGAN
from tests.rounding import assert_within_eager, at_wider
from tests.two_passes import MARGIN, PT_WEIGHT, batches, gradients, networks, over_two_passes

from .conftest import Fork

RANKS = 2


def _step_of(rank: int, folder: str) -> None:
    """Take one process's share of the step, data-parallel and then sharded, and save the gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    D, G = networks()
    noise, real = _shares(rank)
    codes = dist.new_group()
    parallel = DistributedDataParallel(D), DistributedDataParallel(G)
    game = EBGAN(MARGIN, "l2", PT_WEIGHT)
    game.backward(parallel[0], parallel[1](noise), real, process_group=codes)
    torch.save(gradients(D, G), f"{folder}/{rank}.pt")
    del parallel  # docs/one-pass.md gives the reason
    try:
        game.backward(DistributedDataParallel(D, static_graph=True), G(noise), real)
    except ValueError as error:
        torch.save(str(error), f"{folder}/{rank}-static.pt")
    D, G = networks()
    for layer in (D.encode, D.decode, D):
        fully_shard(layer)
    for _ in range(2):
        D.zero_grad()
        G.zero_grad()
        game.backward(D, G(noise), real, process_group=codes)
    sharded = [it.full_tensor() for it in gradients(D)]  # type: ignore[attr-defined]
    torch.save([*sharded, *gradients(G)], f"{folder}/{rank}-sharded.pt")
    dist.destroy_process_group()


def _shares(rank: int | None) -> tuple[Tensor, Tensor]:
    """Return eight samples of each batch, or one process's half of them."""
    noise, real = batches()
    both = noise[:8], torch.cat([real, real[:1] + 1])
    return both if rank is None else tuple(it.chunk(RANKS)[rank] for it in both)  # type: ignore[return-value]


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_two_processes_make_the_step_of_one(fork: Fork, tmp_path: Path) -> None:
    children = [fork(_step_of, rank, str(tmp_path)) for rank in range(RANKS)]
    for child in children:
        assert child.status() == 0, child.said
    noise, real = _shares(None)
    truth = over_two_passes(*networks(), noise, real)
    eager = over_two_passes(*networks(torch.float32), noise.float(), real.float())
    for rank in range(RANKS):
        found, sharded = (torch.load(tmp_path / f"{rank}{how}.pt") for how in ("", "-sharded"))
        for number, (got, exact, near) in enumerate(zip(found, truth, eager, strict=True)):
            assert_within_eager(got, exact, at_wider(exact, near, torch.float64), torch.float64, f"gradient {number}")
        for number, (got, exact, near) in enumerate(zip(sharded[:4], truth, eager, strict=False)):
            assert_within_eager(got, exact, at_wider(exact, near, torch.float64), torch.float64, f"sharded {number}")
        assert "static_graph=True, expected it without" in torch.load(tmp_path / f"{rank}-static.pt")
    with pytest.raises(AssertionError, match="half of the batch: off by"):
        assert_within_eager(over_two_passes(*networks(), *_shares(0)), truth, eager, torch.float32, "half of the batch")
