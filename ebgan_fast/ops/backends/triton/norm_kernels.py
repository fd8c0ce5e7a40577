"""The arithmetic of the norms: the summed term of a difference, the energy of the sum, and the energy's gradient.

All kernels of energies use these functions. A kernel takes a norm as its number, the constant NORM:

    number  norm  term of a difference d  energy         gradient to d
    0       mse   d^2                     sum / elements  2 d / elements
    1       sse   d^2                     sum             2 d
    2       l2    d^2                     root of sum     d / energy, 0 where the energy is 0
    3       l1    |d|                     sum             sign of d, 0 where d is 0 or NaN
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic_kernels import quotient, root


@triton.constexpr_function
def slope_needs_energy(NORM):
    """Return True if the slope is unknown until the whole sample is read. Called by kernels and by the host."""
    return NORM == 2


@triton.jit
def term(difference, NORM: tl.constexpr):
    """Return a difference's term of the sum."""
    if NORM == 3:
        return tl.abs(difference)
    else:
        return difference * difference


@triton.jit
def energy_of(total, elements, NORM: tl.constexpr):
    """Return the energy of a sample, given the sum of its terms."""
    if NORM == 0:
        return quotient(total, elements)
    elif NORM == 1 or NORM == 3:
        return total
    else:
        return root(total)


@triton.jit
def slope_of(energy, weight, elements, NORM: tl.constexpr):
    """Return a sample's factor in `gradient_of`, for an upstream gradient `weight`.

    `energy` may be any number unless `slope_needs_energy`.
    """
    if NORM == 0:
        return quotient(weight * 2, elements)
    elif NORM == 1:
        return weight * 2
    elif NORM == 3:
        return weight
    else:
        return tl.where(energy == 0, 0.0, quotient(weight, energy))


@triton.jit
def gradient_of(difference, slope, NORM: tl.constexpr):
    """Return the gradient to a difference."""
    if NORM == 3:
        return tl.where(difference > 0, slope, tl.where(difference < 0, -slope, 0.0))
    else:
        return slope * difference
