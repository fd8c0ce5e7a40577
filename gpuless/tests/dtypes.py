"""Dtypes of NumPy and of torch, and what is asked of an array of either."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuless.arrays import ArrayLike, element_strides, is_torch

NAMES = ("float64", "float32", "float16", "int64", "int32")
DTYPES = (*(f"numpy.{name}" for name in NAMES), *(f"torch.{name}" for name in (*NAMES, "bfloat16")))


def dtype_of(name: str) -> Any:
    """Skips the test where torch is missing."""
    library, _, kind = name.partition(".")
    if library == "numpy":
        return np.dtype(kind)
    return getattr(pytest.importorskip("torch", reason="torch is not installed"), kind)


def last(array: ArrayLike) -> int:
    """The number of elements of memory between the first and the last."""
    return sum((size - 1) * stride for size, stride in zip(array.shape, element_strides(array), strict=True))


def is_poison(array: ArrayLike) -> bool:
    """Return True if all of it is NaN, or -1."""
    floating = array.dtype.is_floating_point if is_torch(array.dtype) else array.dtype.kind == "f"
    return bool((array != array if floating else array == -1).all())
