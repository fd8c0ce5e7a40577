"""The shuffles, votes, reductions and barriers of a warp."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .errors import Divergence, Unsupported
from .formats import Array
from .operands import Mask, predicate, reader, writer
from .parser import Instruction, Program

if TYPE_CHECKING:
    from .machine import Cta

Execute = Callable[["Cta", Mask], None]
_BITS = np.uint32(1) << np.arange(32, dtype=np.uint32)


def _check_members(cta: Cta, members: Array, mask: Mask) -> None:
    """Fail unless every lane in the member mask is there."""
    if mask is None and members.ndim == 0 and members == 0xFFFFFFFF:
        return
    here = np.full(cta.threads, True) if mask is None else mask
    named = (cta.full(members)[:, None] & _BITS) != 0  # [thread, lane of its warp]
    warps = here.reshape(-1, 32)
    missing = here & (named & ~np.repeat(warps, 32, axis=0)).any(1)
    if missing.any():
        thread = int(np.flatnonzero(missing)[0])
        lanes = np.flatnonzero(named[thread] & ~warps[thread // 32]).tolist()
        cta.fail(Divergence, f"lanes {lanes} of warp {thread // 32} are named and not there", thread)


def warp_barrier(program: Program, instruction: Instruction) -> Execute:
    if "warp" not in instruction.modifiers:
        raise Unsupported(instruction.text)
    members = reader(program, instruction.operands[0], "u32")

    def execute(cta: Cta, mask: Mask) -> None:
        _check_members(cta, members(cta), mask)
        for warp in range(cta.threads // 32) if mask is None else np.unique(cta.warps[mask]).tolist():
            cta.order.warp_barrier(warp, cta.now)

    return execute


def _sources(mode: str, lane: Array, by: Array, clamp: Array) -> tuple[Array, Array]:
    """Return the lane to read from, and True where it is in range. A lane out of range reads its own value."""
    by, segment, limit = by.astype(np.int64), clamp.astype(np.int64) >> 8 & 31, clamp.astype(np.int64) & 31
    low, high = lane & segment, (lane & segment) | (limit & ~segment)
    wanted = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": low | (by & ~segment & 31)}[mode]
    inside = wanted >= high if mode == "up" else wanted <= high
    return np.where(inside, wanted, lane), inside


def shuffle(program: Program, instruction: Instruction) -> Execute:
    mode = next(modifier for modifier in instruction.modifiers if modifier in ("up", "down", "bfly", "idx"))
    targets = [target.strip() for target in instruction.operands[0].split("|")]
    write = writer(program, targets[0], "b32")
    write_inside = writer(program, targets[1], "pred") if len(targets) > 1 else None
    value, by, clamp, members = (reader(program, operand, "u32") for operand in instruction.operands[1:5])

    def execute(cta: Cta, mask: Mask) -> None:
        _check_members(cta, members(cta), mask)
        lane, inside = _sources(mode, cta.lane, by(cta), clamp(cta))
        source = (cta.every & ~31) | lane
        if mask is not None and (mask & ~mask[source]).any():
            cta.fail(Divergence, "reads a lane that is not there", int(np.flatnonzero(mask & ~mask[source])[0]))
        write(cta, cta.full(value(cta))[source], mask)
        if write_inside is not None:
            write_inside(cta, cta.full(inside), mask)

    return execute


def _ballot(votes: Array) -> Array:
    """Return the votes of each thread's warp, uint32."""
    return np.repeat((votes.reshape(-1, 32) * _BITS).sum(1, dtype=np.uint32), 32)


def vote(program: Program, instruction: Instruction) -> Execute:
    mode = next(modifier for modifier in instruction.modifiers if modifier in ("ballot", "any", "all", "uni"))
    if mode == "uni":
        raise Unsupported(instruction.text)
    holds = predicate(program, instruction.operands[1])
    members = reader(program, instruction.operands[2], "u32")
    write = writer(program, instruction.operands[0], "b32" if mode == "ballot" else "pred")

    def execute(cta: Cta, mask: Mask) -> None:
        _check_members(cta, members(cta), mask)
        here = np.full(cta.threads, True) if mask is None else mask
        votes = holds(cta) & here
        if mode == "ballot":
            result = _ballot(votes)
        elif mode == "any":
            result = np.repeat(votes.reshape(-1, 32).any(1), 32)
        else:
            result = np.repeat((votes | ~here).reshape(-1, 32).all(1), 32)
        write(cta, result, mask)

    return execute


_REDUCTIONS = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def reduce_warp(program: Program, instruction: Instruction) -> Execute:
    """Return redux, over the lanes that are there. The member mask must name all of them."""
    operation = _REDUCTIONS[next(modifier for modifier in instruction.modifiers if modifier in _REDUCTIONS)]
    value = reader(program, instruction.operands[1], instruction.kind)
    members = reader(program, instruction.operands[2], "u32")
    write = writer(program, instruction.operands[0], instruction.kind)

    def execute(cta: Cta, mask: Mask) -> None:
        _check_members(cta, members(cta), mask)
        here = np.full(cta.threads, True) if mask is None else mask
        result = cta.full(value(cta)).copy()
        for warp in np.unique(cta.warps[here]):
            lanes = here & (cta.warps == warp)
            result[lanes] = operation.reduce(result[lanes])
        write(cta, result, mask)

    return execute


def active_mask(program: Program, instruction: Instruction) -> Execute:
    write = writer(program, instruction.operands[0], "b32")
    return lambda cta, mask: write(cta, _ballot(np.full(cta.threads, True) if mask is None else mask), mask)


def elect(program: Program, instruction: Instruction) -> Execute:
    """Return elect.sync d|p, members, which picks the first lane that is there. Only this lane's p is true."""
    target, chosen = (part.strip() for part in instruction.operands[0].split("|"))
    write, write_chosen = writer(program, target, "b32"), writer(program, chosen, "pred")
    members = reader(program, instruction.operands[1], "u32")

    def execute(cta: Cta, mask: Mask) -> None:
        _check_members(cta, members(cta), mask)
        here = np.full(cta.threads, True) if mask is None else mask
        first = np.repeat(here.reshape(-1, 32).argmax(1), 32)
        write(cta, first.astype(np.uint32), mask)
        write_chosen(cta, cta.lane == first, mask)

    return execute
