"""Tests of Triton's interpreter next to forbidden memory: correct kernels pass, and each planted bug is caught."""

from __future__ import annotations

import pytest

from gpuless.interpreter import Outcome, interpreted

pytestmark = pytest.mark.xdist_group("interpreter")  # they share one process, whose start takes 5 seconds

SEEN = [
    "load without a mask",
    "mask of one too many",
    "load before the first",
    "store without a mask",
]
FAR = 2**15  # the elements from one row to the next
NEGATIVE, ZERO = 2**31 // FAR, 2**32 // FAR  # rows whose row * stride in 32 bits is -2^31 and 0


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[object, ...], Outcome]:
    """Return each call's Outcome, by the function's name and its first arguments."""
    pytest.importorskip("triton", reason="triton is not installed (Linux only)")
    from planted_interpreter import compile_in_the_interpreter, copy_a_far_row, copy_guarded, copy_unguarded

    calls: list[tuple[object, ...]] = [
        (copy_guarded, mutation, mutation == "load before the first")
        for mutation in ("none", *SEEN, "last element not stored")
    ]
    calls += [(copy_unguarded, mutation) for mutation in ("none", *SEEN)]
    calls += [(copy_a_far_row, row, wide, FAR) for row in (NEGATIVE, ZERO) for wide in (True, False)]
    calls += [(compile_in_the_interpreter,)]
    names = [(function.__name__, *arguments[: len(arguments) - 1 or 1]) for function, *arguments in calls]  # type: ignore[attr-defined]
    return dict(zip(names, interpreted(*calls), strict=True))


def test_right_kernels_are_fine(outcomes: dict[tuple[object, ...], Outcome]) -> None:
    assert outcomes["copy_guarded", "none"].kind == outcomes["copy_unguarded", "none"].kind == "fine"


@pytest.mark.parametrize("mutation", SEEN)
def test_access_past_a_tensor_faults(outcomes: dict[tuple[object, ...], Outcome], mutation: str) -> None:
    assert outcomes["copy_guarded", mutation].kind == "fault"


@pytest.mark.parametrize("mutation", ["load without a mask", "mask of one too many", "store without a mask"])
def test_the_same_kernels_go_unnoticed_on_ordinary_memory(
    outcomes: dict[tuple[object, ...], Outcome], mutation: str
) -> None:
    assert outcomes["copy_unguarded", mutation].kind == "fine"


def test_an_element_that_is_not_written_is_nan(outcomes: dict[tuple[object, ...], Outcome]) -> None:
    outcome = outcomes["copy_guarded", "last element not stored"]
    assert outcome.kind == "wrong"
    assert "nan" in outcome.report


def test_int32_offsets_fault_or_miss(outcomes: dict[tuple[object, ...], Outcome]) -> None:
    assert outcomes["copy_a_far_row", NEGATIVE, True].kind == outcomes["copy_a_far_row", ZERO, True].kind == "fine"
    assert outcomes["copy_a_far_row", NEGATIVE, False].kind == "fault"
    misses = outcomes["copy_a_far_row", ZERO, False]
    assert misses.kind == "wrong"
    assert "holds tensor([nan" in misses.report


def test_a_compile_in_the_interpreter_is_an_error(outcomes: dict[tuple[object, ...], Outcome]) -> None:
    outcome = outcomes[("compile_in_the_interpreter",)]
    assert outcome.kind == "fine", outcome.report


def test_another_error_is_no_outcome() -> None:
    """An error that is neither a fault nor a failed assertion raises, so a broken test cannot pass for a caught bug."""
    with pytest.raises(RuntimeError, match="unsupported operand"):
        interpreted((add, 1, "1"))


def add(a: int, b: int) -> int:
    return a + b
