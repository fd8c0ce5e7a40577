"""Each way in which torch differentiates gives the numbers of the eager formula, differentiated in the same way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, graph
from torch.utils import _pytree as pytree

import ebgan_fast
from ebgan_fast import functional
from ebgan_fast.ops.op import OPS as REGISTERED

from . import eager
from .cases import every_kernel, normal
from .small_ops import MARGIN, OPS, Op, assert_same, leaves_of
from .ways import TOLD, WAYS, Function, tangents

EVERY_OP: dict[str, Op] = {
    **{name: op for name, op in OPS.items() if not name.endswith(("-sse", "-mse", "loss-l1"))},  # no path of their own
    "reconstruction_energy-mean": (
        lambda r, x: ebgan_fast.reconstruction_energy(r, x, reduction="mean"),
        (normal(3, 5), normal(3, 5, seed=1)),
    ),
    "discriminator_loss-told": (
        lambda *batches: ebgan_fast.discriminator_loss(*batches, MARGIN, upstream=TOLD)[0],
        tuple(normal(3, 5, seed=seed) for seed in range(4)),
    ),
    "discriminator_loss-trained": (
        lambda *inputs: ebgan_fast.discriminator_loss(*inputs)[0],
        (*(normal(3, 5, seed=seed) for seed in range(4)), torch.tensor(MARGIN, dtype=torch.float64)),
    ),
    "generator_loss-told": (
        lambda r, x, s: ebgan_fast.generator_loss(r, x, s, upstream=torch.tensor(TOLD, dtype=torch.float64))[0],
        (normal(3, 5), normal(3, 5, seed=1), normal(3, 6, seed=2)),
    ),
    "generator_loss-alone": (
        lambda r, x: ebgan_fast.generator_loss(r, x)[0],
        (normal(3, 5), normal(3, 5, seed=1)),
    ),
}


def _energy(recon: Tensor, target: Tensor, *, norm: str = "l2", reduction: str = "none") -> Tensor:
    energy = eager.reconstruction_energy(recon, target, norm)
    return energy if reduction == "none" else eager.mean(energy)


def _weight(pt_weight: Any) -> Any:
    """Return a copy of a weight that inference mode made, which torch cannot save; return other weights unchanged."""
    if isinstance(pt_weight, Tensor) and pt_weight.is_inference():
        return pt_weight.clone()
    return functional.PT_WEIGHT if pt_weight is None else pt_weight


# The eager formula for each function. A loss with an `upstream` argument gives the same value.
IN_EAGER: dict[str, Callable[..., Any]] = {
    "reconstruction_energy": _energy,
    "hinge_margin_loss": eager.hinge_margin_loss,
    "pulling_away_term": eager.pulling_away_term,
    "discriminator_loss": lambda a, b, c, d, margin, *, norm="l2", upstream=None: (
        eager.discriminator_loss(a, b, c, d, margin, norm),
    ),
    "generator_loss": lambda r, x, code=None, *, pt_weight=None, norm="l2", upstream=None: (
        eager.generator_loss(r, x, code, _weight(pt_weight), norm),
    ),
}


@contextmanager
def in_eager_torch() -> Iterator[None]:
    """Replace the package's functions by the eager formulas."""
    with pytest.MonkeyPatch.context() as patch:
        for name, formula in IN_EAGER.items():
            patch.setattr(ebgan_fast, name, formula)
        yield


def _assert_same_results(got: Any, expected: Any, inputs: Sequence[Tensor]) -> None:
    some, others = ([it for it in pytree.tree_leaves(found) if it is not None] for found in (got, expected))
    assert len(some) == len(others), "a derivative is missing"
    # The largest result bounds the terms of every result; they may cancel.
    terms = max(2 * MARGIN, *(other.abs().max().item() for other in others))
    for index, (one, other) in enumerate(zip(some, others, strict=True)):
        assert_same(one.detach(), other.detach(), [it for it in inputs if it.dim()], f"result {index}", terms)


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:There is a performance drop")
@every_kernel
@pytest.mark.parametrize("name", EVERY_OP)
@pytest.mark.parametrize("way", WAYS)
def test_it_gives_the_formula_s_numbers(backend: str, name: str, way: str) -> None:
    op, inputs = EVERY_OP[name]
    with ebgan_fast.use_backend(backend):
        got = WAYS[way](op, inputs)
    with in_eager_torch():
        expected = WAYS[way](op, inputs)
    _assert_same_results(got, expected, inputs)


