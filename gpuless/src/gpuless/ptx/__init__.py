"""Runs PTX, as Triton or nvcc made it, on the memory of NumPy arrays and CPU tensors, and reports what a GPU would not.

    report = simulate(ptx, grid=(4,), threads=128, arguments=[x, y, 1000], shared_bytes=metadata.shared)

Not modeled: time, caches, wgmma, tcgen05, TMA, mbarriers, clusters. Approximate instructions are off by up to the PTX
manual's bound, in other digits than on a GPU.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from ..arrays import ArrayLike, is_array
from .decoder import Decoded, decode
from .errors import (
    DeviceAssert,
    Divergence,
    Endless,
    Misaligned,
    OutOfBounds,
    Race,
    SimulationError,
    Uninitialized,
    Unsupported,
)
from .formats import DTYPES, POISONS
from .granules import narrowest_accesses
from .machine import Launch
from .memory import GlobalMemory
from .parser import Program, parse
from .report import BufferTraffic, Report

__all__ = [
    "Argument",
    "BufferTraffic",
    "DeviceAssert",
    "Divergence",
    "Endless",
    "Misaligned",
    "OutOfBounds",
    "Race",
    "Report",
    "SimulationError",
    "Struct",
    "Uninitialized",
    "Unsupported",
    "simulate",
]


@dataclass(frozen=True)
class Struct:
    """A parameter as it lies in memory, but for pointers in it."""

    data: bytes
    pointers: dict[int, ArrayLike]  # by their offset in bytes


Argument: TypeAlias = ArrayLike | int | float | bool | bytes | Struct | None


@functools.lru_cache(maxsize=256)
def _prepared(ptx: str, entry: str | None) -> tuple[Program, list[Decoded], tuple[int, int]]:
    program = parse(ptx, entry)
    return program, decode(program), narrowest_accesses(program)


def simulate(
    ptx: str,
    *,
    grid: int | tuple[int, ...],
    threads: int | tuple[int, ...],
    arguments: Sequence[Argument],
    shared_bytes: int = 0,
    seed: int = 0,
    ctas: Sequence[tuple[int, int, int]] | None = None,
    entry: str | None = None,
    instruction_limit: int = 1_000_000,
) -> Report:
    """Run a kernel; what it stores is in the arrays afterward.

    arguments: in the order of the kernel's parameters. A NumPy array or a torch tensor on the CPU is a pointer to its
    first element, and the kernel may touch what lies from there to the end of its last element, nothing else. None is
    a null pointer, an int for a pointer a raw address, bytes any parameter as it lies in memory. Pointers missing at
    the end are null. Arrays in structs are numbered on after the arguments, in their order.
    shared_bytes: of dynamic shared memory.
    seed: of the order in which the CTAs run, one after another; odd ones also leave other garbage in registers.
    ctas: only these, each (x, y, z).
    entry: the kernel's name, if the PTX has several.
    instruction_limit: of one CTA, against one that waits for ever; a million take some seconds.
    """
    program, code, (global_granule, shared_granule) = _prepared(ptx, entry)
    sizes, block = _three(grid), _three(threads)
    if int(np.prod(block)) % 32:
        raise Unsupported(f"got {block} threads, expected a multiple of 32")
    if program.threads is not None and int(np.prod(block)) > program.threads:
        raise ValueError(f"got {block} threads, expected at most the kernel's {program.threads}")
    arrays = {number: value for number, value in enumerate(arguments) if is_array(value)}
    structs = [argument for argument in arguments if isinstance(argument, Struct)]
    arrays |= enumerate((array for struct in structs for array in struct.pointers.values()), len(arguments))
    memory = GlobalMemory(arrays, bytes(program.constant_bytes), global_granule)
    launch = Launch(
        program,
        code,
        sizes,
        block,
        _parameters(program, arguments, memory),
        memory,
        shared_bytes=program.shared_bytes + shared_bytes,
        shared_granule=shared_granule,
        poison=POISONS[seed % len(POISONS)],
        instruction_limit=instruction_limit,
    )
    order = list(ctas if ctas is not None else ((x, y, z) for x, y, z in itertools.product(*map(range, sizes))))
    random.Random(seed).shuffle(order)
    report = launch.run(order)
    return replace(report, buffers={number: memory.regions[number + 1].traffic for number in arrays})


def _three(sizes: int | tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (*((sizes,) if isinstance(sizes, int) else sizes), 1, 1)[:3]
    return x, y, z


def _parameters(program: Program, arguments: Sequence[Argument], memory: GlobalMemory) -> dict[str, np.ndarray]:
    """Every parameter's bytes."""
    missing = program.parameters[len(arguments) :]
    if len(arguments) > len(program.parameters) or any(parameter.kind not in ("u64", "b64") for parameter in missing):
        raise TypeError(f"got {len(arguments)} arguments, expected {len(program.parameters)} for {program.name}")
    values: dict[str, np.ndarray] = {}
    padded = [*arguments, *[None] * len(missing)]
    in_structs = itertools.count(len(arguments) + 1)
    for number, (parameter, argument) in enumerate(zip(program.parameters, padded, strict=True)):
        if isinstance(argument, Struct):
            data = bytearray(argument.data)
            for offset in argument.pointers:
                data[offset : offset + 8] = memory.regions[next(in_structs)].base.to_bytes(8, "little")
            argument = bytes(data)
        if parameter.kind == "bytes" or isinstance(argument, bytes):
            if not isinstance(argument, bytes) or len(argument) != parameter.size:
                raise TypeError(f"argument {number}: got {argument!r}, expected {parameter.size} bytes")
            values[parameter.name] = np.frombuffer(argument, np.uint8)
            continue
        if is_array(argument):
            argument = memory.regions[number + 1].base
        dtype = DTYPES[parameter.kind]
        if dtype.kind == "f":
            value = np.array([argument], dtype)
        elif isinstance(argument, float):
            raise TypeError(f"argument {number}: got {argument!r}, expected a {parameter.kind}")
        else:
            bits = int(argument or 0) & (1 << 8 * dtype.itemsize) - 1
            value = np.array([bits], f"u{dtype.itemsize}")
        values[parameter.name] = value.view(np.uint8)
    return values
