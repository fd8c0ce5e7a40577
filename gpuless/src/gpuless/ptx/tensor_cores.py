"""The instruction mma.sync, for all warps of a CTA at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .dot_products import dot
from .errors import Divergence, Unsupported
from .formats import DTYPES, Array, from_bfloat16
from .operands import Mask, Reader, elements, reader, writer
from .parser import Instruction, Program

if TYPE_CHECKING:
    from .machine import Cta

_LANE = np.arange(32)
_GROUP, _IN_GROUP = _LANE >> 2, _LANE & 3
_PER_REGISTER = {"f16": 2, "bf16": 2, "tf32": 1, "f64": 1, "s8": 4, "u8": 4}
_SHAPE = re.compile(r"m(8|16)n8k(\d+)")


def whole_warps(cta: Cta, mask: Mask) -> Array | None:
    """Return the warps that take part, None for all. Fail if only a part of a warp does."""
    if mask is None:
        return None
    present = mask.reshape(-1, 32)
    if (present.any(1) != present.all(1)).any():
        cta.fail(Divergence, "a part of a warp", int(np.flatnonzero(mask)[0]))
    return np.flatnonzero(present.any(1))


def _numbers(bits: Array, kind: str) -> Array:
    """Return the elements of registers as float64 [registers, threads, elements of a register].

    `bits` is [registers, threads].
    """
    if kind == "tf32":
        return (bits & np.uint32(0xFFFFE000)).view(np.float32)[..., None].astype(np.float64)
    if kind == "f64":
        return bits.view(np.float64)[..., None]
    parts = bits.view(DTYPES[kind]).reshape(*bits.shape, -1)
    return from_bfloat16(parts).astype(np.float64) if kind == "bf16" else parts.astype(np.float64)


def _places(kind: str, rows: int, depth: int) -> Array:
    """Return the place in a matrix [rows, depth] of the element at [register, lane, part] of an operand. B is
    transposed.
    """
    per, tall = _PER_REGISTER[kind], rows // 8
    register = np.arange(rows * depth // 32 // per)[:, None, None]
    row = _GROUP[:, None] + 8 * (register % tall)
    column = per * _IN_GROUP[:, None] + np.arange(per) + 4 * per * (register // tall)
    return row * depth + column


class _Operand:
    """The operand A or B, which turns registers into a matrix for each warp, float64 [warps, rows, depth]."""

    def __init__(self, program: Program, operand: str, kind: str, rows: int, depth: int) -> None:
        width = "u64" if kind == "f64" else "u32"
        self.reads: list[Reader] = [reader(program, each, width) for each in elements(operand)]
        self.kind, self.rows, self.depth = kind, rows, depth
        places = _places(kind, rows, depth)
        if len(self.reads) != len(places):
            raise Unsupported(f"{len(self.reads)} registers of {kind}")
        # For each place, the index of its element among [registers, lanes, parts].
        self.sources = np.argsort(places, axis=None)

    def matrix(self, cta: Cta) -> Array:
        bits = np.array([read(cta) for read in self.reads])
        numbers = _numbers(bits, self.kind)
        registers, parts, warps = len(bits), numbers.shape[2], cta.threads // 32
        by_warp = numbers.reshape(registers, warps, 32, parts).transpose(1, 0, 2, 3).reshape(warps, -1)
        return by_warp[:, self.sources].reshape(warps, self.rows, self.depth)


def multiply_accumulate(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    """Return mma, which computes D = A B + C for each warp, [M, K] by [K, 8]."""
    shapes = [_SHAPE.fullmatch(modifier) for modifier in instruction.modifiers]
    shape = next((match for match in shapes if match), None)
    kind_a, kind_b, kind = instruction.modifiers[-3], instruction.modifiers[-2], instruction.kind
    if (
        shape is None
        or kind_a not in _PER_REGISTER
        or kind not in ("f32", "f64", "s32")
        or instruction.modifiers[-6:-4] != ("row", "col")
    ):
        raise Unsupported(instruction.text)
    rows, depth = int(shape[1]), int(shape[2])
    left = _Operand(program, instruction.operands[1], kind_a, rows, depth)
    right = _Operand(program, instruction.operands[2], kind_b, 8, depth)
    reads = [reader(program, each, kind) for each in elements(instruction.operands[3])]
    writes = [writer(program, each, kind) for each in elements(instruction.operands[0])]
    register = np.arange(len(writes))[:, None]
    places = (_GROUP + 8 * (register // 2)) * 8 + 2 * _IN_GROUP + register % 2
    sources = np.argsort(places, axis=None)

    def execute(cta: Cta, mask: Mask) -> None:
        present = whole_warps(cta, mask)
        warps = cta.threads // 32
        cta.report.tensor_core_instructions += warps if present is None else len(present)
        c = np.array([cta.full(read(cta)) for read in reads]).reshape(-1, warps, 32).transpose(1, 0, 2)
        c = c.reshape(warps, -1)[:, sources].reshape(warps, rows, 8)
        a, b = left.matrix(cta), right.matrix(cta)
        total = dot(a, b, c, kind_a) if kind == "f32" else (np.matmul(a, b.transpose(0, 2, 1)) + c).astype(DTYPES[kind])
        values = total.reshape(warps, -1)[:, places].transpose(1, 0, 2).reshape(len(writes), -1)
        for value, write in zip(values, writes, strict=True):
            write(cta, value, mask)

    return execute
