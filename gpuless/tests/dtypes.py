"""Dtypes of NumPy and torch, and helpers that read arrays of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuless.arrays import ArrayLike, element_strides, is_torch

NAMES = ("float64", "float32", "float16", "int64", "int32")
DTYPES = (*(f"numpy.{name}" for name in NAMES), *(f"torch.{name}" for name in (*NAMES, "bfloat16")))


def dtype_of(name: str) -> Any:
    """Return the dtype named like "numpy.float32" or "torch.bfloat16". Skip the test if torch is missing."""
    library, _, kind = name.partition(".")
    if library == "numpy":
        return np.dtype(kind)
    return getattr(pytest.importorskip("torch", reason="torch is not installed"), kind)


def last(array: ArrayLike) -> int:
    """Return the offset, in elements, from the array's first element to its last."""
    return sum((size - 1) * stride for size, stride in zip(array.shape, element_strides(array), strict=True))


def is_poison(array: ArrayLike) -> bool:
    """Return True if every element is NaN, or -1 for integers."""
    floating = array.dtype.is_floating_point if is_torch(array.dtype) else array.dtype.kind == "f"
    return bool((array != array if floating else array == -1).all())
