"""Checks of the ops' gradients for an upstream other than 1, on whatever runs Triton's kernels here."""

from __future__ import annotations

import torch
from torch import Tensor

from ebgan_fast.ops import reference

from ..launches import Launches

ops = Launches("triton")
ALL = [True] * 4


def _mean_energy(recon: Tensor, target: Tensor, norm: str, upstream: float) -> tuple[Tensor | None, ...]:
    """Return the mean energy, the energies, and the gradients to recon and target."""
    loss, energy, _, *gradients, _ = ops.generator_loss(recon, target, None, 0.0, norm, upstream, [True, True, False])
    return loss, energy, *gradients


def _batches(elements: int, dtype: torch.dtype) -> list[Tensor]:
    """Return recon_real, real, recon_fake and fake; the last fake sample has by far the largest energy."""
    generator = torch.Generator().manual_seed(elements)
    batches = [torch.randn(n, elements, generator=generator).to(dtype) for n in (2, 2, 3, 3)]
    batches[2][2] += 10
    return batches


def _margin(batches: list[Tensor], norm: str) -> float:
    """Return a margin that only the last fake sample is past."""
    energies = reference.reconstruction_energy(batches[2].double(), batches[3].double(), norm)
    return (energies[:2].max() + energies[2]).item() / 2


def _discriminator(
    batches: list[Tensor], norm: str, upstream: Tensor | float, margin: float | None = None
) -> tuple[Tensor, ...]:
    recon_real, real, recon_fake, fake = batches
    margin = _margin(batches, norm) if margin is None else margin
    results = ops.discriminator_loss(recon_real, real, recon_fake, fake, margin, norm, upstream, ALL)
    return tuple(it for it in results if it is not None)


def multiplies_gradients_alone(elements: int, norm: str) -> None:
    """Check that twice the upstream gives twice the gradient, to the bit, and the same loss.

    The upstream is given as a number and as a tensor.
    """
    batches = _batches(elements, torch.float32)
    once = _discriminator(batches, norm, 1.0)
    for upstream in (2.0, torch.tensor(2.0), torch.tensor(2.0, dtype=torch.float16)):
        twice = _discriminator(batches, norm, upstream)
        assert all(map(torch.equal, twice[:3], once[:3]))
        for gradient, of_one in zip(twice[3:], once[3:], strict=True):
            assert gradient.any()
            assert torch.equal(gradient, 2 * of_one)
    for gradient in once[5:]:
        assert not gradient[2].any()  # past the margin
    recon, target = batches[:2]
    results, of_one = (_mean_energy(recon, target, norm, it) for it in (-4.0, 1.0))
    for factor, it, one in zip((1, 1, -4, -4), results, of_one, strict=True):
        assert it is not None
        assert one is not None
        assert torch.equal(it, factor * one)


def comes_before_the_rounding(elements: int) -> None:
    """Check that gradients too small for float16 are multiplied by the upstream before they are rounded.

    They are then rounded once, by half a unit of 11 bits; before that only float32's roundings count.
    """
    recon, target = (it * 2.0**-14 for it in _batches(elements, torch.float16)[:2])
    upstream = 2.0**14 * elements
    truth = (recon.double() - target.double()) * (2.0**14)  # of a mean over two samples
    bound = truth.abs() * (2.0**-11 + 2.0**-22) + 2.0**-25
    found = _mean_energy(recon, target, "mse", upstream)[2]
    of_one = _mean_energy(recon, target, "mse", 1.0)[2]
    assert found is not None
    assert of_one is not None
    assert ((found.double() - truth).abs() <= bound).all()
    assert ((of_one.double() * upstream - truth).abs() > bound).any()


def is_zeros_for_a_weight_of_zero(elements: int, norm: str) -> None:
    """Check that an upstream of 0, or a closed gate, gives zeros, also where the difference is infinite or NaN."""
    batches = _batches(elements, torch.float32)
    margin = _margin(batches, norm)
    batches[0][1, 0], batches[2][2, elements // 2], batches[3][0, elements - 1] = torch.inf, -torch.inf, torch.nan
    for upstream in (0.0, torch.tensor(0.0)):
        loss, *_, grad_recon_real, grad_real, grad_recon_fake, grad_fake = _discriminator(
            batches, norm, upstream, margin
        )
        assert loss.isnan()
        assert not any(it.any() for it in (grad_recon_real, grad_real, grad_recon_fake, grad_fake))
    loss, _, energy, _, _, *shut = _discriminator(batches, norm, 3.0, margin)
    assert not any(it[2].any() for it in shut)  # an infinite energy is past every margin
    assert loss.isnan()  # NaN is past none
    assert energy.isnan().tolist() == [True, False, False]


def is_nan_at_an_infinite_difference(elements: int) -> None:
    """Check that l2's gradient at an infinite difference is NaN there and 0 elsewhere in the sample.

    The energy is infinite, so the slope is 0, and 0 times infinity is NaN, as in plain torch.
    """
    batches = _batches(elements, torch.float32)
    batches[0][1, elements // 2] = torch.inf
    found = _discriminator(batches, "l2", 1.0)
    leaf = batches[0].clone().requires_grad_()
    (truth,) = torch.autograd.grad((leaf - batches[1]).square().sum(1).sqrt().mean(), leaf)
    assert truth[1].isnan().sum() == 1
    for gradient in found[3:5]:
        assert torch.equal(gradient.isnan(), truth.isnan())
        assert not gradient[1].nan_to_num().any()
        assert gradient[0].all()
    energy = ops.reconstruction_energy(batches[0], batches[1], "l2")
    gradients = ops.reconstruction_energy_backward(
        torch.full((2,), 0.5), batches[0], batches[1], energy, "l2", [True, True]
    )
    assert all(it is not None and torch.equal(it.isnan(), truth.isnan()) for it in gradients)


def is_zeros_for_equal_batches(elements: int) -> None:
    """Check that an l2 energy of 0 has gradient 0."""
    batch = _batches(elements, torch.float32)[0]
    found = _discriminator([batch, batch, batch, batch], "l2", 3.0, 1.0)
    assert found[0] == 1.0
    assert not any(it.any() for it in found[3:])
