"""The instructions ldmatrix and stmatrix, on 8 x 8 matrices of 16-bit elements.

Lane 8 i + r holds the address of row r of the i-th matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .errors import Unsupported
from .operands import Mask, address, elements, reader, writer
from .parser import Instruction, Program
from .tensor_cores import whole_warps

if TYPE_CHECKING:
    from .machine import Cta

Execute = Callable[["Cta", Mask], None]


def _check(instruction: Instruction) -> None:
    if "b16" not in instruction.modifiers or "m8n8" not in instruction.modifiers:
        raise Unsupported(instruction.text)


def load_matrix(program: Program, instruction: Instruction) -> Execute:
    _check(instruction)
    writes = [writer(program, each, "b32") for each in elements(instruction.operands[0])]
    locate = address(program, instruction.operands[1])
    transposes = "trans" in instruction.modifiers
    count = len(writes)

    def execute(cta: Cta, mask: Mask) -> None:
        warps = whole_warps(cta, mask)
        used = cta.lane < 8 * count
        lanes = np.flatnonzero(used if mask is None else used & mask)
        rows = cta.shared.load(cta, locate(cta)[lanes], lanes, np.dtype(np.uint32), 4)
        matrices = rows.view(np.uint16).reshape(-1, count, 8, 8)
        if transposes:
            matrices = matrices.transpose(0, 1, 3, 2)
        # Lane l gets two elements of row l / 4: number 2 (l % 4) and the next one.
        pairs = np.ascontiguousarray(matrices).view(np.uint32).reshape(-1, count, 32)
        if warps is not None:
            every = np.zeros((cta.threads // 32, count, 32), np.uint32)
            every[warps] = pairs
            pairs = every
        for position, write in enumerate(writes):
            write(cta, pairs[:, position].ravel(), mask)

    return execute


def store_matrix(program: Program, instruction: Instruction) -> Execute:
    _check(instruction)
    reads = [reader(program, each, "b32") for each in elements(instruction.operands[1])]
    locate = address(program, instruction.operands[0])
    transposes = "trans" in instruction.modifiers
    count = len(reads)

    def execute(cta: Cta, mask: Mask) -> None:
        whole_warps(cta, mask)
        pairs = np.stack([cta.full(read(cta)).reshape(-1, 32) for read in reads], axis=1)
        matrices = pairs.view(np.uint16).reshape(-1, count, 8, 8)
        if transposes:
            matrices = np.ascontiguousarray(matrices.transpose(0, 1, 3, 2))
        rows = np.zeros((cta.threads // 32, 32, 4), np.uint32)
        rows[:, : 8 * count] = matrices.view(np.uint32).reshape(-1, 8 * count, 4)
        used = cta.lane < 8 * count
        lanes = np.flatnonzero(used if mask is None else used & mask)
        cta.shared.store(cta, locate(cta)[lanes], lanes, rows.reshape(-1, 4)[lanes])

    return execute
