"""Turn each instruction into a function that runs it on a CTA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import atomics, copies, loads, matrices, tensor_cores, warps
from .arithmetic import comparison, recipe
from .errors import DeviceAssert, Unsupported
from .formats import UNSIGNED, size_of
from .modifiers import check_modifiers
from .operands import LOCAL_WINDOW, SHARED_WINDOW, Mask, Reader, elements, predicate, reader, writer
from .parser import Instruction, Program

if TYPE_CHECKING:
    from .machine import Cta

Execute = Callable[["Cta", Mask], None]

# Instructions that change the control flow, which the machine itself runs.
BRANCH, BARRIER, EXIT = "branch", "barrier", "exit"


@dataclass(frozen=True)
class Decoded:
    instruction: Instruction
    execute: Execute
    guard: Reader | None = None
    control: str | None = None
    target: int = -1


def decode(program: Program) -> list[Decoded]:
    return [_decode_one(program, instruction) for instruction in program.instructions]


def _decode_one(program: Program, instruction: Instruction) -> Decoded:
    guard = None
    if instruction.guard is not None:
        guard = predicate(program, ("!" if instruction.negated else "") + instruction.guard)
    if instruction.opcode == "bra":
        return Decoded(instruction, _nothing, guard, BRANCH, program.labels[instruction.operands[-1]])
    if instruction.opcode in ("ret", "exit"):
        return Decoded(instruction, _nothing, guard, EXIT)
    if (
        instruction.opcode in ("bar", "barrier")
        and "warp" not in instruction.modifiers
        and _is_plain_barrier(instruction)
    ):
        return Decoded(instruction, _nothing, guard, BARRIER)
    try:
        return Decoded(instruction, _executor(program, instruction), guard)
    except (Unsupported, KeyError, IndexError) as problem:
        return Decoded(instruction, _unsupported(problem), guard)


def _is_plain_barrier(instruction: Instruction) -> bool:
    """Return True for bar.sync of the whole CTA, which is always barrier 0."""
    return "sync" in instruction.modifiers and instruction.operands == ("0",)


def _nothing(cta: Cta, mask: Mask) -> None:
    pass


def _unsupported(problem: Exception) -> Execute:
    """Return a function that fails: an unknown instruction is an error only if a thread reaches it."""

    def execute(cta: Cta, mask: Mask) -> None:
        cta.fail(Unsupported, f"not modeled: {problem}", None)

    return execute


def _executor(program: Program, instruction: Instruction) -> Execute:
    special = _SPECIAL.get(instruction.opcode)
    check_modifiers(instruction, computes=special is None)
    if special is not None:
        return special(program, instruction)
    found = recipe(instruction)
    if found is None:
        raise Unsupported(instruction.opcode)
    compute, sources, result = found
    write = writer(program, instruction.operands[0], result)
    operands = instruction.operands[1:]
    reads = [
        predicate(program, operand) if kind == "pred" else reader(program, operand, kind)
        for operand, kind in zip(operands, sources, strict=False)
    ]
    return _computing(compute, reads, write)


def _computing(compute: Callable[..., Any], reads: list[Reader], write: Callable[..., None]) -> Execute:
    if len(reads) == 1:
        (first,) = reads
        return lambda cta, mask: write(cta, compute(first(cta)), mask)
    if len(reads) == 2:
        first, second = reads
        return lambda cta, mask: write(cta, compute(first(cta), second(cta)), mask)
    return lambda cta, mask: write(cta, compute(*[read(cta) for read in reads]), mask)


def _move(program: Program, instruction: Instruction) -> Execute:
    """Return mov, which may also pack a register from parts or unpack it."""
    target, source = instruction.operands
    kind = instruction.kind
    if source.startswith("{"):
        parts = elements(source)
        part = UNSIGNED[size_of(kind) // len(parts)]
        reads = [reader(program, each, f"u{8 * part.itemsize}") for each in parts]
        write, whole = writer(program, target, kind), UNSIGNED[size_of(kind)]

        def pack(cta: Cta, mask: Mask) -> None:
            columns = np.empty((cta.threads, len(reads)), part)
            for column, read in enumerate(reads):
                columns[:, column] = read(cta)
            write(cta, columns.view(whole)[:, 0], mask)

        return pack
    read = predicate(program, source) if kind == "pred" else reader(program, source, kind)
    if target.startswith("{"):
        parts = elements(target)
        part = UNSIGNED[size_of(kind) // len(parts)]
        writes = [writer(program, each, f"u{8 * part.itemsize}") for each in parts]

        def unpack(cta: Cta, mask: Mask) -> None:
            columns = cta.full(read(cta)).copy().view(part).reshape(cta.threads, len(writes))
            for column, write in enumerate(writes):
                write(cta, columns[:, column].copy(), mask)

        return unpack
    write = writer(program, target, kind)
    return lambda cta, mask: write(cta, read(cta), mask)


def _compare(program: Program, instruction: Instruction) -> Execute:
    """Return setp, which writes one or two predicates and may combine them with a third."""
    names = [modifier for modifier in instruction.modifiers[:-1] if modifier != "ftz"]
    compare = comparison(names[0], instruction.kind)
    first, second = (reader(program, operand, instruction.kind) for operand in instruction.operands[1:3])
    targets = instruction.operands[0].split("|")
    writes = [writer(program, target.strip(), "pred") for target in targets]
    third = predicate(program, instruction.operands[3]) if len(instruction.operands) > 3 else None
    combine = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[names[1] if third else "and"]

    def execute(cta: Cta, mask: Mask) -> None:
        result = compare(first(cta), second(cta))
        for position, write in enumerate(writes):
            value = ~result if position else result
            write(cta, combine(value, third(cta)) if third else value, mask)

    return execute


def _convert_address(program: Program, instruction: Instruction) -> Execute:
    """Return cvta, which converts between generic and other addresses. For global addresses both are the same."""
    window = (
        SHARED_WINDOW if "shared" in instruction.modifiers else LOCAL_WINDOW if "local" in instruction.modifiers else 0
    )
    window = np.uint64(window)
    read = reader(program, instruction.operands[1], "u64")
    write = writer(program, instruction.operands[0], "u64")
    if "to" in instruction.modifiers:
        return lambda cta, mask: write(cta, read(cta) - window, mask)
    return lambda cta, mask: write(cta, read(cta) + window, mask)


def _call(program: Program, instruction: Instruction) -> Execute:
    """Return a call of the function that reports a failed assertion, or of printf, which does nothing.

    Raise Unsupported for any other call.
    """
    if any("__assertfail" in operand for operand in instruction.operands):
        message = next(operand for operand in instruction.operands if operand.startswith("("))[1:].split(",")[0].strip()

        def fail(cta: Cta, mask: Mask) -> None:
            thread = 0 if mask is None else int(np.flatnonzero(mask)[0])
            text = cta.memory.text_at(int(cta.call_arguments[message][thread]))
            cta.fail(DeviceAssert, text, thread)

        return fail
    if any("vprintf" in operand for operand in instruction.operands):
        return _nothing
    raise Unsupported(f"call of {instruction.operands}")


def _trap(program: Program, instruction: Instruction) -> Execute:
    def execute(cta: Cta, mask: Mask) -> None:
        cta.fail(DeviceAssert, "trap", 0 if mask is None else int(np.flatnonzero(mask)[0]))

    return execute


def _no_operation(program: Program, instruction: Instruction) -> Execute:
    return _nothing


_SPECIAL: dict[str, Callable[[Program, Instruction], Execute]] = {
    "mov": _move,
    "setp": _compare,
    "cvta": _convert_address,
    "call": _call,
    "trap": _trap,
    "prefetch": _no_operation,
    "prefetchu": _no_operation,
    "nanosleep": _no_operation,
    "createpolicy": _no_operation,
    "discard": _no_operation,
    "griddepcontrol": _no_operation,
    "ld": loads.load,
    "ldu": loads.load,
    "st": loads.store,
    "atom": atomics.atomic,
    "red": atomics.reduction,
    "fence": atomics.fence,
    "membar": atomics.fence,
    "cp": copies.copy,
    "bar": warps.warp_barrier,
    "shfl": warps.shuffle,
    "vote": warps.vote,
    "redux": warps.reduce_warp,
    "activemask": warps.active_mask,
    "elect": warps.elect,
    "mma": tensor_cores.multiply_accumulate,
    "ldmatrix": matrices.load_matrix,
    "stmatrix": matrices.store_matrix,
}
