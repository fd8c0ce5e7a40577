"""Number formats of PTX as numpy sees them. Registers hold bits; bfloat16 has no numpy type and travels as uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "u8": np.uint8,
        "s8": np.int8,
        "b8": np.uint8,
        "u16": np.uint16,
        "s16": np.int16,
        "b16": np.uint16,
        "f16": np.float16,
        "bf16": np.uint16,
        "u32": np.uint32,
        "s32": np.int32,
        "b32": np.uint32,
        "f32": np.float32,
        "f16x2": np.uint32,
        "bf16x2": np.uint32,
        "tf32": np.uint32,
        "u64": np.uint64,
        "s64": np.int64,
        "b64": np.uint64,
        "f64": np.float64,
        "f32x2": np.uint64,
        "pred": np.bool_,
    }.items()
}
UNSIGNED: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.uint16),
    4: np.dtype(np.uint32),
    8: np.dtype(np.uint64),
}
SIGNED: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.int8),
    2: np.dtype(np.int16),
    4: np.dtype(np.int32),
    8: np.dtype(np.int64),
}
FLOATS = ("f16", "bf16", "f32", "f64")

# What registers and shared memory hold before anybody writes them. As an address or an index both are far out of
# bounds. As floats of any width the first is NaN, which sums show and a maximum drops; the second is huge, which a
# maximum shows (in float16 it is NaN too).
POISONS = (0x7FFF7FFF7FFF7FFF, 0x7F7F7F7F7F7F7F7F)


def size_of(kind: str) -> int:
    return DTYPES[kind].itemsize


def width_of(values: Array) -> int:
    """Bytes of one lane's access: values are [lanes], or [lanes, elements of a vector]."""
    return values.itemsize * (values.shape[1] if values.ndim == 2 else 1)


def from_bfloat16(bits: Array) -> Array:
    """uint16 bits -> float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_odd(wide: Array) -> Array:
    """float64 -> float32, inexact results rounded to the neighbor whose last bit is set.

    A second rounding, to a format at least two bits shorter, then gives what one rounding would have given.
    """
    nearest = wide.astype(np.float32)
    bits = nearest.view(np.uint32)
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(wide)
    inexact = nearest.astype(np.float64) != wide
    odd = (bits - too_far.astype(np.uint32)) | np.uint32(1)
    return np.where(inexact & ~np.isnan(wide), odd, bits).view(np.float32)


def to_bfloat16(values: Array, rounding: str = "rn") -> Array:
    """float32 or float64 -> uint16 bits, rounded to nearest even ("rn") or toward zero ("rz")."""
    if values.dtype == np.float64:
        values = to_odd(values)
    values = np.asarray(values, np.float32)
    bits = values.view(np.uint32)
    if rounding == "rn":
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    else:
        rounded = bits >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded.astype(np.uint16))


def to_float16(values: Array, rounding: str = "rn") -> Array:
    """float32 or float64 -> float16."""
    nearest = values.astype(np.float16)
    if rounding == "rn":
        return nearest
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(values.astype(np.float64))
    return np.where(too_far, (nearest.view(np.uint16) - np.uint16(1)).view(np.float16), nearest)


def to_tf32(values: Array, rounding: str = "rna") -> Array:
    """float32 -> uint32 bits of the 19-bit format: to nearest, ties away ("rna") or to even ("rn"), or cut off."""
    bits = np.asarray(values).view(np.uint32)
    if rounding == "rna":
        rounded = bits + np.uint32(0x1000)
    elif rounding == "rn":
        rounded = bits + (np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1)))
    else:
        rounded = bits
    return np.where(np.isfinite(values), rounded, bits) & np.uint32(0xFFFFE000)
