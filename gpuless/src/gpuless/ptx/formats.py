"""The number formats of PTX as NumPy dtypes.

Registers hold bits. NumPy has no bfloat16, so its bits are uint16.
"""

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

# The bits of registers and of shared memory that were never written. Used as an address or an index, both patterns are
# far out of bounds. As a float of any width the first is NaN: it shows in sums, but a maximum drops it. The second is
# huge, so it shows in a maximum (in float16 it is NaN too).
POISONS = (0x7FFF7FFF7FFF7FFF, 0x7F7F7F7F7F7F7F7F)


def size_of(kind: str) -> int:
    return DTYPES[kind].itemsize


def width_of(values: Array) -> int:
    """Return the bytes of one lane's access. `values` has shape [lanes], or [lanes, elements of a vector]."""
    return values.itemsize * (values.shape[1] if values.ndim == 2 else 1)


def from_bfloat16(bits: Array) -> Array:
    """Convert bfloat16, given as uint16 bits, to float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_odd(wide: Array) -> Array:
    """Round float64 to float32, with inexact results rounded to the neighbor whose last bit is set.

    A second rounding, to a format at least two bits shorter, then gives the same as a single rounding.
    """
    nearest = wide.astype(np.float32)
    bits = nearest.view(np.uint32)
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(wide)
    inexact = nearest.astype(np.float64) != wide
    odd = (bits - too_far.astype(np.uint32)) | np.uint32(1)
    return np.where(inexact & ~np.isnan(wide), odd, bits).view(np.float32)


def to_bfloat16(values: Array, rounding: str = "rn") -> Array:
    """Convert float32 or float64 to the uint16 bits of bfloat16: to nearest even ("rn") or toward zero ("rz")."""
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
    """Convert float32 or float64 to float16: to nearest even ("rn") or toward zero ("rz")."""
    nearest = values.astype(np.float16)
    if rounding == "rn":
        return nearest
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(values.astype(np.float64))
    return np.where(too_far, (nearest.view(np.uint16) - np.uint16(1)).view(np.float16), nearest)


def to_tf32(values: Array, rounding: str = "rna") -> Array:
    """Convert float32 to the uint32 bits of tf32, which has 19 bits.

    It rounds to nearest, with ties away from zero ("rna") or to even ("rn"), or cuts off ("rz").
    """
    bits = np.asarray(values).view(np.uint32)
    if rounding == "rna":
        rounded = bits + np.uint32(0x1000)
    elif rounding == "rn":
        rounded = bits + (np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1)))
    else:
        rounded = bits
    return np.where(np.isfinite(values), rounded, bits) & np.uint32(0xFFFFE000)
