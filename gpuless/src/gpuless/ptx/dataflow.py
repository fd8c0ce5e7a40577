"""The way of a loaded value through a kernel.

A compiler that keeps copies of a value in several threads loads it in all of them and lets one store the result. When
that store overwrites what was loaded, a slower thread may load the new value: nothing orders the two. That is harmless
if its copy goes nowhere else.
"""

from __future__ import annotations

import re

from .parser import Instruction, Program

# What lets a value out of its thread, or decides what the thread does next.
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
    """A guard counts as read."""
    operands = instruction.operands
    first = 0 if instruction.opcode in ("st", "red", "bra", "bar", "barrier", "cp", "stmatrix", "ret") else 1
    written = set().union(*(_registers(program, operand) for operand in operands[:first]))
    read = set().union(*(_registers(program, operand) for operand in operands[first:]))
    return written, read | ({instruction.guard} if instruction.guard else set())


def only_feeds(program: Program, load: int, store: int) -> bool:
    """Return True if the value that one instruction loads reaches nothing but what another one stores.

    Register by register, whatever the order in which instructions run: True is certain, False may be too careful.
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
