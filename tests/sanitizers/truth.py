"""The ops in float64 numpy, and the errors that a kernel may have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from memory import Array, Format

NORMS = ("mse", "sse", "l2", "l1")


def energies(norm: str, difference: Array) -> Array:
    if norm == "l1":
        return np.abs(difference).sum(1)
    squares = np.square(difference).sum(1)
    if norm == "mse":
        return squares / difference.shape[1]
    return squares if norm == "sse" else np.sqrt(squares)


def gradients(norm: str, difference: Array, coefficient: Array) -> Array:
    """Return the gradient to recon; the gradient to target is its negative."""
    if norm == "l1":
        return coefficient[:, None] * np.sign(difference)
    if norm == "l2":
        length = energies("l2", difference)
        factor = np.divide(coefficient, length, out=np.zeros_like(length), where=length != 0)
    else:
        factor = 2 * coefficient / (difference.shape[1] if norm == "mse" else 1)
    return factor[:, None] * difference


def hinge_gates(margin: float, energy: Array) -> Array:
    return (energy < margin).astype(np.float64)


def assert_close(what: str, got: Array, truth: Array, fmt: Format, bound: Array | float = 0.0) -> None:
    """Fail unless the values differ by two units in the last place and `bound` at most.

    The two units are for a factor and a product that are rounded. Inputs are small integers, so sums of squares are
    exact in any order.
    """
    allowed = 2 * fmt.eps * np.abs(truth) + 2 * fmt.tiny + bound
    wrong = np.argwhere(~(np.abs(got - truth) <= allowed))
    if len(wrong):
        at = tuple(wrong[0].tolist())
        raise AssertionError(f"{what}{list(at)}: got {got[at]}, expected {truth[at]}; {len(wrong)} elements are wrong")


@dataclass(frozen=True)
class PullingAway:
    value: float
    lengths: Array
    gradient: Array
    value_size: float
    """The sum of the absolute values of all products that the value adds up."""
    gradient_size: Array
    """For each element, the sum of the absolute values of all products that the gradient adds up."""


def pulling_away(code: Array) -> PullingAway:
    n = len(code)
    lengths = np.sqrt(np.square(code).sum(1))
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths != 0)
    unit = code * inverse[:, None]
    own = np.square(unit).sum(1)  # a code's cosine with itself: 1, or 0 for a code of zeros
    along, squares = _cubed(unit)
    squares -= own**2
    scale = 4 / (n * (n - 1)) * inverse[:, None]
    sizes, square_sizes = _cubed(np.abs(unit))
    return PullingAway(
        value=squares.sum() / (n * (n - 1)),
        lengths=lengths,
        gradient=scale * (along - (own + squares)[:, None] * unit),
        value_size=square_sizes.sum() / (n * (n - 1)),
        gradient_size=scale * (sizes + square_sizes[:, None] * np.abs(unit)),
    )


def _cubed(unit: Array) -> tuple[Array, Array]:
    """Return U U^T U, whose row i is sum_j cos_ij u_j, and sum_j cos_ij^2 for each row."""
    along = np.linalg.multi_dot([unit, unit.T, unit])
    return along, (along * unit).sum(1)
