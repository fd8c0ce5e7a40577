"""Sets of points in the plane: a ring of 8 Gaussians, a 5 x 5 grid of them, and a spiral.

A point is an image of two pixels, so that code for training on images also trains on points. Its coordinates go from -1
to 1 in 256 steps of 0.008.
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
Shape = Literal["ring", "grid", "spiral"]

DEVIATION = 0.02
_REACH = 0.8  # the ring's radius, half the grid's side, and the largest radius of the spiral
_TURNS = 1.5  # of the spiral
POINTS = 20_000
_NEAR = 3.0  # standard deviations from a center within which a sample is good; 98.9 % of the data are
_FOUND = 0.2  # part of its share of the samples that a Gaussian must get to count as found


def centers(mixture: Mixture) -> Tensor:
    """Return the centers of a mixture's Gaussians, [modes, 2]."""
    if mixture == "ring":
        angles = torch.arange(8) * (2 * math.pi / 8)
        return _REACH * torch.stack([angles.cos(), angles.sin()], 1)
    line = torch.linspace(-_REACH, _REACH, 5)
    return torch.cartesian_prod(line, line)


@functools.cache
def points(shape: Shape, device: str = "cpu") -> TensorImages:
    """Return 20,000 points of a shape, as images [1, 1, 2]. All trials of a process share them on each device.

    A mixture's Gaussians are equally likely. The spiral's points lie about evenly along its line.
    """
    chance = torch.Generator().manual_seed(0)
    if shape == "spiral":
        along = torch.rand(POINTS, generator=chance).sqrt()  # the line is longer where it is further out
        angles = along * (_TURNS * 2 * math.pi)
        chosen = _REACH * along.unsqueeze(1) * torch.stack([angles.cos(), angles.sin()], 1)
    else:
        middles = centers(shape)
        chosen = middles[torch.randint(len(middles), (POINTS,), generator=chance)]
    drawn = chosen + DEVIATION * torch.randn(POINTS, 2, generator=chance)
    levels = ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return TensorImages(levels.view(-1, 1, 1, 2)).to(torch.device(device))


def mode_scores(generator: AnyGenerator, mixture: Mixture, samples: int, seed: int) -> tuple[dict[str, Any], Tensor]:
    """Measure which Gaussians of a mixture a generator has found, on the generator's device.

    Args:
        generator: a generator in eval mode, of images [1, 1, 2].
        mixture: the mixture that it was trained on.
        samples: the number of samples to draw.
        seed: the seed of the noise.

    Returns:
        The scores, and the samples [samples, 2] on the CPU. The scores are
        modes: the number of Gaussians that get at least a fifth of their share of the samples.
        good: the share of the samples within three standard deviations of a center.
    """
    device = next(generator.parameters()).device
    drawn = sample_images(generator, samples, seed, device=device).view(-1, 2)
    middles = centers(mixture).to(device)
    distance, nearest = torch.cdist(drawn, middles).min(1)
    good = distance < _NEAR * DEVIATION
    counts = torch.bincount(nearest[good], minlength=len(middles))
    found = int((counts >= _FOUND * samples / len(middles)).sum())
    return {"modes": found, "good": float(good.float().mean())}, drawn.cpu()
