"""Instructions for integer arithmetic and bit manipulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import Unsupported
from .formats import DTYPES, SIGNED, UNSIGNED, Array, size_of
from .parser import Instruction

Recipe = tuple[Callable[..., Array], tuple[str, ...], str]


def _plain(compute: Callable[..., Array]) -> Callable[[Instruction], Recipe]:
    """Return a recipe whose operands and result all have the instruction's own type."""

    def build(instruction: Instruction) -> Recipe:
        if {"sat", "cc"} & set(instruction.modifiers):
            raise Unsupported(instruction.text)
        return compute, (instruction.kind,) * (len(instruction.operands) - 1), instruction.kind

    return build


def _wide(kind: str) -> str:
    return kind[0] + str(16 * size_of(kind))


def _high(a: Array, b: Array) -> Array:
    """Return the upper half of the product."""
    dtype = a.dtype
    if dtype.itemsize < 8:
        wide = (SIGNED if dtype.kind == "i" else UNSIGNED)[2 * dtype.itemsize]
        return (a.astype(wide) * b.astype(wide) >> wide.type(8 * dtype.itemsize)).astype(dtype)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    x, y = a.view(np.uint64), b.view(np.uint64)
    x_low, x_high, y_low, y_high = x & low, x >> half, y & low, y >> half
    middle = x_high * y_low + (x_low * y_low >> half)
    carry = (middle & low) + x_low * y_high
    product = x_high * y_high + (middle >> half) + (carry >> half)
    if dtype.kind == "i":
        product = product - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return product.view(dtype)


def _multiply(instruction: Instruction) -> Recipe:
    """Return mul, or mad, which then adds its last operand."""
    kind, adds = instruction.kind, instruction.opcode == "mad"
    if "wide" in instruction.modifiers:
        wide = DTYPES[_wide(kind)]
        if adds:
            return lambda a, b, c: a.astype(wide) * b.astype(wide) + c, (kind, kind, _wide(kind)), _wide(kind)
        return lambda a, b: a.astype(wide) * b.astype(wide), (kind, kind), _wide(kind)
    product = _high if "hi" in instruction.modifiers else np.multiply
    if adds:
        return lambda a, b, c: product(a, b) + c, (kind, kind, kind), kind
    return product, (kind, kind), kind


def _quotient(a: Array, b: Array) -> Array:
    """Divide toward zero, as C does. Division by zero gives all ones, as the hardware happens to do."""
    divisor = np.where(b == 0, b.dtype.type(1), b)
    down = a // divisor
    if a.dtype.kind == "i":
        down = down + ((a - down * divisor != 0) & ((a < 0) != (divisor < 0)))
    return np.where(b == 0, ~b.dtype.type(0), down).astype(a.dtype)


def _remainder(a: Array, b: Array) -> Array:
    divisor = np.where(b == 0, b.dtype.type(1), b)
    return np.where(b == 0, a, np.fmod(a, divisor)).astype(a.dtype)


def shift_left(value: Array, by: Array) -> Array:
    bits = 8 * value.dtype.itemsize
    shifted = value << np.minimum(by, np.uint32(bits - 1)).astype(value.dtype)
    return np.where(by >= bits, value.dtype.type(0), shifted)


def shift_right(value: Array, by: Array) -> Array:
    """Shift to the right. Signed types keep their sign."""
    bits = 8 * value.dtype.itemsize
    shifted = value >> np.minimum(by, np.uint32(bits - 1)).astype(value.dtype)
    return shifted if value.dtype.kind == "i" else np.where(by >= bits, value.dtype.type(0), shifted)


def _funnel_shift(instruction: Instruction) -> Recipe:
    to_left, clamps = "l" in instruction.modifiers, "clamp" in instruction.modifiers

    def compute(low: Array, high: Array, by: Array) -> Array:
        by = (np.minimum(by, np.uint32(32)) if clamps else by & np.uint32(31)).astype(np.uint64)
        both = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
        shifted = both << by >> np.uint64(32) if to_left else both >> by
        return shifted.astype(np.uint32)

    return compute, ("b32", "b32", "u32"), "b32"


