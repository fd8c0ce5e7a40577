"""mma.sync, ldmatrix and stmatrix, for all the warps of a CTA at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .errors import Divergence, Unsupported
from .formats import DTYPES, Array, from_bfloat16
from .operands import Mask, address, elements, reader, writer
from .parser import Instruction, Program

if TYPE_CHECKING:
    from .machine import Cta

Execute = Callable[["Cta", Mask], None]

_LANE = np.arange(32)
_GROUP, _IN_GROUP = _LANE >> 2, _LANE & 3
_PER_REGISTER = {"f16": 2, "bf16": 2, "tf32": 1, "f64": 1, "s8": 4, "u8": 4}


def whole_warps(cta: Cta, mask: Mask) -> Array | None:
    """The warps that take part, None for all; parts of a warp can't."""
    if mask is None:
        return None
    present = mask.reshape(-1, 32)
    if (present.any(1) != present.all(1)).any():
        cta.fail(Divergence, "a part of a warp", int(np.flatnonzero(mask)[0]))
    return np.flatnonzero(present.any(1))


def _values(bits: Array, kind: str) -> Array:
    """[..., registers] bits -> [..., registers, elements of one] as wide as exact products need."""
    if kind == "tf32":
        return (bits & np.uint32(0xFFFFE000)).view(np.float32)[..., None].astype(np.float64)
    if kind == "f64":
        return bits.view(np.float64)[..., None]
    dtype = DTYPES[kind]
    parts = np.ascontiguousarray(bits).view(dtype).reshape(*bits.shape, -1)
    return from_bfloat16(parts).astype(np.float64) if kind == "bf16" else parts.astype(np.float64)


