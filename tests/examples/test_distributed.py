"""The program of real processes prints that term and gradient are those of the whole batch."""

from __future__ import annotations

import re

import pytest

from .loading import EXAMPLES, TORCHRUN, output_of

PROGRAM = str(EXAMPLES / "distributed.py")


def _figures(arguments: list[str]) -> dict[str, float]:
    printed = output_of(arguments)
    return {name.strip(): float(value) for name, value in re.findall(r"^([a-z_, ]+?) +(\S+)$", printed, re.MULTILINE)}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["its own processes", "torchrun"])
def test_processes_together_do_what_one_does(launcher: str) -> None:
    start = TORCHRUN if launcher == "torchrun" else []
    figures = _figures([*start, PROGRAM, "--seed", "4"])
    # float64: rounding is 1e-16 of the largest of the summed parts, of which there are fewer than 1,000.
    assert figures["term, process_group"] == pytest.approx(figures["term, whole batch"], rel=1e-13)
    assert figures["gradient off, process_group"] < 1e-13
    # The example would show nothing if leaving the group out made no difference. Seeds 0 to 5: the
    # gradient is off by 0.04 to 0.11 of its length, the term by 8e-4 to 1e-2.
    assert figures["gradient off, each alone"] > 0.01
    assert abs(figures["term, each alone"] - figures["term, whole batch"]) > 1e-4
