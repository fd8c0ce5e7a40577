"""A call of a loss: its arguments, its results, the check that they are right, and the step that is timed.

A fast wrong answer gets no time. The truth is the formula in float64 on the same inputs. A loss or gradient may be off
by twice eager torch's error, plus one unit in the last place of its dtype, plus the first-order bound of its sums. Each
of the three is relative to the largest element.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .cases import Arguments, Case, Loss

BOTH, FORWARD = "forward + backward", "forward"

Results = dict[str, Tensor]
"""The loss and the gradient of each leaf, by name."""


def leaves(arguments: Arguments) -> dict[str, Tensor]:
    """Return the arguments that require a gradient."""
    return {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.requires_grad}


def on(arguments: Arguments, device: torch.device) -> Arguments:
    """Return copies of the arguments, their tensors on a device."""

    def copy(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().to(device, copy=True).requires_grad_(value.requires_grad)

    return {name: copy(value) for name, value in arguments.items()}


def results(loss: Callable[..., Tensor], arguments: Arguments) -> Results:
    """Call a loss, and return its value and its gradients."""
    value = loss(**arguments)
    inputs = leaves(arguments)
    gradients = torch.autograd.grad(value, list(inputs.values()))
    return {
        "loss": value.detach(),
        **{f"gradient of {name}": grad for name, grad in zip(inputs, gradients, strict=True)},
    }


def step(loss: Loss, copies: Sequence[Arguments], mode: str) -> Callable[[], object]:
    """Return a function that calls the loss once on each copy of the arguments.

    Args:
        loss: The loss.
        copies: The arguments of each call.
        mode: `FORWARD`, without gradients, or `BOTH`.
    """
    if mode == FORWARD:
        return functools.partial(_forward, loss, copies)
    turns = [(arguments, list(leaves(arguments).values())) for arguments in copies]

    def run() -> None:
        for arguments, inputs in turns:
            torch.autograd.grad(loss(**arguments), inputs)

    return run


def _forward(loss: Loss, copies: Sequence[Arguments]) -> None:
    with torch.no_grad():
        for arguments in copies:
            loss(**arguments)


class Judge:
    """The truth of one case, and the error that eager torch makes in it."""

    def __init__(self, case: Case, arguments: Arguments) -> None:
        self._truth = results(case.formula, _in_float64(arguments))
        self._eager_error = {
            name: _off(value, self._truth[name]) for name, value in results(case.formula, arguments).items()
        }
        sizes = leaves(arguments).values()
        accumulation = torch.float64 if any(leaf.dtype == torch.float64 for leaf in sizes) else torch.float32
        # A pairwise sum of n numbers is off by log2(n) / 2 units at most. The pulling-away term squares a quotient of
        # four such sums. Eager torch's own error may be far below that bound by luck.
        sums = 8 + 4 * math.log2(max(leaf.numel() for leaf in sizes))
        self._bound = sums * torch.finfo(accumulation).eps

    def complaint(self, got: Results) -> str | None:
        """Return what is wrong with a provider's results, in words; None if nothing is."""
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


def _in_float64(arguments: Arguments) -> Arguments:
    def widen(value: object) -> object:
        return value.detach().double().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value

    return {name: widen(value) for name, value in arguments.items()}


def _off(got: Tensor, truth: Tensor) -> float:
    return (got.double() - truth).abs().max().item()
