"""The pulling-away term and its gradient by equation 14, in NumPy's float64, as ranges of right results.

Each row is first divided by a power of two, which changes no cosine. So the formulas hold for every finite code.

Terms may cancel here, so the error of every number is computed beside the number, by the rules of first order. A sum of
products is off by (additions + 1) u times the sum of their sizes, and by the error of each factor times its partner.
Squares of such errors are kept, as a cosine may be 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from .ranges import CHAIN, FLOAT32, FLOAT64, Array, Format, Range, additions

Form = Literal["primal", "dual", "projected"]
"""The forms in which backends compute the term and its gradient.

* primal: products of samples; the gradient is a combination of samples.
* dual: products of elements, less those of an evenly spread batch; the gradient is taken across the row.
* projected: products of samples; the gradient is taken across the row, as autograd does.
"""


SHORTEST_SQUARE, LONGEST_SQUARE = {FLOAT32: 2.0**-80, FLOAT64: 2.0**-800}, {FLOAT32: 2.0**100, FLOAT64: 2.0**900}
"""The least and the largest squared length of a row that no backend scales first, by the format of sums."""


def _product(a: Array, b: Array) -> Array:
    """Return a @ b, added in chains of CHAIN whatever the library does."""
    parts = -(-a.shape[1] // CHAIN)
    pad = parts * CHAIN - a.shape[1]
    a, b = np.pad(a, ((0, 0), (0, pad))), np.pad(b, ((0, pad), (0, 0)))
    return (a.reshape(len(a), parts, CHAIN).swapaxes(0, 1) @ b.reshape(parts, CHAIN, b.shape[1])).sum(0)


class PullingAway:
    """The pulling-away term of a code [N, d].

    Args:
        code: the code in float64, finite or not.
        acc: the format that sums run in.
        form: the form in which the backend computes.
        chain: the length of the chains of its matrix products; None if they add in any order.
        factors: the format to which both factors of the gradient's product are rounded; None if they are not.
    """

    def __init__(
        self,
        code: Array,
        acc: Format,
        form: Form,
        chain: int | None = CHAIN,
        factors: Format | None = None,
    ) -> None:
        self.pairs = len(code) * (len(code) - 1)
        self.is_finite = bool(np.isfinite(code).all())
        self._acc = acc
        code = code if self.is_finite else np.zeros_like(code)
        largest = np.abs(code).max(1, initial=0.0)
        self._exponents = np.frexp(largest)[1][:, None]  # 0 for a row of zeros
        scaled = np.ldexp(code, -self._exponents)
        lengths = np.sqrt(np.square(scaled).sum(1, keepdims=True))
        self._inverses = np.where(lengths == 0, 0.0, 1 / np.where(lengths == 0, 1.0, lengths))
        unit = scaled * self._inverses
        cosines = _product(unit, unit.T)
        np.fill_diagonal(cosines, 0.0)
        row_sums = np.square(cosines).sum(1, keepdims=True)
        self._total = row_sums.sum()
        self._direction = _product(cosines, unit) - row_sums * unit
        errors = _Errors(unit, cosines, acc, form, chain, 0.0 if factors is None else 2 * factors.unit)
        # In float64 the formulas' own roundings are of the same size, so they count too.
        own_errors = _Errors(unit, cosines, acc, "primal", CHAIN) if acc is FLOAT64 else None
        self._errors = [each for each in (errors, own_errors) if each]

    def value(self) -> Range:
        """Return the range of the term: NaN for a code that is not finite, and 0 for fewer than two codes."""
        if self.pairs == 0:
            return Range.exactly(0.0)
        if not self.is_finite:
            return Range.exactly(np.nan)
        error = np.float64(sum(each.value for each in self._errors) / self.pairs)
        return Range.exactly(self._total / self.pairs).wider(0.0, error).rounded(self._acc)

    def gradient(self, factor: float) -> Range:
        """Return the gradient, [N, d], for an upstream gradient of `factor`. A row of zeros has gradient 0.

        The factors before a row of the gradient are rounded six times: 4 / pairs, upstream, weight, 1 / length, and the
        products of these. Their product may fall below the smallest normal number.
        """
        if self.pairs == 0 or factor == 0:
            return Range.exactly(np.zeros_like(self._direction))
        error = sum(each.direction() for each in self._errors)
        size = np.abs(self._direction) + error
        error = error + sum(each.length + 6 * each.u for each in self._errors) * size
        before = abs(4 * factor / self.pairs) * self._inverses
        value, error = np.copysign(before, factor) * self._direction, before * error
        lost = np.where(self._inverses == 0, 0.0, self._acc.step * size)
        exact = Range(np.ldexp(value - error, -self._exponents), np.ldexp(value + error, -self._exponents))
        return exact.wider(0.0, lost)


@dataclass(frozen=True)
class _Errors:
    """The errors of one form of the computation."""

    unit: Array
    cosines: Array
    """The cosines between codes, [N, N], with zeros on the diagonal."""
    acc: Format
    form: Form
    chain: int | None
    of_factors: float = 0.0
    """The relative error of the products that the gradient is made of, from rounding their factors."""

    @property
    def u(self) -> float:
        return self.acc.unit

    @property
    def _lost(self) -> float:
        """The error of a product of two codes that falls below the smallest normal number, in units of both lengths."""
        return self.acc.smallest / SHORTEST_SQUARE[self.acc]

    @cached_property
    def _size(self) -> Array:
        return np.abs(self.unit)

    @cached_property
    def length(self) -> float:
        """The relative error of a length: half of its square's, and that of the root."""
        elements = self.unit.shape[1]
        return ((additions(elements) + 1) / 2 + 1) * self.u + elements * self._lost

    @cached_property
    def _of_unit(self) -> Array:
        """The error of the unit codes, [N, d]: that of the length, and roundings of 1 / length and of the product."""
        return (self.length + 2 * self.u) * self._size

    @cached_property
    def _of_cosines(self) -> Array:
        """The error of the cosines, [N, N].

        They are products of codes multiplied by 1 / length twice, or in the form projected products of unit codes.
        """
        elements = self.unit.shape[1]
        of_factors, of_cosine = (4, 0) if self.form == "projected" else (0, 5)
        products = (additions(elements, self.chain) + 1 + of_factors) * self.u * (self._size @ self._size.T)
        lengths = (2 * self.length + of_cosine * self.u) * np.abs(self.cosines)
        return (products + lengths + elements * self._lost) * (1 - np.eye(len(self.unit)))

    @cached_property
    def _of_row_sums(self) -> Array:
        """The error of the sums of squared cosines, [N, 1]: that of the squares, of the sum, and of a store."""
        count, cosines = len(self.unit), np.abs(self.cosines)
        squares = (2 * cosines + self._of_cosines) * self._of_cosines
        rounded = (additions(count) + 2) * self.u * np.square(cosines + self._of_cosines)
        return (squares + rounded).sum(1, keepdims=True)

    @cached_property
    def _excess(self) -> Array:
        """The products of elements, less those of an evenly spread batch, [d, d]."""
        elements = self.unit.shape[1]
        return _product(self.unit.T, self.unit) - np.eye(elements) * (self._nonzero / elements)

    @cached_property
    def _nonzero(self) -> int:
        return int(self.unit.any(1).sum())

    @cached_property
    def _of_excess(self) -> Array:
        count, elements = self.unit.shape
        products = (additions(count, self.chain) + 1) * self.u * (self._size.T @ self._size)
        factors = self._of_unit.T @ self._size
        share = np.eye(elements) * (self._nonzero / elements)
        return products + factors + factors.T + self.u * (np.abs(self._excess) + 2 * share) + count * self._lost

    @property
    def value(self) -> float:
        """The error of the sum over all pairs."""
        count, elements = self.unit.shape
        if self.form != "dual":
            total = (np.square(self.cosines).sum() + self._of_row_sums.sum()) * (additions(count) + 2) * self.u
            return float(self._of_row_sums.sum() + total)
        excess, of_excess = np.abs(self._excess), self._of_excess
        squares = (2 * excess + of_excess) * of_excess
        rounded = (2 * additions(elements) + 4) * self.u * np.square(excess + of_excess)
        even = 5 * self.u * self._nonzero * abs(self._nonzero - elements) / elements
        return float((squares + rounded).sum() + even)

    def direction(self) -> Array:
        """Return the error of the gradient before its factors, [N, d]."""
        count, elements = self.unit.shape
        cosines, size = np.abs(self.cosines) + self._of_cosines, self._size
        of_unit = self._of_unit + self.of_factors * size
        if self.form == "dual":
            excess = np.abs(self._excess) + self._of_excess
            pull = np.abs(_product(self.unit, self._excess))
            rounded = of_unit + (additions(elements, self.chain) + 1) * self.u * size
            return self._across(pull, size @ self._of_excess + rounded @ excess + elements * self._lost)
        rounded = of_unit + (additions(count, self.chain) + 1) * self.u * size
        error = self._of_cosines @ size + cosines @ rounded + count * self._lost
        if self.form == "projected":
            # Autograd differentiates the squared length. That derivative may vanish, where it falls below the smallest
            # step.
            vanished = 2 * self.acc.step * LONGEST_SQUARE[self.acc] * size
            return self._across(np.abs(_product(self.cosines, self.unit)), error) + vanished
        row_sums = np.square(self.cosines).sum(1, keepdims=True)
        return error + self._of_row_sums * size + (row_sums + self._of_row_sums) * rounded

    def _across(self, pull: Array, error: Array) -> Array:
        """Return the error of pull - (pull . unit) unit, [N, d], for a `pull` of these sizes that is off by `error`."""
        elements, size = self.unit.shape[1], self._size
        rounded = self._of_unit + (additions(elements) + 1) * self.u * size
        of_along = (error * size + (pull + error) * rounded).sum(1, keepdims=True)
        along = (pull * size).sum(1, keepdims=True) + of_along
        return error + of_along * size + along * (self._of_unit + 3 * self.u * size) + 2 * self.u * (pull + error)