@every_kernel
def test_linearize(backend: str) -> None:
    """`torch.func.linearize` gives the slope of an op; its tracing takes longer than all other ways, so one op is
    tried."""
    op, inputs = EVERY_OP["generator_loss-l2"]
    with ebgan_fast.use_backend(backend):
        _, slope = torch.func.linearize(op, *inputs)
        got = slope(*tangents(inputs))
    with in_eager_torch():
        _, expected = torch.func.jvp(op, inputs, tangents(inputs))
    _assert_same_results(got, expected, inputs)


# ---- Margins, weights and upstreams that are more than numbers

WITH_A_COEFFICIENT: dict[str, Function] = {
    "margin": lambda a, b, c, d, it: ebgan_fast.discriminator_loss(a, b, c, d, it)[0],
    "margin of the hinge": lambda a, b, c, d, it: ebgan_fast.hinge_margin_loss(a[:, 0].abs(), b[:, 0].abs(), it),
    "weight": lambda a, b, c, d, it: ebgan_fast.generator_loss(a, b, c, pt_weight=it)[0],
    "upstream": lambda a, b, c, d, it: ebgan_fast.discriminator_loss(a, b, c, d, MARGIN, upstream=it)[0],
}


def _of_many(op: Function, leaves: tuple[Tensor, ...]) -> Any:
    values = torch.func.vmap(lambda it: op(*leaves, it))(torch.tensor([1.0, MARGIN], dtype=torch.float64))
    return values, torch.autograd.grad(values.square().sum(), leaves, allow_unused=True)


def _of_a_dual(op: Function, leaves: tuple[Tensor, ...]) -> Any:
    with forward_ad.dual_level():
        value = op(*leaves, forward_ad.make_dual(*torch.tensor([MARGIN, 0.5], dtype=torch.float64)))
        found = torch.autograd.grad(value, leaves, allow_unused=True)
        return tuple(forward_ad.unpack_dual(value)), found


def _of_inference_mode(op: Function, leaves: tuple[Tensor, ...]) -> Any:
    with torch.inference_mode():
        made = torch.tensor(MARGIN, dtype=torch.float64)
    return torch.autograd.grad(op(*leaves, made), leaves, allow_unused=True)


