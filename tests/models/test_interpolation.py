from __future__ import annotations

import math

import pytest
import torch

from ebgan_fast.models.interpolation import spherical_interpolation
from tests.ops.budget import ULPS


def test_the_ends_are_exact_and_the_steps_equal() -> None:
    start, end = torch.randn(2, 5, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit_start, unit_end = (x / x.norm(dim=1, keepdim=True) for x in (start, end))
    way = spherical_interpolation(unit_start, unit_end, 7)
    assert way.shape == (5, 7, 100)
    assert torch.equal(way[:, 0], unit_start)
    assert torch.equal(way[:, -1], unit_end)
    # A point has the errors of two sums of 100 products, for the cosine of the ends, and a few units for the angle and
    # the weights. A length adds as much again. The cosine of two points has this error for each of them, and a small
    # angle has a larger one.
    rounding = (math.log2(100) + 2 * ULPS) * torch.finfo(torch.float64).eps
    assert ((way.norm(dim=2) - 1).abs() <= 2 * rounding).all()
    steps = (way[:, 1:] * way[:, :-1]).sum(2).acos()
    assert ((steps - steps[:, :1]).abs() <= 4 * rounding / steps.sin()).all()
    assert torch.equal(spherical_interpolation(start, end, 3)[:, 2], end)


def test_points_keep_the_length_of_noise() -> None:
    """The middle of a straight line would be shorter by a factor of about sqrt(2)."""
    start, end = torch.randn(2, 50, 1000, generator=torch.Generator().manual_seed(0))
    middle = spherical_interpolation(start, end, 3)[:, 1].norm(dim=1)
    assert (middle / 1000**0.5 - 1).abs().max() < 0.1


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_parallel_and_opposite_ends(factor: float) -> None:
    start = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    way = spherical_interpolation(start, factor * start, 5)
    assert bool(way.isfinite().all())
    assert torch.equal(way[:, 1], start * (0.75 + 0.25 * factor))  # quarters are exact: only the result is rounded
    zero = spherical_interpolation(torch.zeros(1, 4), start[:1, :4], 3)
    assert bool(zero.isfinite().all())


def test_too_few_steps() -> None:
    with pytest.raises(ValueError, match="steps: got 1, expected at least 2"):
        spherical_interpolation(torch.zeros(1, 2), torch.ones(1, 2), 1)
