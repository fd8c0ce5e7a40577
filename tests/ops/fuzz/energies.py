"""Energies and losses by their equations, in NumPy's float64, as ranges of what is right.

Sums of what is not negative lose no digits to cancellation, and every other operation rounds once: the ranges follow
the operations one by one. A gradient or a loss is held against the energies that came with it, and these against their
own range. On which side of the margin a sample lies is then no matter of rounding.
"""

from __future__ import annotations

import numpy as np

from .ranges import FLOAT64, Array, Format, Range, additions

SLOPE, PRODUCT = 4, 3
"""Roundings of a gradient beside that of the difference. Of its slope: 1/N, upstream, 2/K and 1/energy. Of the product:
itself, and where another upstream came than was told, their quotient and one more product."""


def _differences(recon: Array, target: Array, acc: Format) -> Range:
    """[N, K]: the sizes of the differences. A difference below the smallest normal number is exact."""
    return Range.exactly(np.abs(recon - target)).rounded(acc, 1, 0)


def _in_float64(low: Array, terms: Array) -> Array:
    """The lowest sums, where float64 itself may be too small for them: that the op's is so too is not said."""
    return np.where(np.isfinite(terms), np.minimum(low, FLOAT64.largest), low)


def energy(recon: Array, target: Array, norm: str, acc: Format) -> Range:
    """[N]: equation 13, from [N, K] and [N, K].

    A square below the smallest normal number may vanish. A sum of squares beyond the largest number may be infinite.
    """
    elements = recon.shape[1]
    differences = _differences(recon, target, acc)
    if norm == "l1":
        return differences.sum().rounded(acc, additions(elements), 0).rounded(acc, 1, 0)
    squares = Range(_in_float64(np.square(differences.low), differences.low), np.square(differences.high)).rounded(acc)
    total = squares.sum()
    total = Range(_in_float64(total.low, differences.low.sum(1)), total.high).rounded(acc, additions(elements), 0)
    total = Range(np.maximum(total.low - elements * acc.smallest, 0.0), total.high)
    if norm == "mse":
        total = Range(total.low / elements, total.high / elements)
    if norm == "l2":
        total = Range(np.sqrt(total.low), np.sqrt(total.high))
    total = total.rounded(acc, 2)  # that, and a store
    return Range(np.maximum(total.low, 0.0), total.high)


def energy_gradient(recon: Array, target: Array, norm: str, energy: Range, weight: Array, acc: Format) -> Range:
    """[N, K]: the gradient to recon for an upstream gradient [N]; that to target is its negative.

    It is 0 for l2 at an energy of 0, for l1 at a difference of 0 or NaN, and for an upstream gradient of 0.
    """
    difference = recon - target
    slope = Range.exactly(np.abs(weight))
    if norm in ("mse", "sse"):
        slope = slope.times(2.0 / recon.shape[1] if norm == "mse" else 2.0)
    if norm == "l2":  # where the energy may be 0, so may the slope
        slope = Range(np.where(energy.low == 0, 0.0, slope.low / energy.high), slope.high / energy.low)
    slope = slope.rounded(acc, SLOPE)
    low, high = slope.low[:, None], slope.high[:, None]
    sizes = Range.exactly(np.ones_like(difference)) if norm == "l1" else _differences(recon, target, acc)
    # Of a difference that may be infinite NaN may come, where the energy may be infinite too.
    may_be_nan = (norm == "l2") & np.isinf(sizes.high) & np.isfinite(sizes.low) & np.isinf(energy.high)[:, None]
    sizes = Range(low * sizes.low, np.where(may_be_nan, np.nan, high * sizes.high)).rounded(acc, PRODUCT)
    is_zero = (difference == 0) & ~np.isnan(sizes.low)  # 0 times NaN is NaN
    if norm == "l1":
        is_zero |= np.isnan(difference)
    if norm == "l2":
        is_zero |= (energy.high == 0)[:, None]
    is_zero |= (weight == 0)[:, None]
    sizes = Range(np.where(is_zero, 0.0, sizes.low), np.where(is_zero, 0.0, sizes.high))
    return sizes.times(np.where(difference < 0, -1.0, 1.0) * np.where(weight < 0, -1.0, 1.0)[:, None])


def mean(values: Range, acc: Format) -> Range:
    """The mean over a batch; 0 without samples."""
    total, count = batch_sum(values, acc), max(len(values.low), 1)
    return Range(total.low / count, total.high / count).rounded(acc)


def batch_sum(values: Range, acc: Format) -> Range:
    """The sum over a batch, of terms that may cancel."""
    total = values.sum()
    error = acc.spread(additions(len(values.low))) * np.maximum(np.abs(values.low), np.abs(values.high)).sum()
    return total.wider(0.0, error if np.isfinite(error) else 0.0).rounded(acc, 0, 0)


def is_open(energy_fake: Array, margin: float) -> Array:
    """[N]: True where the hinge passes something on. NaN is past no margin."""
    return ~(margin - energy_fake <= 0)


def hinge_margin_loss(energy_real: Array, energy_fake: Range, is_open: Array, margin: float, acc: Format) -> Range:
    """Equation 1: the mean energy of the real samples plus the mean of [margin - energy]+ over the generated ones."""
    hinge = Range(np.where(is_open, margin - energy_fake.high, 0.0), np.where(is_open, margin - energy_fake.low, 0.0))
    return mean(Range.exactly(energy_real), acc).plus(mean(hinge.rounded(acc), acc)).rounded(acc)


def generator_loss(energy: Array, acc: Format, term: float, weight: float, acc_of_code: Format) -> Range:
    """Equations 2 and 14: the mean energy plus the weighted pulling-away term."""
    weighed = Range.exactly(weight).rounded(acc_of_code).times(term).rounded(acc_of_code)
    coarser = acc if acc.digits < acc_of_code.digits else acc_of_code
    return mean(Range.exactly(energy), acc).plus(weighed).rounded(coarser)
