"""The ops inside torch's machinery: derivatives of every order and mode, function transforms, compilation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import ebgan_fast
from tests.older_versions import needs_whole_graphs

from .budget import pulling_away_terms
from .cases import every_backend, every_kernel, normal
from .small_ops import OPS, assert_same, assert_same_gradients, leaves_of


@pytest.fixture(autouse=True)
def _on_backend(request: pytest.FixtureRequest):
    name = request.node.callspec.params["backend"]
    with ebgan_fast.use_backend(name):
        yield


every_op = pytest.mark.parametrize("name", OPS)


@every_backend
@every_op
def test_gradcheck(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    assert gradcheck(op, leaves_of(inputs), check_forward_ad=True)


@every_backend
@every_op
def test_gradgradcheck(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    assert gradgradcheck(op, leaves_of(inputs))


@every_backend
@every_op
def test_the_graph_of_a_gradient_is_not_dropped(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    leaves = leaves_of(inputs)
    gradients = torch.autograd.grad(op(*leaves).square().sum(), leaves, create_graph=True)
    assert all(gradient.requires_grad for gradient in gradients)


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
    assert_same(together, parts.sum(0), [shared], "gradient", terms)


@every_backend
@every_op
def test_func_grad_and_jvp(backend: str, name: str) -> None:
    op, inputs = OPS[name]

    def total(*tensors: Tensor) -> Tensor:
        return op(*tensors).sum()

    leaves = leaves_of(inputs)
    expected = torch.autograd.grad(total(*leaves), leaves)
    got = torch.func.grad(total, argnums=tuple(range(len(inputs))))(*inputs)
    # Each tangent has another seed: equal tangents on both sides of a difference would give a slope of 0.
    tangents = tuple(normal(*tensor.shape, seed=9 + index) for index, tensor in enumerate(inputs))
    _, slope = torch.func.jvp(total, inputs, tangents)
    assert_same_gradients(got, expected, inputs)
    products = torch.cat([(gradient * tangent).flatten() for gradient, tangent in zip(expected, tangents, strict=True)])
    assert_same(slope, products.sum(), inputs, "slope", products.abs().sum().item())


@every_backend
@every_op
def test_vmap(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    stacked = tuple(torch.stack([tensor, tensor.flip(0) * 1.1, tensor + 0.01]) for tensor in inputs)
    expected = torch.stack([op(*(tensor[index] for tensor in stacked)) for index in range(3)])
    assert_same(torch.func.vmap(op)(*stacked), expected, inputs, "value")


@needs_whole_graphs
@pytest.mark.slow
@every_backend
@pytest.mark.parametrize("name", [name for name in OPS if not name.endswith("-sse")])  # sse is mse times K
def test_compile_fullgraph_dynamic(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    torch.compiler.reset()
    compiled = torch.compile(op, fullgraph=True, dynamic=True, backend="aot_eager")
    for repeats in (1, 2, 3):
        leaves = leaves_of(tuple(tensor.repeat_interleave(repeats, 0) + 0.01 for tensor in inputs))
        again = leaves_of(leaves)
        expected, got = op(*leaves), compiled(*again)
        assert_same(got, expected, leaves, "value")
        upstream = torch.linspace(0.5, 1.5, max(got.numel(), 1), dtype=got.dtype).reshape(got.shape)
        found = torch.autograd.grad(got, again, upstream)
        assert_same_gradients(found, torch.autograd.grad(expected, leaves, upstream), leaves, upstream.max().item())


@needs_whole_graphs
@every_kernel
@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("reconstruction_energy-mse", (0, 0)),
        ("hinge_margin_loss", (0, 0)),
        ("discriminator_loss-l2", (0, 1, 1, 0)),
        ("generator_loss-l2", (0, 1, 0)),
    ],
)
def test_one_tensor_in_two_places_compiles(backend: str, name: str, places: tuple[int, ...]) -> None:
    op, inputs = OPS[name]
    torch.compiler.reset()
    repeated = lambda *few: op(*(few[place] for place in places))  # noqa: E731
    compiled = torch.compile(repeated, fullgraph=True, dynamic=True, backend="aot_eager")
    leaves = leaves_of(inputs[: len(set(places))])
    expected, got = repeated(*leaves), compiled(*leaves)
    assert_same(got, expected, leaves, "value")
    found = (torch.autograd.grad(value.sum(), leaves) for value in (got, expected))
    assert_same_gradients(*found, leaves)


@needs_whole_graphs
@every_backend
def test_a_margin_schedule_does_not_recompile(backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(
        lambda a, b, c, d, m: ebgan_fast.discriminator_loss(a, b, c, d, m, norm="mse")[0],
        fullgraph=True,
        backend="eager",
    )
    batches = [normal(3, 5, seed=seed) for seed in range(4)]
    compiled(*batches, torch.tensor(10.0))
    with torch.compiler.set_stance("fail_on_recompile"):
        for margin in (9.0, 3.0, 0.0):
            got = compiled(*batches, torch.tensor(margin))
            assert got.item() == ebgan_fast.discriminator_loss(*batches, margin, norm="mse")[0].item()


@needs_whole_graphs
@pytest.mark.slow
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
    leaves, again = leaves_of(inputs), leaves_of(inputs)
    expected, got = step(*leaves), compiled(*again)
    assert_same(got, expected, leaves, "value")
    assert_same_gradients(torch.autograd.grad(got, again), torch.autograd.grad(expected, leaves), leaves)


@pytest.mark.slow
@every_backend
@every_op
def test_compile_with_breaks(backend: str, name: str) -> None:
    """A compiled function with graph breaks works; older versions of torch break where they cannot make one graph."""
    op, inputs = OPS[name]
    torch.compiler.reset()
    leaves, again = leaves_of(inputs), leaves_of(inputs)
    expected, got = op(*leaves).sum(), torch.compile(lambda *few: op(*few).sum(), backend="aot_eager")(*again)
    assert_same(got, expected, leaves, "value", op(*leaves).abs().sum().item())
    assert_same_gradients(torch.autograd.grad(got, again), torch.autograd.grad(expected, leaves), leaves)
