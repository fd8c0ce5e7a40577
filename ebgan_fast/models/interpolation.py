"""Interpolate between two noise vectors."""

from __future__ import annotations

import torch
from torch import Tensor

_PARALLEL = 1e-4  # the sine of an angle below which a straight line is used


def spherical_interpolation(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Return points on the great circle between Gaussian noise vectors, about as likely as the ends, [n, steps, d].

    With the angle a between the vectors, the points are (sin((1 - t) a) start + sin(t a) end) / sin(a) (Shoemake 1985).
    The first and last points are exactly `start` and `end`. A straight line would pass through short vectors, but
    Gaussian noise of many dimensions is hardly ever short.

    Args:
        start, end: the noise vectors, [n, d].
        steps: the number of points, both ends included, at least 2.

    Raises:
        ValueError: `steps` is below 2.
    """
    if steps < 2:
        raise ValueError(f"steps: got {steps}, expected at least 2")
    # In float64, because the angle between nearly parallel vectors has half as many digits as their cosine. On the CPU,
    # because Apple's GPUs have no float64.
    home, (start, end) = start, (start.cpu(), end.cpu())
    t = torch.linspace(0, 1, steps, dtype=torch.float64)[None, :, None]
    cosine = torch.cosine_similarity(start.double(), end.double(), dim=1).clamp(-1, 1)
    angle = cosine.acos()[:, None, None]
    sine = angle.sin()
    straight = sine < _PARALLEL  # parallel, or opposite, where all great circles are equally short
    safe = torch.where(straight, 1.0, sine)
    first = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / safe)
    second = torch.where(straight, t, (t * angle).sin() / safe)
    points = (first * start[:, None] + second * end[:, None]).to(start.dtype)
    points[:, 0], points[:, -1] = start, end
    return points.to(home.device)
