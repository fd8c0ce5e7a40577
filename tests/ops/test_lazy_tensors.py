"""Tensors whose numbers are not what lies in memory: a kernel that took their address would read wrong numbers or
crash.

Some are negated by a bit only (`is_neg`): the imaginary part of a conjugate, `torch.fft.fft(x).conj().imag`, and
gradients that come back through one. Others are zeros without memory (`_is_zerotensor`), such as the derivative of
`sgn`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import ebgan_fast

from .cases import every_backend, every_dtype, normal
from .small_ops import OPS

ONE = torch.tensor(1.0)
# The ops that take coefficients: margin, weight, upstream.
WITH_COEFFICIENTS = {
    "hinge_margin_loss": lambda a, b, c: ebgan_fast.hinge_margin_loss(a[:, 0], b[:, 0], c),
    "discriminator_loss": lambda a, b, c: ebgan_fast.discriminator_loss(a, b, b, a, c, norm="mse").loss,
    "discriminator_loss, upstream": lambda a, b, c: ebgan_fast.discriminator_loss(a, b, b, a, 2.0, upstream=c).loss,
    "generator_loss": lambda a, b, c: ebgan_fast.generator_loss(a, b, a, pt_weight=c).loss,
    "generator_loss, upstream": lambda a, b, c: ebgan_fast.generator_loss(a, b, a, upstream=c).loss,
}


def _negated_twice(tensor: Tensor) -> Tensor:
    """Return a tensor of the same numbers whose memory holds their negatives."""
    result = torch._neg_view(-tensor.detach())
    assert result.is_neg()
    return result


def _without_memory(tensor: Tensor) -> Tensor:
    """Return zeros of this shape, dtype and device that have no memory."""
    result = torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    assert result._is_zerotensor()
    return result


def _value_and_gradients(op, tensors, upstream_of) -> list[Tensor]:  # type: ignore[no-untyped-def]
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    value = op(*leaves)
    upstream = upstream_of(torch.linspace(0.5, 1.5, max(value.numel(), 1), dtype=value.dtype).reshape(value.shape))
    found = torch.autograd.grad(value, leaves, upstream, allow_unused=True, materialize_grads=True)
    return [value.detach(), *found]


def _same(tensor: Tensor) -> Tensor:
    return tensor


@every_backend
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_inputs_and_upstream_gradients(backend: str, name: str, dtype: torch.dtype) -> None:
    op, inputs = OPS[name]
    inputs = tuple(tensor.to(dtype) for tensor in inputs)
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        expected = _value_and_gradients(op, inputs, _same)
        for place in range(len(inputs) + 1):  # the last place is the upstream gradient
            some = [_negated_twice(it) if index == place else it for index, it in enumerate(inputs)]
            got = _value_and_gradients(op, some, _negated_twice if place == len(inputs) else _same)
            assert all(map(torch.equal, got, expected)), f"argument {place}"


@every_backend
@pytest.mark.parametrize("name", OPS)
def test_zeros_without_memory(backend: str, name: str) -> None:
    op, inputs = OPS[name]
    inputs = tuple(tensor.float() for tensor in inputs)
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        for place in range(len(inputs) + 1):
            found = []
            for zeros in (_without_memory, torch.zeros_like):
                some = [zeros(it) if index == place else it for index, it in enumerate(inputs)]
                found.append(_value_and_gradients(op, some, zeros if place == len(inputs) else _same))
            assert all(map(torch.equal, *found)), f"argument {place}"


@every_backend
@pytest.mark.parametrize("name", WITH_COEFFICIENTS)
@pytest.mark.parametrize(("made", "usual"), [(_negated_twice, ONE), (_without_memory, 0 * ONE)], ids=["neg", "zero"])
def test_coefficients(backend: str, name: str, made: Callable[[Tensor], Tensor], usual: Tensor) -> None:
    op, tensors = WITH_COEFFICIENTS[name], (normal(3, 4).float(), normal(3, 4, seed=1).float())
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        got, expected = (
            _value_and_gradients(lambda a, b, it=it: op(a, b, it), tensors, lambda one: 3 * one)
            for it in (made(usual), usual)
        )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)  # an `upstream` argument of 0 gives NaN


@every_backend
def test_the_derivative_of_a_sign(backend: str) -> None:
    """A gradient may come back through `sgn`, which gives an upstream without memory."""
    recon = normal(3, 8).requires_grad_()
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        ebgan_fast.reconstruction_energy(recon, torch.zeros_like(recon)).sgn().sum().backward()
    assert recon.grad is not None
    assert torch.equal(recon.grad, torch.zeros_like(recon))


@every_backend
@every_dtype
def test_the_imaginary_part_of_a_conjugate(backend: str, dtype: torch.dtype) -> None:
    """The ops resolve the negative bit in both cases that users meet.

    The first is a batch from an FFT, the second a complex number made of an energy.
    """
    recon = torch.fft.fft(normal(3, 8)).conj().imag
    assert recon.is_neg()
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        for batch in (recon, recon.to(dtype)):
            target = torch.ones(3, 8, dtype=batch.dtype)  # against 0, -x and x have one energy
            got, expected = (ebgan_fast.reconstruction_energy(it, target) for it in (batch, batch.resolve_neg()))
            assert torch.equal(got, expected)
        leaf = normal(3, 8).to(dtype).requires_grad_()
        energy = ebgan_fast.reconstruction_energy(leaf, torch.zeros_like(leaf))
        # The real part of conj(0 + i E) i is E.
        (torch.complex(torch.zeros_like(energy), energy).conj() * 1j).real.sum().backward()
        (usual,) = torch.autograd.grad(ebgan_fast.reconstruction_energy(leaf, torch.zeros_like(leaf)).sum(), leaf)
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, usual)
