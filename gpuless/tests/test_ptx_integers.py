"""Tests of integers and bits in the PTX simulator against Python's own integers."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable

import numpy as np
import pytest

from ptx_snippets import evaluate

DTYPES = {
    kind: np.dtype(f"{'i' if kind[0] == 's' else 'u'}{int(kind[1:]) // 8}")
    for kind in ["s16", "u16", "s32", "u32", "s64", "u64"]
}


def numbers(kind: str, seed: int, count: int = 250) -> np.ndarray:
    """Return integers of every length, with the extremes, 0, 1 and (if signed) -1."""
    dtype = DTYPES[kind]
    generator, limits = np.random.default_rng(seed), np.iinfo(dtype)
    values = generator.integers(limits.min, limits.max, count - 5, dtype=dtype, endpoint=True)
    values >>= generator.integers(0, 8 * dtype.itemsize, count - 5).astype(dtype)
    special = np.array([limits.min, limits.max, 0, 1, limits.max], dtype)
    special[4:] = -1 if kind[0] == "s" else limits.max - 1
    return generator.permutation(np.concatenate([values, special]))


def wrapped(value: int, kind: str) -> int:
    bits = int(kind[1:])
    value %= 1 << bits
    return value - (1 << bits) if kind[0] == "s" and value >> bits - 1 else value


def quotient(a: int, b: int) -> int:
    """Divide toward zero, as C does."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul.lo": operator.mul,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic_wraps(name: str, kind: str) -> None:
    a, b = numbers(kind, 0), numbers(kind, 1)
    got = evaluate(f"{name}.{kind} %d, %a, %b;", {"a": a, "b": b}, DTYPES[kind])
    want = [wrapped(OPERATIONS[name](*pair), kind) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    assert got.tolist() == want


@pytest.mark.parametrize("kind", DTYPES)
def test_upper_half_of_a_product(kind: str) -> None:
    a, b = numbers(kind, 0), numbers(kind, 1)
    got = evaluate(f"mul.hi.{kind} %d, %a, %b;", {"a": a, "b": b}, DTYPES[kind])
    assert got.tolist() == [x * y >> int(kind[1:]) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32"])
def test_products_of_twice_the_width(kind: str) -> None:
    wide = f"{kind[0]}{2 * int(kind[1:])}"
    inputs = {"a": numbers(kind, 0), "b": numbers(kind, 1), "c": numbers(wide, 2)}
    columns = list(zip(*[values.tolist() for values in inputs.values()], strict=True))
    product = evaluate(f"mul.wide.{kind} %d, %a, %b;", inputs, DTYPES[wide])
    assert product.tolist() == [a * b for a, b, _ in columns]
    summed = evaluate(f"mad.wide.{kind} %d, %a, %b, %c;", inputs, DTYPES[wide])
    assert summed.tolist() == [wrapped(a * b + c, wide) for a, b, c in columns]


@pytest.mark.parametrize("kind", DTYPES)
def test_division_is_toward_zero(kind: str) -> None:
    a, b = numbers(kind, 0), numbers(kind, 1)
    b[b == 0] = 3
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    got = evaluate(f"div.{kind} %d, %a, %b;", {"a": a, "b": b}, DTYPES[kind])
    assert got.tolist() == [wrapped(quotient(*pair), kind) for pair in pairs]
    got = evaluate(f"rem.{kind} %d, %a, %b;", {"a": a, "b": b}, DTYPES[kind])
    assert got.tolist() == [x - quotient(x, y) * y for x, y in pairs]


@pytest.mark.parametrize("kind", DTYPES)
def test_shifts_further_than_the_width(kind: str) -> None:
    values, bits = numbers(kind, 0), int(kind[1:])
    by = np.random.default_rng(1).integers(0, 2 * bits, len(values)).astype(np.uint32)
    by[:2] = 0xFFFFFFFF, bits
    pairs = list(zip(values.tolist(), by.tolist(), strict=True))
    left = evaluate(f"shl.b{bits} %d, %a, %b;", {"a": values, "b": by}, DTYPES[kind])
    assert left.tolist() == [wrapped(value << min(count, bits), kind) for value, count in pairs]
    right = evaluate(f"shr.{kind} %d, %a, %b;", {"a": values, "b": by}, DTYPES[kind])
    assert right.tolist() == [value >> min(count, bits) for value, count in pairs]


@pytest.mark.parametrize("side", ["l", "r"])
@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_funnel_shift(side: str, mode: str) -> None:
    inputs = {"a": numbers("u32", 0), "b": numbers("u32", 1), "c": np.arange(250, dtype=np.uint32) % 70}
    got = evaluate(f"shf.{side}.{mode}.b32 %d, %a, %b, %c;", inputs, np.uint32)
    for result, low, high, count in zip(got.tolist(), *[values.tolist() for values in inputs.values()], strict=True):
        by = min(count, 32) if mode == "clamp" else count % 32
        both = high << 32 | low
        assert result == (both << by >> 32 if side == "l" else both >> by) % 2**32


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_fields_of_bits(kind: str) -> None:
    bits, generator = int(kind[1:]), np.random.default_rng(2)
    inputs = {"a": numbers(kind, 0), "b": numbers(kind, 1)}
    inputs["start"] = generator.integers(0, bits, 250).astype(np.uint32)
    inputs["length"] = generator.integers(0, bits, 250).astype(np.uint32)
    inputs["length"] = np.minimum(inputs["length"], bits - inputs["start"])
    columns = list(zip(*[values.tolist() for values in inputs.values()], strict=True))
    got = evaluate(f"bfe.{kind} %d, %a, %start, %length;", inputs, DTYPES[kind])
    for result, (a, _, start, length) in zip(got.tolist(), columns, strict=True):
        field = (a >> start) % (1 << length)
        negative = kind[0] == "s" and length and field >> length - 1
        assert result == field - (1 << length if negative else 0)
    got = evaluate(f"bfi.b{bits} %d, %a, %b, %start, %length;", inputs, DTYPES["u" + kind[1:]])
    for result, (a, b, start, length) in zip(got.tolist(), columns, strict=True):
        hole = (1 << length) - 1
        assert result == ((b & ~(hole << start)) | ((a & hole) << start)) % (1 << bits)


def test_bytes_are_permuted_by_nibbles() -> None:
    inputs = {"a": numbers("u32", 0), "b": numbers("u32", 1), "c": numbers("u32", 2)}
    got = evaluate("prmt.b32 %d, %a, %b, %c;", inputs, np.uint32)
    for result, a, b, selector in zip(got.tolist(), *[values.tolist() for values in inputs.values()], strict=True):
        source = struct.pack("<II", a, b)
        picked = []
        for position in range(4):
            nibble = selector >> 4 * position & 15
            byte = source[nibble & 7]
            picked.append((255 if byte & 128 else 0) if nibble & 8 else byte)
        assert result == struct.unpack("<I", bytes(picked))[0]


def test_prmt_with_the_selectors_that_triton_emits() -> None:
    """Two selectors are checked: 0x5410 takes both lower halves, and 0x7632 both upper halves."""
    inputs = {"a": np.array([0xAAAABBBB], np.uint32), "b": np.array([0xCCCCDDDD], np.uint32)}
    assert evaluate("prmt.b32 %d, %a, %b, 0x5410U;", inputs, np.uint32)[0] == 0xDDDDBBBB
    assert evaluate("prmt.b32 %d, %a, %b, 0x7632U;", inputs, np.uint32)[0] == 0xCCCCAAAA


@pytest.mark.parametrize("table", [0xE8, 0x96, 0x1B, 0xF8, 0])
def test_lop3_looks_three_bits_up(table: int) -> None:
    inputs = {"a": numbers("u32", 0), "b": numbers("u32", 1), "c": numbers("u32", 2)}
    got = evaluate(f"lop3.b32 %d, %a, %b, %c, {table};", inputs, np.uint32)
    for result, a, b, c in zip(got.tolist(), *[values.tolist() for values in inputs.values()], strict=True):
        rows = [(a >> bit & 1) << 2 | (b >> bit & 1) << 1 | c >> bit & 1 for bit in range(32)]
        assert result == sum((table >> row & 1) << bit for bit, row in enumerate(rows))


@pytest.mark.parametrize("bits", [32, 64])
def test_counting_bits(bits: int) -> None:
    values = numbers(f"u{bits}", 0)
    plain = values.tolist()
    assert evaluate(f"popc.b{bits} %d, %a;", {"a": values}, np.uint32).tolist() == [each.bit_count() for each in plain]
    leading = evaluate(f"clz.b{bits} %d, %a;", {"a": values}, np.uint32)
    assert leading.tolist() == [bits - each.bit_length() for each in plain]
    mirrored = evaluate(f"brev.b{bits} %d, %a;", {"a": values}, values.dtype)
    assert mirrored.tolist() == [int(f"{each:0{bits}b}"[::-1], 2) for each in plain]


COMPARISONS = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64", "s16", "u16"])
def test_comparisons_of_integers(name: str, kind: str) -> None:
    a, b = numbers(kind, 0), numbers(kind, 1)
    b[::5] = a[::5]
    got = evaluate(f"setp.{name}.{kind} %p0, %a, %b; selp.u32 %d, 1, 0, %p0;", {"a": a, "b": b}, np.uint32)
    assert got.tolist() == [COMPARISONS[name](*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_with_nan(name: str) -> None:
    values = np.array([1.0, 2.0, np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
    a, b = (each.ravel() for each in np.meshgrid(values, values))
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    nan = [x != x or y != y for x, y in pairs]
    ordered = evaluate(f"setp.{name}.f32 %p0, %a, %b; selp.u32 %d, 1, 0, %p0;", {"a": a, "b": b}, np.uint32)
    assert ordered.tolist() == [COMPARISONS[name](*pair) and not odd for pair, odd in zip(pairs, nan, strict=True)]
    either = evaluate(f"setp.{name}u.f32 %p0, %a, %b; selp.u32 %d, 1, 0, %p0;", {"a": a, "b": b}, np.uint32)
    assert either.tolist() == [COMPARISONS[name](*pair) or odd for pair, odd in zip(pairs, nan, strict=True)]


def test_predicates_combine() -> None:
    a, b = np.arange(4, dtype=np.uint32) & 1, np.arange(4, dtype=np.uint32) >> 1
    begin = "setp.ne.u32 %p0, %a, 0; setp.ne.u32 %p1, %b, 0;"
    end = "selp.u32 %d, 1, 0, %p2;"

    def value(middle: str) -> list[int]:
        return evaluate(f"{begin} {middle} {end}", {"a": a, "b": b}, np.uint32).tolist()

    assert value("and.pred %p2, %p0, %p1;") == [0, 0, 0, 1]
    assert value("or.pred %p2, %p0, %p1;") == [0, 1, 1, 1]
    assert value("xor.pred %p2, %p0, %p1;") == [0, 1, 1, 0]
    assert value("not.pred %p2, %p0;") == [1, 0, 1, 0]
    assert value("setp.eq.and.u32 %p2, %b, 0, %p0;") == [0, 1, 0, 0]
    assert value("setp.eq.or.u32 %p2|%p3, %b, 0, !%p0;") == [1, 1, 1, 0]


def test_a_false_guard_keeps_the_register() -> None:
    values = np.arange(64, dtype=np.uint32)
    got = evaluate(
        "mov.u32 %d, 7; setp.lt.u32 %p0, %a, 40; @%p0 add.u32 %d, %a, 1; @!%p0 mov.u32 %d, %d;",
        {"a": values},
        np.uint32,
    )
    assert got.tolist() == [value + 1 if value < 40 else 7 for value in range(64)]


def test_registers_are_put_together_and_taken_apart() -> None:
    inputs = {"a": numbers("u32", 0), "b": numbers("u32", 1)}
    whole = evaluate("mov.b64 %d, {%a, %b};", inputs, np.uint64)
    assert whole.tolist() == [b << 32 | a for a, b in zip(*[each.tolist() for each in inputs.values()], strict=True)]
    upper = evaluate("mov.b64 %w, {%a, %b}; mov.b64 {_, %d}, %w;", inputs, np.uint32, registers="b64 w")
    assert np.array_equal(upper, inputs["b"])


def test_loops_end_thread_by_thread() -> None:
    """Each thread adds 1 + 2 + ... + a, so the threads of a warp part and meet again."""
    values = np.arange(64, dtype=np.uint32) % 11
    body = """
    mov.u32 %d, 0;
    mov.u32 %left, %a;
LOOP:
    setp.eq.u32 %p0, %left, 0;
    @%p0 bra DONE;
    add.u32 %d, %d, %left;
    sub.u32 %left, %left, 1;
    bra.uni LOOP;
DONE:
    """
    got = evaluate(body, {"a": values}, np.uint32, registers="b32 left")
    assert got.tolist() == [each * (each + 1) // 2 for each in values.tolist()]
