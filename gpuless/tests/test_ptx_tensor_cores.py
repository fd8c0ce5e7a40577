"""Tests of mma.sync, ldmatrix and stmatrix in the PTX simulator against the layouts in the PTX manual's tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuless.ptx import Divergence
from ptx_snippets import run

Array = NDArray[Any]


class Shape(NamedTuple):
    """A tensor-core instruction, with the place of each lane's elements in its operands.

    a and b give the place of element i of the lane with group g and number t in the group.
    """

    instruction: str
    depth: int
    rows: int
    a: Any
    b: Any
    per_register: int


def c_place(g: int, t: int, i: int) -> tuple[int, int]:
    return (g if i < 2 else g + 8), 2 * t + (i & 1)


SHAPES = {
    "f16": Shape(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
        *(16, 16),
        lambda g, t, i: (g if i % 4 < 2 else g + 8, 2 * t + (i & 1) + (8 if i >= 4 else 0)),
        lambda g, t, i: (2 * t + (i & 1) + (8 if i >= 2 else 0), g),
        2,
    ),
    "f16 k8": Shape(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32",
        *(8, 16),
        lambda g, t, i: (g if i < 2 else g + 8, 2 * t + (i & 1)),
        lambda g, t, i: (2 * t + i, g),
        2,
    ),
    "tf32": Shape(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
        *(8, 16),
        lambda g, t, i: (g if i % 2 == 0 else g + 8, t if i < 2 else t + 4),
        lambda g, t, i: (t if i == 0 else t + 4, g),
        1,
    ),
    "tf32 k4": Shape(
        "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32",
        *(4, 16),
        lambda g, t, i: (g if i == 0 else g + 8, t),
        lambda g, t, i: (t, g),
        1,
    ),
    "f64": Shape(
        "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64",
        *(4, 8),
        lambda g, t, i: (g, t),
        lambda g, t, i: (t, g),
        1,
    ),
}
SHAPES["bf16"] = SHAPES["f16"]._replace(instruction=SHAPES["f16"].instruction.replace("f16.f16", "bf16.bf16"))


def to_bits(values: Array, kind: str) -> Array:
    """Return float32 or float64 as the content of registers. For the numbers of these tests this is exact."""
    if kind == "bf16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    dtype = {"f16": np.float16, "tf32": np.float32, "f64": np.float64}[kind.split()[0]]
    return values.astype(dtype)


def fragments(matrix: Array, place: Any, count: int) -> Array:
    """Return what each lane holds of its warp's matrix [2, rows, columns], [64 lanes of 2 warps, count]."""
    lanes = [[matrix[lane // 32][place(lane % 32 // 4, lane % 4, i)] for i in range(count)] for lane in range(64)]
    return np.array(lanes)


def multiply(shape: Shape, kind: str, a: Array, b: Array, c: Array, body: str = "") -> Array:
    """Return A B + C of two warps, computed by one instruction."""
    wide = kind == "f64"
    counts = [shape.rows * shape.depth // 32, 8 * shape.depth // 32, shape.rows * 8 // 32]
    operands = [
        to_bits(fragments(a, shape.a, counts[0]), kind),
        to_bits(fragments(b, shape.b, counts[1]), kind),
        fragments(c, c_place, counts[2]).astype(np.float64 if wide else np.float32),
    ]
    registers = [counts[0] // shape.per_register, counts[1] // shape.per_register, counts[2]]
    bits = 64 if wide else 32
    loads, names = "", []
    for number, (letter, count) in enumerate(zip("abc", registers, strict=True)):
        loads += f"mad.lo.u64 %address{number}, %index, {count * bits // 8}, %address{number};\n"
        for each in range(count):
            loads += f"ld.global.b{bits} %{letter}{each}, [%address{number}+{each * bits // 8}];\n"
        names.append("{" + ", ".join(f"%{letter}{each}" for each in range(count)) + "}")
    loads += f"mad.lo.u64 %address3, %index, {registers[2] * bits // 8}, %address3;\n"
    stores = "".join(f"st.global.b{bits} [%address3+{each * bits // 8}], %c{each};\n" for each in range(registers[2]))
    output = np.zeros(64 * counts[2], np.float64 if wide else np.float32)
    tensors = [np.ascontiguousarray(each).view(np.uint8).copy() for each in operands]
    declared = ", ".join(f"b{bits} {letter}{i}" for letter, n in zip("abc", registers, strict=True) for i in range(n))
    text = f"{loads}{body}{shape.instruction} {names[2]}, {names[0]}, {names[1]}, {names[2]};\n{stores}"
    report = run(text, *tensors, output, registers=declared, threads=64)
    assert report.tensor_core_instructions == 2
    result = np.empty((2, shape.rows, 8))
    for lane, values in enumerate(output.reshape(64, -1).tolist()):
        for i, value in enumerate(values):
            result[lane // 32][c_place(lane % 32 // 4, lane % 4, i)] = value
    return result


@pytest.mark.parametrize("kind", SHAPES)
def test_small_integers_multiply_exactly(kind: str) -> None:
    """Every sum is a whole number below 2^11, so neither the order nor the width of the accumulator changes it."""
    shape, generator = SHAPES[kind], np.random.default_rng(0)
    a = generator.integers(-8, 9, (2, shape.rows, shape.depth)).astype(np.float64)
    b = generator.integers(-8, 9, (2, shape.depth, 8)).astype(np.float64)
    c = generator.integers(-100, 101, (2, shape.rows, 8)).astype(np.float64)
    assert np.array_equal(multiply(shape, kind, a, b, c), a @ b + c)


@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32"])
def test_products_are_exact_and_sums_nearly_float32(kind: str) -> None:
    """The bound is one unit of the largest partial sum for each of the depth + 1 summands.

    Hardware adds in blocks with at least 24 bits, and cuts off each step.
    """
    shape, generator = SHAPES[kind], np.random.default_rng(1)
    a = generator.standard_normal((2, shape.rows, shape.depth)).astype(np.float32)
    b = generator.standard_normal((2, shape.depth, 8)).astype(np.float32)
    bits = np.uint32({"f16": 0xFFFFE000, "bf16": 0xFFFF0000, "tf32": 0xFFFFE000}[kind])
    a, b = ((each.view(np.uint32) & bits).view(np.float32).astype(np.float64) for each in (a, b))
    c = np.float32(generator.standard_normal((2, shape.rows, 8))).astype(np.float64)
    bound = 2.0**-23 * (shape.depth + 1) * (np.abs(a) @ np.abs(b) + np.abs(c))
    assert (np.abs(multiply(shape, kind, a, b, c) - (a @ b + c)) <= bound).all()


def test_float64_rounds_like_float64() -> None:
    shape, generator = SHAPES["f64"], np.random.default_rng(1)
    a, b = generator.standard_normal((2, 8, 4)), generator.standard_normal((2, 4, 8))
    c = generator.standard_normal((2, 8, 8))
    bound = 2 * 2.0**-53 * 5 * (np.abs(a) @ np.abs(b) + np.abs(c))  # five roundings there, and five of NumPy here
    assert (np.abs(multiply(shape, "f64", a, b, c) - (a @ b + c)) <= bound).all()


def test_tf32_operands_lose_their_low_bits() -> None:
    """Both operands are cut to 1: 1 + 2^-11 is halfway between two tf32 numbers, and 1 + 2^-10 - 2^-23 almost the upper
    one.
    """
    shape = SHAPES["tf32"]
    a, b = np.zeros((2, 16, 8)), np.zeros((2, 8, 8))
    a[:, :, 0], b[:, 0] = 1 + 2.0**-10 - 2.0**-23, 1 + 2.0**-11
    assert np.array_equal(multiply(shape, "tf32", a, b, np.zeros((2, 16, 8))), np.ones((2, 16, 8)))


def test_infinities_and_nans_go_through() -> None:
    shape = SHAPES["f16"]
    a, b = np.ones((2, 16, 16)), np.ones((2, 16, 8))
    a[0, 3, 5], a[0, 4, 7], b[0, 5, 2] = np.inf, -np.inf, 0.0
    got = multiply(shape, "f16", a, b, np.zeros((2, 16, 8)))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got, a @ b)


def test_a_part_of_a_warp_cannot_multiply() -> None:
    shape = SHAPES["tf32"]
    zeros = np.zeros((2, 16, 8))
    with pytest.raises(Divergence, match="part of a warp"):
        multiply(shape, "tf32", zeros, zeros[:, :8], zeros, body="setp.lt.u32 %p0, %thread, 40; @%p0 ")


MATRIX = ".shared .align 16 .b8 matrix[1024];"


@pytest.mark.parametrize("transposes", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_gives_a_lane_two_neighbors_of_a_row(count: int, transposes: bool) -> None:
    """Lane 8 m + r holds the address of row r of matrix m. Lane l gets two elements of row l / 4: 2 (l % 4) and the
    next.
    """
    numbers = np.arange(count * 64, dtype=np.uint16).reshape(count, 8, 8)
    source = numbers.view(np.uint8).copy()
    output = np.zeros(32 * count, np.int32)
    names = ", ".join(f"%v{each}" for each in range(count))
    body = f"""
    // 16 bytes of a thread for each of the first 8 count threads, the rows backwards in shared memory
    setp.lt.u32 %p0, %thread, {8 * count};
    mul.wide.u32 %far, %thread, 16;
    add.u64 %far, %far, %address0;
    sub.u32 %row, 63, %thread;
    shl.b32 %row, %row, 4;
    mov.u32 %base, matrix;
    add.u32 %row, %row, %base;
    @%p0 ld.global.v4.b32 {{%w0, %w1, %w2, %w3}}, [%far];
    @%p0 st.shared.v4.b32 [%row], {{%w0, %w1, %w2, %w3}};
    bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x{count}{".trans" if transposes else ""}.shared.b16 {{{names}}}, [%row];
    mul.wide.u32 %far, %thread, {4 * count};
    add.u64 %far, %far, %address1;
    """
    body += "".join(f"st.global.b32 [%far+{4 * each}], %v{each};\n" for each in range(count))
    registers = "b64 far, b32 row, b32 base, b32 w0, b32 w1, b32 w2, b32 w3"
    registers += "".join(f", b32 v{each}" for each in range(count))
    run(body, source, output, registers=registers, declarations=MATRIX)
    got = output.view(np.uint16).reshape(32, count, 2)
    for lane in range(32):
        for each in range(count):
            rows = numbers[each].T if transposes else numbers[each]
            assert got[lane, each].tolist() == rows[lane // 4, 2 * (lane % 4) :][:2].tolist()


@pytest.mark.parametrize("transposes", ["", ".trans"])
def test_stmatrix_undoes_ldmatrix(transposes: str) -> None:
    numbers = np.random.default_rng(0).integers(0, 2**16, 256, dtype=np.uint16)
    source, output = numbers.view(np.uint8).copy(), np.zeros(512, np.uint8)
    body = f"""
    mul.wide.u32 %far, %thread, 16;
    add.u64 %address0, %far, %address0;
    add.u64 %address1, %far, %address1;
    shl.b32 %row, %thread, 4;
    mov.u32 %base, matrix;
    add.u32 %row, %row, %base;
    ld.global.v4.b32 {{%w0, %w1, %w2, %w3}}, [%address0];
    st.shared.v4.b32 [%row], {{%w0, %w1, %w2, %w3}};
    bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x4{transposes}.shared.b16 {{%w0, %w1, %w2, %w3}}, [%row];
    bar.sync 0;
    stmatrix.sync.aligned.m8n8.x4{transposes}.shared.b16 [%row+512], {{%w0, %w1, %w2, %w3}};
    bar.sync 0;
    ld.shared.v4.b32 {{%w0, %w1, %w2, %w3}}, [%row+512];
    st.global.v4.b32 [%address1], {{%w0, %w1, %w2, %w3}};
    """
    registers = "b64 far, b32 row, b32 base, b32 w0, b32 w1, b32 w2, b32 w3"
    run(body, source, output, registers=registers, declarations=MATRIX)
    assert np.array_equal(source, output)
