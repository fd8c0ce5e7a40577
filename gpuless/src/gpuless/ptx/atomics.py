"""The instructions atom, red and fence, and loads and stores that order or synchronize."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .formats import DTYPES, FLOATS, Array, from_bfloat16, size_of, to_bfloat16
from .operands import Mask, address, elements, reader, resolve, state_space, writer
from .parser import Instruction, Program
from .races import ACROSS_CTAS, WITHIN_CTA
from .report import Access

if TYPE_CHECKING:
    from .machine import Cta

_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda old, value: old + value,
    "min": min,
    "max": max,
    "exch": lambda old, value: value,
    "and": lambda old, value: old & value,
    "or": lambda old, value: old | value,
    "xor": lambda old, value: old ^ value,
    "inc": lambda old, value: old * 0 if old >= value else old + old.dtype.type(1),
    "dec": lambda old, value: value if old == 0 or old > value else old - old.dtype.type(1),
}


# (cta, mask) -> the values before the update, of the threads that take part, and these threads (None: all).
_Update = Callable[["Cta", Mask], tuple[Array, Array | None]]


class Ordering(NamedTuple):
    acquires: bool
    releases: bool
    scope: int


def ordering(instruction: Instruction) -> Ordering | None:
    """Return the ordering of a strong load or store; None for a weak one, as most are."""
    modifiers = set(instruction.modifiers)
    strong = modifiers & {"relaxed", "acquire", "release", "acq_rel", "volatile", "sc"}
    if not strong and instruction.opcode in ("ld", "st"):
        return None
    both = bool(modifiers & {"acq_rel", "sc"})
    scope = WITHIN_CTA if "cta" in modifiers else ACROSS_CTAS
    return Ordering(both or "acquire" in modifiers, both or "release" in modifiers, scope)


def _synchronize(cta: Cta, addresses: Array, lanes: Array | None, order: Ordering, writes: bool, reads: bool) -> None:
    """Pass knowledge between threads at the address of a strong access: acquire what is released there, and release."""
    if order.scope != ACROSS_CTAS:
        return
    released = cta.launch.released
    for position, place in enumerate(addresses.tolist()):
        thread = cta.order.first_thread + cta.thread_of(position, lanes)
        there = released.get(cta.memory.real_address(place))
        if reads and there is not None:
            if order.acquires:
                cta.order.acquire(thread, there)
            else:
                seen = cta.order.to_acquire.get(thread)
                cta.order.to_acquire[thread] = seen.merged(there) if seen else there
        if not writes:
            continue
        mine = cta.order.past_of(thread, cta.now) if order.releases else cta.order.released_by_fences(thread)
        # A read-modify-write passes on what was released at this address before; a plain store ends it.
        kept = there if reads else None
        left = mine.merged(kept) if mine and kept else mine or kept
        if left is None:
            released.pop(cta.memory.real_address(place), None)
        else:
            released[cta.memory.real_address(place)] = left


def fence(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    """Return a fence of the GPU or the system. It turns earlier relaxed reads into acquires and later relaxed writes
    into releases.
    """
    if "cta" in instruction.modifiers or "proxy" in instruction.modifiers or "mbarrier_init" in instruction.modifiers:
        return lambda cta, mask: None

    sequential = instruction.opcode == "membar" or "sc" in instruction.modifiers

    def execute(cta: Cta, mask: Mask) -> None:
        lanes = cta.every if mask is None else np.flatnonzero(mask)
        for thread in (lanes + cta.order.first_thread).tolist():
            cta.order.fence(thread, cta.now, sequential)

    return execute


def strong_load(cta: Cta, addresses: Array, lanes: Array | None, bits: np.dtype, order: Ordering) -> Array:
    """Load like an atomic operation that changes nothing, so that the load races only with weak accesses."""
    values = cta.memory.update(cta, addresses, lanes, bits, lambda old, lane: old, Access.STRONG_LOAD, order.scope)
    _synchronize(cta, addresses, lanes, order, writes=False, reads=True)
    return values


def strong_store(cta: Cta, addresses: Array, lanes: Array | None, values: Array, order: Ordering) -> None:
    def put(old: Any, lane: int) -> Any:
        return values[lane]

    cta.memory.update(cta, addresses, lanes, values.dtype, put, Access.STRONG_STORE, order.scope)
    _synchronize(cta, addresses, lanes, order, writes=True, reads=False)


def atomic(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    writes = [writer(program, each, instruction.kind) for each in elements(instruction.operands[0])]
    updates = _updates(program, instruction, instruction.operands[1:])

    def execute(cta: Cta, mask: Mask) -> None:
        for write, update in zip(writes, updates, strict=True):
            before, lanes = update(cta, mask)
            if lanes is not None:
                full = np.zeros(cta.threads, before.dtype)
                full[lanes] = before
                before = full
            write(cta, before, mask)

    return execute


def reduction(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    updates = _updates(program, instruction, instruction.operands)

    def execute(cta: Cta, mask: Mask) -> None:
        for update in updates:
            update(cta, mask)

    return execute


def _updates(program: Program, instruction: Instruction, operands: tuple[str, ...]) -> list[_Update]:
    """Return one update for each element of a vector. The elements are updated one by one."""
    place, size = operands[0].strip()[1:-1], size_of(instruction.kind)
    return [
        _update(program, instruction, (f"[{_shifted(place, size * position)}]", *values))
        for position, values in enumerate(zip(*map(elements, operands[1:]), strict=True))
    ]


def _shifted(place: str, by: int) -> str:
    base, _, offset = place.partition("+")
    return f"{base.strip()}+{int(offset or '0', 0) + by}"


def _update(program: Program, instruction: Instruction, operands: tuple[str, ...]) -> _Update:
    kind = instruction.kind
    name = next(modifier for modifier in instruction.modifiers if modifier in (*_OPERATIONS, "cas"))
    locate = address(program, operands[0])
    reads = [reader(program, operand, kind) for operand in operands[1:]]
    order = ordering(instruction)
    assert order is not None
    declared = state_space(instruction)
    access = Access.FLOAT_ATOMIC if kind in (*FLOATS, "f16x2", "bf16x2") else Access.INTEGER_ATOMIC
    combine = _combination(name, kind)

    def update(cta: Cta, mask: Mask) -> tuple[Array, Array | None]:
        lanes = None if mask is None else np.flatnonzero(mask)
        addresses = locate(cta) if lanes is None else locate(cta)[lanes]
        values = [cta.full(read(cta)) for read in reads]
        if lanes is not None:
            values = [value[lanes] for value in values]

        def one(old: Any, lane: int) -> Any:
            return combine(old, *[value[lane] for value in values])

        space, addresses = resolve(declared, addresses)
        if space == "shared":
            return cta.shared.update(cta, addresses, lanes, DTYPES[kind], one), lanes
        before = cta.memory.update(cta, addresses, lanes, DTYPES[kind], one, access, order.scope)
        _synchronize(cta, addresses, lanes, order, writes=True, reads=True)
        return before, lanes

    return update


def _combination(name: str, kind: str) -> Callable[..., Any]:
    if name == "cas":
        return lambda old, expected, value: value if old == expected else old
    operation = _OPERATIONS[name]
    if kind == "bf16":
        return lambda old, value: to_bfloat16(np.asarray(operation(from_bfloat16(old), from_bfloat16(value))))
    if kind in ("f16x2", "bf16x2"):
        half, one = kind[:-2], _combination(name, kind[:-2])

        def both(old: Any, value: Any) -> Any:
            olds = np.array([old], np.uint32).view(DTYPES[half])
            values = np.array([value], np.uint32).view(DTYPES[half])
            parts = [one(olds[position], values[position]) for position in (0, 1)]
            return np.array(parts, DTYPES[half]).view(np.uint32)[0]

        return both
    return operation
