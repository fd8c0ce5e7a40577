"""The pulling-away term over several processes (gloo): the value and the averaged gradient of the global batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import forward_ad

import ebgan_fast
from ebgan_fast.ops import reference
from tests.rounding import distance, relative_bound, relative_bound_nearby, size

from .conftest import Fork

RANKS = 2


def _codes(n: int, d: int) -> torch.Tensor:
    code = torch.randn(RANKS * n, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    code[1] = 0.0
    return code


def _gradient(code: torch.Tensor) -> torch.Tensor:
    code = code.clone().requires_grad_()
    return torch.autograd.grad(reference.pulling_away_term(code), code)[0]


def _dual(term: Callable[[Tensor], Tensor], code: Tensor) -> None:
    with forward_ad.dual_level():
        term(forward_ad.make_dual(code.detach(), code.detach()))


REFUSED: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], object]] = {
    "create_graph": lambda term, code: torch.autograd.grad(term(code), code, create_graph=True),
    "hessian": lambda term, code: torch.autograd.functional.hessian(term, code, vectorize=True),
    "forward mode": _dual,
    "jvp": lambda term, code: torch.func.jvp(term, (code,), (code,)),
    "grad": lambda term, code: torch.func.grad(term)(code),
    "vmap": lambda term, code: torch.func.vmap(term)(torch.stack([code, code])),
}


def _rank(rank: int, folder: str, n: int, d: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    local = _codes(n, d)[rank * n : (rank + 1) * n].requires_grad_()
    recon = torch.ones(n, 2, dtype=torch.float64)
    loss, _, value = ebgan_fast.generator_loss(
        recon, torch.zeros_like(recon), local, pt_weight=0.5, process_group=dist.group.WORLD, norm="mse"
    )
    loss.backward()
    said = {}
    for way, differentiate in REFUSED.items():
        try:
            differentiate(lambda code: ebgan_fast.pulling_away_term(code, process_group=dist.group.WORLD), local)
        except RuntimeError as error:
            said[way] = str(error)
    term = ebgan_fast.pulling_away_term(local, process_group=dist.group.WORLD)
    many = torch.autograd.grad(term, local, torch.tensor([0.5, -4.0], dtype=torch.float64), is_grads_batched=True)[0]
    torch.save((loss.detach(), value, local.grad, said, many), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
@pytest.mark.parametrize("n_d", [(4, 11), (9, 5)], ids=["gathered codes", "reduced Gram matrix"])
def test_the_term_is_that_of_the_global_batch(fork: Fork, n_d: tuple[int, int], tmp_path: Path) -> None:
    n, d = n_d
    children = [fork(_rank, rank, str(tmp_path), n, d) for rank in range(RANKS)]
    for child in children:
        assert child.status() == 0, child.said
    everyone = _codes(n, d).requires_grad_()
    expected = reference.pulling_away_term(everyone)
    expected.backward()
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS)]
    near = relative_bound_nearby(reference.pulling_away_term, _codes(n, d))
    for loss, value, gradient, said, many in results:
        torch.testing.assert_close(value, expected.detach(), rtol=near, atol=0)
        torch.testing.assert_close(loss, 1.0 + 0.5 * expected.detach(), rtol=near, atol=0)
        for way in REFUSED:
            message = said.get(way, "nothing")
            assert message.startswith("pulling_away_term with a process group: got "), f"{way}: {message}"
            assert "leave process_group out" in message, "a derivative must be refused, not dropped"
        assert torch.equal(many, torch.stack([gradient, -8.0 * gradient])), "the weight of the term is 0.5"
    # What data-parallel training does: the mean over ranks must be the gradient of the global loss.
    gradient = torch.cat([gradient for _, _, gradient, *_ in results]) / RANKS
    assert everyone.grad is not None
    true = 0.5 * everyone.grad
    assert distance(gradient, true) <= relative_bound(_gradient, _codes(n, d)) * size(true)
