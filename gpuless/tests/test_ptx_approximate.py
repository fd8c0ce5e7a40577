"""Tests that approximate instructions keep to their error bounds, and that they are not exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptx_snippets import evaluate

Array = NDArray[Any]

ULP = 2.0**-23  # relative to the power of two below the number


def _values(low: float, high: float, count: int = 2048, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(low, high, count).astype(np.float32)


def _units(exact: Array) -> Array:
    """Return a unit in the last place of the float32 next to each number. No number may be a power of two."""
    return 2.0 ** np.floor(np.log2(np.abs(exact))) * ULP


# Instruction -> its domain, the true function, and the PTX manual's bound as an absolute error of each result.
CASES: dict[str, tuple[tuple[float, float], Callable[[Array], Array], Callable[[Array], Array]]] = {
    "rcp.approx.f32 %d, %a;": ((0.1, 40), lambda a: 1 / a, _units),
    "div.full.f32 %d, 0f40400000, %a;": ((0.1, 40), lambda a: 3 / a, lambda exact: 2 * _units(exact)),
    "div.approx.f32 %d, 0f40400000, %a;": ((-40, -0.1), lambda a: 3 / a, lambda exact: 2 * _units(exact)),
    "sqrt.approx.f32 %d, %a;": ((0.1, 40), np.sqrt, lambda exact: 2.0**-23 * exact),
    "rsqrt.approx.f32 %d, %a;": ((0.1, 40), lambda a: 1 / np.sqrt(a), lambda exact: 2**-22.9 * exact),
    "ex2.approx.f32 %d, %a;": ((-20, 20), np.exp2, lambda exact: 2 * _units(exact)),
    "lg2.approx.f32 %d, %a;": ((0.6, 1.9), np.log2, lambda exact: np.full_like(exact, 2.0**-22)),
    "sin.approx.f32 %d, %a;": ((-3, 3), np.sin, lambda exact: np.full_like(exact, 2**-20.5)),
    "cos.approx.f32 %d, %a;": ((-3, 3), np.cos, lambda exact: np.full_like(exact, 2**-20.5)),
    "tanh.approx.f32 %d, %a;": ((-3, 3), np.tanh, lambda exact: 2.0**-11 * np.abs(exact)),
}


@pytest.mark.parametrize("body", CASES)
def test_within_the_bound_and_using_it(body: str) -> None:
    (low, high), truth, bound = CASES[body]
    values = np.concatenate([_values(low, high, 512, seed) for seed in range(2)])
    got = evaluate(body, {"a": values.view(np.uint32)}, np.float32).astype(np.float64)
    exact = truth(values.astype(np.float64))
    share = np.abs(got - exact) / bound(exact)
    assert share.max() <= 1
    assert share.max() > 0.5
    off = got != exact.astype(np.float32)
    assert off.mean() > 0.1
    assert (got[off] > exact[off]).any()
    assert (got[off] < exact[off]).any()


def test_the_same_operands_give_the_same_result() -> None:
    values = np.tile(_values(1, 2, 32), 4)
    got = evaluate("ex2.approx.f32 %d, %a;", {"a": values.view(np.uint32)}, np.uint32).reshape(4, 32)
    assert (got == got[0]).all()


@pytest.mark.parametrize(
    ("body", "value", "result"),
    [
        ("ex2.approx.f32 %d, %a;", 0.0, 1.0),
        ("ex2.approx.f32 %d, %a;", -3.0, 0.125),
        ("rcp.approx.f32 %d, %a;", 8.0, 0.125),
        ("rcp.approx.f32 %d, %a;", 0.0, np.inf),
        ("sqrt.approx.f32 %d, %a;", 9.0, 3.0),
        ("rsqrt.approx.f32 %d, %a;", 4.0, 0.5),
        ("lg2.approx.f32 %d, %a;", 32.0, 5.0),
        ("lg2.approx.f32 %d, %a;", 0.0, -np.inf),
        ("div.full.f32 %d, 0f40400000, %a;", 1.5, 2.0),
        ("ex2.approx.ftz.f32 %d, %a;", -130.0, 0.0),
    ],
)
def test_what_is_a_float32_is_exact(body: str, value: float, result: float) -> None:
    bits = np.full(32, value, np.float32).view(np.uint32)
    assert (evaluate(body, {"a": bits}, np.float32) == result).all()


def test_rounded_instructions_are_not_approximate() -> None:
    values = _values(0.1, 40)[:512]
    wide = values.astype(np.float64)
    inputs = {"a": values.view(np.uint32)}
    assert (evaluate("rcp.rn.f32 %d, %a;", inputs, np.float32) == (1 / wide).astype(np.float32)).all()
    assert (evaluate("sqrt.rn.f32 %d, %a;", inputs, np.float32) == np.sqrt(wide).astype(np.float32)).all()
    quotients = evaluate("div.rn.f32 %d, 0f40400000, %a;", inputs, np.float32)
    assert (quotients == (3 / wide).astype(np.float32)).all()
