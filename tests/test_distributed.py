"""The pulling-away term over processes (gloo) has the global batch's value and gradient, or raises on all ranks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import forward_ad

import ebgan_fast
from ebgan_fast.ops import ranks, reference
from tests.rounding import distance, relative_bound, relative_bound_nearby, size

from .conftest import Fork

PATIENCE = timedelta(seconds=20)
"""The time that a rank waits for the others; if one rank has left, the test fails after it."""


@contextmanager
def _joined(rank: int, folder: str, world_size: int) -> Iterator[None]:
    """Run the block as one process of the default process group, on one thread."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size, timeout=PATIENCE)
    yield
    dist.destroy_process_group()


def _run(fork: Fork, folder: Path, world_size: int, target: Callable[..., None], *arguments: object) -> list[object]:
    """Run `target(rank, folder, *arguments)` in one process per rank; return what each rank saved."""
    children = [fork(target, rank, str(folder), *arguments) for rank in range(world_size)]
    for child in children:
        assert child.status() == 0, child.said
    return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]


def _code(n: int, d: int, seed: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _gradient(code: Tensor) -> Tensor:
    code = code.clone().requires_grad_()
    return torch.autograd.grad(reference.pulling_away_term(code), code)[0]


# ---- The whole batch's term

RANKS = 2


def _codes(n: int, d: int) -> Tensor:
    code = _code(RANKS * n, d)
    code[1] = 0.0
    return code


def _dual(term: Callable[[Tensor], Tensor], code: Tensor) -> None:
    with forward_ad.dual_level():
        term(forward_ad.make_dual(code.detach(), code.detach()))


REFUSED_WAYS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], object]] = {
    "create_graph": lambda term, code: torch.autograd.grad(term(code), code, create_graph=True),
    "hessian": lambda term, code: torch.autograd.functional.hessian(term, code, vectorize=True),
    "forward mode": _dual,
    "jvp": lambda term, code: torch.func.jvp(term, (code,), (code,)),
    "grad": lambda term, code: torch.func.grad(term)(code),
    "vmap": lambda term, code: torch.func.vmap(term)(torch.stack([code, code])),
}


def _rank(rank: int, folder: str, n: int, d: int) -> None:
    with _joined(rank, folder, RANKS):
        local = _codes(n, d)[rank * n : (rank + 1) * n].requires_grad_()
        recon = torch.ones(n, 2, dtype=torch.float64)
        loss, _, value = ebgan_fast.generator_loss(
            recon, torch.zeros_like(recon), local, pt_weight=0.5, process_group=dist.group.WORLD, norm="mse"
        )
        loss.backward()
        said = {}
        for way, differentiate in REFUSED_WAYS.items():
            try:
                differentiate(lambda code: ebgan_fast.pulling_away_term(code, process_group=dist.group.WORLD), local)
            except RuntimeError as error:
                said[way] = str(error)
        term = ebgan_fast.pulling_away_term(local, process_group=dist.group.WORLD)
        two = torch.tensor([0.5, -4.0], dtype=torch.float64)
        many = torch.autograd.grad(term, local, two, is_grads_batched=True)[0]
        # These rows are too long or too short to be squared; the factor, a power of two, changes no bit of the term.
        power = 2.0 ** (-700 if rank else 700)
        far = (local.detach() * power).requires_grad_()
        its_value = ebgan_fast.pulling_away_term(far, process_group=dist.group.WORLD)
        its_value.backward(torch.tensor(0.5, dtype=torch.float64))
        far_apart = its_value.detach(), far.grad * power
        torch.save((loss.detach(), value, local.grad, said, many, far_apart), f"{folder}/{rank}.pt")


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
@pytest.mark.parametrize("n_d", [(4, 11), (9, 5)], ids=["gathered codes", "reduced Gram matrix"])
def test_the_term_is_that_of_the_global_batch(fork: Fork, n_d: tuple[int, int], tmp_path: Path) -> None:
    n, d = n_d
    everyone = _codes(n, d).requires_grad_()
    expected = reference.pulling_away_term(everyone)
    expected.backward()
    results = _run(fork, tmp_path, RANKS, _rank, n, d)
    near = relative_bound_nearby(reference.pulling_away_term, _codes(n, d))
    for loss, value, gradient, said, many, far_apart in results:
        assert torch.equal(far_apart[0], value)
        assert torch.equal(far_apart[1], gradient)
        torch.testing.assert_close(value, expected.detach(), rtol=near, atol=0)
        torch.testing.assert_close(loss, 1.0 + 0.5 * expected.detach(), rtol=near, atol=0)
        for way in REFUSED_WAYS:
            message = said.get(way, "nothing")
            assert message.startswith("pulling_away_term with a process group: got "), f"{way}: {message}"
            assert "leave process_group out" in message, "a derivative must be refused, not dropped"
        assert torch.equal(many, torch.stack([gradient, -8.0 * gradient])), "the weight of the term is 0.5"
    # Data-parallel training averages over ranks: the mean must be the gradient of the global loss.
    gradient = torch.cat([gradient for _, _, gradient, *_ in results]) / RANKS
    assert everyone.grad is not None
    true = 0.5 * everyone.grad
    assert distance(gradient, true) <= relative_bound(_gradient, _codes(n, d)) * size(true)


