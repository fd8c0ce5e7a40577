"""The terms that other code computes are what they are said to be, and a trainer uses the term that it is told to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ebgan_fast
from bench.subjects import public_loop
from ebgan_fast.data.image_set import TensorImages
from ebgan_fast.models import Mlp
from ebgan_fast.studies.networks.repelling_terms import TERMS, Term, batch_axis, no_square, trainer_with
from ebgan_fast.training.config import TrainConfig
from tests.rounding import assert_within_eager

# The rounding error of a cosine between two codes of two features is six half units. Two are those of the dot product.
# Each code adds one for its quotient, and two for its length, which the root halves. The square doubles the error, and
# the mean of twelve adds as much again.
NEAR = 24 / 2 * torch.finfo(torch.float32).eps


def test_without_the_square_opposite_clusters_look_perfect() -> None:
    code = torch.tensor([[1.0, 2.0]]).repeat(4, 1)
    code[2:] *= -1
    # Of the 12 ordered pairs, 4 are equal and 8 opposite.
    assert no_square(code).item() == pytest.approx(-1 / 3, abs=NEAR)
    assert ebgan_fast.pulling_away_term(code).item() == pytest.approx(1.0, abs=NEAR)


def test_along_the_batch_the_length_of_a_code_counts() -> None:
    code = torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    # The columns have the lengths 5 and 1, so the rows become (0.6, 0) and (0.8, 1). Their dot product is 0.48.
    assert batch_axis(code).item() == pytest.approx(0.48**2, abs=NEAR)
    longer = torch.tensor([[6.0, 0.0], [4.0, 1.0]])
    assert batch_axis(longer).item() != pytest.approx(batch_axis(code).item(), rel=0.01)
    # This is the squared cosine of (3, 0) and (4, 1), whatever the length of the first code is.
    for same in (code, longer):
        assert ebgan_fast.pulling_away_term(same).item() == pytest.approx(16 / 17, abs=NEAR)


@pytest.mark.parametrize("term", TERMS)
def test_the_logged_term_is_a_mean_over_the_interval(term: Term) -> None:
    """The log has the paper's term, whichever term is trained, so that results of different terms can be compared."""
    images = TensorImages(torch.zeros(8, 1, 2, 2, dtype=torch.uint8))
    networks = Mlp(z_dim=2, n_layer_g=2, n_layer_d=2, size_g=4, size_d=4)
    config = TrainConfig(out=Path(), networks=networks, batch_size=4, pt_weight=0.3, ema=0.0, log_every=3, device="cpu")
    trainer = trainer_with(term, config, images)
    twin = trainer_with(term, dataclasses.replace(config, log_every=1), images)  # logs each step by itself
    taken: list[float] = []
    for step in range(5):
        trainer.step()
        twin.step()
        taken.append(twin.statistics()["pulling_away"])
        expected = torch.tensor(taken[step // 3 * 3 :], dtype=torch.float64).mean().item()
        assert trainer.statistics()["pulling_away"] == expected
    assert min(taken) > 0
    assert len(set(taken)) == 5


def test_the_generators_loss_has_the_term_and_its_weight() -> None:
    images = TensorImages(torch.zeros(8, 1, 2, 2, dtype=torch.uint8))
    networks = Mlp(z_dim=2, n_layer_g=2, n_layer_d=2, size_g=4, size_d=4)
    config = TrainConfig(out=Path(), networks=networks, batch_size=4, pt_weight=0.3, ema=0.0, log_every=1, device="cpu")
    recon, fakes, code = torch.randn(3, 4, 4).unbind()

    def losses(dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the loss and the paper's term for the log, by the name of the term in the loss."""
        of = code.to(dtype)
        energy = public_loop.energy(recon.to(dtype)[:, None, None], fakes.to(dtype)[:, None, None]).mean()
        paper = public_loop.pulling_away(of)
        terms = {"none": 0 * paper, "paper": paper, "no square": no_square(of), "batch axis": batch_axis(of)}
        return {name: torch.stack([energy + 0.3 * term, paper]) for name, term in terms.items()}

    truth, eager = losses(torch.float64), losses(torch.float32)
    for name in truth:
        trainer = trainer_with(name, config, images)  # type: ignore[arg-type]
        found = trainer.generator_loss(recon, fakes, code, 1.0)
        for index, what in enumerate(("loss", "logged term")):
            exact, near = truth[name][index], eager[name][index]
            assert_within_eager(found[index], exact, near, torch.float32, f"{what} with {name}")
        trainer.step()
