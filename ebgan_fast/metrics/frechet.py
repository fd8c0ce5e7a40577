"""The Frechet distance of two sets of features, each taken as a Gaussian: |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)).

No covariance is formed, and no square root taken of one. The centered features over sqrt(n - 1) are Q R, so C = R^T R,
and the eigenvalues of C1 C2 are the squares of the singular values of R1 R2^T, whose sum is the root's trace. Each
singular value is off by the rounding of the largest. So is an eigenvalue of C1 C2, or of sqrt(C1) C2 sqrt(C1), but
then its root is off by up to the rounding's root, 1.5e-8 of the largest, for each direction in which a set doesn't
vary: hundreds where it has fewer images than features.

Features come in parts, of which one is in memory at a time, and no mean is needed before. See `_joined`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .features import check_features, distances_on
from .two_sets import OfTwoSets

_ROWS = 8192  # at a time: 84 MB of 1280 numbers in float64


@dataclass(frozen=True)
class Gaussian:
    """A set of features as a Gaussian: its mean, and a factor of its covariance.

    Attributes:
        mean: float64 [d].
        factor: float64 [min(n, d), d] of n samples, such that the covariance is factor^T factor.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import Gaussian
        >>> unit = Gaussian(mean=torch.zeros(2).double(), factor=torch.eye(2).double())
        >>> (unit.factor.T @ unit.factor).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    mean: Tensor
    factor: Tensor


def gaussian(
    features: Tensor,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    rows: int = _ROWS,
) -> Gaussian:
    """Return the mean and unbiased covariance of features, computed in float64.

    The covariance is sum (x - mean)(x - mean)^T / (n - 1), as in the FID of Heusel et al. 2017. It is kept as a factor,
    so none of its digits are lost to squares. Rows are taken in parts, each joined to the factor of those before it, so
    memory doesn't grow with n.

    Args:
        features: [n, d] of a floating-point dtype, finite, n at least 2.
        progress: told the rows done and all rows, before each part and at the end. What it raises ends the work.
        rows: in a part.

    Returns:
        The Gaussian: float64, in the features' units, on their device if that is a CUDA device, else on the CPU.

    Raises:
        TypeError: features that aren't a tensor of floating point.
        ValueError: another shape, fewer than two rows, a number that isn't finite, or `rows` below 1.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import gaussian
        >>> found = gaussian(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        >>> found.mean.tolist()
        [2.0, 5.0]
        >>> round(float(found.factor.square().sum()), 6)  # the trace of the covariance
        2.0
    """
    if rows < 1:
        raise ValueError(f"rows: got {rows}, expected at least 1")
    check_features(features, "features")
    n = len(features)
    if n < 2:
        raise ValueError(f"features: got {n} rows, expected at least 2, which have a covariance")
    scatter: _Scatter | None = None
    device = distances_on(features.device)
    for number, part in enumerate(features.detach().split(rows)):
        progress(number * rows, n)
        scatter = _joined(scatter, part.to(device))
    progress(n, n)
    assert scatter is not None
    return scatter.gaussian()


@dataclass(frozen=True)
class _Scatter:
    """A set of features by its number, its mean less `origin`, and a factor of sum (x - mean)(x - mean)^T."""

    count: int
    origin: Tensor
    mean: Tensor
    factor: Tensor

    def gaussian(self) -> Gaussian:
        return Gaussian(self.origin + self.mean, self.factor / (self.count - 1) ** 0.5)


def _joined(before: _Scatter | None, part: Tensor) -> _Scatter:
    """The set `before`, and the rows of `part` too.

    The scatter of a and b rows together is S_a + S_b + ab/(a + b) s s^T, where s is the shift between the two means
    (Chan, Golub and LeVeque 1979). The last term needs no row of its own: the part's rows less its mean sum to zero, so
    s sqrt(a/(a + b)) added to each of the b rows adds that term alone.

    Features are taken from the first part's mean, so that a mean far from 0 costs the shifts no digits.
    """
    wide = part.double()
    origin = wide.mean(0) if before is None else before.origin
    rows = wide - origin
    count, mean = len(rows), rows.mean(0)
    if before is None:
        return _Scatter(count, origin, mean, _upper(rows))
    total = before.count + count
    shift = mean - before.mean
    rows -= mean - shift * math.sqrt(before.count / total)
    return _Scatter(total, origin, before.mean + shift * (count / total), _upper(torch.cat((before.factor, rows))))


