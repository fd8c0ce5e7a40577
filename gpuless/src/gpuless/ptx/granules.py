"""Find the granule in which accesses to memory are recorded: the bytes of the kernel's narrowest access."""

from __future__ import annotations

from .formats import DTYPES, size_of
from .operands import elements
from .parser import Instruction, Program

_WIDEST = 16


def _width(instruction: Instruction) -> int:
    if instruction.opcode in ("ldmatrix", "stmatrix"):
        return _WIDEST
    if instruction.opcode == "cp":
        return int(instruction.operands[2], 0)
    vector = instruction.operands[0 if instruction.opcode in ("ld", "ldu") else 1]
    count = len(elements(vector)) if instruction.opcode in ("ld", "ldu", "st") else 1
    return min(size_of(instruction.kind) * count, _WIDEST)


def narrowest_accesses(program: Program) -> tuple[int, int]:
    """Return the bytes of the narrowest access to global memory, and of the one to shared memory."""
    narrowest = {"global": _WIDEST, "shared": _WIDEST}
    for instruction in program.instructions:
        if instruction.opcode in ("ldmatrix", "stmatrix"):
            touched = ["shared"]
        elif instruction.opcode == "cp" and len(instruction.operands) > 2:
            touched = ["global", "shared"]
        elif instruction.opcode in ("ld", "ldu", "st", "atom", "red") and instruction.kind in DTYPES:
            names = {modifier.split("::")[0] for modifier in instruction.modifiers}
            if names & {"param", "local", "const"}:
                continue
            touched = [space for space in narrowest if space in names] or list(narrowest)
        else:
            continue
        for space in touched:
            narrowest[space] = min(narrowest[space], _width(instruction))
    return narrowest["global"], narrowest["shared"]