# ---- Ranks whose codes differ

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
Codes = list[tuple[int, int, torch.dtype]]
"""The batch size, width and dtype of each rank's code."""

# Three ranks gather the codes if all ranks together have at most d codes, where d is the width. Else they reduce the
# Gram matrix. Each rank decides by three times its own batch size.
REFUSED: dict[str, tuple[Codes, str]] = {
    "sizes, reduced": (
        [(2, 3, F32), (3, 3, F32), (2, 3, F32)],
        "got [2, 3] in torch.float32 on ranks 0 and 2 and [3, 3] in torch.float32 on rank 1, expected one batch size",
    ),
    "sizes, gathered": (
        [(2, 11, F32), (2, 11, F32), (3, 11, F32)],
        "got [2, 11] in torch.float32 on ranks 0 and 1 and [3, 11] in torch.float32 on rank 2, expected one batch size",
    ),
    "sizes, one of each": (
        [(3, 7, F32), (2, 7, F32), (2, 7, F32)],
        "got [3, 7] in torch.float32 on rank 0 and [2, 7] in torch.float32 on ranks 1 and 2, expected one batch size",
    ),
    "sizes, all others": (
        [(1, 9, F64), (2, 9, F64), (3, 9, F64)],
        "[1, 9] in torch.float64 on rank 0 and [2, 9] in torch.float64 on rank 1 and [3, 9] in torch.float64 on rank 2",
    ),
    "no sample": (
        [(3, 5, F32), (0, 5, F32), (3, 5, F32)],
        "[3, 5] in torch.float32 on ranks 0 and 2 and [0, 5] in torch.float32 on rank 1, expected one batch size over",
    ),
    "widths, gathered": (
        [(2, 11, F32), (2, 12, F32), (2, 11, F32)],
        "[2, 11] in torch.float32 on ranks 0 and 2 and [2, 12] in torch.float32 on rank 1, expected one width over",
    ),
    "widths, reduced": (
        [(9, 3, F32), (9, 2, F32), (9, 3, F32)],
        "[9, 3] in torch.float32 on ranks 0 and 2 and [9, 2] in torch.float32 on rank 1, expected one width over",
    ),
    "dtypes": (
        [(2, 6, F32), (2, 6, F64), (2, 6, BF16)],
        "[2, 6] in torch.float32 on rank 0 and [2, 6] in torch.float64 on rank 1 and [2, 6] in torch.bfloat16 on rank 2"
        ", expected one dtype over",
    ),
    "everything": (
        [(4, 6, F32), (4, 6, F32), (6, 4, F64)],
        "[6, 4] in torch.float64 on rank 2, expected one batch size and one width and one dtype over",
    ),
}
TAKEN: dict[str, Codes] = {
    "equal codes": [(3, 7, F32)] * 3,
    "two dtypes of one kind of sums": [(2, 7, F32), (2, 7, BF16), (2, 7, F32)],
    "no sample anywhere": [(0, 7, F32)] * 3,
}
THREE = 3


def _parts(codes: Codes) -> list[Tensor]:
    return [_code(n, d, rank, dtype) for rank, (n, d, dtype) in enumerate(codes)]


def _by_the_game(code: Tensor, group: dist.ProcessGroup) -> Tensor:
    noise, weight = torch.ones(code.shape[0], 4).requires_grad_(), torch.ones(()).requires_grad_()
    game = ebgan_fast.EBGAN(3.0, pt_weight=1.0)
    try:
        found = game.backward(lambda it: (it * weight, code), noise * 2, noise.detach(), process_group=group)
    except ValueError:
        assert noise.grad is None, "half of a step"
        assert weight.grad is None, "half of a step"
        raise
    return found.pulling_away


