"""Drawn calls of every op against formulas that share no code with the package: the same cases in every run.

`make fuzz` runs new cases. test_fuzz_itself.py checks that bugs would be found.
"""

from __future__ import annotations

import functools

import pytest
import torch

from .cases import INTERPRETED, every_backend
from .fuzz.checking import problems
from .fuzz.drawing import Case
from .fuzz.traits import EXPECTED, chosen, traits
from .simulated_cuda import SIMULATED

# A simulator takes a second where a kernel takes a millisecond.
CASES, MOST_ELEMENTS = (60, 1500) if INTERPRETED else (200, 3000) if SIMULATED else (500, None)
CHUNKS = -(-CASES // 25)


def _fits(case: Case) -> bool:
    """Return False for cases that take a simulator too long, and for bfloat16 in Triton's interpreter.

    The interpreter cuts bfloat16 off instead of rounding it.
    """
    tensors = case.tensors.values()
    if INTERPRETED and any(tensor.dtype == torch.bfloat16 for tensor in tensors):
        return False
    return MOST_ELEMENTS is None or sum(tensor.numel() for tensor in tensors) <= MOST_ELEMENTS


def _expected() -> frozenset[object]:
    """Return the traits that the cases of this session must have between them."""
    of_bfloat16 = {trait for trait in EXPECTED if isinstance(trait, tuple) and torch.bfloat16 in trait}
    return EXPECTED - of_bfloat16 if INTERPRETED else EXPECTED


@functools.cache
def session_cases() -> tuple[Case, ...]:
    return chosen(CASES, _fits, _expected())


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.* encountered in:RuntimeWarning"
)  # from NumPy, in which Triton's interpreter computes
@every_backend
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_drawn_calls(backend: str, chunk: int) -> None:
    cases = session_cases()[chunk::CHUNKS]
    assert cases
    wrong = [f"{case.seed}: {problem} | {case}" for case in cases for problem in problems(case, backend)]
    assert not wrong, "\n".join(wrong)


def test_the_cases_of_every_run_meet_everything() -> None:
    found = {trait for case in session_cases() for trait in traits(case)}
    assert sorted(map(str, _expected() - found)) == []
