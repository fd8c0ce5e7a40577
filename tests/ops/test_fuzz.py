"""Drawn calls of every op against formulas that share no code with the package: the same cases in every run.

`make fuzz` runs cases that nobody has seen. test_fuzz_itself.py looks whether bugs would be seen.
"""

from __future__ import annotations

import pytest
import torch

from .cases import INTERPRETED, every_backend
from .fuzz.checking import problems
from .fuzz.drawing import Case, draw
from .simulated_cuda import SIMULATED

AT_ONCE = 25
# A simulator takes a second for what a kernel does in a millisecond.
CASES, MOST_ELEMENTS = (150, 1500) if INTERPRETED else (300, 3000) if SIMULATED else (500, 10**9)


def _is_left_out(case: Case) -> bool:
    """Return True for what a simulator takes long for, and for bfloat16 where Triton's interpreter cuts it off."""
    tensors = case.tensors.values()
    if INTERPRETED and any(tensor.dtype == torch.bfloat16 for tensor in tensors):
        return True
    return sum(tensor.numel() for tensor in tensors) > MOST_ELEMENTS


@pytest.mark.filterwarnings(
    "ignore:.* encountered in:RuntimeWarning"
)  # of NumPy, in which Triton's interpreter computes
@every_backend
@pytest.mark.parametrize("first", range(0, CASES, AT_ONCE))
def test_drawn_calls(backend: str, first: int) -> None:
    cases = [draw(seed) for seed in range(first, first + AT_ONCE)]
    wrong = [
        f"{case.seed}: {problem} | {case}"
        for case in cases
        if not _is_left_out(case)
        for problem in problems(case, backend)
    ]
    assert not wrong, "\n".join(wrong)
