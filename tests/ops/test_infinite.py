"""Infinite and NaN samples: gradients match plain torch, and samples past a closed hinge get zeros."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import ebgan_fast

from . import eager
from .cases import every_backend, every_dtype, every_norm, normal

INF, NAN = float("inf"), float("nan")
# 7 elements fit one program or pass. 9001 are cut into chunks.
every_length = pytest.mark.parametrize("elements", [7, 9001])
MARGIN = 1e4  # above every finite energy here
ROW, COLUMN = 1, 5


def _batches(elements: int, dtype: torch.dtype, value: float) -> tuple[Tensor, Tensor]:
    """Return a batch whose element at ROW, COLUMN is `value`, and a batch of zeros."""
    recon = normal(3, elements).to(dtype)
    recon[ROW, COLUMN] = value
    return recon.requires_grad_(), torch.zeros_like(recon).requires_grad_()


def _discriminator_loss(
    backend: str, fakes: tuple[Tensor, Tensor], margin: float, norm: str
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return the loss, the energies of the generated samples, and the gradients to `fakes`.

    The real samples have energy 0.
    """
    real = torch.zeros_like(fakes[0])
    with ebgan_fast.use_backend(backend):
        loss, _, energy = ebgan_fast.discriminator_loss(real, real, *fakes, margin, norm=norm)
        return loss, energy, torch.autograd.grad(loss, fakes)


def _same_where_not_finite(got: Tensor, expected: Tensor) -> None:
    """Fail unless both tensors have NaN, infinities and zeros at the same places; other tests compare the finite
    values."""
    for is_it in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(is_it(got), is_it(expected)), is_it.__name__
    finite = expected.isfinite()
    assert torch.equal(got[finite] == 0, expected[finite] == 0)


def _losses(norm: str) -> dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]]:
    """Return each loss of (recon, target) that has no hinge, and the same loss in plain torch."""
    return {
        "energy": (
            lambda r, t: ebgan_fast.reconstruction_energy(r, t, norm=norm).sum(),
            lambda r, t: eager.reconstruction_energy(r, t, norm).sum(),
        ),
        "generator": (
            lambda r, t: ebgan_fast.generator_loss(r, t, norm=norm)[0],
            lambda r, t: eager.generator_loss(r, t, None, 0.0, norm),
        ),
        "discriminator": (
            lambda r, t: ebgan_fast.discriminator_loss(r, t, t.detach(), t.detach(), MARGIN, norm=norm)[0],
            lambda r, t: eager.discriminator_loss(r, t, t.detach(), t.detach(), MARGIN, norm),
        ),
    }


@every_backend
@every_dtype
@every_norm
@every_length
@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_gradients_are_those_of_plain_torch(
    backend: str, dtype: torch.dtype, norm: str, elements: int, value: float
) -> None:
    """Infinite and NaN values give the NaN, infinities and zeros of plain torch's gradients.

    The slope of l2 is 1/E. At an infinite energy it is 0, and 0 times the infinite difference is NaN.
    """
    for name, (loss, plain) in _losses(norm).items():
        inputs = _batches(elements, dtype, value)
        with ebgan_fast.use_backend(backend):
            got = torch.autograd.grad(loss(*inputs), inputs)
        expected = torch.autograd.grad(plain(*inputs), inputs)
        for found, right in zip(got, expected, strict=True):
            try:
                _same_where_not_finite(found, right)
            except AssertionError as error:
                raise AssertionError(name) from error


@every_backend
@every_dtype
@every_norm
@every_length
def test_a_closed_hinge_passes_nothing_on(backend: str, dtype: torch.dtype, norm: str, elements: int) -> None:
    """A sample of infinite energy is past every margin: it adds 0 to the loss, and its gradient is 0, not NaN."""
    loss, energy, gradients = _discriminator_loss(backend, _batches(elements, dtype, INF), MARGIN, norm)
    assert energy.isinf().tolist() == [row == ROW for row in range(3)]
    assert loss.isfinite()
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert [bool(row.any()) for row in gradient] == [row != ROW for row in range(3)]


@every_backend
@every_dtype
@every_norm
@every_length
def test_nan_opens_the_hinge(backend: str, dtype: torch.dtype, norm: str, elements: int) -> None:
    """A sample whose energy is NaN is not past the margin: the loss is NaN, and the gradient where plain torch's is."""
    inputs = _batches(elements, dtype, NAN)
    loss, energy, gradients = _discriminator_loss(backend, inputs, 0.5, norm)
    assert energy.isnan().tolist() == [row == ROW for row in range(3)]
    assert loss.isnan()
    real = torch.zeros_like(inputs[0])
    plain = torch.autograd.grad(eager.discriminator_loss(real, real, *inputs, 0.5, norm), inputs)
    for gradient, expected in zip(gradients, plain, strict=True):
        assert torch.equal(gradient[ROW].isnan(), expected[ROW].isnan())
        assert gradient[[row for row in range(3) if row != ROW]].isfinite().all()


@every_backend
def test_a_grad_scaler_skips_the_step(backend: str) -> None:
    """A GradScaler skips the step after an infinite float16 reconstruction, as it does with plain torch."""
    weight = torch.nn.Parameter(torch.ones(7))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler(weight.device.type)
    target = torch.zeros(2, 7, dtype=torch.float16)
    images = torch.ones(2, 7, dtype=torch.float16)
    images[0, 3] = INF
    for upstream in (None, scaler.scale(torch.ones(()))):
        with ebgan_fast.use_backend(backend):
            loss = ebgan_fast.generator_loss(images * weight.half(), target, norm="l2", upstream=upstream)[0]
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert weight.detach().eq(1).all()
        weight.grad = None
