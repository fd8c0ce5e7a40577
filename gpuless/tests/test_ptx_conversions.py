"""Tests of the simulator's cvt against exact rational numbers and Python's integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from ptx_snippets import evaluate
from rationals import FORMATS, exact, finite, rounded

FLOAT_CASES = [
    ("cvt.rn.f16.f32", "f16", "f32", "even"),
    ("cvt.rz.f16.f32", "f16", "f32", "zero"),
    ("cvt.rn.bf16.f32", "bf16", "f32", "even"),
    ("cvt.rz.bf16.f32", "bf16", "f32", "zero"),
    ("cvt.rna.tf32.f32", "tf32", "f32", "away"),
    ("cvt.f32.f16", "f32", "f16", "even"),
    ("cvt.f32.bf16", "f32", "bf16", "even"),
    ("cvt.rn.f32.f64", "f32", "f64", "even"),
    ("cvt.rz.f32.f64", "f32", "f64", "zero"),
    ("cvt.rn.f16.f64", "f16", "f64", "even"),
    ("cvt.f64.f32", "f64", "f32", "even"),
]


@pytest.mark.parametrize(("instruction", "result", "source", "ties"), FLOAT_CASES)
def test_between_floats(instruction: str, result: str, source: str, ties: str) -> None:
    values = np.concatenate([finite(source, 128, 1), finite(source, 128, 2, spread=20)])
    got = evaluate(f"{instruction} %d, %a;", {"a": values}, FORMATS[result].bits)
    for thread, bits in enumerate(values.tolist()):
        assert exact(int(got[thread]), result) == rounded(exact(bits, source), result, ties), exact(bits, source)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_the_first_operand_of_a_packed_conversion_is_the_upper_half(kind: str) -> None:
    inputs = {"a": finite("f32", 64, 1), "b": finite("f32", 64, 2)}
    got = evaluate(f"cvt.rn.{kind}x2.f32 %d, %a, %b;", inputs, np.uint32)
    for half, name in ((got >> 16, "a"), (got & 0xFFFF, "b")):
        for bits, value in zip(half.tolist(), inputs[name].tolist(), strict=True):
            assert exact(bits, kind) == rounded(exact(value, "f32"), kind)


def _integers(kind: str) -> np.ndarray:
    """Return integers of this type, with the extremes and numbers of every length."""
    dtype = np.dtype({"s": "i", "u": "u"}[kind[0]] + str(int(kind[1:]) // 8))
    generator, limits = np.random.default_rng(0), np.iinfo(dtype)
    values = generator.integers(limits.min, limits.max, 250, dtype=dtype, endpoint=True)
    values >>= generator.integers(0, 8 * dtype.itemsize, 250).astype(dtype)
    return np.concatenate([values, np.array([limits.min, limits.max, 0, 1], dtype)])


@pytest.mark.parametrize("result", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("source", ["s32", "u32", "s64", "u64"])
def test_integers_to_floats(source: str, result: str) -> None:
    values = _integers(source)
    got = evaluate(f"cvt.rn.{result}.{source} %d, %a;", {"a": values}, FORMATS[result].bits)
    for bits, value in zip(got.tolist(), values.tolist(), strict=True):
        assert exact(bits, result) == rounded(Fraction(value), result)


ROUNDINGS = {"rzi": math.trunc, "rni": round, "rmi": math.floor, "rpi": math.ceil}


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("source", ["f16", "f32", "f64"])
@pytest.mark.parametrize("result", ["s32", "u32", "s64", "u64", "s16"])
def test_floats_to_integers_saturate(result: str, source: str, rounding: str) -> None:
    values = np.concatenate([finite(source, 200, 3, spread=10), finite(source, 56, 4, spread=70)])
    dtype = np.dtype({"s": "i", "u": "u"}[result[0]] + str(int(result[1:]) // 8))
    got = evaluate(f"cvt.{rounding}.{result}.{source} %d, %a;", {"a": values}, dtype)
    limits = np.iinfo(dtype)
    for whole, bits in zip(got.tolist(), values.tolist(), strict=True):
        wanted = exact(bits, source)
        inside = ROUNDINGS[rounding](wanted) if math.isfinite(wanted) else wanted
        assert whole == min(max(inside, limits.min), limits.max), wanted


def test_nan_becomes_zero_and_infinities_the_ends() -> None:
    values = np.array([math.nan, math.inf, -math.inf], np.float32)
    assert evaluate("cvt.rzi.s32.f32 %d, %a;", {"a": values}, np.int32).tolist() == [0, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize(
    ("instruction", "result", "wants"),
    [
        ("cvt.s64.s32", "i8", lambda value: value),
        ("cvt.u64.u32", "u8", lambda value: value % 2**32),
        ("cvt.u16.u32", "u2", lambda value: value % 2**16),
        ("cvt.s64.s8", "i8", lambda value: (value + 128) % 256 - 128),
        ("cvt.u32.u8", "u4", lambda value: value % 256),
        ("cvt.sat.s16.s32", "i2", lambda value: min(max(value, -(2**15)), 2**15 - 1)),
        ("cvt.sat.u32.s32", "u4", lambda value: max(value, 0)),
    ],
)
def test_between_integers(instruction: str, result: str, wants) -> None:
    values = _integers("s32")
    got = evaluate(f"{instruction} %d, %a;", {"a": values}, np.dtype(result))
    assert got.tolist() == [wants(value) for value in values.tolist()]


def test_a_narrow_result_is_extended_to_its_register_by_its_sign() -> None:
    values = _integers("s32")
    signed = evaluate("cvt.s8.s32 %d, %a;", {"a": values}, np.int32)
    assert signed.tolist() == [(value + 128) % 256 - 128 for value in values.tolist()]
    unsigned = evaluate("cvt.u8.s32 %d, %a;", {"a": values}, np.int32)
    assert unsigned.tolist() == [value % 256 for value in values.tolist()]
