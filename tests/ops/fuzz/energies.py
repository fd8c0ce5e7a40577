"""Energies and losses by their equations, in NumPy's float64, as ranges of right results.

Sums of numbers that are not negative lose no digits to cancellation, and every other operation rounds once. So the
ranges follow the operations one by one. A gradient or a loss is held against the energies that the op returned with it,
and these energies against their own range. So rounding cannot decide on which side of the margin a sample counts.
"""

from __future__ import annotations

import numpy as np

from .ranges import FLOAT64, Array, Format, Range, additions

SLOPE, PRODUCT = 4, 3
"""The number of roundings of a gradient beside those of the difference.

Its slope has four: 1/N, upstream, 2/K and 1/energy. The product has three: itself, and two more where the upstream that
came is not the one the loss was given, for their quotient and one more product.
"""


def _differences(recon: Array, target: Array, acc: Format) -> Range:
    """Return the sizes of the differences, [N, K]. A difference below the smallest normal number is exact."""
    return Range.exactly(np.abs(recon - target)).rounded(acc, 1, 0)


def _in_float64(low: Array, terms: Array) -> Array:
    """Return the lowest sums, limited to float64's largest number where all terms are finite.

    float64 itself may overflow there, but the op's sum need not.
    """
    return np.where(np.isfinite(terms), np.minimum(low, FLOAT64.largest), low)


def energy(recon: Array, target: Array, norm: str, acc: Format) -> Range:
    """Return the energies by equation 13, [N], from recon and target, [N, K] each.

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
    total = total.rounded(acc, 2)  # the division or root, and a store
    return Range(np.maximum(total.low, 0.0), total.high)


def energy_gradient(recon: Array, target: Array, norm: str, energy: Range, weight: Array, acc: Format) -> Range:
    """Return the gradient to recon, [N, K], for an upstream gradient [N]; the gradient to target is its negative.

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
    # A difference that may be infinite may give NaN, if the energy may be infinite too.
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
    """Return the mean over a batch; 0 without samples."""
    total, count = batch_sum(values, acc), max(len(values.low), 1)
    return Range(total.low / count, total.high / count).rounded(acc)


def batch_sum(values: Range, acc: Format) -> Range:
    """Return the sum over a batch, whose terms may cancel."""
    total = values.sum()
    error = acc.spread(additions(len(values.low))) * np.maximum(np.abs(values.low), np.abs(values.high)).sum()
    return total.wider(0.0, error if np.isfinite(error) else 0.0).rounded(acc, 0, 0)


def is_open(energy_fake: Array, margin: float) -> Array:
    """Return True for each sample whose hinge passes a gradient on, [N]. NaN is past no margin."""
    return ~(margin - energy_fake <= 0)


def hinge_margin_loss(energy_real: Array, energy_fake: Range, is_open: Array, margin: float, acc: Format) -> Range:
    """Return equation 1: the mean energy of real samples plus the mean of [margin - energy]+ over generated ones."""
    hinge = Range(np.where(is_open, margin - energy_fake.high, 0.0), np.where(is_open, margin - energy_fake.low, 0.0))
    return mean(Range.exactly(energy_real), acc).plus(mean(hinge.rounded(acc), acc)).rounded(acc)


def generator_loss(energy: Array, acc: Format, term: float, weight: float, acc_of_code: Format) -> Range:
    """Return equations 2 and 14: the mean energy plus the weighted pulling-away term."""
    weighed = Range.exactly(weight).rounded(acc_of_code).times(term).rounded(acc_of_code)
    coarser = acc if acc.digits < acc_of_code.digits else acc_of_code
    return mean(Range.exactly(energy), acc).plus(weighed).rounded(coarser)