def _fragment_places(kind: str, rows: int, depth: int) -> tuple[Array, Array]:
    """Where in A [rows, depth] and in B [8, depth] (transposed) an operand's element [lane, register, part] lies."""
    per = _PER_REGISTER[kind]
    tall = rows // 8
    registers_a, registers_b = rows * depth // 32 // per, 8 * depth // 32 // per
    part = np.arange(per)
    register = np.arange(registers_a)[:, None]
    row = _GROUP[:, None, None] + 8 * (register % tall)
    column = per * _IN_GROUP[:, None, None] + part + 4 * per * (register // tall)
    register = np.arange(registers_b)[:, None]
    column_b = per * _IN_GROUP[:, None, None] + part + 4 * per * register
    return row * depth + column, _GROUP[:, None, None] * depth + column_b


def multiply_accumulate(program: Program, instruction: Instruction) -> Execute:
    """D = A B + C of a warp, [M, K] by [K, 8], exact but for one rounding at the end."""
    shape = next(re.fullmatch(r"m(8|16)n8k(\d+)", modifier) for modifier in instruction.modifiers if modifier[0] == "m")
    kind_a, kind_b, kind = instruction.modifiers[-3], instruction.modifiers[-2], instruction.kind
    if (
        shape is None
        or kind_a not in _PER_REGISTER
        or kind not in ("f32", "f64", "s32")
        or "sp" in instruction.modifiers
    ):
        raise Unsupported(instruction.text)
    rows, depth = int(shape[1]), int(shape[2])
    width = "u64" if kind_a == "f64" else "u32"
    reads_a, reads_b = ([reader(program, each, width) for each in elements(part)] for part in instruction.operands[1:3])
    reads_c = [reader(program, each, kind) for each in elements(instruction.operands[3])]
    writes = [writer(program, each, kind) for each in elements(instruction.operands[0])]
    places_a, places_b = _fragment_places(kind_a, rows, depth)
    register = np.arange(len(writes))
    places_c = (_GROUP[:, None] + 8 * (register // 2)) * 8 + 2 * _IN_GROUP[:, None] + register % 2

    def matrix(cta: Cta, reads: list, kind: str, places: Array, height: int) -> Array:
        bits = np.stack([np.broadcast_to(read(cta), cta.threads) for read in reads], axis=-1)
        flat = np.empty((cta.threads // 32, height * depth))
        flat[:, places] = _values(bits, kind).reshape(cta.threads // 32, *places.shape)
        return flat.reshape(-1, height, depth)

    def execute(cta: Cta, mask: Mask) -> None:
        warps = whole_warps(cta, mask)
        cta.report.tensor_core_instructions += cta.threads // 32 if warps is None else len(warps)
        a = matrix(cta, reads_a, kind_a, places_a, rows)
        b = matrix(cta, reads_b, kind_b, places_b, 8)
        product = np.matmul(a, b.transpose(0, 2, 1)).reshape(-1, rows * 8)[:, places_c].reshape(cta.threads, -1)
        for position, write in enumerate(writes):
            total = product[:, position] + reads_c[position](cta)
            write(cta, total.astype(DTYPES[kind]), mask)

    return execute


def load_matrix(program: Program, instruction: Instruction) -> Execute:
    """ldmatrix: 8 x 8 matrices of 16-bit elements, lane 8 i + r holding the address of row r of the i-th."""
    if "b16" not in instruction.modifiers or "m8n8" not in instruction.modifiers:
        raise Unsupported(instruction.text)
    writes = [writer(program, each, "b32") for each in elements(instruction.operands[0])]
    locate = address(program, instruction.operands[1])
    transposes = "trans" in instruction.modifiers
    used = np.repeat((True, False), (8 * len(writes), 32 - 8 * len(writes)))

    def execute(cta: Cta, mask: Mask) -> None:
        warps = whole_warps(cta, mask)
        active = np.tile(used, cta.threads // 32)
        lanes = np.flatnonzero(active if mask is None else active & mask)
        rows = cta.shared.load(cta, locate(cta)[lanes], lanes, np.dtype(np.uint32), 4)
        matrices = rows.view(np.uint16).reshape(-1, len(writes), 8, 8)
        if transposes:
            matrices = matrices.transpose(0, 1, 3, 2)
        # Lane l gets elements 2 (l % 4) and the next of row l / 4.
        pairs = np.ascontiguousarray(matrices).view(np.uint32).reshape(-1, len(writes), 32)
        for position, write in enumerate(writes):
            if warps is None:
                values = pairs[:, position].ravel()
            else:
                values = np.zeros((cta.threads // 32, 32), np.uint32)
                values[warps] = pairs[:, position]
                values = values.ravel()
            write(cta, values, mask)

    return execute


def store_matrix(program: Program, instruction: Instruction) -> Execute:
    """stmatrix: ldmatrix backwards."""
    if "b16" not in instruction.modifiers or "m8n8" not in instruction.modifiers:
        raise Unsupported(instruction.text)
    reads = [reader(program, each, "b32") for each in elements(instruction.operands[1])]
    locate = address(program, instruction.operands[0])
    transposes = "trans" in instruction.modifiers
    used = np.repeat((True, False), (8 * len(reads), 32 - 8 * len(reads)))

    def execute(cta: Cta, mask: Mask) -> None:
        whole_warps(cta, mask)
        pairs = np.stack([read(cta).view(np.uint32).reshape(-1, 32) for read in reads], axis=1)
        matrices = pairs.view(np.uint16).reshape(-1, len(reads), 8, 8)
        if transposes:
            matrices = np.ascontiguousarray(matrices.transpose(0, 1, 3, 2))
        rows = np.zeros((cta.threads // 32, 32, 4), np.uint32)
        rows[:, used] = matrices.view(np.uint32).reshape(-1, 8 * len(reads), 4)
        active = np.tile(used, cta.threads // 32)
        lanes = np.flatnonzero(active if mask is None else active & mask)
        cta.shared.store(cta, locate(cta)[lanes], lanes, rows.reshape(-1, 4)[lanes])

    return execute
