"""The terms that other code computes: what they are, and that the trainer descends the one it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ebgan_fast
from ebgan_fast.data.image_set import TensorImages
from ebgan_fast.models import Mlp
from ebgan_fast.studies.repelling_terms import batch_axis, no_square, trainer_with
from ebgan_fast.training.config import TrainConfig


def test_without_the_square_opposite_clusters_look_perfect() -> None:
    code = torch.tensor([[1.0, 2.0]]).repeat(4, 1)
    code[2:] *= -1
    # Of 12 ordered pairs 4 are equal and 8 opposite.
    assert no_square(code).item() == pytest.approx(-1 / 3)
    assert ebgan_fast.pulling_away_term(code).item() == pytest.approx(1.0)


def test_along_the_batch_the_length_of_a_code_counts() -> None:
    code = torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    # Columns of length 5 and 1: rows (0.6, 0) and (0.8, 1), product 0.48.
    assert batch_axis(code).item() == pytest.approx(0.48**2)
    longer = torch.tensor([[6.0, 0.0], [4.0, 1.0]])
    assert batch_axis(longer).item() != pytest.approx(batch_axis(code).item(), rel=0.01)
    assert ebgan_fast.pulling_away_term(longer).item() == pytest.approx(ebgan_fast.pulling_away_term(code).item())


def test_the_generators_loss_has_the_term_and_its_weight() -> None:
    images = TensorImages(torch.zeros(8, 1, 2, 2, dtype=torch.uint8))
    networks = Mlp(z_dim=2, n_layer_g=2, n_layer_d=2, size_g=4, size_d=4)
    config = TrainConfig(out=Path(), networks=networks, batch_size=4, pt_weight=0.3, ema=0.0, device="cpu")
    recon, fakes, code = torch.randn(3, 4, 4).unbind()
    energy = (recon - fakes).norm(dim=1).mean()
    paper = ebgan_fast.pulling_away_term(code)
    terms = {"none": torch.zeros(()), "paper": paper, "no square": no_square(code), "batch axis": batch_axis(code)}
    for name, term in terms.items():
        trainer = trainer_with(name, config, images)  # type: ignore[arg-type]
        loss, logged = trainer.generator_loss(recon, fakes, code)
        torch.testing.assert_close(loss, energy + 0.3 * term, msg=name)
        torch.testing.assert_close(logged, paper, msg=name)
        trainer.step()