def _extract(instruction: Instruction) -> Recipe:
    """Return bfe, which extracts a field of bits and extends the sign for signed types."""
    kind = instruction.kind
    bits = 8 * size_of(kind)

    def compute(value: Array, position: Array, length: Array) -> Array:
        start, count = position & np.uint32(255), length & np.uint32(255)
        # Shift left first, then right: the bits cut off at the top come back as zeros or as copies of the sign.
        room = bits - np.minimum(start.astype(np.int64) + count, bits)
        field = shift_left(value, room.astype(np.uint32))
        field = shift_right(field, (room + np.minimum(start, bits)).astype(np.uint32))
        return np.where(count == 0, value.dtype.type(0), field)

    return compute, (kind, "u32", "u32"), kind


def _insert(instruction: Instruction) -> Recipe:
    """Return bfi, which inserts a field of bits."""
    kind = instruction.kind
    dtype = DTYPES[kind].type
    bits = 8 * size_of(kind)

    def compute(field: Array, value: Array, position: Array, length: Array) -> Array:
        start, count = position & np.uint32(255), length & np.uint32(255)
        ones = np.where(count >= bits, ~dtype(0), shift_left(dtype(1) + field * dtype(0), count) - dtype(1))
        mask = shift_left(ones, start)
        return (value & ~mask) | (shift_left(field, start) & mask)

    return compute, (kind, kind, "u32", "u32"), kind


def _permute(instruction: Instruction) -> Recipe:
    """Return prmt, which picks any four of eight bytes. A picked byte may be replaced by copies of its sign."""
    if len(instruction.modifiers) != 1:
        raise Unsupported(instruction.text)

    def compute(a: Array, b: Array, selector: Array) -> Array:
        both = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
        result = np.uint32(0)
        for position in range(4):
            nibble = selector >> np.uint32(4 * position) & np.uint32(15)
            byte = both >> (nibble & np.uint32(7)).astype(np.uint64) * np.uint64(8) & np.uint64(255)
            signs = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
            chosen = np.where(nibble & np.uint32(8), signs, byte).astype(np.uint32)
            result = result | chosen << np.uint32(8 * position)
        return result

    return compute, ("b32", "b32", "b32"), "b32"


def _any_logic(instruction: Instruction) -> Recipe:
    """Return lop3, which computes any function of three bits, given as a table."""
    table = int(instruction.operands[4], 0)

    def compute(a: Array, b: Array, c: Array) -> Array:
        result = np.uint32(0)
        for row in range(8):
            if table >> row & 1:
                x, y, z = a if row & 4 else ~a, b if row & 2 else ~b, c if row & 1 else ~c
                result = result | (x & y & z)
        return result | a & np.uint32(0)

    return compute, ("b32", "b32", "b32"), "b32"


def _population(value: Array) -> Array:
    return np.bitwise_count(value).astype(np.uint32)


def _leading_zeros(value: Array) -> Array:
    bits = 8 * value.dtype.itemsize
    smeared = value
    for by in (1, 2, 4, 8, 16, 32):
        smeared = smeared | shift_right(smeared, np.uint32(by))
    return (bits - np.bitwise_count(smeared)).astype(np.uint32)


def _reversed(value: Array) -> Array:
    bits = 8 * value.dtype.itemsize
    one, result = value.dtype.type(1), value & value.dtype.type(0)
    for position in range(bits):
        bit = value >> value.dtype.type(position) & one
        result = result | bit << value.dtype.type(bits - 1 - position)
    return result


def _to_u32(compute: Callable[..., Array]) -> Callable[[Instruction], Recipe]:
    return lambda instruction: (compute, (instruction.kind,), "u32")


INTEGER: dict[str, Callable[[Instruction], Recipe]] = {
    "add": _plain(np.add),
    "sub": _plain(np.subtract),
    "min": _plain(np.minimum),
    "max": _plain(np.maximum),
    "neg": _plain(np.negative),
    "abs": _plain(np.abs),
    "mul": _multiply,
    "mad": _multiply,
    "div": _plain(_quotient),
    "rem": _plain(_remainder),
    "shf": _funnel_shift,
    "bfe": _extract,
    "bfi": _insert,
    "prmt": _permute,
    "lop3": _any_logic,
    "popc": _to_u32(_population),
    "clz": _to_u32(_leading_zeros),
    "brev": _plain(_reversed),
}
