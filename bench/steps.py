"""The steps of a loss that are timed."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from .cases import Arguments, Loss
from .correctness import leaves
from .timing import Step

BOTH, FORWARD = "forward + backward", "forward"


def step(loss: Loss, copies: Sequence[Arguments], mode: str) -> Step:
    """The mode's work on each of the copies in turn."""
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


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def complaint(error: Exception) -> str:
    """A ValueError's own message, which says what to do; else that the step cannot run, and the error's first line."""
    return str(error) if isinstance(error, ValueError) else f"cannot run: {first_line(error)}"
