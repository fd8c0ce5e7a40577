"""The instructions ld and st in every state space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from . import atomics
from .errors import OutOfBounds, Unsupported
from .formats import DTYPES, UNSIGNED, Array, size_of
from .operands import Mask, Reader, address, elements, reader, resolve, state_space, writer
from .parser import Instruction, Program

if TYPE_CHECKING:
    from .machine import Cta


def active_lanes(addresses: Array, mask: Mask) -> tuple[Array, Array | None]:
    """Return the addresses of the threads that take part, and these threads (None: all)."""
    if mask is None:
        return addresses, None
    lanes = np.flatnonzero(mask)
    return addresses[lanes], lanes


def load(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    space = state_space(instruction)
    if space == "param":
        return _load_parameter(program, instruction)
    kind = instruction.kind
    targets = elements(instruction.operands[0])
    writes = [writer(program, target, kind) for target in targets]
    locate = address(program, instruction.operands[1])
    bits, count = UNSIGNED[size_of(kind)], len(targets)
    acquires = atomics.ordering(instruction)
    if acquires and count > 1:
        raise Unsupported(instruction.text)
    non_coherent = "nc" in instruction.modifiers

    def execute(cta: Cta, mask: Mask) -> None:
        addresses, lanes = active_lanes(locate(cta), mask)
        values = read_memory(cta, space, addresses, lanes, bits, count, acquires, non_coherent)
        if lanes is not None:
            full = np.zeros((cta.threads, *values.shape[1:]), bits)
            full[lanes] = values
            values = full
        if count == 1:
            writes[0](cta, values, mask)
        else:
            columns = values.T.copy()
            for column, write in enumerate(writes):
                write(cta, columns[column], mask)

    return execute


def read_memory(
    cta: Cta,
    space: str,
    addresses: Array,
    lanes: Array | None,
    bits: np.dtype,
    count: int,
    acquires: atomics.Ordering | None = None,
    non_coherent: bool = False,
) -> Array:
    space, addresses = resolve(space, addresses)
    if space == "shared":
        return cta.shared.load(cta, addresses, lanes, bits, count)
    if space == "local":
        return _local(cta, addresses, lanes, bits, count)
    if acquires is not None:
        return atomics.strong_load(cta, addresses, lanes, bits, acquires)
    return cta.memory.load(cta, addresses, lanes, bits, count, non_coherent)


def _local_rows(cta: Cta, addresses: Array, lanes: Array | None, width: int) -> tuple[Array, Array]:
    """Return the indices of the bytes in each thread's own local memory."""
    if int(addresses.min()) < 0 or int(addresses.max()) + width > cta.local.shape[1]:
        cta.fail(OutOfBounds, f"access of local memory, which has {cta.local.shape[1]} bytes", None)
    return cta.lanes_or_all(lanes)[:, None], addresses[:, None] + np.arange(width)


def _local(cta: Cta, addresses: Array, lanes: Array | None, bits: np.dtype, count: int) -> Array:
    values = cta.local[_local_rows(cta, addresses, lanes, bits.itemsize * count)].view(bits)
    return values[:, 0] if count == 1 else values


def _load_parameter(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    """Return a load of an argument's bytes at a constant offset."""
    kind = instruction.kind
    targets = elements(instruction.operands[0])
    writes = [writer(program, target, kind) for target in targets]
    name, _, offset = instruction.operands[1].strip("[] ").partition("+")
    name, start = name.strip(), int(offset or "0", 0)
    dtype = DTYPES[kind]

    def execute(cta: Cta, mask: Mask) -> None:
        values = cta.launch.parameters[name][start : start + dtype.itemsize * len(writes)].view(dtype)
        for value, write in zip(values, writes, strict=True):
            write(cta, np.full(cta.threads, value), mask)

    return execute


def store(program: Program, instruction: Instruction) -> Callable[[Cta, Mask], None]:
    space = state_space(instruction)
    kind = instruction.kind
    sources = elements(instruction.operands[1])
    bits, count = UNSIGNED[size_of(kind)], len(sources)
    reads = [reader(program, source, kind) for source in sources]
    if space == "param":
        return _store_call_argument(instruction, reads)
    locate = address(program, instruction.operands[0])
    releases = atomics.ordering(instruction)
    if releases and count > 1:
        raise Unsupported(instruction.text)

    def execute(cta: Cta, mask: Mask) -> None:
        addresses, lanes = active_lanes(locate(cta), mask)
        values = np.empty((cta.threads, count), bits)
        for column, read in enumerate(reads):
            values[:, column] = read(cta).view(bits)
        if lanes is not None:
            values = values[lanes]
        write_memory(cta, space, addresses, lanes, values[:, 0] if count == 1 else values, releases)

    return execute


def write_memory(
    cta: Cta,
    space: str,
    addresses: Array,
    lanes: Array | None,
    values: Array,
    releases: atomics.Ordering | None = None,
) -> None:
    space, addresses = resolve(space, addresses)
    if space == "shared":
        cta.shared.store(cta, addresses, lanes, values)
    elif space == "local":
        rows = values.reshape(len(values), -1)
        each = np.ascontiguousarray(rows).view(np.uint8).reshape(len(values), -1)
        cta.local[_local_rows(cta, addresses, lanes, each.shape[1])] = each
    elif releases is not None:
        atomics.strong_store(cta, addresses, lanes, values, releases)
    else:
        cta.memory.store(cta, addresses, lanes, values)


def _store_call_argument(instruction: Instruction, reads: list[Reader]) -> Callable[[Cta, Mask], None]:
    name = instruction.operands[0].strip("[] ").partition("+")[0].strip()

    def execute(cta: Cta, mask: Mask) -> None:
        cta.call_arguments[name] = cta.full(reads[0](cta))

    return execute
