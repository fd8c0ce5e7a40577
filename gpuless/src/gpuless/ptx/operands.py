"""Turn the operands of an instruction into functions that read or write a CTA's registers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import Unsupported
from .formats import DTYPES, SIGNED, UNSIGNED, Array
from .parser import Instruction, Program, split_operands

if TYPE_CHECKING:
    from .machine import Cta

Mask = Array | None  # None means every thread of the CTA
Reader = Callable[["Cta"], Array]
Writer = Callable[["Cta", Array, Mask], None]

# The windows of generic addresses. Arguments lie far below them.
SHARED_WINDOW = 1 << 60
LOCAL_WINDOW = 1 << 61

_SPACES = ("param", "global", "shared", "local", "const")
_PACKED = ("f16x2", "bf16x2", "f32x2")


def state_space(instruction: Instruction) -> str:
    for modifier in instruction.modifiers:
        if modifier.split("::")[0] in _SPACES:
            return modifier.split("::")[0]
    return "generic"


def resolve(space: str, addresses: Array) -> tuple[str, Array]:
    """Return the state space of generic addresses, which the first one decides, and the addresses in that space."""
    if space != "generic":
        return space, addresses
    first = int(addresses[0])
    if first >= LOCAL_WINDOW:
        return "local", addresses - LOCAL_WINDOW
    return ("shared", addresses - SHARED_WINDOW) if first >= SHARED_WINDOW else ("global", addresses)


def elements(operand: str) -> tuple[str, ...]:
    """Return the registers of a vector operand, or the single register of a scalar."""
    operand = operand.strip()
    return split_operands(operand[1:-1]) if operand.startswith("{") else (operand,)


def immediate(text: str) -> int | None:
    """Return the bits of a number as PTX writes it; None if the text is no number."""
    if re.match(r"0[fFdD][0-9a-fA-F]+$", text):
        return int(text[2:], 16)
    try:
        digits = text.rstrip("U")
        return int(digits, 8 if re.match(r"-?0[0-7]+$", digits) else 0)
    except ValueError:
        return None


def _constant(bits: int, kind: str) -> Any:
    size = DTYPES[kind].itemsize
    return np.array(bits & (1 << 8 * size) - 1, UNSIGNED[size]).view(DTYPES[kind])[()]


def symbol_address(program: Program, name: str) -> int | None:
    """Return the address of a variable in shared or local memory, within its state space; None for any other name."""
    return program.shared.get(name, program.local.get(name))


def reader(program: Program, operand: str, kind: str) -> Reader:
    """Return a function that reads an operand as `kind`. Immediate numbers come as NumPy scalars, unless packed."""
    if operand in program.registers:
        return _register_reader(program, operand, kind)
    if operand.startswith("%"):
        unsigned, dtype = UNSIGNED[DTYPES[kind].itemsize], DTYPES[kind]
        return lambda cta: cta.special_register(operand).astype(unsigned).view(dtype)
    if operand in program.constants:
        offset = program.constants[operand]
        return lambda cta: np.uint64(cta.memory.constants.base + offset).view(DTYPES[kind])
    bits = symbol_address(program, operand)
    if bits is None:
        if kind == "f64" and re.match(r"0[fF]", operand):
            bits = int(np.uint32(int(operand[2:], 16)).view(np.float32).astype(np.float64).view(np.uint64))
        else:
            bits = immediate(operand)
    if bits is None:
        raise Unsupported(f"operand {operand}")
    if kind == "pred":
        value = bool(bits)
        return lambda cta: np.full(cta.threads, value)
    constant = _constant(bits, kind)
    if kind in _PACKED:
        return lambda cta: np.full(cta.threads, constant)
    return lambda cta: constant


def _register_reader(program: Program, operand: str, kind: str) -> Reader:
    index, size = program.registers[operand]
    dtype = DTYPES[kind]
    if size == 0:
        return lambda cta: cta.registers[index]
    if size == dtype.itemsize:
        return lambda cta: cta.registers[index].view(dtype)
    declared, unsigned = UNSIGNED[size], UNSIGNED[dtype.itemsize]
    return lambda cta: cta.registers[index].view(declared).astype(unsigned).view(dtype)


def predicate(program: Program, operand: str) -> Reader:
    """Return a function that reads the predicate %p or !%p."""
    if operand.startswith("!"):
        plain = reader(program, operand[1:].strip(), "pred")
        return lambda cta: ~plain(cta)
    return reader(program, operand, "pred")


def writer(program: Program, operand: str, kind: str) -> Writer:
    """Return a function that writes values of `kind` in the threads of the mask.

    In a wider register the value is sign- or zero-extended.
    """
    if operand == "_":
        return lambda cta, value, mask: None
    if operand not in program.registers:
        raise Unsupported(f"destination {operand}")
    index, size = program.registers[operand]
    if size == 0:
        return _bits_writer(index, np.dtype(bool))
    put = _bits_writer(index, UNSIGNED[size])
    width = DTYPES[kind].itemsize
    if width == size:
        return put
    narrow = SIGNED[width] if kind[0] == "s" else UNSIGNED[width]
    wide = SIGNED[size] if kind[0] == "s" else UNSIGNED[size]
    return lambda cta, value, mask: put(cta, value.view(narrow).astype(wide), mask)


def _bits_writer(index: int, bits: np.dtype) -> Writer:
    def put(cta: Cta, value: Array, mask: Mask) -> None:
        value = cta.full(value)
        if mask is None:
            cta.registers[index] = value
        else:
            registers = cta.registers
            registers[index] = np.where(mask, value.view(bits), registers[index].view(bits))

    return put


def address(program: Program, operand: str) -> Reader:
    """Return a function that gives the address [register + offset] or [name + offset] of every thread, int64."""
    inner = operand.strip()[1:-1].strip()
    match = re.match(r"(.+?)\s*([+-])\s*(-?\w+)$", inner)
    base, offset = (match[1].strip(), int(match[3], 0) * (1 if match[2] == "+" else -1)) if match else (inner, 0)
    if base in program.registers:
        index, size = program.registers[base]
        unsigned = UNSIGNED[size]
        if size == 8:
            if offset == 0:
                return lambda cta: cta.registers[index].view(np.int64)
            return lambda cta: cta.registers[index].view(np.int64) + offset
        return lambda cta: cta.registers[index].view(unsigned).astype(np.int64) + offset
    if base in program.constants:
        start = program.constants[base] + offset
        return lambda cta: np.full(cta.threads, cta.memory.constants.base + start)
    bits = symbol_address(program, base)
    if bits is None:
        bits = immediate(base)
    if bits is None:
        raise Unsupported(f"address {operand}")
    total = bits + offset
    return lambda cta: np.full(cta.threads, total, np.int64)
