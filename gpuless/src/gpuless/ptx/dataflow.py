"""Follow a loaded value through a kernel, to tell harmless races from others.

Some compilers keep copies of a value in several threads: all of them load the value, and one stores the result. If that
store overwrites the loaded value, a slower thread may load the new one, because nothing orders the two. This is
harmless if the thread's copy goes nowhere else.
"""

from __future__ import annotations

import re

from .parser import Instruction, Program

# Opcodes that pass a value out of its thread, or that decide what the thread does next.
_OUTLETS = {
    "st",
    "atom",
    "red",
    "cp",
    "bra",
    "bar",
    "barrier",
    "shfl",
    "vote",
    "redux",
    "match",
    "mma",
    "stmatrix",
    "ld",
}
_NAME = re.compile(r"[%$\w.]+")


def _registers(program: Program, operand: str) -> set[str]:
    return {name for name in _NAME.findall(operand) if name in program.registers}


def _writes_and_reads(program: Program, instruction: Instruction) -> tuple[set[str], set[str]]:
    """Return the registers that an instruction writes, and those that it reads. Its guard counts as read."""
    operands = instruction.operands
    first = 0 if instruction.opcode in ("st", "red", "bra", "bar", "barrier", "cp", "stmatrix", "ret") else 1
    written = set().union(*(_registers(program, operand) for operand in operands[:first]))
    read = set().union(*(_registers(program, operand) for operand in operands[first:]))
    return written, read | ({instruction.guard} if instruction.guard else set())


def only_feeds(program: Program, load: int, store: int) -> bool:
    """Return True if the value loaded by one instruction reaches nothing but the value stored by another one.

    The analysis goes by registers and ignores the order in which instructions run. True is certain; False may be too
    careful.
    """
    reached, _ = _writes_and_reads(program, program.instructions[load])
    every = [(number, each, *_writes_and_reads(program, each)) for number, each in enumerate(program.instructions)]
    size = 0
    while size != len(reached):
        size = len(reached)
        for _, _, written, read in every:
            if read & reached:
                reached |= written
    for number, instruction, _, read in every:
        if not read & reached or instruction.opcode not in _OUTLETS:
            continue
        if number != store:
            return False
        place, _ = instruction.operands[:2]
        if _registers(program, place) & reached or instruction.guard in reached:
            return False
    return True