def _upper(matrix: Tensor) -> Tensor:
    """R of the matrix's QR: a factor with the same R^T R."""
    factor: Tensor = torch.linalg.qr(matrix, mode="r").R
    return factor


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Return the Frechet distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Dowson and Landau 1982; of Inception's features it is the FID (Heusel et al. 2017, equation 6).

    Args:
        one: a Gaussian of d numbers, such as `gaussian` makes of features.
        other: another one of d numbers, on the same device.

    Returns:
        The distance in float64, in squares of the features' units. Of equal Gaussians it is 0 up to rounding, which may
        be negative.

    Raises:
        ValueError: another number of features, or another device.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import frechet_distance, gaussian
        >>> real = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(gaussian(real), gaussian(real + 3)), 3)  # four features, each 3 away
        36.0
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(
            f"got Gaussians of {one.mean.numel()} and {other.mean.numel()} features, expected as many; take both "
            "by one net"
        )
    if one.mean.device != other.mean.device:
        raise ValueError(
            f"got Gaussians on {one.mean.device} and {other.mean.device}, expected one device; move the features of one"
        )
    product = one.factor @ other.factor.T
    sum_of = sum_of_singular_values if product.device.type == "cpu" else sum_by_symmetric_eigenvalues
    root = sum_of(product)
    shift = (one.mean - other.mean).square().sum()
    return float(shift + one.factor.square().sum() + other.factor.square().sum() - 2 * root)


def sum_of_singular_values(matrix: Tensor) -> Tensor:
    """Return the sum of the singular values of a matrix [m, n], directly, as a CPU is quick at."""
    values: Tensor = torch.linalg.svdvals(matrix)
    return values.sum()


def sum_by_symmetric_eigenvalues(matrix: Tensor) -> Tensor:
    """Return the sum of the singular values of a matrix [m, n], by eigenvalues, as a GPU is quick at.

    Those of [[0, M], [M^T, 0]] are plus and minus M's singular values, and zeros.
    On a GPU torch takes the singular values themselves by cuSOLVER's Jacobi rotations, sweep after sweep. A symmetric
    matrix is made tridiagonal once.
    """
    rows, columns = matrix.shape
    both = matrix.new_zeros(rows + columns, rows + columns)
    both[:rows, rows:], both[rows:, :rows] = matrix, matrix.T
    values: Tensor = torch.linalg.eigvalsh(both)
    return values.abs().sum() / 2


class GrowingGaussian:
    """A set of features that arrives in batches, as the Gaussian that `gaussian` gives of all.

    Rows wait until there are as many as `gaussian` takes at a time. So the sum is the same whatever the batches.
    """

    def __init__(self) -> None:
        self.count = 0
        self._scatter: _Scatter | None = None
        self._waiting: list[Tensor] = []
        self._found: Gaussian | None = None

    def add(self, features: Tensor) -> None:
        """Take in a batch of features [n, d]. An error leaves the set as it was."""
        scatter, waiting = self._scatter, self._waiting
        missing = _ROWS - self.count % _ROWS
        rest = features
        while len(rest) >= missing:
            scatter = _joined(scatter, torch.cat([*waiting, rest[:missing]]))
            rest, waiting, missing = rest[missing:], [], _ROWS
        if len(rest):
            waiting = [*waiting, rest.clone()]  # the caller may write the next batch to the same place
        self._scatter, self._waiting, self._found = scatter, waiting, None
        self.count += len(features)

    def gaussian(self) -> Gaussian:
        """Return the Gaussian of the samples so far, at least two."""
        if self._found is None:
            scatter = _joined(self._scatter, torch.cat(self._waiting)) if self._waiting else self._scatter
            assert scatter is not None
            self._found = scatter.gaussian()
        return self._found


class FrechetDistance(OfTwoSets[GrowingGaussian]):
    """The Frechet distance of real and generated samples that arrive in batches: 0 is best.

    Of all samples given by `update`, `compute` returns what `frechet_distance` does of their Gaussians. The number is
    the same whatever the batches. Memory doesn't grow with the samples: a set keeps a factor [d, d] and up to 8192
    rows. The distance is taken in float64, on the features' device if that is a CUDA device, else on the CPU.

    It is a plain object. In a Module it adds no parameters and nothing to its `state_dict`.

    Args:
        net: uint8 images [N, 3, H, W] to features [N, d], in eval mode, such as a `FeatureNet`; images are moved to its
            device. None: `update` takes features.
        reset_real_features: if `reset` forgets the real samples too.

    Raises:
        TypeError: `net` isn't a Module.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import FrechetDistance
        >>> draw = torch.Generator().manual_seed(0)
        >>> distance = FrechetDistance()
        >>> for _ in range(3):
        ...     features = torch.randn(100, 4, generator=draw)
        ...     distance.update(features, real=True)
        ...     distance.update(features + 3, real=False)
        >>> round(distance.compute(), 3)  # four features, each 3 away
        36.0
    """

    def __init__(self, net: nn.Module | None = None, *, reset_real_features: bool = True) -> None:
        super().__init__(net, reset_real_features)

    def _empty(self) -> GrowingGaussian:
        return GrowingGaussian()

    def compute(self) -> float:
        """Return the distance of all samples so far, as `frechet_distance` does.

        Raises:
            ValueError: fewer than two samples of either kind.
        """
        self._check_counts(2)
        return frechet_distance(self._real.gaussian(), self._generated.gaussian())