WAYS: dict[str, Callable[[Tensor, dist.ProcessGroup], Tensor]] = {
    "function": lambda code, group: ebgan_fast.pulling_away_term(code, process_group=group),
    "module": lambda code, group: ebgan_fast.nn.PullingAwayTerm(group)(code),
    "loss": lambda code, group: (
        ebgan_fast.generator_loss(
            torch.ones(code.shape[0], 2), torch.zeros(code.shape[0], 2), code, process_group=group
        ).pulling_away
    ),
    "module of the loss": lambda code, group: (
        ebgan_fast.nn.GeneratorLoss(process_group=group)(
            torch.ones(code.shape[0], 2), torch.zeros(code.shape[0], 2), code
        ).pulling_away
    ),
    "game": _by_the_game,
}


def _said(call: Callable[[], object]) -> str:
    """Return the class and the text of the ValueError or TypeError that a call raises; an empty text if none."""
    try:
        call()
    except (ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _three(rank: int, folder: str) -> None:
    with _joined(rank, folder, THREE):
        found: dict[str, object] = {}
        group = dist.new_group(timeout=PATIENCE)
        for name, (codes, _) in REFUSED.items():  # one group for all cases: it stays usable after each error
            found[name] = _said(lambda codes=codes: WAYS["function"](_parts(codes)[rank], group))
        codes, _ = REFUSED["sizes, one of each"]
        for name, way in WAYS.items():
            found[name] = _said(lambda way=way: way(_parts(codes)[rank], group))
        for name, codes in TAKEN.items():
            code = _parts(codes)[rank].requires_grad_(rank != 1)  # two of three ranks record a graph
            value = WAYS["function"](code, group)
            if rank != 1:
                value.backward()
            found[name] = value.detach(), code.grad
        dist.destroy_process_group(group)
        found["destroyed"] = _said(lambda: WAYS["function"](_parts(REFUSED["no sample"][0])[rank], group))

        last_two = dist.new_group([1, 2], timeout=PATIENCE)
        name = "outside" if rank == 0 else "ranks 1 and 2"
        found[name] = _said(lambda: WAYS["function"](_parts(REFUSED["sizes, gathered"][0])[rank], last_two))
        if rank > 0:
            code = _parts(TAKEN["equal codes"])[rank].requires_grad_()
            value = WAYS["function"](code, last_two)
            value.backward()
            found["two of three"] = value.detach(), code.grad
        torch.save(found, f"{folder}/{rank}.pt")


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_ranks_whose_codes_differ_raise_one_error(fork: Fork, tmp_path: Path) -> None:
    found = _run(fork, tmp_path, THREE, _three)
    for name, (_, words) in REFUSED.items():
        said = [results[name] for results in found]
        assert words in said[0], name
        assert said == [said[0]] * THREE, name
    for name in WAYS:
        assert [results[name] for results in found] == [found[0]["sizes, one of each"]] * THREE, name
    assert [results["destroyed"] for results in found] == [found[0]["no sample"]] * THREE
    for name, codes in TAKEN.items():
        _assert_term([results[name] for results in found], _parts(codes))
    # The message numbers ranks among all processes, not within the group.
    assert "[2, 11] in torch.float32 on rank 1 and [3, 11] in torch.float32 on rank 2" in found[1]["ranks 1 and 2"]
    assert found[1]["ranks 1 and 2"] == found[2]["ranks 1 and 2"]
    assert found[0]["outside"].startswith("ValueError: process_group: got a group that this process is not in")
    _assert_term([results["two of three"] for results in found[1:]], _parts(TAKEN["equal codes"])[1:])


def test_many_ranks_are_named_by_the_first() -> None:
    assert ranks._named([7]) == "rank 7"
    assert ranks._named([0, 2, 3, 9]) == "ranks 0, 2, 3 and 9"
    assert ranks._named(range(1, 1024)) == "ranks 1, 2, 3, 4 and 1019 more"


def _assert_term(found: Sequence[tuple[Tensor, Tensor | None]], parts: Sequence[Tensor]) -> None:
    """Check each rank's value against the term of all codes, and its gradient against its part, times the ranks."""
    codes = torch.cat([part.double() for part in parts])
    expected = reference.pulling_away_term(codes)
    near = relative_bound_nearby(reference.pulling_away_term, codes, dtype=F32)
    true = _gradient(codes).split([len(part) for part in parts])
    for (value, gradient), part, own in zip(found, parts, true, strict=True):
        torch.testing.assert_close(value.double(), expected, rtol=near, atol=0)
        if gradient is not None:
            assert gradient.dtype == part.dtype
            allowed = relative_bound(_gradient, codes, dtype=F32)
            assert distance(gradient / len(parts), own) <= allowed * size(true)


# ---- A stand-in for NCCL, where reading a number would wait for the device


def _late(rank: int, folder: str) -> None:
    """Count the exchanges of sizes, while `ranks` takes the sizes for numbers on a device that are read late."""
    exchanges = 0
    exchange = ranks._gathered_numbers

    def counted(*arguments: object) -> object:
        nonlocal exchanges
        exchanges += 1
        return exchange(*arguments)  # type: ignore[arg-type]

    ranks._gathered_numbers = counted  # type: ignore[assignment]
    ranks._reads_at_once = lambda device, group: False
    with _joined(rank, folder, RANKS):
        seen: dict[str, object] = {}

        def calls(n: int, group: dist.ProcessGroup) -> tuple[str, int]:
            nonlocal exchanges
            exchanges = 0
            return _said(lambda: WAYS["function"](_code(n, 3), group)), exchanges

        first = dist.new_group(timeout=PATIENCE)
        seen["differ"] = calls(2 + rank, first)
        seen["differ again"] = calls(2 + rank, first)
        seen["agree"] = calls(4, first)
        seen["later"] = calls(5, first)
        torch.ops.ebgan_fast.compared_over_ranks(_code(5, 3), 0, first.group_name)
        seen["later, in a graph"] = exchanges
        seen["another group"] = calls(4, dist.new_group(timeout=PATIENCE))
        fresh = []
        for _ in range(5):  # each group may get the memory address of the one before
            group = dist.new_group(timeout=PATIENCE)
            fresh.append(calls(4, group))
            dist.destroy_process_group(group)
            del group
            gc.collect()
        seen["in one place"] = fresh
        ranks.in_capture = lambda device: True
        seen["new, in a capture"] = ""
        seen["known, in a capture"] = calls(4, first)
        try:
            WAYS["function"](_code(4, 3), dist.new_group(timeout=PATIENCE))
        except RuntimeError as error:
            seen["new, in a capture"] = str(error)
        del first
        seen["kept"] = len(ranks._AGREED)
        torch.save(seen, f"{folder}/{rank}.pt")


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_where_sizes_come_late_a_group_compares_them_once(fork: Fork, tmp_path: Path) -> None:
    seen, other = _run(fork, tmp_path, RANKS, _late)
    assert seen == other
    for name in ("differ", "differ again"):
        said, exchanges = seen[name]
        assert "[2, 3] in torch.float64 on rank 0 and [3, 3] in torch.float64 on rank 1" in said
        assert exchanges == 1
    assert seen["agree"] == ("", 1)
    assert seen["later"] == ("", 0)
    assert seen["later, in a graph"] == 0
    assert seen["another group"] == ("", 1)
    assert seen["in one place"] == [("", 1)] * 5
    assert seen["known, in a capture"] == ("", 0)
    assert "got the group's first call within a CUDA graph's capture, expected it before" in seen["new, in a capture"]
    assert seen["kept"] == 2, "the groups that torch still has"


# ---- In a graph


def _in_graphs(rank: int, folder: str) -> None:
    from torch._subclasses import FakeTensorMode

    with _joined(rank, folder, RANKS):
        seen: dict[str, object] = {}
        group = dist.new_group(timeout=PATIENCE)
        compiled = torch.compile(lambda code: WAYS["function"](code * 2, group), backend="aot_eager", fullgraph=True)
        code = _codes(4, 3).chunk(RANKS)[rank].requires_grad_()
        value = compiled(code)
        value.backward()
        seen["compiled"] = value.detach(), code.grad
        seen["compiled, differ"] = _said(lambda: compiled(_code(4 + rank, 3)))
        # Fake and meta tensors have no values, so the ranks exchange nothing.
        with FakeTensorMode():
            fake = WAYS["function"](torch.empty(4 + rank, 3), group)
        meta = WAYS["function"](torch.empty(4 + rank, 3, device="meta"), group)
        seen["without numbers"] = [(tuple(it.shape), it.dtype, it.device.type) for it in (fake, meta)]
        torch.save(seen, f"{folder}/{rank}.pt")


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_graphs_compare_too(fork: Fork, tmp_path: Path) -> None:
    found = _run(fork, tmp_path, RANKS, _in_graphs)
    _assert_term([seen["compiled"] for seen in found], _codes(4, 3).chunk(RANKS))
    for seen in found:
        said = seen["compiled, differ"]
        assert "[4, 3] in torch.float64 on rank 0 and [5, 3] in torch.float64 on rank 1" in said
        assert seen["without numbers"] == [((), F32, "cpu"), ((), F32, "meta")]
