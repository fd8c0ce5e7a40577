"""Tests of the simulator's arithmetic and conversions against exact rational numbers, rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from inspect import signature

import numpy as np
import pytest

from ptx_snippets import evaluate
from rationals import FORMATS, exact, finite, root, rounded

OPERATIONS: dict[str, Callable[..., Fraction]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "fma.rn": lambda a, b, c: a * b + c,
    "div.rn": lambda a, b: a / b,
    "rcp.rn": lambda a: 1 / a,
    "sqrt.rn": lambda a: root(abs(a)),
    "neg": lambda a: -a,
    "abs": lambda a: abs(a),
    "min": lambda a, b: min(a, b),
    "max": lambda a, b: max(a, b),
}

CASES = [
    *[(name, kind) for name in OPERATIONS for kind in ("f32", "f64") if (name, kind) != ("fma.rn", "f64")],
    *[(name, kind) for name in ("add", "sub", "mul", "fma.rn", "neg", "abs", "min", "max") for kind in ("f16", "bf16")],
]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: str(value))
def test_floats_are_rounded_once(name: str, kind: str) -> None:
    count = 256
    arity = len(signature(OPERATIONS[name]).parameters)
    inputs = {each: finite(kind, count, seed) for seed, each in zip(range(arity), "abc", strict=False)}
    if name in ("div.rn", "rcp.rn"):
        inputs["ab"[arity - 1]] |= FORMATS[kind].bits.type(1)  # no divisor is zero
    operands = ", ".join("%" + each for each in inputs)
    absolute = f"abs.{kind} %a, %a;" if name == "sqrt.rn" else ""
    got = evaluate(f"{absolute} {name}.{kind} %d, {operands};", inputs, FORMATS[kind].bits)
    for thread in range(count):
        numbers = [exact(int(values[thread]), kind) for values in inputs.values()]
        assert exact(int(got[thread]), kind) == rounded(OPERATIONS[name](*numbers), kind), (thread, numbers)


def test_a_sum_of_a_product_just_off_a_tie_is_not_rounded_twice() -> None:
    """a b + c lies 2^-70 below the middle of two floats. float64 cannot tell it from the middle."""
    a, b = np.float32(2**-12 * (1 + 2**-23)), np.float32(2**-12 * (1 - 2**-23))
    c = np.float32(1 + 2**-23)
    inputs = {name: np.array([value], np.float32) for name, value in zip("abc", (a, b, c), strict=True)}
    assert evaluate("fma.rn.f32 %d, %a, %b, %c;", inputs, np.float32)[0] == c


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["add", "mul", "fma.rn", "min"])
def test_packed_halves_are_two_numbers(name: str, kind: str) -> None:
    arity = 3 if name == "fma.rn" else 2
    inputs = {each: finite(kind, 128, seed).view(np.uint32) for seed, each in zip(range(arity), "abc", strict=False)}
    got = evaluate(f"{name}.{kind}x2 %d, {', '.join('%' + each for each in inputs)};", inputs, np.uint32)
    halves = {each: values.view(np.uint16) for each, values in inputs.items()}
    alone = evaluate(f"{name}.{kind} %d, {', '.join('%' + each for each in halves)};", halves, np.uint16)
    assert np.array_equal(got.view(np.uint16), alone)


NAN_CASES = [
    ("min.f32", 1.0, math.nan, 1.0),
    ("max.f32", math.nan, -2.0, -2.0),
    ("min.NaN.f32", 1.0, math.nan, math.nan),
    ("max.NaN.f32", math.nan, -2.0, math.nan),
    ("add.f32", math.inf, -math.inf, math.nan),
    ("div.rn.f32", 1.0, 0.0, math.inf),
    ("div.full.f32", -1.0, 0.0, -math.inf),
    ("mul.f32", math.inf, 0.0, math.nan),
]


@pytest.mark.parametrize(("instruction", "a", "b", "want"), NAN_CASES)
def test_infinities_and_nans(instruction: str, a: float, b: float, want: float) -> None:
    inputs = {"a": np.array([a], np.float32), "b": np.array([b], np.float32)}
    got = evaluate(f"{instruction} %d, %a, %b;", inputs, np.float32)[0]
    assert got == want or (math.isnan(got) and math.isnan(want))


def test_ftz_takes_and_gives_zeros_for_subnormals() -> None:
    tiny = np.array([1e-40, -1e-40, 1e-38, 2.0], np.float32)
    inputs = {"a": tiny, "b": np.array([0, 0, -9e-39, 1], np.float32)}
    assert evaluate("add.f32 %d, %a, %b;", inputs, np.float32)[0] == tiny[0]
    flushed = evaluate("add.ftz.f32 %d, %a, %b;", inputs, np.float32)
    assert flushed.tolist() == [0, 0, 0, 3]
