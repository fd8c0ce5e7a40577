"""The allowance that a float32 result has beside float64's."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

_ULPS = 4  # of float32, beside twice the error of eager torch, which may be small by luck

_Number = TypeVar("_Number", float, Tensor)


def allowance(error: _Number, truth: _Number) -> _Number:
    """Twice the error that eager torch makes in float32, and four units of float32 of the true value."""
    return 2 * error + _ULPS * torch.finfo(torch.float32).eps * abs(truth)
