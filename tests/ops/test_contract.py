"""Every op on every backend, dtype and layout: value and gradients are held against the float64 reference."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import reference

from . import eager
from .against_reference import check, check_pulling_away_term, check_reconstruction_energy
from .budget import (
    assert_within_budget,
    energy_sums,
    pulling_away_diagonal,
    pulling_away_sums,
    pulling_away_terms,
)
from .cases import (
    INTERPRETED,
    NORMS,
    batches,
    codes,
    every_backend,
    every_dtype,
    examples,
    laid_out,
    pairs,
    shapes,
    small_shapes,
)
from .simulated_cuda import SIMULATED


def _skip_what_the_interpreter_gets_wrong(dtype: torch.dtype) -> None:
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip(
            "Triton's interpreter multiplies matrices of bfloat16 as integers; triton/test_simulated.py has them"
        )


def _clear_of_the_margin(energies: Tensor, fraction: float) -> float:
    """Return a margin between two energies, so far from both that no rounding can move an energy across it."""
    levels = torch.cat([energies.sort().values, energies.max().reshape(1) * 2 + 1]) if energies.numel() else None
    if levels is None:
        return fraction
    index = min(int(fraction * energies.numel()), energies.numel() - 1)
    below, above = levels[index].item(), levels[index + 1].item()
    assume(above - below > 1e-3 * above)
    return (below + above) / 2


@every_backend
@every_dtype
@pytest.mark.parametrize("norm", NORMS)
@examples(40)
@given(data=st.data())
def test_reconstruction_energy(backend: str, dtype: torch.dtype, norm: str, data: st.DataObject) -> None:
    recon, target = data.draw(pairs(dtype))
    upstream = data.draw(st.none() | batches(recon.shape[:1], torch.float32))
    if upstream is None:
        upstream = torch.ones(()).expand(recon.shape[:1])  # the upstream that .sum() sends: stride 0
    with ebgan_fast.use_backend(backend):
        check_reconstruction_energy(recon, target, norm, upstream)


@every_backend
@every_dtype
@examples(40)
@given(data=st.data())
def test_hinge_margin_loss(backend: str, dtype: torch.dtype, data: st.DataObject) -> None:
    real, fake = (data.draw(batches((data.draw(st.integers(0, 40)),), dtype)).abs() for _ in range(2))
    real, fake = (
        laid_out(energies, data.draw(st.sampled_from(("contiguous", "sliced_batch")))) for energies in (real, fake)
    )
    margin = _clear_of_the_margin(fake.double(), data.draw(st.floats(0, 1)))
    with ebgan_fast.use_backend(backend):
        check(
            lambda r, f: ebgan_fast.hinge_margin_loss(r, f, margin),
            lambda r, f: reference.hinge_margin_loss(r, f, margin),
            lambda r, f: eager.hinge_margin_loss(r, f, margin),
            (real, fake),
            torch.tensor(data.draw(st.sampled_from((1.0, -0.37)))),
            [margin + eager.mean(real.double()).item(), None, None],
            max(energy_sums(real), energy_sums(fake)),
        )


@every_backend
@every_dtype
@examples(60)
@given(data=st.data())
def test_pulling_away_term(backend: str, dtype: torch.dtype, data: st.DataObject) -> None:
    _skip_what_the_interpreter_gets_wrong(dtype)
    code = data.draw(codes(dtype))
    upstream = torch.tensor(data.draw(st.sampled_from((1.0, -0.37))))
    with ebgan_fast.use_backend(backend):
        check_pulling_away_term(code, upstream)


@every_backend
@every_dtype
@pytest.mark.parametrize("norm", NORMS)
@examples(25)
@given(data=st.data())
def test_discriminator_loss(backend: str, dtype: torch.dtype, norm: str, data: st.DataObject) -> None:
    recon_real, real = data.draw(pairs(dtype))
    recon_fake, fake = data.draw(pairs(dtype))
    energies_real = reference.reconstruction_energy(recon_real.double(), real.double(), norm)
    energies_fake = reference.reconstruction_energy(recon_fake.double(), fake.double(), norm)
    margin = _clear_of_the_margin(energies_fake, data.draw(st.floats(0, 1)))
    tensors = (recon_real, real, recon_fake, fake)
    with ebgan_fast.use_backend(backend):
        check(
            lambda *batches: ebgan_fast.discriminator_loss(*batches, margin, norm=norm)[0],
            lambda *batches: reference.discriminator_loss(*batches, margin, norm)[0],
            lambda *batches: eager.discriminator_loss(*batches, margin, norm),
            tensors,
            torch.tensor(data.draw(st.sampled_from((1.0, -0.37, 4096.0)))),
            [margin + eager.mean(energies_real).item(), *[None] * 4],
            max(energy_sums(recon_real), energy_sums(recon_fake)),
        )
        _, energy_real, energy_fake = ebgan_fast.discriminator_loss(*tensors, margin, norm=norm)
    for energy, recon, target in ((energy_real, recon_real, real), (energy_fake, recon_fake, fake)):
        assert not energy.requires_grad
        assert_within_budget(
            energy,
            reference.reconstruction_energy(recon.double(), target.double(), norm),
            eager.reconstruction_energy(recon, target, norm),
            "energy",
            sums=energy_sums(recon),
        )


@pytest.mark.slow
@every_backend
@every_dtype
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("with_code", [True, False])
@examples(15)
@given(data=st.data())
def test_generator_loss(backend: str, dtype: torch.dtype, norm: str, with_code: bool, data: st.DataObject) -> None:
    if with_code:
        _skip_what_the_interpreter_gets_wrong(dtype)
    recon, fake = data.draw(pairs(dtype))
    code = (data.draw(codes(dtype, n=recon.shape[0])),) if with_code else ()
    weight = data.draw(st.sampled_from((0.0, 0.1, 3.0))) if with_code else 0.0
    upstream = torch.tensor(data.draw(st.sampled_from((1.0, -0.37, 4096.0))))
    with ebgan_fast.use_backend(backend):
        check(
            lambda r, f, s=None: ebgan_fast.generator_loss(r, f, s, pt_weight=weight, norm=norm)[0],
            lambda r, f, s=None: reference.generator_loss(r, f, s, weight, norm)[0],
            lambda r, f, s=None: eager.generator_loss(r, f, s, weight, norm),
            (recon, fake, *code),
            upstream,
            [
                weight * sum(map(pulling_away_diagonal, code)),
                *(None, None),
                *(upstream.abs() * weight * pulling_away_terms(s) for s in code),
            ],
            max(energy_sums(recon), *(pulling_away_sums(s) for s in code), 0),
        )
        _, energy, pulling_away = ebgan_fast.generator_loss(recon, fake, *code, pt_weight=weight, norm=norm)
    assert not energy.requires_grad
    assert not pulling_away.requires_grad
    assert energy.shape == recon.shape[:1]
    if with_code:
        truth = reference.pulling_away_term(code[0].double())
        yardstick = eager.pulling_away_term(code[0])
        diagonal = pulling_away_diagonal(code[0])
        assert_within_budget(pulling_away, truth, yardstick, "pulling_away", diagonal, pulling_away_sums(code[0]))
    else:
        assert pulling_away.item() == 0.0


@every_backend
@examples(30)
@given(data=st.data())
def test_only_the_gradients_that_are_asked_for(backend: str, data: st.DataObject) -> None:
    """Inputs that require a gradient get the gradients of the full set, and the other inputs get none."""
    # A simulator needs ten seconds to multiply codes of 9,000 elements.
    shape = data.draw(small_shapes if SIMULATED or INTERPRETED else shapes)
    tensors = [data.draw(batches(shape, torch.float32)) for _ in range(4)]
    wanted = data.draw(st.lists(st.booleans(), min_size=4, max_size=4).filter(any))

    def loss_of(leaves: Sequence[Tensor]) -> Tensor:
        d_loss = ebgan_fast.discriminator_loss(*leaves, 0.5, norm="l2")[0]
        g_loss = ebgan_fast.generator_loss(*leaves[2:], leaves[0], norm="sse")[0]
        energies = ebgan_fast.reconstruction_energy(*leaves[:2], norm="mse")
        hinge = ebgan_fast.hinge_margin_loss(*(leaf.flatten() for leaf in leaves[2:]), 0.5)
        return d_loss + g_loss + energies.sum() + hinge

    with ebgan_fast.use_backend(backend):
        full = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        loss_of(full).backward()
        part = [tensor.detach().clone().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]
        loss_of(part).backward()
    for whole, partial, want in zip(full, part, wanted, strict=True):
        assert (partial.grad is not None) == want
        if want:
            assert torch.equal(whole.grad, partial.grad)
