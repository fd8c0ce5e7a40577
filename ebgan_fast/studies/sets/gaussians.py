"""The usual two-dimensional mixtures: a ring of 8 Gaussians and a 5 x 5 grid, and which of them a generator finds.

A point is an image of two pixels, so that everything that trains on images trains on points: coordinates from -1 to 1
in 256 steps of 0.008.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import torch
from torch import Tensor

from ...data.image_set import TensorImages
from ...models.families import AnyGenerator
from ...training.sampling import sample_images

Mixture = Literal["ring", "grid"]

DEVIATION = 0.02
_REACH = 0.8  # the ring's radius, and half the grid's side
_POINTS = 20_000
_NEAR = 3.0  # deviations from a center, within which a sample belongs to it; 98.9 % of the data do
_FOUND = 0.2  # of its share of the samples, for a Gaussian to count as found


def centers(mixture: Mixture) -> Tensor:
    """The middles of a mixture's Gaussians [modes, 2]."""
    if mixture == "ring":
        angles = torch.arange(8) * (2 * math.pi / 8)
        return _REACH * torch.stack([angles.cos(), angles.sin()], 1)
    line = torch.linspace(-_REACH, _REACH, 5)
    return torch.cartesian_prod(line, line)


@functools.cache
def points(mixture: Mixture, device: str = "cpu") -> TensorImages:
    """20,000 points of a mixture whose Gaussians are equally likely, on a device once for all trials of a process."""
    chance = torch.Generator().manual_seed(0)
    middles = centers(mixture)
    chosen = middles[torch.randint(len(middles), (_POINTS,), generator=chance)]
    drawn = chosen + DEVIATION * torch.randn(_POINTS, 2, generator=chance)
    levels = ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return TensorImages(levels.view(-1, 1, 1, 2)).to(torch.device(device))


def mode_scores(generator: AnyGenerator, mixture: Mixture, samples: int, seed: int) -> tuple[dict[str, Any], Tensor]:
    """Say how much of a mixture a generator has found, on the generator's device.

    Returns:
        (scores, the samples [samples, 2] on the CPU that say so). The scores are
        modes: Gaussians that get at least a fifth of their share of the samples.
        good: share of the samples within three deviations of a center.
    """
    device = next(generator.parameters()).device
    drawn = sample_images(generator, samples, seed, device=device).view(-1, 2)
    middles = centers(mixture).to(device)
    distance, nearest = torch.cdist(drawn, middles).min(1)
    good = distance < _NEAR * DEVIATION
    counts = torch.bincount(nearest[good], minlength=len(middles))
    found = int((counts >= _FOUND * samples / len(middles)).sum())
    return {"modes": found, "good": float(good.float().mean())}, drawn.cpu()
