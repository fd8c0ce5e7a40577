"""Ways between points of the noise."""

from __future__ import annotations

import torch
from torch import Tensor

_PARALLEL = 1e-4  # sine of an angle below which a straight line serves


def spherical_interpolation(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Points on the great circle between Gaussian noise vectors, as likely as the ends; the ends are exact.

    With the angle a between them: (sin((1 - t) a) start + sin(t a) end) / sin(a) (Shoemake 1985). A straight line would
    pass through short vectors, which Gaussian noise of many dimensions hardly ever is.

    Args:
        start, end: [n, d].
        steps: points, both ends among them, at least 2.

    Returns:
        [n, steps, d].

    Raises:
        ValueError: fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"steps: got {steps}, expected at least 2")
    # float64: the angle between nearly parallel vectors has half the digits of their cosine. Apple's GPUs have none.
    home, (start, end) = start, (start.cpu(), end.cpu())
    t = torch.linspace(0, 1, steps, dtype=torch.float64)[None, :, None]
    cosine = torch.cosine_similarity(start.double(), end.double(), dim=1).clamp(-1, 1)
    angle = cosine.acos()[:, None, None]
    sine = angle.sin()
    straight = sine < _PARALLEL  # parallel, or opposite, where every way round is as short
    safe = torch.where(straight, 1.0, sine)
    first = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / safe)
    second = torch.where(straight, t, (t * angle).sin() / safe)
    points = (first * start[:, None] + second * end[:, None]).to(start.dtype)
    points[:, 0], points[:, -1] = start, end
    return points.to(home.device)
