"""Values known from theory, and the paper's formulas written out element by element."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import ebgan_fast

from .budget import ULPS, assert_within_budget, energy_sums, pulling_away_sums
from .cases import BACKENDS, DEVICE, INTERPRETED, normal
from .simulated_cuda import SIMULATED

pytestmark = pytest.mark.parametrize("backend", BACKENDS)
too_large_for_a_simulator = pytest.mark.skipif(
    SIMULATED or INTERPRETED, reason="200 large codes take a simulator a minute; the others have the same formula"
)


@pytest.fixture(autouse=True)
def _on_backend(backend: str):
    with ebgan_fast.use_backend(backend):
        yield


def _within(sums: float, expected: Any, dtype: torch.dtype = torch.float64, sides: int = 1) -> Any:
    """Return a stand-in for `expected` that equals every number within the roundings.

    They are those of `sides` sums and a few units of `dtype`.
    """
    return pytest.approx(expected, rel=sides * (ULPS + sums) * torch.finfo(dtype).eps, abs=0.0)


def _assert_pulling_away(code: Tensor, expected: float) -> None:
    """Fail if the term of `code` is further from the nearly exact `expected` than roundings explain."""
    value = ebgan_fast.pulling_away_term(code).item()
    assert value == _within(pulling_away_sums(code), expected, code.dtype)


def test_pulling_away_term_is_equation_14_written_out() -> None:
    code = normal(7, 5)
    rows = code.tolist()
    total = 0.0
    for i, s_i in enumerate(rows):
        for j, s_j in enumerate(rows):
            if i != j:
                dot = math.fsum(a * b for a, b in zip(s_i, s_j, strict=True))
                total += (dot / (math.hypot(*s_i) * math.hypot(*s_j))) ** 2
    _assert_pulling_away(code, total / (7 * 6))


def test_discriminator_loss_is_equation_1_written_out() -> None:
    batches = [normal(3, 4, seed=seed).tolist() for seed in range(4)]
    recon_real, real, recon_fake, fake = batches
    energy_real = [math.dist(r, x) for r, x in zip(recon_real, real, strict=True)]
    energy_fake = [math.dist(r, x) for r, x in zip(recon_fake, fake, strict=True)]
    margin = sum(sorted(energy_fake)[1:]) / 2  # between the second and the third: the hinge is on, on, off
    expected = sum(energy_real) / 3 + sum(max(0.0, margin - e) for e in energy_fake) / 3
    got, got_real, got_fake = ebgan_fast.discriminator_loss(
        *(torch.tensor(batch, dtype=torch.float64) for batch in batches), margin, norm="l2"
    )
    sums = energy_sums(torch.tensor(recon_real))
    # A fake sample's term is margin minus energy. The two together are below twice the margin.
    assert got.item() + 2 * margin == _within(sums, expected + 2 * margin)
    assert got_real.tolist() == _within(sums, energy_real)
    assert got_fake.tolist() == _within(sums, energy_fake)


def test_norms_of_one_difference() -> None:
    recon, target = torch.tensor([[3.0, 0.0, 4.0, 0.0]]), torch.zeros(1, 4)
    assert [ebgan_fast.reconstruction_energy(recon, target, norm=norm).item() for norm in ("mse", "sse", "l2")] == [
        25 / 4,
        25.0,
        5.0,
    ]


@pytest.mark.parametrize("n_d", [(6, 40), (40, 6)], ids=["more elements than codes", "more codes than elements"])
def test_pulling_away_term_of_parallel_and_opposite_codes_is_one(n_d: tuple[int, int]) -> None:
    n, d = n_d
    same = normal(1, d).expand(n, d)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(n // 2)[:, None]
    lengths = normal(n, 1, seed=1).abs() + 0.1
    _assert_pulling_away(same, 1.0)
    _assert_pulling_away(same * signs * lengths, 1.0)


def test_pulling_away_term_of_orthogonal_codes_is_zero() -> None:
    """Orthogonal codes have the term 0 exactly.

    They are rows of a Hadamard matrix, with lengths that are powers of two, so no sum of them is rounded.
    """
    rows = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(4):
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    lengths = 2.0 ** torch.arange(-4, 4, dtype=torch.float64)[:, None]
    assert ebgan_fast.pulling_away_term(rows[:8] * lengths).item() == 0.0


@too_large_for_a_simulator
def test_pulling_away_term_of_random_codes_is_one_over_d() -> None:
    # cos^2 of independent normal codes is Beta(1/2, (d-1)/2): mean 1/d, variance 2(d-1)/(d^2 (d+2)).
    n, d = 400, 50
    spread = math.sqrt(2 * (d - 1) / (d**2 * (d + 2)) / (n * (n - 1) / 2))
    assert ebgan_fast.pulling_away_term(normal(n, d)).item() == pytest.approx(1 / d, abs=5 * spread)


@too_large_for_a_simulator
@pytest.mark.parametrize("d", [500, 4000])
def test_pulling_away_term_of_rectified_codes_is_one_over_pi_squared(d: int) -> None:
    # For d to infinity cos = E[x+ y+] / E[x+^2] = (1/(2 pi)) / (1/2) = 1/pi; fluctuations are of order 1/sqrt(d).
    assert ebgan_fast.pulling_away_term(normal(200, d).relu()).item() == pytest.approx(math.pi**-2, abs=1.5 / d)


def test_pulling_away_term_reaches_the_welch_bound() -> None:
    # The corners of a tetrahedron are a tight frame: (N - d)/(d (N - 1)) = 1/9.
    frame = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    _assert_pulling_away(frame, 1 / 9)
    assert ebgan_fast.pulling_away_term(normal(64, 32)).item() > 32 / (32 * 63)


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (0,), (1,)])
def test_pulling_away_term_of_fewer_than_two_codes_is_zero(shape: tuple[int, ...]) -> None:
    code = torch.ones(shape, requires_grad=True)
    value = ebgan_fast.pulling_away_term(code)
    value.backward()
    assert value.item() == 0.0
    assert not code.grad.any()


@pytest.mark.parametrize("d", [3, 40])
def test_zero_codes_contribute_nothing_and_get_no_gradient(d: int) -> None:
    code = normal(8, d)
    code[2] = 0.0
    code[5] = 0.0
    leaf = code.clone().requires_grad_()
    value = ebgan_fast.pulling_away_term(leaf)
    value.backward()
    rest = ebgan_fast.pulling_away_term(code[[0, 1, 3, 4, 6, 7]])
    assert value.item() == _within(pulling_away_sums(code), rest.item() * (6 * 5) / (8 * 7), sides=2)
    assert not leaf.grad[[2, 5]].any()
    assert bool(leaf.grad[[0, 1, 3, 4, 6, 7]].any(1).all())


def test_the_gradient_of_l2_at_zero_energy_is_zero() -> None:
    target = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    recon = torch.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    ebgan_fast.reconstruction_energy(recon, target, norm="l2").sum().backward()
    assert recon.grad.tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_the_gradient_at_the_margin_is_zero() -> None:
    energies = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    ebgan_fast.hinge_margin_loss(torch.zeros(1), energies, 2.0).backward()
    assert energies.grad[0].item() == _within(0, -1 / 3, torch.float32)
    assert energies.grad[1:].tolist() == [0.0, 0.0]


def test_the_hinge_is_not_that_of_the_mean() -> None:
    # Energies 0 and 4, margin 2: per sample (2 + 0)/2 = 1; of the mean, [2 - 2]+ = 0.
    assert ebgan_fast.hinge_margin_loss(torch.zeros(1), torch.tensor([0.0, 4.0]), 2.0).item() == 1.0


def test_the_generator_gets_both_halves_of_its_gradient() -> None:
    recon, fake = (normal(4, 6, seed=seed).requires_grad_() for seed in range(2))
    ebgan_fast.generator_loss(recon, fake, norm="sse")[0].backward()
    expected = 2 * (recon - fake).detach() / 4
    assert_within_budget(recon.grad, expected, expected, "recon")
    assert_within_budget(fake.grad, -expected, -expected, "fake")


def test_empty_batches_contribute_nothing() -> None:
    empty, energies = torch.zeros(0), torch.tensor([1.0, 3.0])
    assert ebgan_fast.hinge_margin_loss(empty, empty, 2.0).item() == 0.0
    assert ebgan_fast.hinge_margin_loss(energies, empty, 2.0).item() == 2.0
    assert ebgan_fast.hinge_margin_loss(empty, energies, 2.0).item() == 0.5
    none, some = torch.zeros(0, 3), torch.ones(2, 3)
    assert ebgan_fast.discriminator_loss(some, 0 * some, none, none, 2.0, norm="mse")[0].item() == 1.0
    assert ebgan_fast.generator_loss(none, none, none, norm="mse")[0].item() == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_samples_show_in_the_loss(bad: float) -> None:
    batch = torch.ones(3, 4)
    broken = batch.clone()
    broken[1, 2] = bad
    loss, _, _ = ebgan_fast.discriminator_loss(broken, batch, batch, batch, 1.0, norm="l2")
    assert not math.isfinite(loss.item())
    if math.isnan(bad):
        assert math.isnan(ebgan_fast.discriminator_loss(batch, batch, broken, batch, 1.0, norm="l2")[0].item())
        assert math.isnan(ebgan_fast.pulling_away_term(broken).item())


def test_float16_gradients_survive_a_grad_scaler() -> None:
    # A mean over many pixels has gradients far below float16's smallest number. A GradScaler's upstream lifts them into
    # its range.
    recon = torch.full((8, 40_000), 0.01, dtype=torch.float16, requires_grad=True)
    target = torch.zeros_like(recon)
    scale = 65536.0
    for loss in (
        ebgan_fast.generator_loss(recon, target, norm="mse")[0],
        ebgan_fast.discriminator_loss(recon, target, target, target, 1.0, norm="mse")[0],
    ):
        (gradient,) = torch.autograd.grad(loss * scale, recon)
        expected = 2 * recon.double() / 40_000 / 8 * scale
        assert_within_budget(gradient, expected, expected, "gradient")


def test_autocast_leaves_the_sums_in_float32() -> None:
    code, recon, target = normal(30, 200).float(), normal(30, 64).float(), normal(30, 64, seed=1).float()
    plain = ebgan_fast.generator_loss(recon, target, code, norm="l2")
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        cast = ebgan_fast.generator_loss(recon, target, code, norm="l2")
    assert all(map(torch.equal, plain, cast))


def test_mixed_dtypes_are_promoted() -> None:
    recon, target = normal(4, 6).bfloat16().requires_grad_(), normal(4, 6, seed=1).float().requires_grad_()
    energy = ebgan_fast.reconstruction_energy(recon, target, norm="mse")
    assert torch.equal(energy, ebgan_fast.reconstruction_energy(recon.float(), target, norm="mse"))
    energy.sum().backward()
    assert recon.grad.dtype == torch.bfloat16
    assert target.grad.dtype == torch.float32
    code = normal(4, 8)
    loss, _, _ = ebgan_fast.generator_loss(recon, target, code, norm="mse")
    assert math.isfinite(loss.item())


def test_margin_as_a_tensor_equals_the_number_and_can_be_trained() -> None:
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 9.0])
    margin = torch.tensor(4.0, requires_grad=True)
    loss = ebgan_fast.hinge_margin_loss(real, fake, margin)
    assert loss.item() == ebgan_fast.hinge_margin_loss(real, fake, 4.0).item()
    loss.backward()
    assert margin.grad.item() == 0.5  # one of two hinges is on
    weight = torch.tensor(0.5, requires_grad=True)
    zeros = torch.zeros(2, 1)
    ebgan_fast.generator_loss(zeros, zeros, torch.ones(2, 3), pt_weight=weight, norm="mse")[0].backward()
    assert weight.grad.item() == _within(pulling_away_sums(torch.ones(2, 3)), 1.0, torch.float32)
