"""How the margin and the learning rate change over a run: pure functions of the step, counted from 0."""

from __future__ import annotations

import math
from typing import Literal

MarginSchedule = Literal["constant", "linear", "cosine"]
LearningRateDecay = Literal["none", "linear", "cosine"]


def margin_at(step: int, start: float, end: float, over: int, shape: MarginSchedule) -> float:
    """The margin of one step: `start` at step 0, `end` from step `over` on.

    After the paper's appendix E, a large margin that decays is a good start for hard data.

    Args:
        step: steps done before this one.
        start: margin of the first step, in units of the energy.
        end: margin at the end; unused when the shape is "constant".
        over: how many steps the way from start to end takes, at least 1.
        shape: "constant", "linear", or "cosine" (half a period: slow, fast, slow).
    """
    if shape == "constant":
        return start
    if step >= over:
        return end
    return end + (start - end) * _remaining(step / over, shape)


def learning_rate_factor(step: int, steps: int, decay: LearningRateDecay, decay_start: float) -> float:
    """What the learning rate of one step is multiplied by: 1, falling towards 0 at step `steps`.

    Args:
        step: steps done before this one, below `steps`; so the factor never is 0.
        steps: length of the run.
        decay: "none" is 1 throughout, "linear" a straight fall, "cosine" half a period of a cosine.
        decay_start: share of the run, in [0, 1), at full rate before the fall.
    """
    begin = decay_start * steps
    if decay == "none" or step <= begin:
        return 1.0
    return _remaining((step - begin) / (steps - begin), decay)


def _remaining(progress: float, shape: Literal["linear", "cosine"]) -> float:
    """From 1 at progress 0 to 0 at progress 1."""
    return 1 - progress if shape == "linear" else (1 + math.cos(math.pi * progress)) / 2
