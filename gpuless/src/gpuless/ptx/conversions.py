"""The instruction cvt between any two types."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import Unsupported
from .formats import DTYPES, FLOATS, Array, from_bfloat16, to_bfloat16, to_float16, to_tf32

Convert = Callable[..., Array]

_TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def convert(result: str, source: str, modifiers: tuple[str, ...]) -> Convert:
    """Return a function that converts arrays from the type `source` to the type `result`.

    For a packed result the function takes two operands, the first for the upper half.
    """
    if {"satfinite", "rs"} & set(modifiers):
        raise Unsupported("cvt." + ".".join(modifiers))
    relu = "relu" in modifiers
    if result in ("f16x2", "bf16x2"):
        one = convert(result[:-2], source, modifiers)

        def packed(high: Array, low: Array) -> Array:
            high_bits, low_bits = one(high).view(np.uint16), one(low).view(np.uint16)
            return high_bits.astype(np.uint32) << np.uint32(16) | low_bits.astype(np.uint32)

        return packed
    if result in (*FLOATS, "tf32") and source in FLOATS:
        narrow = _float_to_float(result, source, modifiers)
        return (lambda a: narrow(np.maximum(a, a.dtype.type(0)))) if relu else narrow
    if source in FLOATS:
        return _float_to_integer(result, source, modifiers)
    if result in FLOATS:
        return _integer_to_float(result, modifiers)
    return _integer_to_integer(result, modifiers)


def _rounding(modifiers: tuple[str, ...]) -> str:
    rounding = next((modifier for modifier in modifiers if modifier in ("rn", "rz", "rm", "rp", "rna")), "rn")
    if rounding in ("rm", "rp"):
        raise Unsupported("cvt." + ".".join(modifiers))
    return rounding


def _to_float(result: str, rounding: str) -> Convert:
    """Return a function that converts float32 or float64 to the type `result`."""
    if result == "bf16":
        return lambda a: to_bfloat16(a, rounding)
    if result == "f16":
        return lambda a: to_float16(a, rounding)
    if result == "tf32":
        return lambda a: to_tf32(a, rounding)
    dtype = DTYPES[result]
    if rounding == "rz" and result == "f32":
        return _toward_zero
    return lambda a: a.astype(dtype)


def _toward_zero(values: Array) -> Array:
    nearest = values.astype(np.float32)
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(values.astype(np.float64))
    return np.where(too_far, np.nextafter(nearest, np.float32(0)), nearest)


def _float_to_float(result: str, source: str, modifiers: tuple[str, ...]) -> Convert:
    whole = next((_TO_INTEGER[modifier] for modifier in modifiers if modifier in _TO_INTEGER), None)
    narrow = _to_float(result, _rounding(modifiers))

    def change(a: Array) -> Array:
        wide = from_bfloat16(a) if source == "bf16" else a
        if source == "f16":
            wide = wide.astype(np.float32)
        if whole is not None:
            wide = whole(wide)
        if "sat" in modifiers:
            wide = np.clip(np.nan_to_num(wide, nan=0.0), 0, 1)
        return narrow(wide)

    return change


def _float_to_integer(result: str, source: str, modifiers: tuple[str, ...]) -> Convert:
    """Return a conversion in which a float out of range becomes the nearest integer of the type, and NaN becomes 0."""
    whole = next((_TO_INTEGER[modifier] for modifier in modifiers if modifier in _TO_INTEGER), None)
    if whole is None:
        raise Unsupported("cvt." + ".".join(modifiers))
    dtype = DTYPES[result]
    limits = np.iinfo(dtype)

    def change(a: Array) -> Array:
        wide = whole((from_bfloat16(a) if source == "bf16" else a).astype(np.float64))
        wide = np.where(np.isnan(wide), 0.0, wide)
        inside = np.where((wide < float(limits.max)) & (wide > float(limits.min)), wide, 0.0).astype(dtype)
        return np.where(
            wide >= float(limits.max), limits.max, np.where(wide <= float(limits.min), limits.min, inside)
        ).astype(dtype)

    return change


def _integer_to_float(result: str, modifiers: tuple[str, ...]) -> Convert:
    rounding = _rounding(modifiers)
    if result in ("f32", "f64") and rounding == "rn":
        dtype = DTYPES[result]
        return lambda a: a.astype(dtype)
    narrow = _to_float(result, rounding)
    return lambda a: narrow(a.astype(np.float64))


def _integer_to_integer(result: str, modifiers: tuple[str, ...]) -> Convert:
    dtype = DTYPES[result]
    limits = np.iinfo(dtype)
    if "sat" not in modifiers:
        return lambda a: a.astype(dtype)

    def clamped(a: Array) -> Array:
        own = np.iinfo(a.dtype)
        return np.clip(a, max(limits.min, own.min), min(limits.max, own.max)).astype(dtype)

    return clamped
