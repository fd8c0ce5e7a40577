"""Floating-point numbers as exact fractions, to check the simulator's arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Format(NamedTuple):
    bits: np.dtype[Any]  # unsigned
    precision: int
    exponent: int  # that of the largest power of two


FORMATS = {
    "f16": Format(np.dtype(np.uint16), 11, 15),
    "bf16": Format(np.dtype(np.uint16), 8, 127),
    "tf32": Format(np.dtype(np.uint32), 11, 127),
    "f32": Format(np.dtype(np.uint32), 24, 127),
    "f64": Format(np.dtype(np.uint64), 53, 1023),
}


def fraction_bits(kind: str) -> int:
    """Return the number of mantissa bits in memory. tf32 is stored as a float32."""
    return 23 if kind == "tf32" else FORMATS[kind].precision - 1


def exact(pattern: int, kind: str) -> Fraction | float:
    """Return the number that a bit pattern stands for."""
    width, stored = 8 * FORMATS[kind].bits.itemsize, fraction_bits(kind)
    bias = FORMATS[kind].exponent
    sign = -1 if pattern >> width - 1 else 1
    field, mantissa = pattern >> stored & (1 << width - 1 - stored) - 1, pattern & (1 << stored) - 1
    if field == 2 * bias + 1:
        return math.nan if mantissa else sign * math.inf
    scaled = mantissa + (1 << stored if field else 0)
    return sign * Fraction(scaled) * Fraction(2) ** (max(field, 1) - bias - stored)


def rounded(value: Fraction, kind: str, ties: str = "even") -> Fraction | float:
    """Round to the nearest number of the format, or cut off for ties="zero"."""
    _, precision, largest = FORMATS[kind]
    if value == 0:
        return Fraction(0)
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    if Fraction(2) ** exponent > abs(value):
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, 1 - largest) - precision + 1)
    whole, rest = divmod(abs(value) / unit, 1)
    up = {"even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2), "away": 2 * rest >= 1, "zero": False}
    result = (whole + bool(up[ties])) * unit * (1 if value > 0 else -1)
    if abs(result) >= Fraction(2) ** (largest + 1):
        if ties == "zero":
            return (Fraction(2) ** (largest + 1) - Fraction(2) ** (largest - precision + 1)) * (1 if value > 0 else -1)
        return math.inf if value > 0 else -math.inf
    return result


def finite(kind: str, count: int, seed: int, spread: int = 8) -> Array:
    """Return bit patterns of finite numbers: both signs, a few subnormals, and exponents so close that sums round."""
    generator = np.random.default_rng(seed)
    stored, bias = fraction_bits(kind), FORMATS[kind].exponent
    field = np.clip(bias + generator.integers(-spread, spread, count), 1, 2 * bias)
    field[::29] = 0
    mantissa = generator.integers(0, 1 << stored, count)
    mantissa[::3] &= -1 << stored // 2  # short mantissas make ties
    if kind == "tf32":
        mantissa = mantissa >> 13 << 13
    sign = generator.integers(0, 2, count).astype(np.uint64) << np.uint64(8 * FORMATS[kind].bits.itemsize - 1)
    return (sign | (field.astype(np.uint64) << np.uint64(stored)) | mantissa.astype(np.uint64)).astype(
        FORMATS[kind].bits
    )


def root(value: Fraction) -> Fraction:
    """Return the square root with 2000 bits. If it has more bits, add a little, so that rounding goes the right way."""
    scaled = value * 4**2000
    whole = math.isqrt(scaled.numerator // scaled.denominator)
    return Fraction(2 * whole + (whole * whole != scaled), 2**2001)
