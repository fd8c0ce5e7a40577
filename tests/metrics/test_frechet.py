"""The Frechet distance equals a computation with 60 digits, closed forms, and torchmetrics' result."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from ebgan_fast.metrics import FrechetDistance
from ebgan_fast.metrics.frechet import (
    Gaussian,
    frechet_distance,
    gaussian,
    sum_by_symmetric_eigenvalues,
    sum_of_singular_values,
)
from tests.ops.budget import ULPS
from tests.rounding import assert_within_eager

U = torch.finfo(torch.float64).eps / 2


def distance(one: Tensor, other: Tensor) -> float:
    return frechet_distance(gaussian(one), gaussian(other))


def reflected(rows: int, columns: int) -> float:
    """Return the relative error (Frobenius norm) of a matrix after `columns` Householder reflections b - t v v'b.

    The norm |t v v'| is 2. The sums of v'b and of t over the rows have errors of `rows` units, and six operations
    follow.
    """
    return columns * (4 * rows + 9) * U


def rounding(one: Tensor, other: Tensor, parts: int = 1) -> float:
    """Return a first-order bound of the distance's error.

    A mean has an error of n units of the mean absolute value, and so have all centered values of its column. The
    computed factor is the exact factor of features with the reflections' error, once for each part. The error of the
    sum of singular values is at most the sum of the error matrix's singular values: sqrt(d) times its length. Error
    matrices come from either factor, from their product, and from the reflections on its two sides.
    """
    lengths, errors, shifts = [], [], []
    for features in (one.double(), other.double()):
        n, d = features.shape
        length = float((features - features.mean(0)).norm()) / math.sqrt(n - 1)
        shift = n * U * float(features.abs().mean(0).norm())
        lengths.append(length)
        shifts.append(shift)
        errors.append((parts * reflected(n + d, d) + U) * length + math.sqrt(n / (n - 1)) * shift)
    (a, b), (e, f) = lengths, errors
    means = float((one.double().mean(0) - other.double().mean(0)).norm())
    traces = 2 * (a * e + b * f) + d * d * U * (a * a + b * b)
    root = math.sqrt(d) * (a * f + b * e + (d * U + 2 * reflected(d, d)) * a * b)
    return 2 * means * sum(shifts) + (d + 3) * U * means**2 + traces + 2 * root


def exact(one: Tensor, other: Tensor) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), computed with 60 digits.

    Roots of numbers near zero lose half of the digits.
    """
    with mpmath.workdps(60):
        (m, c), (k, e) = (_moments(features) for features in (one, other))
        values, vectors = mpmath.eigsy(c)
        root = vectors * mpmath.diag([mpmath.sqrt(max(value, 0)) for value in values]) * vectors.T
        product = root * e * root
        roots = [mpmath.sqrt(max(value, 0)) for value in mpmath.eigsy((product + product.T) / 2, eigvals_only=True)]
        traces = sum(c[i, i] + e[i, i] for i in range(len(m)))
        return float(sum((x - y) ** 2 for x, y in zip(m, k, strict=True)) + traces - 2 * sum(roots))


def _moments(features: Tensor) -> tuple[list[mpmath.mpf], mpmath.matrix]:
    rows = features.double().tolist()
    n, d = features.shape
    means = [mpmath.fsum(row[column] for row in rows) / n for column in range(d)]
    centered = mpmath.matrix([[row[column] - means[column] for column in range(d)] for row in rows])
    return means, centered.T * centered / (n - 1)


def drawn(n: int, d: int, seed: int, rank: int | None = None) -> Tensor:
    """Return correlated random features, float32 [n, d], with a mean other than 0. They vary in `rank` directions."""
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(rank or d, d, generator=rng) * torch.logspace(0, -2, d)
    return torch.randn(n, rank or d, generator=rng) @ directions + torch.rand(d, generator=rng)


