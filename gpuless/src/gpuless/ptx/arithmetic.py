"""Instructions that only compute: each opcode gives a NumPy function, its operand types and its result type."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from .approximate import approximation
from .conversions import convert
from .errors import Unsupported
from .formats import DTYPES, FLOATS, Array, from_bfloat16, to_bfloat16, to_float16
from .integers import INTEGER, shift_left, shift_right
from .parser import Instruction

Compute = Callable[..., Array]
Recipe = tuple[Compute, tuple[str, ...], str]


def flushed(values: Array) -> Array:
    """Return float32 values with each subnormal replaced by a zero of the same sign."""
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), values), values)


def _widen(kind: str) -> Callable[[Array], Array]:
    """Return a function from the bits of a register of type `kind` to the floats to compute with."""
    if kind == "bf16":
        return from_bfloat16
    if kind == "f16":
        return lambda values: values.astype(np.float32)
    return lambda values: values


def _narrow(kind: str) -> Callable[[Array], Array]:
    if kind == "bf16":
        return to_bfloat16
    if kind == "f16":
        return to_float16
    dtype = DTYPES[kind]
    return lambda values: values.astype(dtype, copy=False)


def _on_floats(compute: Compute, kind: str, modifiers: tuple[str, ...]) -> Compute:
    """Turn `compute`, for float32 or float64 arrays, into a function for values of `kind` that rounds once at the end.

    Sums, products, quotients and roots of 16-bit floats may round to float32 first: float32's 24 bits are more than
    twice the 11 of float16, so the second rounding changes nothing.
    """
    if kind in ("f16x2", "bf16x2"):
        one = _on_floats(compute, kind[:-2], modifiers)
        half = DTYPES[kind[:-2]]
        return lambda *values: one(*[value.view(half) for value in values]).view(np.uint32)
    if kind == "f32x2":
        return lambda *values: compute(*[value.view(np.float32) for value in values]).astype(np.float32).view(np.uint64)
    if kind == "f32" and not {"ftz", "sat", "relu"} & set(modifiers):
        return compute
    widen, narrow = _widen(kind), _narrow(kind)

    def rounded(*values: Array) -> Array:
        wide = [widen(value) for value in values]
        if "ftz" in modifiers and kind == "f32":
            wide = [flushed(value) for value in wide]
        result = compute(*wide)
        if "sat" in modifiers:
            result = np.clip(np.nan_to_num(result, nan=0.0), 0, 1)
        if "relu" in modifiers:
            result = np.maximum(result, 0)
        narrowed = narrow(result)
        return flushed(narrowed) if "ftz" in modifiers and kind == "f32" else narrowed

    return rounded


def _fma(a: Array, b: Array, c: Array) -> Array:
    """Multiply and add with a single rounding.

    For float32 and shorter types the product is exact in float64. float64 is computed in long double.
    """
    if a.dtype == np.float64 or b.dtype == np.float64:
        return (a.astype(np.longdouble) * b + c).astype(np.float64)
    product = a.astype(np.float64) * b
    total = product + c
    middle = total.view(np.uint64) & np.uint64(0x1FFFFFFF) == 0x10000000  # half-way between floats, or rounded to it
    if middle.any():
        total = np.where(middle, _off_the_middle(product, c, total), total)
    return total.astype(np.float32)


def _off_the_middle(a: Array, b: Array, total: Array) -> Array:
    """Move `total` one step toward the part of a + b that rounding removed, so that the next rounding goes the right
    way.
    """
    b = b.astype(np.float64)
    share = total - a
    lost = (a - (total - share)) + (b - share)
    return np.where(lost == 0, total, np.nextafter(total, np.copysign(np.inf, lost)))


def _fma_half(a: Array, b: Array, c: Array) -> Array:
    """Multiply and add 16-bit floats in float64. Rounding to float32 first would round twice."""
    return a.astype(np.float64) * b + c


# The flag says whether a NaN operand gives NaN (True) or the other operand (False).
_EXTREMES: dict[tuple[str, bool], Compute] = {
    ("min", True): np.minimum,
    ("min", False): np.fmin,
    ("max", True): np.maximum,
    ("max", False): np.fmax,
}


_FLOATING: dict[str, Compute] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "abs": np.abs,
    "neg": lambda a: -a,
    "copysign": lambda a, b: np.copysign(b, a),
    "sqrt": np.sqrt,
    "rcp": lambda a: a.dtype.type(1) / a,
}


def _floating(instruction: Instruction) -> Recipe | None:
    opcode, kind, modifiers = instruction.opcode, instruction.kind, instruction.modifiers
    types = [modifier for modifier in modifiers if modifier in DTYPES]
    if len(types) > 1:
        return _mixed(instruction, types)
    arity = len(instruction.operands) - 1
    if {"approx", "full"} & set(modifiers):
        if kind not in ("f32", "f16", "bf16", "f16x2", "bf16x2"):
            raise Unsupported(instruction.text)
        compute = approximation(opcode)
    elif opcode in _FLOATING:
        compute = _FLOATING[opcode]
    elif opcode in ("fma", "mad"):
        compute = _fma if kind in ("f32", "f64", "f32x2") else _fma_half
    elif opcode in ("min", "max"):
        extreme = _EXTREMES[opcode, "NaN" in modifiers]

        def compute(*values: Array) -> Array:
            return reduce(extreme, values)

    else:
        return None
    return _on_floats(compute, kind, modifiers), (kind,) * arity, kind


def _mixed(instruction: Instruction, types: list[str]) -> Recipe:
    """Return add, sub or fma in float32 whose last operand has that type, while the others have 16 bits."""
    if types[0] != "f32" or instruction.opcode not in ("add", "sub", "fma") or "sat" in instruction.modifiers:
        raise Unsupported(instruction.text)
    compute: Compute = _fma if instruction.opcode == "fma" else _FLOATING[instruction.opcode]
    widen, narrow = _widen(types[1]), len(instruction.operands) - 2

    def widened(*values: Array) -> Array:
        return compute(*[widen(value) for value in values[:-1]], values[-1])

    return widened, (types[1],) * narrow + ("f32",), "f32"


_COMPARISONS: dict[str, Compute] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def comparison(name: str, kind: str) -> Compute:
    """Return the comparison of setp and set. One of floats whose name ends in u also holds if an operand is NaN."""
    if kind not in FLOATS:
        return _COMPARISONS[name]
    widen = _widen(kind)
    if name in ("num", "nan"):
        wanted = name == "nan"
        return lambda a, b: (np.isnan(widen(a)) | np.isnan(widen(b))) == wanted
    unordered = len(name) == 3
    compare = _COMPARISONS[name[:2]]
    if name == "ne" or (unordered and name != "neu"):
        # ne holds for no NaN; ltu and the like hold for every NaN.
        def with_nan(a: Array, b: Array) -> Array:
            a, b = widen(a), widen(b)
            nan = np.isnan(a) | np.isnan(b)
            return compare(a, b) | nan if unordered else compare(a, b) & ~nan

        return with_nan
    return lambda a, b: compare(widen(a), widen(b))


def _logic(compute: Compute) -> Callable[[Instruction], Recipe]:
    return lambda instruction: (compute, (instruction.kind,) * (len(instruction.operands) - 1), instruction.kind)


def _select(instruction: Instruction) -> Recipe:
    kind = instruction.kind

    def compute(a: Array, b: Array, chosen: Array) -> Array:
        return np.where(chosen, a, b)

    return compute, (kind, kind, "pred"), kind


def _shift(compute: Compute) -> Callable[[Instruction], Recipe]:
    return lambda instruction: (compute, (instruction.kind, "u32"), instruction.kind)


def _conversion(instruction: Instruction) -> Recipe:
    types = [modifier for modifier in instruction.modifiers if modifier in DTYPES]
    if len(types) != 2:
        raise Unsupported(instruction.text)
    result, source = types
    return convert(result, source, instruction.modifiers), (source,) * (len(instruction.operands) - 1), result


_OTHERS: dict[str, Callable[[Instruction], Recipe]] = {
    "and": _logic(np.bitwise_and),
    "or": _logic(np.bitwise_or),
    "xor": _logic(np.bitwise_xor),
    "not": _logic(np.invert),
    "shl": _shift(shift_left),
    "shr": _shift(shift_right),
    "selp": _select,
    "cvt": _conversion,
}


def recipe(instruction: Instruction) -> Recipe | None:
    """Return the function, operand types and result type of an instruction that only computes; None for any other."""
    if instruction.opcode in _OTHERS:
        return _OTHERS[instruction.opcode](instruction)
    if instruction.kind in (*FLOATS, "f16x2", "bf16x2", "f32x2"):
        return _floating(instruction)
    build = INTEGER.get(instruction.opcode)
    return build(instruction) if build else None
