"""Instructions for whose results the PTX manual gives only an error bound.

A kernel must be correct on all hardware that keeps to the bound. A result that is exactly a float32 is returned as it
is. Any other result gets an error up to the bound. The error depends on the result alone, as it would with a lookup
table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .formats import Array

_ULP = 2.0**-23  # the relative size of a unit in the last place, at the lower end of a power of two
# The bounds of the PTX manual, minus the half unit in the last place that rounding to float32 adds.
_RELATIVE: dict[str, float] = {
    "div": 1.5 * _ULP / 2,
    "rcp": 0.5 * _ULP / 2,
    "sqrt": 0.5 * _ULP,
    "rsqrt": 2**-22.9 - 0.5 * _ULP,
    "ex2": 1.5 * _ULP / 2,
    "tanh": 2.0**-11 - 0.5 * _ULP,
}
_ABSOLUTE: dict[str, float] = {"sin": 2**-20.5 - 2**-25, "cos": 2**-20.5 - 2**-25, "lg2": 2**-22 - 2**-25}
_EXACT: dict[str, Callable[..., Array]] = {
    "div": lambda a, b: a / b,
    "rcp": lambda a: 1 / a,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}


def _scatter(values: Array) -> Array:
    """Return a number in [-1, 1) for each float64. It looks random but depends on the value alone."""
    mixed = values.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed.view(np.int64) / 2.0**63


def approximation(opcode: str) -> Callable[..., Array]:
    """Return the approximate form of an instruction, from float32 to float32. Raise KeyError if it has none."""
    compute, relative, absolute = _EXACT[opcode], _RELATIVE.get(opcode, 0.0), _ABSOLUTE.get(opcode, 0.0)

    def approximate(*values: Array) -> Array:
        exact = compute(*[value.astype(np.float64) for value in values])
        nearest = exact.astype(np.float32)
        error = _scatter(exact) * (relative * np.abs(exact) + absolute)
        return np.where(nearest == exact, nearest, (exact + error).astype(np.float32))

    return approximate
