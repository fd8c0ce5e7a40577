"""The instruction cp.async, which copies from global to shared memory. The bytes are there only after a wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .errors import Unsupported
from .loads import active_lanes
from .operands import Mask, address, reader
from .parser import Instruction, Program

if TYPE_CHECKING:
    from .machine import Cta


def copy(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    if instruction.modifiers[0] != "async" or {"bulk", "mbarrier"} & set(instruction.modifiers):
        raise Unsupported(instruction.text)
    if "commit_group" in instruction.modifiers:
        return _commit
    if "wait_all" in instruction.modifiers:
        return _wait(0, commits=True)
    if "wait_group" in instruction.modifiers:
        return _wait(int(instruction.operands[0], 0), commits=False)
    return _issue(program, instruction)


def _issue(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    """Return the function that starts a copy. A source size of 0 fills the target with zeros and reads nothing."""
    to, source = (address(program, operand) for operand in instruction.operands[:2])
    width = int(instruction.operands[2], 0)
    rest = instruction.operands[3:]
    if "L2::cache_hint" in instruction.modifiers:
        rest = rest[:-1]
    size = reader(program, rest[0], "u32") if rest else None
    bits = np.dtype(np.uint32)

    def execute(cta: Cta, mask: Mask) -> None:
        targets, lanes = active_lanes(to(cta), mask)
        sources, _ = active_lanes(source(cta), mask)
        values = np.zeros((len(targets), width // 4)[: 1 if width == 4 else 2], bits)
        wanted = np.full(len(targets), True)
        if size is not None:
            sizes, _ = active_lanes(cta.full(size(cta)), mask)
            if not ((sizes == 0) | (sizes == width)).all():
                cta.fail(Unsupported, "cp.async of a part of its bytes", None)
            wanted = sizes != 0
        if wanted.any():
            readers = cta.lanes_or_all(lanes)[wanted]
            values[wanted] = cta.memory.load(cta, sources[wanted], readers, bits, width // 4)
        cta.shared.begin_copy(cta, targets, lanes, width)
        cta.copies.append((targets, lanes, values))

    return execute


def _all_together(cta: Cta, mask: Mask) -> None:
    """Fail unless all threads commit or wait together.

    Groups of copies belong to a thread. One list of groups is enough only if all threads act together.
    """
    if mask is not None and (mask != cta.alive).any():
        cta.fail(Unsupported, "groups of cp.async that some threads commit or wait for", None)


def _commit(cta: Cta, mask: Mask) -> None:
    _all_together(cta, mask)
    cta.copy_groups.append(cta.copies)
    cta.copies = []


def _wait(pending: int, commits: bool) -> Callable[[Cta, Mask], None]:
    """Wait until at most `pending` groups are unfinished."""

    def execute(cta: Cta, mask: Mask) -> None:
        _all_together(cta, mask)
        if commits:
            _commit(cta, mask)
        while len(cta.copy_groups) > pending:
            for targets, lanes, values in cta.copy_groups.pop(0):
                cta.shared.end_copy(cta, targets, lanes, values)

    return execute
