"""The check that a provider computes the loss at all: a fast wrong answer gets no time.

The truth is the formula in float64 on the same inputs. A loss or gradient may be off by twice eager's error, one unit
in the last place of its dtype, and the first-order bound of its sums; each relative to the largest element.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .cases import Arguments, Case

Results = dict[str, Tensor]


def leaves(arguments: Arguments) -> dict[str, Tensor]:
    return {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.requires_grad}


def results(loss: Callable[..., Tensor], arguments: Arguments) -> Results:
    value = loss(**arguments)
    inputs = leaves(arguments)
    gradients = torch.autograd.grad(value, list(inputs.values()))
    return {
        "loss": value.detach(),
        **{f"gradient of {name}": grad for name, grad in zip(inputs, gradients, strict=True)},
    }


def _in_float64(arguments: Arguments) -> Arguments:
    def widen(value: object) -> object:
        return value.detach().double().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value

    return {name: widen(value) for name, value in arguments.items()}


def _off(got: Tensor, truth: Tensor) -> float:
    return (got.double() - truth).abs().max().item()


class Judge:
    """Holds the truth of one case and eager's error."""

    def __init__(self, case: Case, arguments: Arguments) -> None:
        self._truth = results(case.formula, _in_float64(arguments))
        self._eager_error = {
            name: _off(value, self._truth[name]) for name, value in results(case.formula, arguments).items()
        }
        sizes = leaves(arguments).values()
        accumulation = torch.float64 if any(leaf.dtype == torch.float64 for leaf in sizes) else torch.float32
        # A pairwise sum of n numbers is off by log2(n)/2 units at most. The pulling-away term squares a quotient of
        # such sums (four of them, each again half or once); eager may be far below that by luck.
        sums = 8 + 4 * math.log2(max(leaf.numel() for leaf in sizes))
        self._bound = sums * torch.finfo(accumulation).eps

    def complaint(self, got: Results) -> str | None:
        """Return what is wrong with a provider's results, in words; None when nothing is."""
        for name, truth in self._truth.items():
            value = got[name]
            if value.shape != truth.shape:
                return f"{name} has shape {tuple(value.shape)}, expected {tuple(truth.shape)}"
            size = truth.abs().max().item()
            budget = 2 * self._eager_error[name] + (torch.finfo(value.dtype).eps + self._bound) * size
            error = _off(value, truth)
            if not error <= budget:  # NaN too
                return f"{name} is off by {error:.1e}, expected at most {budget:.1e}"
        return None
