"""The Frechet distance of two sets of features, each taken as a Gaussian: |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)).

The covariances aren't formed, and no matrix square root is computed. The centered features divided by sqrt(n - 1) have
the QR decomposition Q R, so C = R^T R. The eigenvalues of C1 C2 are the squares of the singular values of R1 R2^T. So
the trace of the root is the sum of these singular values.

The reason is rounding. Each singular value has an error of one rounding of the largest. The eigenvalues of C1 C2, or of
sqrt(C1) C2 sqrt(C1), have such errors too, but a root of them must be taken. The root of an eigenvalue 0 then has an
error of up to the root of the rounding: 1.5e-8 of the largest. This happens for each direction in which a set doesn't
vary: hundreds of directions if the set has fewer images than features.

Features arrive in parts, only one of which is in memory at a time. The mean needn't be known before: see `_joined`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .features import check_features, distances_on
from .two_sets import OfTwoSets

_ROWS = 8192  # rows that are taken at a time: 84 MB if each has 1280 numbers in float64


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian that describes a set of features, by its mean and a factor of its covariance.

    Attributes:
        mean: the mean, float64 [d].
        factor: a matrix with factor^T factor equal to the covariance, float64 [min(n, d), d] for n samples.

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
    because squares would lose digits. The rows are taken in parts, and each part is joined to the factor of the parts
    before it, so that memory doesn't grow with n.

    Args:
        features: [n, d] of a floating-point dtype, finite, n at least 2.
        progress: called with the number of finished rows and of all rows, before each part and at the end. An error
            that it raises ends the work.
        rows: the number of rows in a part.

    Returns:
        The Gaussian: float64, in the features' units, on their device if that is a CUDA device, else on the CPU.

    Raises:
        TypeError: `features` isn't a floating-point tensor.
        ValueError: `features` has another shape, fewer than two rows, or a number that isn't finite; or `rows` is below
            1.

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
    """A set of features, kept as its count, its mean minus `origin`, and a factor of sum (x - mean)(x - mean)^T."""

    count: int
    origin: Tensor
    mean: Tensor
    factor: Tensor

    def gaussian(self) -> Gaussian:
        return Gaussian(self.origin + self.mean, self.factor / (self.count - 1) ** 0.5)


def _joined(before: _Scatter | None, part: Tensor) -> _Scatter:
    """Return the scatter of the set `before` with the rows of `part` added.

    The scatter of a and b rows together is S_a + S_b + ab/(a + b) s s^T, where s is the shift between the two means
    (Chan, Golub and LeVeque 1979). The last term needs no row of its own. The part's rows minus their mean sum to zero.
    So if s sqrt(a/(a + b)) is added to each of these b rows, exactly the last term is added to the scatter.

    The first part's mean is subtracted from all features, so that the shifts lose no digits if the mean is far from 0.
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
    """Return R of the matrix's QR decomposition: R^T R equals the matrix's own M^T M."""
    factor: Tensor = torch.linalg.qr(matrix, mode="r").R
    return factor


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Return the Frechet distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The formula is that of Dowson and Landau 1982. For Inception's features the distance is the FID (Heusel et al. 2017,
    equation 6).

    Args:
        one: a Gaussian of d numbers, such as `gaussian` makes of features.
        other: another Gaussian of d numbers, on the same device.

    Returns:
        The distance, computed in float64, in squares of the features' units. For equal Gaussians it is 0 up to
        rounding, and may be negative.

    Raises:
        ValueError: the Gaussians have different numbers of features, or lie on different devices.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import frechet_distance, gaussian
        >>> real = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(gaussian(real), gaussian(real + 3)), 3)  # four features, each 3 away
        36.0
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(
            f"got Gaussians of {one.mean.numel()} and {other.mean.numel()} features, expected the same number; "
            "compute both with one net"
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
    """Return the sum of the singular values of a matrix [m, n], computed directly, which is fast on a CPU."""
    values: Tensor = torch.linalg.svdvals(matrix)
    return values.sum()


def sum_by_symmetric_eigenvalues(matrix: Tensor) -> Tensor:
    """Return the sum of the singular values of a matrix [m, n], computed by eigenvalues, which is fast on a GPU.

    The eigenvalues of [[0, M], [M^T, 0]] are plus and minus M's singular values, and zeros. On a GPU torch computes
    singular values by cuSOLVER's Jacobi rotations, in many sweeps. For eigenvalues it reduces the symmetric matrix to
    tridiagonal form only once.
    """
    rows, columns = matrix.shape
    both = matrix.new_zeros(rows + columns, rows + columns)
    both[:rows, rows:], both[rows:, :rows] = matrix, matrix.T
    values: Tensor = torch.linalg.eigvalsh(both)
    return values.abs().sum() / 2


class GrowingGaussian:
    """A set of features that arrives in batches, kept as the Gaussian that `gaussian` returns for all of them.

    Rows wait until there are as many as `gaussian` takes at a time. So the result doesn't depend on the batches' sizes.
    """

    def __init__(self) -> None:
        self.count = 0
        self._scatter: _Scatter | None = None
        self._waiting: list[Tensor] = []
        self._found: Gaussian | None = None

    def add(self, features: Tensor) -> None:
        """Add a batch of features [n, d]. If an error is raised, the set is unchanged."""
        scatter, waiting = self._scatter, self._waiting
        missing = _ROWS - self.count % _ROWS
        rest = features
        while len(rest) >= missing:
            scatter = _joined(scatter, torch.cat([*waiting, rest[:missing]]))
            rest, waiting, missing = rest[missing:], [], _ROWS
        if len(rest):
            waiting = [*waiting, rest.clone()]  # the caller may write the next batch into the same memory
        self._scatter, self._waiting, self._found = scatter, waiting, None
        self.count += len(features)

    def gaussian(self) -> Gaussian:
        """Return the Gaussian of all samples so far. There must be at least two."""
        if self._found is None:
            scatter = _joined(self._scatter, torch.cat(self._waiting)) if self._waiting else self._scatter
            assert scatter is not None
            self._found = scatter.gaussian()
        return self._found


class FrechetDistance(OfTwoSets[GrowingGaussian]):
    """The Frechet distance of real and generated samples that arrive in batches: 0 is best.

    `update` adds samples. `compute` returns the `frechet_distance` of the Gaussians of all samples added so far. The
    result doesn't depend on how samples are divided into batches. Memory doesn't grow with the number of samples: a set
    keeps a factor [d, d] and up to 8192 rows. The distance is computed in float64, on the features' device if that is a
    CUDA device, else on the CPU.

    The metric is a plain object. As an attribute of a Module it adds no parameters and nothing to the `state_dict`.

    Args:
        net: a Module in eval mode from uint8 images [N, 3, H, W] to features [N, d], such as a `FeatureNet`. Images are
            moved to its device. None: `update` takes features.
        reset_real_features: True if `reset` also forgets the real samples.

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
        """Return the Frechet distance of all samples so far; see `frechet_distance`.

        Raises:
            ValueError: there are fewer than two real or fewer than two generated samples.
        """
        self._check_counts(2)
        return frechet_distance(self._real.gaussian(), self._generated.gaussian())
