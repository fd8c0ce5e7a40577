"""Reductions, the hinge over one batch, weights that were left out, and numbers of every kind."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import reference
from tests.older_versions import needs_whole_graphs

from . import eager
from .against_reference import check
from .budget import energy_sums, sums_dtype
from .cases import every_backend, every_dtype, every_norm, normal


@every_backend
@every_dtype
@every_norm
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_reduced_energy(backend: str, dtype: torch.dtype, norm: str, reduction: str) -> None:
    recon, target = (normal(5, 2, 7, seed=seed).to(dtype) for seed in range(2))

    def reduced(energy: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda r, t: getattr(energy(r, t, norm), reduction)()

    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        check(
            lambda r, t: ebgan_fast.reconstruction_energy(r, t, norm=norm, reduction=reduction),  # type: ignore[arg-type]
            reduced(reference.reconstruction_energy),
            reduced(eager.reconstruction_energy),
            (recon, target),
            torch.tensor(-0.7),
            sums=energy_sums(recon),
        )


@every_backend
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_reduced_energy_of_no_sample_is_0(backend: str, reduction: str) -> None:
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        empty = normal(0, 3)
        assert ebgan_fast.reconstruction_energy(empty, empty, reduction=reduction) == 0  # type: ignore[arg-type]


def test_a_mean_is_one_op(op_calls: list[str]) -> None:
    recon, target = normal(5, 7).requires_grad_(), normal(5, 7, seed=1)
    ebgan_fast.reconstruction_energy(recon, target, reduction="mean").backward()
    assert op_calls in (["generator_loss"], [])  # no op where the reference runs


@every_backend
@every_dtype
def test_the_hinge_over_generated_samples_alone(backend: str, dtype: torch.dtype) -> None:
    energies = normal(9).abs().to(dtype)
    margin = 0.8
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        check(
            lambda fake: ebgan_fast.hinge_margin_loss(None, fake, margin),
            lambda fake: torch.relu(margin - fake).mean(),
            lambda fake: torch.relu(margin - fake.to(sums_dtype(dtype))).mean(),
            (energies,),
            torch.tensor(1.3),
            [margin, None],
            energy_sums(energies),
        )
        assert ebgan_fast.nn.HingeMarginLoss(margin)(None, energies) == ebgan_fast.hinge_margin_loss(
            None, energies, margin
        )


@every_backend
def test_a_weight_that_nobody_gave_is_the_papers_with_a_code(backend: str) -> None:
    recon, fake, code = normal(3, 4), normal(3, 4, seed=1), normal(3, 2, seed=2)
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        given, left_out = (ebgan_fast.generator_loss(recon, fake, code, pt_weight=it) for it in (0.1, None))
        assert all(map(torch.equal, given, left_out))
        without = ebgan_fast.generator_loss(recon, fake)
        assert torch.equal(without.loss, ebgan_fast.generator_loss(recon, fake, pt_weight=0).loss)
        assert torch.equal(without.loss, ebgan_fast.generator_loss(recon, fake, code, pt_weight=0.0).loss)


NUMBERS = {
    "int": 2,
    "numpy float64": np.float64(2),
    "numpy float32": np.float32(2),
    "numpy float16": np.float16(2),
    "numpy int": np.int32(2),
    "numpy array": np.array(2.0),
    "fraction": Fraction(2),
    "float64 tensor": torch.tensor(2.0, dtype=torch.float64),
    "float16 tensor": torch.tensor(2.0, dtype=torch.float16),
}


@every_backend
@every_dtype
@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_of_every_kind_are_the_number(backend: str, dtype: torch.dtype, number: float) -> None:
    """Each kind of number gives the value, dtype and gradients of a Python float."""
    recon_real, real, recon_fake, fake = (normal(3, 4, seed=seed).to(dtype) for seed in range(4))
    code = normal(3, 5, seed=4).to(dtype)

    def results(value: float) -> list[Tensor]:
        leaves = [
            recon_real.clone().requires_grad_(),
            recon_fake.clone().requires_grad_(),
            code.clone().requires_grad_(),
        ]
        losses = [
            *ebgan_fast.discriminator_loss(leaves[0], real, leaves[1], fake, value),
            *ebgan_fast.generator_loss(leaves[1], fake, leaves[2], pt_weight=value),
            ebgan_fast.hinge_margin_loss(*(ebgan_fast.reconstruction_energy(it, real) for it in leaves[:2]), value),
        ]
        loss = losses[0] + losses[3] + losses[6]
        loss.backward()
        return [*losses, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        for found, expected in zip(results(number), results(2.0), strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)


@needs_whole_graphs
@pytest.mark.slow
def test_numbers_in_a_compiled_loss() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(recon: Tensor, margin: float) -> Tensor:
        return ebgan_fast.discriminator_loss(recon, recon + 1, recon, recon + 1, margin).loss

    recon = normal(3, 4)
    for margin in (3.0, 4, torch.tensor(5.0), np.float32(6.0), np.int32(7)):
        expected = ebgan_fast.discriminator_loss(recon, recon + 1, recon, recon + 1, margin).loss
        torch.testing.assert_close(loss(recon, margin), expected)  # type: ignore[arg-type]
