"""The mixtures of Gaussians, and the scores that say which Gaussians a generator has found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.studies.sets import plane


class Fixed(nn.Module):
    """A generator that returns its points in turn, whatever the noise is."""

    noise_size = 2
    image_shape = (1, 1, 2)

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.points = nn.Parameter(points)

    def forward(self, noise: Tensor) -> Tensor:
        turns = torch.arange(len(noise)) % len(self.points)
        return self.points[turns].view(-1, 1, 1, 2)


@pytest.mark.parametrize(("mixture", "modes"), [("ring", 8), ("grid", 25)])
def test_real_points_are_good_and_find_all(mixture: plane.Mixture, modes: int) -> None:
    data = plane.points(mixture)
    assert data.shape == (1, 1, 2)
    real = data.gather(torch.arange(2000)).view(-1, 2) / 127.5 - 1
    found, drawn = plane.mode_scores(Fixed(real), mixture, 2000, seed=0)  # type: ignore[arg-type]
    assert found["modes"] == modes
    assert found["good"] > 0.975  # 98.9 % of a Gaussian lie within three deviations
    assert drawn.shape == (2000, 2)


def test_centers_between_the_gaussians_are_not_good() -> None:
    found, _ = plane.mode_scores(Fixed(torch.zeros(1, 2)), "ring", 100, seed=0)  # type: ignore[arg-type]
    assert found == {"modes": 0, "good": 0.0}


def test_a_gaussian_is_found_from_a_fifth_of_its_share_on() -> None:
    middles = plane.centers("ring")
    rare = torch.cat([middles[:1].repeat(78, 1), middles[1:2].repeat(2, 1)])  # 2 of 80, where a share is 10
    assert plane.mode_scores(Fixed(rare), "ring", 80, seed=0)[0]["modes"] == 2  # type: ignore[arg-type]
    rarer = torch.cat([middles[:1].repeat(79, 1), middles[1:2]])
    assert plane.mode_scores(Fixed(rarer), "ring", 80, seed=0)[0]["modes"] == 1  # type: ignore[arg-type]


def test_the_points_have_the_mixtures_spread() -> None:
    data = plane.points("grid").gather(torch.arange(20_000)).view(-1, 2) / 127.5 - 1
    offsets = data - plane.centers("grid")[torch.cdist(data, plane.centers("grid")).argmin(1)]
    assert offsets.std().item() == pytest.approx(plane.DEVIATION, rel=0.03)
