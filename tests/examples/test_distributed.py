"""The example of several processes prints that term and gradient equal those of the whole batch."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn

from tests.rounding import relative_bound_nearby

from .loading import EXAMPLES, TORCHRUN, load, output_of

PROGRAM = str(EXAMPLES / "distributed.py")


def _figures(arguments: list[str]) -> dict[str, float]:
    printed = output_of(arguments)
    return {name.strip(): float(value) for name, value in re.findall(r"^([a-z_, ]+?) +(\S+)$", printed, re.MULTILINE)}


def _bounds(seed: int) -> tuple[float, float]:
    """Return bounds on float64's rounding of the whole batch's term, and of its gradient as a share of the length."""
    example = load("distributed")
    torch.manual_seed(seed)
    # The example's networks.
    generator = nn.Sequential(nn.Linear(example.NOISE, 64), nn.ReLU(), nn.Linear(64, example.PIXELS), nn.Tanh())
    encode = nn.Sequential(nn.Linear(example.PIXELS, example.CODE), nn.ReLU())
    discriminator = nn.ModuleDict({"encode": encode, "decode": nn.Linear(example.CODE, example.PIXELS)})

    def step(noise: Tensor) -> tuple[Tensor, Tensor]:
        G, D = (copy.deepcopy(net).to(noise.dtype) for net in (generator, discriminator))
        found: tuple[Tensor, Tensor] = example.step(G, D, noise, None)
        return found

    noise = torch.randn(2 * example.BATCH, example.NOISE)
    return tuple(relative_bound_nearby(lambda draws, part=part: step(draws)[part], noise) for part in (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["its own processes", "torchrun"])
def test_processes_together_do_what_one_does(launcher: str) -> None:
    start = TORCHRUN if launcher == "torchrun" else []
    figures = _figures([*start, PROGRAM, "--seed", "4"])
    term, gradient = _bounds(4)
    # Each term is printed with 15 decimals.
    assert abs(figures["term, process_group"] - figures["term, whole batch"]) <= term + 1e-15
    assert figures["gradient off, process_group"] <= gradient
    # The example would show nothing if the process group made no difference. With seeds 0 to 5 and without the group,
    # the gradient is off by 0.04 to 0.11 of its length, the term by 8e-4 to 1e-2.
    assert figures["gradient off, each alone"] > 0.01
    assert abs(figures["term, each alone"] - figures["term, whole batch"]) > 1e-4
