"""The ops inside torch's machinery: derivatives of every order and mode, function transforms, compilation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import ebgan_fast

from .budget import assert_within_budget, energy_sums, pulling_away_sums, pulling_away_terms
from .cases import BACKENDS, NORMS, normal

every_backend = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def _on_backend(request: pytest.FixtureRequest):
    name = request.node.callspec.params["backend"]
    with ebgan_fast.use_backend(name):
        yield


Op = tuple[Callable[..., Tensor], tuple[Tensor, ...]]

# The margins lie between the energies of the drawn samples (about 2.4 for 5 elements in l2), clear of each. This is the
# largest.
MARGIN = 2.9
OPS: dict[str, Op] = {
    **{
        f"reconstruction_energy-{norm}": (
            lambda r, x, norm=norm: ebgan_fast.reconstruction_energy(r, x, norm=norm),
            (normal(3, 5), normal(3, 5, seed=1)),
        )
        for norm in NORMS
    },
    "hinge_margin_loss": (
        lambda real, fake: ebgan_fast.hinge_margin_loss(real, fake, 0.5),
        (normal(4).abs(), torch.tensor([0.1, 0.9, 0.3], dtype=torch.float64)),
    ),
    "pulling_away_term-primal": (ebgan_fast.pulling_away_term, (normal(3, 6),)),
    "pulling_away_term-dual": (ebgan_fast.pulling_away_term, (normal(6, 3),)),
    **{
        f"discriminator_loss-{norm}": (
            lambda a, b, c, d, norm=norm: ebgan_fast.discriminator_loss(a, b, c, d, MARGIN, norm=norm)[0],
            tuple(normal(3, 5, seed=seed) for seed in range(4)),
        )
        for norm in NORMS
    },
    **{
        f"generator_loss-{norm}": (
            lambda r, x, s, norm=norm: ebgan_fast.generator_loss(r, x, s, pt_weight=0.7, norm=norm)[0],
            (normal(3, 5), normal(3, 5, seed=1), normal(3, 6, seed=2)),
        )
        for norm in NORMS
    },
}

every_op = pytest.mark.parametrize("name", OPS)


def _assert_same(one: Tensor, other: Tensor, inputs: Sequence[Tensor], what: str, terms: float = 2 * MARGIN) -> None:
    """Fail if two ways to one result of `inputs` differ by more than the roundings of both."""
    sums = max(max(energy_sums(tensor), pulling_away_sums(tensor)) for tensor in inputs)
    assert_within_budget(one, other, other, what, terms, sums)


def _assert_same_gradients(
    some: Sequence[Tensor], others: Sequence[Tensor], inputs: Sequence[Tensor], upstream: float = 1.0
) -> None:
    """The same for gradients, where the pulling-away term's two vectors may cancel."""
    terms = upstream * max(pulling_away_terms(tensor).max().item() for tensor in inputs)
    for index, (one, other) in enumerate(zip(some, others, strict=True)):
        _assert_same(one, other, inputs, f"gradient {index}", terms)


