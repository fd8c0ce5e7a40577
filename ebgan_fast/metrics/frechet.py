"""The Frechet distance of two sets of features, each taken as a Gaussian: |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)).

No covariance is formed, and no square root taken of one. The centred features over sqrt(n - 1) are Q R, so C = R^T R,
and the eigenvalues of C1 C2 are the squares of the singular values of R1 R2^T, whose sum is the root's trace. Each
singular value is off by the rounding of the largest. So is an eigenvalue of C1 C2, or of sqrt(C1) C2 sqrt(C1), but
then its root is off by up to the rounding's root, 1.5e-8 of the largest, for each direction in which a set doesn't
vary: hundreds where it has fewer images than features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """A set of features as a Gaussian.

    Attributes:
        mean: float64 [d].
        factor: float64 [min(n, d), d], such that the covariance is factor^T factor.
    """

    mean: Tensor
    factor: Tensor


def gaussian(
    features: Tensor,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    rows: int = 8192,  # 84 MB of 1280 numbers
) -> Gaussian:
    """The mean and unbiased covariance of features [n, d], n at least 2, on their device.

    Rows are taken in parts, `rows` at a time, each joined to the factor of those before it, so memory doesn't grow with
    n. `progress` is told the rows done and all rows, before each part and at the end. What it raises ends the work.

    Raises:
        ValueError: `rows` below 1.
    """
    if rows < 1:
        raise ValueError(f"rows: got {rows}, expected at least 1")
    n, d = features.shape
    parts = features.split(rows)
    mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / n
    factor = mean.new_empty(0, d)
    for number, part in enumerate(parts):
        progress(number * rows, n)
        factor = torch.linalg.qr(torch.cat((factor, part.double() - mean)), mode="r").R
    progress(n, n)
    return Gaussian(mean, factor / (n - 1) ** 0.5)


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """The Frechet distance of two Gaussians on one device; of equal ones 0 up to rounding, which may be negative."""
    product = one.factor @ other.factor.T
    sum_of = sum_of_singular_values if product.device.type == "cpu" else sum_by_symmetric_eigenvalues
    root = sum_of(product)
    shift = (one.mean - other.mean).square().sum()
    return float(shift + one.factor.square().sum() + other.factor.square().sum() - 2 * root)


def sum_of_singular_values(matrix: Tensor) -> Tensor:
    """The sum of the singular values of a matrix [m, n], directly, as a CPU is quick at."""
    return torch.linalg.svdvals(matrix).sum()


def sum_by_symmetric_eigenvalues(matrix: Tensor) -> Tensor:
    """The sum of the singular values of a matrix [m, n], by eigenvalues, as a GPU is quick at.

    Those of [[0, M], [M^T, 0]] are plus and minus M's singular values, and zeros.
    On a GPU torch takes the singular values themselves by cuSOLVER's Jacobi rotations, sweep after sweep. A symmetric
    matrix is made tridiagonal once.
    """
    rows, columns = matrix.shape
    both = matrix.new_zeros(rows + columns, rows + columns)
    both[:rows, rows:], both[rows:, :rows] = matrix, matrix.T
    return torch.linalg.eigvalsh(both).abs().sum() / 2
