"""Five programs, as a reader of the pages would write them, train the paper's EBGAN step for step."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.rounding import assert_within_eager, at_wider

from .five_loops import accumulation, common, data_parallel, one_pass, ordinary_loop
from .five_loops.common import BATCH, MARGIN, STEPS, Outcome

PT_WEIGHT = 0.1  # the paper's value


def _energy(recon: Tensor, images: Tensor) -> Tensor:
    """Return the energy of each sample, [N], by equation 13: the length of its error."""
    return (recon - images).square().sum(1).sqrt()


def _pulling_away(code: Tensor) -> Tensor:
    """Return the pulling-away term of equation 14: the mean squared cosine over all pairs of codes."""
    lengths = code.square().sum(1).sqrt()
    cosines = (code @ code.T) / (lengths[:, None] * lengths)
    pairs = ~torch.eye(len(code), dtype=torch.bool)
    return cosines[pairs].square().mean()


@functools.cache
def _by_hand(
    dtype: torch.dtype, with_code: bool, parts: tuple[int, ...] = (BATCH,), bfloat16: bool = False
) -> tuple[Outcome, Tensor]:
    """Train in plain torch; return the outcome, and which generated samples were within the margin, [STEPS, BATCH]."""
    D, G = common.networks(dtype)
    optimizers = common.optimizers(D, G)
    curve, within = [], []
    for real, noise in common.batches(dtype):
        losses = []
        for images, draws in zip(real.split(parts), noise.split(parts), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                fake = G(draws).to(dtype)
                (recon_real, _), (recon_fake, code) = D(images), D(fake)
            energy_real, energy = _energy(recon_real.to(dtype), images), _energy(recon_fake.to(dtype), fake)
            loss_d = energy_real.mean() + torch.relu(MARGIN - energy).mean()  # equation 1
            loss_g = energy.mean()  # equation 2
            if with_code:
                loss_g = loss_g + PT_WEIGHT * _pulling_away(code.to(dtype))  # equation 14
            losses.append(torch.stack([loss_d, loss_g]) * (len(images) / BATCH))
            within.append(energy.detach() < MARGIN)
        loss_d, loss_g = whole = torch.stack(losses).sum(0)
        for network, loss in ((D, loss_d), (G, loss_g)):
            gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
        curve.append(whole.detach())
    return Outcome(common.weights(D, G), torch.stack(curve)), torch.cat(within).view(STEPS, BATCH)


def _assert_the_papers(found: Outcome, with_code: bool, parts: tuple[int, ...] = (BATCH,)) -> None:
    """Check that weights and losses, in float64, equal those of the run in plain torch."""
    truth, within = _by_hand(torch.float64, with_code, parts)
    eager, within_eager = _by_hand(torch.float32, with_code, parts)
    assert torch.equal(within, within_eager), "float32 has samples on the other side of the margin: no yardstick"
    shares = within.double().mean(1)
    assert ((shares > 0) & (shares < 1)).all(), f"the hinge does not divide the batch: {shares}"
    for what in ("weights", "losses"):
        value, exact, rounded = (getattr(outcome, what) for outcome in (found, truth, eager))
        assert_within_eager(value, exact, at_wider(exact, rounded, torch.float64), torch.float64, what)


@pytest.fixture
def accelerate_loop() -> Iterator[ModuleType]:
    """Give the program under Accelerate, and reset Accelerate, which keeps its first precision for the process."""
    accelerate = pytest.importorskip("accelerate", reason="needs Accelerate: pip install accelerate")
    from .five_loops import with_accelerate

    yield with_accelerate
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("with_code", [True, False], ids=["code", "no code"])
@pytest.mark.parametrize("program", [ordinary_loop, one_pass], ids=["ordinary loop", "one pass"])
def test_a_loop_is_the_papers(program: ModuleType, with_code: bool, capsys: pytest.CaptureFixture[str]) -> None:
    _assert_the_papers(program.main(with_code=with_code), with_code)
    assert "after 10 steps loss_d" in capsys.readouterr().out


@pytest.mark.parametrize("with_code", [True, False], ids=["code", "no code"])
def test_accelerate_changes_nothing_in_float64(accelerate_loop: ModuleType, with_code: bool) -> None:
    _assert_the_papers(accelerate_loop.main(with_code=with_code), with_code)


@pytest.mark.parametrize("by_one_pass", [False, True], ids=["two passes", "one pass"])
def test_unequal_parts_add_up_to_the_batch(by_one_pass: bool) -> None:
    _assert_the_papers(accumulation.main(one_pass=by_one_pass), with_code=False)


@pytest.mark.parametrize("by_one_pass", [False, True], ids=["two passes", "one pass"])
def test_with_a_code_each_part_has_its_own_term(by_one_pass: bool) -> None:
    _assert_the_papers(
        accumulation.main(with_code=True, one_pass=by_one_pass), with_code=True, parts=accumulation.PARTS
    )
    parts, batch = (_by_hand(torch.float64, True, sizes)[0].losses[0] for sizes in (accumulation.PARTS, (BATCH,)))
    torch.testing.assert_close(parts[0], batch[0])
    assert abs(parts[1] - batch[1]) > 1e-3, "the terms of parts and batch are equal, so the test shows nothing"


@pytest.mark.parametrize("with_code", [True, False], ids=["code", "no code"])
def test_bfloat16_under_accelerate_stays_near(accelerate_loop: ModuleType, with_code: bool) -> None:
    found = accelerate_loop.main(with_code=with_code, mixed_precision="bf16", dtype=torch.float32)
    assert found.weights.isfinite().all()
    assert found.losses.isfinite().all()
    assert found.losses.dtype == torch.float32
    start = common.weights(*common.networks(torch.float64))
    truth, _ = _by_hand(torch.float64, with_code)
    eager, _ = _by_hand(torch.float32, with_code, bfloat16=True)
    exact, _ = _by_hand(torch.float32, with_code)
    moved, true_move, eager_move = (outcome.weights - start for outcome in (found, truth, eager))
    assert_within_eager(moved, true_move, eager_move, torch.bfloat16, "the change of the weights")
    assert_within_eager(found.losses, truth.losses, eager.losses, torch.bfloat16, "losses")
    assert (found.weights - exact.weights).norm() > 0.1 * (eager.weights - exact.weights).norm(), "no bfloat16 at all"


@pytest.mark.slow
@pytest.mark.xdist_group("forked")
@pytest.mark.parametrize("with_code", [True, False], ids=["code", "no code"])
@pytest.mark.parametrize("by_one_pass", [False, True], ids=["two passes", "one pass"])
def test_two_processes_together_train_as_one(by_one_pass: bool, with_code: bool) -> None:
    first, second = data_parallel.main(with_code=with_code, one_pass=by_one_pass)
    _assert_the_papers(first, with_code)
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.losses, second.losses)
