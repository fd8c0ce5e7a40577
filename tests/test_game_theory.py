"""The paper's theorems hold on discrete distributions, without training, for the losses of weighted batches.

A discrete distribution p is a batch in which point k appears 60 p_k times, so the losses' means are expectations.
Section 2.2 says: the best response is D*(x) = m where p_data(x) < p_G(x), and 0 elsewhere;
min_D V = m (1 - TV(p_data, p_G)). At equilibrium (p_G = p_data, D = gamma in [0, m]) V = m and U = gamma.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import ebgan_fast

from .ops.budget import ULPS, energy_sums

MARGIN = 3.0
# A bound on the rounding of a loss over 60 energies below twice the margin, each compared with the margin.
ROUNDING = (ULPS + energy_sums(torch.empty(60))) * torch.finfo(torch.float64).eps * 3 * MARGIN
PAIRS = {
    "equal": ([15, 15, 15, 15], [15, 15, 15, 15]),
    "disjoint": ([30, 30, 0, 0], [0, 0, 20, 40]),
    "overlapping": ([6, 24, 30, 0], [12, 18, 10, 20]),
}


def _value(counts_data: list[int], counts_g: list[int], discriminator: Tensor) -> float:
    """Return V(G, D), the discriminator's expected loss, for an auto-encoder whose energy at point k is D(k)."""
    recon_real, recon_fake = (
        discriminator.repeat_interleave(torch.tensor(counts)).unsqueeze(1) for counts in (counts_data, counts_g)
    )
    loss, _, _ = ebgan_fast.discriminator_loss(
        recon_real, torch.zeros_like(recon_real), recon_fake, torch.zeros_like(recon_fake), MARGIN, norm="l2"
    )
    return loss.item()


def _best_response(counts_data: list[int], counts_g: list[int]) -> Tensor:
    return torch.tensor(
        [MARGIN if p < q else 0.0 for p, q in zip(counts_data, counts_g, strict=True)], dtype=torch.float64
    )


@pytest.mark.parametrize("name", PAIRS)
def test_the_best_response_gives_the_margin_times_the_overlap(name: str) -> None:
    p, q = PAIRS[name]
    total_variation = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 60 / 2
    assert _value(p, q, _best_response(p, q)) == pytest.approx(MARGIN * (1 - total_variation), abs=ROUNDING)


@pytest.mark.parametrize("name", PAIRS)
def test_no_discriminator_does_better_than_the_best_response(name: str) -> None:
    p, q = PAIRS[name]
    best = _value(p, q, _best_response(p, q))
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        other = torch.rand(4, generator=generator, dtype=torch.float64) * 2 * MARGIN
        assert _value(p, q, other) >= best - 2 * ROUNDING


@pytest.mark.parametrize("gamma", [0.0, 1.2, MARGIN])
def test_at_equilibrium_v_is_the_margin_and_u_is_gamma(gamma: float) -> None:
    p, _ = PAIRS["overlapping"]
    flat = torch.full((4,), gamma, dtype=torch.float64)
    assert _value(p, p, flat) == pytest.approx(MARGIN, abs=ROUNDING)
    fakes = flat.repeat_interleave(torch.tensor(p)).unsqueeze(1)
    u, _, _ = ebgan_fast.generator_loss(fakes, torch.zeros_like(fakes), norm="l2")
    assert u.item() == pytest.approx(gamma, abs=ROUNDING)


def test_an_equilibrium_holds_against_both_players() -> None:
    p, q = PAIRS["overlapping"]
    gamma = 1.2
    flat = torch.full((4,), gamma, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        other = torch.rand(4, generator=generator, dtype=torch.float64) * 2 * MARGIN
        assert _value(p, p, other) >= MARGIN - ROUNDING
    # A generator that leaves p_data gains nothing: the energy is flat.
    for counts in (p, q):
        fakes = flat.repeat_interleave(torch.tensor(counts)).unsqueeze(1)
        u, _, _ = ebgan_fast.generator_loss(fakes, torch.zeros_like(fakes), norm="l2")
        assert u.item() == pytest.approx(gamma, abs=ROUNDING)


def test_a_flat_energy_above_the_margin_is_no_equilibrium() -> None:
    p, _ = PAIRS["overlapping"]
    assert _value(p, p, torch.full((4,), 1.5 * MARGIN, dtype=torch.float64)) > MARGIN * 1.4
