"""The fused losses take the upstream gradient as an argument, and make their gradients for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import reference

from . import eager
from .budget import assert_within_budget, energy_sums
from .cases import DEVICE, every_dtype, every_kernel, every_norm, normal

every_length = pytest.mark.parametrize("elements", [40, 9001])


def _batches(count: int, elements: int, dtype: torch.dtype) -> list[Tensor]:
    return [normal(3, elements, seed=seed).to(dtype).requires_grad_() for seed in range(count)]


def _margin(recon: Tensor, fake: Tensor, norm: str) -> float:
    """Return a margin between the energies, far from each."""
    energies = reference.reconstruction_energy(recon.detach().double(), fake.detach().double(), norm).sort().values
    return float(energies[:2].mean())


Value = Callable[[float], object]
every_way = pytest.mark.parametrize(
    "way", [float, lambda value: torch.tensor(value, device=DEVICE)], ids=["number", "tensor"]
)


@every_kernel
@every_dtype
@every_norm
@every_length
@every_way
@pytest.mark.parametrize("upstream", [0.3125, 65536.0, -2.0])
def test_the_discriminator_loss(
    backend: str, dtype: torch.dtype, norm: str, elements: int, way: Value, upstream: float, op_calls: list[str]
) -> None:
    batches = _batches(4, elements, dtype)
    if dtype == torch.float16:  # the largest float16 is 65504
        upstream = min(upstream, 16.0)
    margin = _margin(batches[2], batches[3], norm)
    with ebgan_fast.use_backend(backend):
        plain = ebgan_fast.discriminator_loss(*batches, margin, norm=norm)
        got = ebgan_fast.discriminator_loss(*batches, margin, norm=norm, upstream=way(upstream))
        op_calls.clear()
        gradients = torch.autograd.grad(got[0], batches, torch.full_like(got[0], upstream))
    if backend == "cpu":
        assert op_calls == []
    else:
        assert op_calls == ["scale_gradients_"]  # the device finds that nothing must be multiplied
    if dtype != torch.float16:  # without `upstream`, float16 runs the single ops
        assert all(map(torch.equal, plain, got)), "the loss or an energy depends on the upstream"
    wide = [batch.detach().double().requires_grad_() for batch in batches]
    truth = torch.autograd.grad(reference.discriminator_loss(*wide, margin, norm)[0] * upstream, wide)
    yardstick = torch.autograd.grad(eager.discriminator_loss(*batches, margin, norm) * upstream, batches)
    for name, *values in zip(("recon real", "real", "recon fake", "fake"), gradients, truth, yardstick, strict=True):
        assert_within_budget(*values, name, sums=energy_sums(batches[0]))
    assert [bool(row.any()) for row in gradients[2]].count(True) == 1, "one hinge is open"


@every_kernel
@every_dtype
@every_way
@pytest.mark.parametrize("shape", [(3, 50), (6, 4)], ids=["primal", "dual"])
def test_the_generator_loss(
    backend: str, dtype: torch.dtype, way: Value, shape: tuple[int, int], op_calls: list[str]
) -> None:
    upstream, weight = 16.0, 0.25
    recon, fake = (normal(shape[0], 40, seed=seed).to(dtype).requires_grad_() for seed in range(2))
    code = normal(*shape, seed=2).to(dtype).requires_grad_()
    inputs = recon, fake, code
    with ebgan_fast.use_backend(backend):
        plain = ebgan_fast.generator_loss(*inputs, pt_weight=weight, norm="l2")
        got = ebgan_fast.generator_loss(*inputs, pt_weight=way(weight), norm="l2", upstream=way(upstream))
        op_calls.clear()
        gradients = torch.autograd.grad(got[0], inputs, torch.full_like(got[0], upstream))
        assert op_calls == ([] if backend == "cpu" else ["scale_gradients_"])
        term = ebgan_fast.pulling_away_term(code)
        (of_term,) = torch.autograd.grad(term, code, torch.full_like(term, weight * upstream))
    if dtype != torch.float16 and way is float:
        assert all(map(torch.equal, plain, got))
    assert torch.equal(gradients[2], of_term), "the op of the term alone gives the same, rounded once"
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs[:2]]
    truth = torch.autograd.grad(reference.generator_loss(*wide, None, 0.0, "l2")[0] * upstream, wide)
    yardstick = torch.autograd.grad(eager.generator_loss(recon, fake, None, 0.0, "l2") * upstream, inputs[:2])
    for name, *values in zip(("recon", "fake"), gradients, truth, yardstick, strict=False):
        assert_within_budget(*values, name, sums=energy_sums(recon))


@every_kernel
@every_dtype
@pytest.mark.parametrize("which", ["weight", "upstream", "both"])
def test_coefficients_of_few_digits_are_multiplied_in_many(backend: str, dtype: torch.dtype, which: str) -> None:
    """Weight and upstream are multiplied in the code's dtype, not in a narrower one of their own.

    In torch the product of a number and a 0-d tensor has the tensor's dtype, which may be narrower than the code's.
    """
    recon, fake = _batches(2, 5, torch.float64)
    code = normal(3, 7, seed=2).requires_grad_()
    few = {
        name: torch.tensor(value, dtype=dtype, device=DEVICE) for name, value in (("weight", 0.3), ("upstream", 5.7))
    }

    def gradient(weight: object, upstream: object) -> Tensor:
        with ebgan_fast.use_backend(backend):
            loss = ebgan_fast.generator_loss(recon, fake, code, pt_weight=weight, upstream=upstream)[0]
            return torch.autograd.grad(loss, code, torch.full_like(loss, float(upstream)))[0]

    weight, upstream = (few[name] if which in (name, "both") else few[name].item() for name in few)
    assert torch.equal(gradient(weight, upstream), gradient(few["weight"].item(), few["upstream"].item()))


@every_kernel
@pytest.mark.parametrize("keep", [False, True], ids=["freed", "kept"])
def test_another_upstream_than_the_one_that_was_told(backend: str, keep: bool) -> None:
    """Backward multiplies by the quotient of the actual upstream and the one given to the loss.

    The quotient here is a power of two, so results are exact. A graph that is kept gives new tensors.
    """
    batches = _batches(4, 40, torch.float32)
    with ebgan_fast.use_backend(backend):
        told = ebgan_fast.discriminator_loss(*batches, 9.0, norm="l2", upstream=8.0)[0]
        plain = ebgan_fast.discriminator_loss(*batches, 9.0, norm="l2")[0]
    first = torch.autograd.grad(told, batches, torch.full_like(told, 2.0), retain_graph=keep)
    expected = torch.autograd.grad(plain, batches, torch.full_like(plain, 2.0))
    assert all(map(torch.equal, first, expected))
    if keep:
        for gradient in first:
            gradient.fill_(float("nan"))  # the user may overwrite a result
        again = torch.autograd.grad(told, batches, torch.full_like(told, 8.0))
        assert all(torch.equal(found, 4 * right) for found, right in zip(again, expected, strict=True))


@every_kernel
def test_second_derivatives_do_not_know_of_it(backend: str) -> None:
    batches = _batches(4, 6, torch.float64)
    found = []
    for name, upstream in ((backend, 8.0), ("reference", None)):
        with ebgan_fast.use_backend(name):
            loss = ebgan_fast.discriminator_loss(*batches, 9.0, norm="sse", upstream=upstream)[0]
        first = torch.autograd.grad(loss, batches, create_graph=True)
        found.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), batches))
    for got, expected in zip(*found, strict=True):
        assert_within_budget(got, expected, expected, "second derivative", sides=2)


@pytest.mark.parametrize("loss", ["discriminator", "generator"])
@pytest.mark.parametrize(
    ("upstream", "error", "message"),
    [
        (0.0, ValueError, "upstream: got 0.0, expected a finite number other than 0"),
        (float("inf"), ValueError, "upstream: got inf, expected a finite number other than 0"),
        (torch.ones(2), ValueError, r"upstream: got a tensor of shape \(2,\), expected a number or a 0-d tensor"),
        (True, TypeError, "upstream: got bool, expected a number or a 0-d tensor"),
    ],
)
def test_what_is_no_upstream(loss: str, upstream: object, error: type[Exception], message: str) -> None:
    batch = torch.ones(2, 3)
    function: Callable[..., object] = {
        "discriminator": lambda **it: ebgan_fast.discriminator_loss(batch, batch, batch, batch, 1.0, **it),
        "generator": lambda **it: ebgan_fast.generator_loss(batch, batch, **it),
    }[loss]
    with pytest.raises(error, match=message):
        function(upstream=upstream)
