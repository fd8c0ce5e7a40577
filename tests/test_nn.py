"""The Modules give what the functions give, and say what they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch

import ebgan_fast
from ebgan_fast import nn


def _batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(4, 1, 5, 5, generator=generator) for _ in range(4)]


def test_modules_equal_functions() -> None:
    recon_real, real, recon_fake, fake = _batches()
    code = recon_fake[:, :, :3]
    energy = nn.ReconstructionEnergy("l2")(recon_real, real)
    assert torch.equal(energy, ebgan_fast.reconstruction_energy(recon_real, real, norm="l2"))
    other = ebgan_fast.reconstruction_energy(recon_fake, fake, norm="l2")
    assert torch.equal(nn.HingeMarginLoss(2.0)(energy, other), ebgan_fast.hinge_margin_loss(energy, other, 2.0))
    assert torch.equal(nn.PullingAwayTerm()(code), ebgan_fast.pulling_away_term(code))
    for got, expected in (
        (
            nn.DiscriminatorLoss(2.0, "sse")(recon_real, real, recon_fake, fake),
            ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, 2.0, norm="sse"),
        ),
        (
            nn.GeneratorLoss(0.3, "l2")(recon_fake, fake, code),
            ebgan_fast.generator_loss(recon_fake, fake, code, pt_weight=0.3, norm="l2"),
        ),
    ):
        assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize(
    "call",
    [
        *(ebgan_fast.reconstruction_energy, ebgan_fast.discriminator_loss, ebgan_fast.generator_loss),
        *(nn.ReconstructionEnergy, nn.DiscriminatorLoss, nn.GeneratorLoss),
    ],
    ids=lambda call: call.__name__,
)
def test_the_norm_that_nobody_names_is_the_paper_s(call: Callable[..., object]) -> None:
    assert inspect.signature(call).parameters["norm"].default == "l2"


def test_a_schedule_sets_the_margin_between_steps() -> None:
    loss = nn.HingeMarginLoss(2.0)
    zeros = torch.zeros(3)
    assert loss(zeros, zeros).item() == 2.0
    loss.margin = torch.tensor(0.5)
    assert loss(zeros, zeros).item() == 0.5


def test_representations_name_the_settings() -> None:
    assert repr(nn.DiscriminatorLoss(10.0, "l2")) == "DiscriminatorLoss(margin=10.0, norm='l2')"
    assert repr(nn.GeneratorLoss(0.1, "l2")) == "GeneratorLoss(pt_weight=0.1, norm='l2')"
