"""Ranges of right results, which grow with every rounding by the rules of IEEE 754.

A rounding to the nearest number of p digits changes a number by at most 2^-p of its size. Below the smallest normal
number the change is at most half of the smallest step. A number beyond the largest becomes infinite. Nothing else is
assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Format:
    """A floating-point type, by the digits of its significand and its largest exponent."""

    digits: int
    top: int
    sides: int = 1
    """2 for float64, in which the formulas themselves round too; 1 for every other format."""

    @cached_property
    def unit(self) -> float:
        """The largest relative error of a rounding: half a unit in the last place of 1."""
        return 2.0**-self.digits

    @property
    def bottom(self) -> int:
        """The exponent of the smallest normal number."""
        return 1 - self.top

    @cached_property
    def smallest(self) -> float:
        """The smallest normal number."""
        return 2.0**self.bottom

    @cached_property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - 2 * self.unit) * 2.0**self.top

    @cached_property
    def step(self) -> float:
        """The smallest number above 0."""
        return math.ldexp(self.smallest, 1 - self.digits)

    def spread(self, roundings: float) -> float:
        """Return the largest relative error that so many roundings give."""
        error = self.sides * roundings * self.unit
        return error / (1 - error)


FLOAT64, FLOAT32, BFLOAT16, FLOAT16 = Format(53, 1023, sides=2), Format(24, 127), Format(8, 127), Format(11, 15)
TF32 = Format(11, 127)
"""The format to which tensor cores round a float32 factor."""

CHAIN = 64
"""The most numbers that a sum adds one after another, before it joins such sums in pairs."""
JOINS = 3
"""The number of further additions, which join the four sums of a loop and those of a block."""


def additions(count: int, chain: int | None = CHAIN) -> int:
    """Return the most additions that a number takes part in within a sum of `count`; without a chain, in any order."""
    if count <= 1 or chain is None or count <= chain:
        return max(count - 1, 0)
    return chain + math.ceil(math.log2(count / chain)) + JOINS


@dataclass(frozen=True)
class Range:
    """Arrays of the lowest and the highest right results.

    Where both are NaN, only NaN is right. Where one of them is NaN, every result is right.
    """

    low: Array
    high: Array

    @classmethod
    def exactly(cls, value: Array | float) -> Range:
        value = np.asarray(value, dtype=np.float64)
        return cls(value, value)

    def wider(self, relative: float, absolute: Array | float = 0.0) -> Range:
        """Return the range of results that are off by so much."""
        low = self.low * (1 - np.sign(self.low) * relative) - absolute
        return Range(low, self.high * (1 + np.sign(self.high) * relative) + absolute)

    def rounded(self, to: Format, times: float = 1, steps: float = 1) -> Range:
        """Return the range after so many roundings, of which `steps` may fall below the smallest normal number.

        A range of 0 stays 0. A number that may have passed the largest one may be anything from there to infinity.
        """
        is_zero = (self.low == 0) & (self.high == 0)
        wide = self.wider(to.spread(times), np.where(is_zero, 0.0, steps * to.step))
        low = np.where(wide.low < -to.largest, -np.inf, wide.low)
        return Range(low, np.where(wide.high > to.largest, np.inf, wide.high))

    def times(self, factor: Array | float) -> Range:
        """Return the range of the products with an exact factor."""
        one, other = self.low * factor, self.high * factor
        other = np.where((self.low < self.high) & np.isnan(one), 0.0, other)  # 0 times what may be infinite
        return Range(np.where(one > other, other, one), np.where(one > other, one, other))

    def plus(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def sum(self) -> Range:
        return Range(self.low.sum(-1), self.high.sum(-1))

    def lacks(self, got: Array) -> Array:
        """Return True where a result lies outside the range."""
        missing_low, missing_high = np.isnan(self.low), np.isnan(self.high)
        inside = (self.low <= got) & (got <= self.high)
        return ~np.where(missing_low & missing_high, np.isnan(got), missing_low | missing_high | inside)