def _of_a_graph(op: Function, leaves: tuple[Tensor, ...]) -> Any:
    made = torch.tensor(MARGIN, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(op(*leaves, made).square(), leaves, create_graph=True, allow_unused=True)
    size = torch.stack([gradient.square().sum() for gradient in first if gradient is not None]).sum()
    return first, torch.autograd.grad(size, (*leaves, made), allow_unused=True)


@every_kernel
@pytest.mark.parametrize("name", WITH_A_COEFFICIENT)
@pytest.mark.parametrize("way", [_of_many, _of_a_dual, _of_inference_mode, _of_a_graph])
def test_coefficients(backend: str, name: str, way: Callable[..., Any]) -> None:
    inputs = tuple(normal(3, 5, seed=seed) for seed in range(4))
    with ebgan_fast.use_backend(backend):
        got = way(WITH_A_COEFFICIENT[name], leaves_of(inputs))
    with in_eager_torch():
        expected = way(WITH_A_COEFFICIENT[name], leaves_of(inputs))
    _assert_same_results(got, expected, inputs)


# ---- Raw ops, of which exported and traced graphs are made

raw = torch.ops.ebgan_fast
_MARGIN, _ONE = torch.tensor(MARGIN, dtype=torch.float64), torch.ones((), dtype=torch.float64)
RAW: dict[str, tuple[Callable[..., Any], Function, tuple[Tensor, ...]]] = {
    "reconstruction_energy": (
        lambda via, *it: raw.reconstruction_energy(*it, "l2", via),
        lambda *it: eager.reconstruction_energy(*it, "l2"),
        OPS["reconstruction_energy-l2"][1],
    ),
    "hinge_margin_loss": (
        lambda via, *it: raw.hinge_margin_loss(*it, _MARGIN, via)[0],
        lambda *it: eager.hinge_margin_loss(*it, MARGIN),
        OPS["hinge_margin_loss"][1],
    ),
    "pulling_away_term": (
        lambda via, *it: raw.pulling_away_term(*it, via)[0],
        eager.pulling_away_term,
        OPS["pulling_away_term-dual"][1],
    ),
    "discriminator_loss": (
        lambda via, *it: raw.discriminator_loss(*it, _MARGIN, "l2", _ONE, [0] * 4, via)[0],
        lambda *it: eager.discriminator_loss(*it, MARGIN, "l2"),
        OPS["discriminator_loss-l2"][1],
    ),
    "generator_loss": (
        lambda via, *it: raw.generator_loss(*it, _MARGIN, "l2", _ONE, [0] * 3, via)[0],
        lambda *it: eager.generator_loss(*it, MARGIN, "l2"),
        OPS["generator_loss-l2"][1],
    ),
}
OF_GRAPHS = (
    "vmap over upstreams",
    "grad over an upstream",
    "a dual upstream",
    "dual inputs",
    "forward over reverse",
    "reverse over forward",
    "func.vjp",
    "func.jacfwd",
    "func.hessian",
    "vmap of grad",
    "beside inference tensors",
)


def test_every_raw_op_is_here() -> None:
    assert set(RAW) == {name for name, it in REGISTERED.items() if it.formula is not None}
    assert {name.split("-")[0] for name in EVERY_OP} == set(RAW) == set(IN_EAGER)


@every_kernel
@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("way", OF_GRAPHS)
def test_a_raw_op_gives_the_formula_s_numbers(backend: str, name: str, way: str) -> None:
    op, formula, inputs = RAW[name]
    got = WAYS[way](functools.partial(op, backend), inputs)
    _assert_same_results(got, WAYS[way](formula, inputs), inputs)


# ---- Hooks that give back another tensor than they took

HOOKED = [name for name in EVERY_OP if not name.endswith(("-mean", "-trained"))]
# The tensor that pack returns for another one: equal numbers in a different form. The kernels must not read its memory
# as if it had the first form.
PACKS: dict[str, Callable[[Tensor], Tensor]] = {
    "a wider dtype": lambda it: it.double(),
    "another layout": lambda it: it.mT.contiguous().mT if it.dim() > 1 else torch.stack([it, it], -1)[..., 0],
    "the lazy negative of other numbers": lambda it: torch._neg_view(-it),
}


def _gradients(op: Function, inputs: Sequence[Tensor], pack: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    leaves = leaves_of(tuple(tensor.float() for tensor in inputs))
    with graph.saved_tensors_hooks(pack, lambda it: it):
        value = op(*leaves).sum()
    return torch.autograd.grad(value, leaves)


@every_kernel
@pytest.mark.parametrize("name", HOOKED)
@pytest.mark.parametrize("pack", PACKS)
def test_a_hook_may_give_back_the_same_numbers_as_other_memory(backend: str, name: str, pack: str) -> None:
    op, inputs = EVERY_OP[name]
    with ebgan_fast.use_backend(backend):
        found = [_gradients(op, inputs, each) for each in (PACKS[pack], lambda it: it)]
    assert all(map(torch.equal, *found))


@every_kernel
@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("pack", PACKS)
def test_so_it_may_for_a_raw_op(backend: str, name: str, pack: str) -> None:
    op, _, inputs = RAW[name]
    found = [_gradients(functools.partial(op, backend), inputs, each) for each in (PACKS[pack], lambda it: it)]
    assert all(map(torch.equal, *found))


@every_kernel
@pytest.mark.parametrize("shape", [(5, 2, 2, 3), (20, 2, 2, 3)], ids=["primal", "dual"])
def test_a_code_keeps_the_order_of_its_elements(backend: str, shape: tuple[int, ...]) -> None:
    """A code's elements keep their order if a hook returns it contiguous, as `save_on_cpu(pin_memory=True)` does."""
    code = normal(*shape).to(memory_format=torch.channels_last)
    with ebgan_fast.use_backend(backend):
        for op in (ebgan_fast.pulling_away_term, functools.partial(RAW["pulling_away_term"][0], backend)):
            packs = (lambda it: it.clone(memory_format=torch.contiguous_format), lambda it: it)
            got, expected = (_gradients(op, [code], pack)[0] for pack in packs)
            assert torch.equal(got, expected)


@every_kernel
@pytest.mark.parametrize("name", HOOKED)
def test_a_hook_that_gives_back_another_shape_is_told(backend: str, name: str) -> None:
    op, inputs = EVERY_OP[name]
    leaves = leaves_of(inputs)
    with (
        ebgan_fast.use_backend(backend),
        graph.saved_tensors_hooks(lambda it: it[:1] if it.dim() else it, lambda it: it),
    ):
        value = op(*leaves).sum()
    with pytest.raises(RuntimeError, match=r": got a saved tensor of shape \(1.*from a hook's unpack, expected \("):
        torch.autograd.grad(value, leaves)


# ---- Inference mode


@every_kernel
def test_what_inference_mode_made_is_refused_within_it(backend: str) -> None:
    """An op refuses a leaf that inference mode made, with torch's own message and at once.

    Copying it would not help: every copy made in inference mode is such a tensor again.
    """
    with torch.inference_mode(), torch.enable_grad(), ebgan_fast.use_backend(backend):
        recon, target = normal(3, 5).requires_grad_(), normal(3, 5, seed=1)
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            ebgan_fast.reconstruction_energy(recon, target)