PAIRS = {
    "many images": (drawn(40, 8, 0), drawn(30, 8, 1)),
    "fewer images than features": (drawn(40, 8, 0), drawn(4, 8, 1)),
    "both fewer": (drawn(5, 8, 0), drawn(3, 8, 1)),
    "two images": (drawn(2, 8, 0), drawn(2, 8, 1)),
    "features that repeat others": (drawn(40, 4, 0).repeat(1, 2), drawn(40, 4, 1).repeat(1, 2)),
    "features that don't vary": (drawn(30, 8, 0) * (torch.arange(8) > 3), drawn(30, 8, 1) * (torch.arange(8) > 3)),
    "a mean far off": (drawn(30, 8, 0) + 1000, drawn(30, 8, 1) + 1000),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_distance_has_its_digits(name: str) -> None:
    one, other = PAIRS[name]
    assert distance(one, other) == pytest.approx(exact(one, other), rel=0, abs=rounding(one, other))
    assert abs(distance(one, one)) < rounding(one, one)


def hadamard(size: int) -> Tensor:
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix


def test_the_distance_of_uncorrelated_features() -> None:
    """The distance is known: the columns of a Hadamard matrix sum to 0 and are orthogonal.

    So the covariances are diagonal. A column that is scaled by a in one set and by b in the other adds 16/15 (a - b)^2.
    """
    columns = hadamard(16)[:, 1:11]
    a, b = [3, 0, 5, 1, 0, 2, 7, 0, 4, 6], [1, 2, 0, 4, 0, 2, 9, 3, 0, 5]
    mean = 3
    one, other = columns * torch.tensor(a), columns * torch.tensor(b) + mean
    expected = sum(Fraction((x - y) ** 2 * 16, 15) + mean**2 for x, y in zip(a, b, strict=True))
    assert distance(one, other) == pytest.approx(float(expected), rel=0, abs=rounding(one, other))


def test_sets_that_vary_in_other_directions_have_nothing_in_common() -> None:
    """The distance of such sets is the sum of the traces, at any angle to the axes."""
    turn = torch.linalg.qr(drawn(12, 12, 3).double()).Q
    columns = hadamard(16)[:, 1:13].double()
    one, other = (columns * chosen @ turn for chosen in (torch.arange(12) < 5, torch.arange(12) >= 5))
    expected = 12 * 16 / 15
    # The rotation itself has the errors of the reflections that made it, and of a product.
    turned = (2 * reflected(12, 12) + 12 * U) * expected
    assert distance(one, other) == pytest.approx(expected, rel=0, abs=rounding(one, other) + 2 * turned)


@pytest.mark.parametrize("sum_of", [sum_of_singular_values, sum_by_symmetric_eigenvalues])
def test_singular_values_by_either_way(sum_of: object) -> None:
    """The ways of a CPU and of a GPU both give the known singular values.

    [[3, 0], [4, 5]] has sqrt(45) and sqrt(5). An outer product has the product of the vectors' lengths.
    """
    assert callable(sum_of)
    known = {
        3 * math.sqrt(5) + math.sqrt(5): torch.tensor([[3.0, 0.0], [4.0, 5.0]]),
        5.0 * 13.0: torch.outer(torch.tensor([3.0, 4.0, 0.0]), torch.tensor([5.0, 0.0, 12.0, 0.0, 0.0])),
        7.0: torch.tensor([[7.0]]),
    }
    for expected, matrix in known.items():
        for given in (matrix.double(), matrix.T.double()):
            size = sum(given.shape)
            bound = math.sqrt(size) * (2 * reflected(size, size) + U) * float(given.norm())
            assert float(sum_of(given)) == pytest.approx(expected, rel=0, abs=bound)


@pytest.mark.parametrize("rows", [1, 7, 16])
@pytest.mark.parametrize("name", PAIRS)
def test_the_distance_of_parts_has_its_digits(name: str, rows: int) -> None:
    one, other = PAIRS[name]
    parts = -(-len(one) // rows)
    found = frechet_distance(gaussian(one, rows=rows), gaussian(other, rows=rows))
    assert found == pytest.approx(exact(one, other), rel=0, abs=rounding(one, other, parts))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance, computed exactly and rounded to float64."""
    rows = [[Fraction(value) for value in row] for row in features.tolist()]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    centered = [[value - mean for value, mean in zip(row, means, strict=True)] for row in rows]
    columns = list(zip(*centered, strict=True))
    covariance = [
        [float(sum(x * y for x, y in zip(one, other, strict=True)) / (len(rows) - 1)) for other in columns]
        for one in columns
    ]
    return torch.tensor([float(mean) for mean in means], dtype=torch.float64), torch.tensor(covariance).double()


@pytest.mark.parametrize("rows", [1, 7, 16])
@pytest.mark.parametrize("far", [0, 10, 1000, 10**6])
def test_parts_lose_no_digits_that_the_whole_set_keeps(far: int, rows: int) -> None:
    """The error is a few units for each part, even if the mean is far from 0.

    Sums of squares would lose twice as many digits as the mean has.
    """
    features = drawn(40, 6, 2).double() + far
    mean, covariance = moments(features)
    centered = features - features.mean(0)
    factor = torch.linalg.qr(centered, mode="r").R / math.sqrt(39)
    found = gaussian(features, rows=rows)
    parts = -(-40 // rows)
    for what, got, truth, eager in (
        ("mean", found.mean, mean, features.mean(0)),
        ("covariance", found.factor.T @ found.factor, covariance, factor.T @ factor),
    ):
        assert_within_eager(got, truth, eager, torch.float64, what, units=ULPS * parts)


@pytest.mark.parametrize("rows", [1, 7, 16])
def test_features_may_come_in_parts(rows: int) -> None:
    one = PAIRS["many images"][0]
    parts = -(-40 // rows)
    told: list[tuple[int, int]] = []
    of_parts = gaussian(one, lambda done, total: told.append((done, total)), rows=rows)
    assert told == [(part * rows, 40) for part in range(parts)] + [(40, 40)]
    assert gaussian(drawn(3, 8, 0), rows=rows).factor.shape == (3, 8)
    assert of_parts.factor.shape == (8, 8)


def test_parts_of_no_rows() -> None:
    with pytest.raises(ValueError, match="rows: got 0, expected at least 1"):
        gaussian(drawn(3, 8, 0), rows=0)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ([[1.0], [2.0]], TypeError, "features: got list, expected a tensor of features"),
        (torch.ones(3, 2, dtype=torch.uint8), TypeError, "features: got torch.uint8, expected floating-point features"),
        (torch.ones(3), ValueError, r"features: got shape \[3\], expected \[n, d\].*flatten\(1\)"),
        (torch.ones(3, 0), ValueError, r"features: got shape \[3, 0\], expected \[n, d\]"),
        (torch.ones(1, 2), ValueError, "features: got 1 rows, expected at least 2"),
        (
            torch.tensor([[1.0], [math.nan], [math.inf]]),
            ValueError,
            "that aren't finite in 2 of 3 rows, expected finite",
        ),
    ],
)
def test_what_is_no_set_of_features(features: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gaussian(features)


def test_gaussians_that_do_not_compare() -> None:
    one = gaussian(drawn(9, 4, 0))
    with pytest.raises(ValueError, match="got Gaussians of 4 and 3 features, expected the same number"):
        frechet_distance(one, gaussian(drawn(9, 3, 0)))
    elsewhere = Gaussian(one.mean.to("meta"), one.factor.to("meta"))
    with pytest.raises(ValueError, match="got Gaussians on cpu and meta, expected one device"):
        frechet_distance(one, elsewhere)


def test_torchmetrics_says_the_same() -> None:
    """torchmetrics takes eigenvalues of the covariances' product, and covariances as differences of second moments.

    The sums of the moments have errors of log2(n)/2 and a few units, which go into both traces and both sides of the
    root. An eigenvalue has an error of d units of the largest one, and its root has this error divided by twice the
    root.
    """

    class Given(torch.nn.Module):
        num_features = 8

        def forward(self, features: Tensor) -> Tensor:
            return features

    one, other = PAIRS["many images"]
    theirs = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    ours = FrechetDistance()
    for features, real in ((one, True), (other, False)):
        for batch in features.double().split(12):
            theirs.update(batch, real=real)
            ours.update(batch, real=real)
    roots = torch.linalg.svdvals(gaussian(one).factor @ gaussian(other).factor.T)
    moments = sum(float(features.double().square().sum(1).mean()) for features in (one, other))
    of_roots = float((8 * roots.max() ** 2 / (2 * roots)).sum())
    bound = 2 * U * (4 * (math.log2(40) / 2 + ULPS) * moments + 2 * of_roots)
    assert ours.compute() == pytest.approx(float(theirs.compute()), rel=0, abs=bound + rounding(one, other))