def _leaves(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


@every_backend
@every_op
def test_gradcheck(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    assert gradcheck(op, _leaves(inputs), check_forward_ad=True)


@every_backend
@every_op
def test_gradgradcheck(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    assert gradgradcheck(op, _leaves(inputs))


@every_backend
@every_op
def test_the_graph_of_a_gradient_is_not_dropped(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    leaves = _leaves(inputs)
    gradients = torch.autograd.grad(op(*leaves).square().sum(), leaves, create_graph=True)
    assert all(gradient.requires_grad for gradient in gradients)


@every_backend
@every_op
def test_backward_twice_with_different_upstreams(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    leaves = _leaves(inputs)
    value = op(*leaves)
    first = torch.autograd.grad(value, leaves, torch.full_like(value, 2.0), retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(value, leaves, torch.full_like(value, -4.0))
    for one, two, unchanged in zip(first, second, kept, strict=True):
        assert torch.equal(one, unchanged), "the second backward changed the first's result"
        assert torch.equal(two, -2 * one)  # powers of two: exact


@every_backend
@every_op
def test_many_upstreams_at_once(backend: str, name: str) -> None:
    """As `torch.autograd.functional.jacobian(vectorize=True)` sends them."""
    op, inputs = OPS[name]
    leaves = _leaves(inputs)
    value = op(*leaves)
    upstreams = torch.stack([torch.full_like(value, factor) for factor in (1.0, -2.0, 0.5)])
    together = torch.autograd.grad(value, leaves, upstreams, is_grads_batched=True, retain_graph=True)
    for index, upstream in enumerate(upstreams):
        alone = torch.autograd.grad(value, leaves, upstream, retain_graph=True)
        _assert_same_gradients([each[index] for each in together], alone, leaves, 2.0)


@every_backend
@every_op
def test_one_tensor_in_every_place(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    if len({tensor.shape for tensor in inputs}) > 1:
        inputs = tuple(inputs[0] for _ in inputs)
    shared = (inputs[0] + 1.0).requires_grad_()
    apart = [shared.detach().clone().requires_grad_() for _ in inputs]
    together = torch.autograd.grad(op(*(shared for _ in inputs)).sum(), shared, create_graph=True)[0]
    parts = torch.stack(torch.autograd.grad(op(*apart).sum(), apart))
    terms = max(parts.abs().max().item(), pulling_away_terms(shared).max().item())
    _assert_same(together, parts.sum(0), [shared], "gradient", terms)


@every_backend
@every_op
def test_func_grad_and_jvp(backend: str, name: str) -> None:
    op, inputs = OPS[name]

    def total(*tensors: Tensor) -> Tensor:
        return op(*tensors).sum()

    leaves = _leaves(inputs)
    expected = torch.autograd.grad(total(*leaves), leaves)
    got = torch.func.grad(total, argnums=tuple(range(len(inputs))))(*inputs)
    # Of different seeds: one tangent to both sides of a difference would give a slope of 0.
    tangents = tuple(normal(*tensor.shape, seed=9 + index) for index, tensor in enumerate(inputs))
    _, slope = torch.func.jvp(total, inputs, tangents)
    _assert_same_gradients(got, expected, inputs)
    products = torch.cat([(gradient * tangent).flatten() for gradient, tangent in zip(expected, tangents, strict=True)])
    _assert_same(slope, products.sum(), inputs, "slope", products.abs().sum().item())


@every_backend
@every_op
def test_vmap(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    stacked = tuple(torch.stack([tensor, tensor.flip(0) * 1.1, tensor + 0.01]) for tensor in inputs)
    expected = torch.stack([op(*(tensor[index] for tensor in stacked)) for index in range(3)])
    _assert_same(torch.func.vmap(op)(*stacked), expected, inputs, "value")


@every_backend
@every_op
def test_compile_fullgraph_dynamic(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    torch.compiler.reset()
    compiled = torch.compile(op, fullgraph=True, dynamic=True, backend="aot_eager")
    for repeats in (1, 2, 3):
        leaves = _leaves(tuple(tensor.repeat_interleave(repeats, 0) + 0.01 for tensor in inputs))
        again = _leaves(leaves)
        expected, got = op(*leaves), compiled(*again)
        _assert_same(got, expected, leaves, "value")
        upstream = torch.linspace(0.5, 1.5, max(got.numel(), 1), dtype=got.dtype).reshape(got.shape)
        found = torch.autograd.grad(got, again, upstream)
        _assert_same_gradients(found, torch.autograd.grad(expected, leaves, upstream), leaves, upstream.max().item())


@every_backend
def test_a_margin_schedule_does_not_recompile(backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(
        lambda a, b, c, d, m: ebgan_fast.discriminator_loss(a, b, c, d, m)[0], fullgraph=True, backend="eager"
    )
    batches = [normal(3, 5, seed=seed) for seed in range(4)]
    compiled(*batches, torch.tensor(10.0))
    with torch.compiler.set_stance("fail_on_recompile"):
        for margin in (9.0, 3.0, 0.0):
            got = compiled(*batches, torch.tensor(margin))
            assert got.item() == ebgan_fast.discriminator_loss(*batches, margin)[0].item()


@every_backend
def test_compile_with_inductor(backend: str) -> None:
    torch.compiler.reset()

    def step(recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor, code: Tensor) -> Tensor:
        d_loss, energy_real, energy_fake = ebgan_fast.discriminator_loss(
            recon_real * 2, real, recon_fake, fake, 3.0, norm="l2"
        )
        g_loss, _, _ = ebgan_fast.generator_loss(recon_fake, fake * 3, code, norm="l2")
        return d_loss + g_loss + energy_real.sum() + energy_fake.sum()

    inputs = (*(normal(4, 6, seed=seed) for seed in range(4)), normal(4, 9, seed=4))
    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    leaves, again = _leaves(inputs), _leaves(inputs)
    expected, got = step(*leaves), compiled(*again)
    _assert_same(got, expected, leaves, "value")
    _assert_same_gradients(torch.autograd.grad(got, again), torch.autograd.grad(expected, leaves), leaves)
