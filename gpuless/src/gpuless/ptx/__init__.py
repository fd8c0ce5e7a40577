"""Run PTX from Triton or nvcc on the memory of NumPy arrays and CPU tensors, and report the bugs that a GPU hides.

    report = simulate(ptx, grid=(4,), threads=128, arguments=[x, y, 1000], shared_bytes=metadata.shared)

Not modeled: time, caches, wgmma, tcgen05, TMA, mbarriers, clusters. Results of approximate instructions have
errors up to the bound in the PTX manual, in other digits than a GPU's.
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
    """A kernel's parameter as its bytes in memory, together with the pointers inside it."""

    data: bytes
    pointers: dict[int, ArrayLike]  # each array by the offset, in bytes, of the pointer to it


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
    """Run a kernel in the simulator. Its stores are in the arrays afterward.

    Args:
        ptx: The PTX text.
        grid: The number of CTAs (blocks), in up to three dimensions.
        threads: The number of threads of a CTA, in up to three dimensions; a multiple of 32 in all.
        arguments: The kernel's arguments, in the order of its parameters. A NumPy array or a CPU tensor is a pointer to
            its first element. The kernel may touch only the bytes from there to the end of the last element. None is a
            null pointer. An int for a pointer is a raw address. Bytes are any parameter as it lies in memory. Pointers
            that are missing at the end are null. In reports, arrays in structs get the numbers after the last argument,
            in their order.
        shared_bytes: The bytes of dynamic shared memory of a CTA.
        seed: The seed of the order in which the CTAs run, one after another. An odd seed also puts another pattern into
            registers and shared memory that were never written.
        ctas: If given, the only CTAs to run, each (x, y, z).
        entry: The kernel's name; needed if the PTX has several kernels.
        instruction_limit: The most instructions that one CTA may run. It ends a CTA that waits forever. A million
            instructions take some seconds.

    Returns:
        The counts of the run: instructions, barriers, and the memory traffic of each array.

    Raises:
        SimulationError: If the kernel does something wrong, like a race, or something that is not modeled. Each kind is
            a subclass.
        TypeError: If an argument does not fit the kernel's parameter.
        ValueError: If `threads` is more than the kernel allows.
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
    """Return the bytes of every parameter, by its name."""
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
