"""The kernel distance equals its formula and torchmetrics' result."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import KernelInceptionDistance

from ebgan_fast.metrics import KernelDistance
from ebgan_fast.metrics import kid as subject
from ebgan_fast.metrics.kid import kernel_distance
from tests.ops.budget import ULPS

EPS = torch.finfo(torch.float64).eps


def plain_kid(one: Tensor, other: Tensor) -> float:
    """Return the unbiased kernel distance, from pairs of different samples in a set and all pairs between the sets."""
    a, b = one.double(), other.double()
    n, d = a.shape
    within = [((x @ x.T / d + 1) ** 3).fill_diagonal_(0).sum() / (n * (n - 1)) for x in (a, b)]
    return float(within[0] + within[1] - 2 * ((a @ b.T / d + 1) ** 3).mean())


def kid_rounding(one: Tensor, other: Tensor) -> float:
    """Return a first-order bound for the difference of two computations of the kernel distance.

    Both computations are differences of mean kernels. A kernel is the cube of a sum over d, and its mean is a sum over
    n^2.
    """
    a, b = one.double(), other.double()
    n, d = a.shape
    means = sum(float(((x @ y.T).abs() / d + 1).pow(3).mean()) for x, y in ((a, a), (b, b), (a, b), (a, b)))
    return 2 * EPS * (3 * math.log2(d) / 2 + math.log2(n) + ULPS) * means


def features(n: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, 12, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("size", [2, 20, 70])
@pytest.mark.parametrize("seed", [0, 3])
def test_torchmetrics_draws_the_same_subsets(size: int, seed: int) -> None:
    """Scores can then be compared with those that torchmetrics gave before."""

    class Given(torch.nn.Module):
        num_features = 12

        def forward(self, features: Tensor) -> Tensor:
            return features

    real, fake = features(90, 0), features(70, 1, 0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        theirs = KernelInceptionDistance(feature=Given(), subsets=subject.SUBSETS, subset_size=size)
    metric = KernelDistance(subset_size=size, seed=seed)
    for features_of, is_real in ((real, True), (fake, False)):
        for batch in features_of.split(25):
            theirs.update(batch.double(), real=is_real)
            metric.update(batch, real=is_real)
    torch.manual_seed(seed)
    mean, std = (float(value) for value in theirs.compute())
    # The largest kernel of the whole sets is a bound for a mean of kernels in a subset.
    largest = torch.cat((real, fake)).double().square().sum(1).max()
    bound = 2 * EPS * (3 * math.log2(12) / 2 + math.log2(size) + ULPS) * 4 * float((largest / 12 + 1) ** 3)
    ours = metric.compute()
    assert ours == pytest.approx((mean, std), rel=0, abs=bound)
    assert kernel_distance(real, fake, size, seed + 1) != ours


def test_whole_sets_need_no_subsets() -> None:
    real, fake = features(50, 0), features(50, 1, 0.5)
    mean, std = kernel_distance(real, fake, 50, 0)
    assert mean == pytest.approx(plain_kid(real, fake), rel=0, abs=kid_rounding(real, fake))
    assert std == 0


def test_the_global_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    kernel_distance(features(30, 0), features(20, 1), 10, 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("at_once", [3, 20, 100])
def test_subsets_at_a_time_change_rounding_alone(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    real, fake = features(40, 0), features(30, 1, 0.5)
    one = kernel_distance(real, fake, 10, 0)
    asked: list[int] = []

    def most_at_once(device: torch.device, bytes_each: int, most: int) -> int:
        asked.append(bytes_each)
        return at_once

    monkeypatch.setattr(subject, "most_at_once", most_at_once)
    largest = torch.cat((real, fake)).double().square().sum(1).max()
    bound = 2 * EPS * (3 * math.log2(12) / 2 + math.log2(10) + ULPS) * 4 * float((largest / 12 + 1) ** 3)
    assert kernel_distance(real, fake, 10, 0) == pytest.approx(one, rel=0, abs=bound)
    # A subset takes twenty rows of 12 numbers and two 10 x 10 kernels, in float64.
    assert asked == [8 * (20 * 12 + 2 * 100)]


@pytest.mark.parametrize(
    ("real", "generated", "size", "error", "message"),
    [
        (features(9, 0).long(), features(9, 1), 3, TypeError, "real: got torch.int64, expected floating-point"),
        (features(9, 0), features(9, 1)[0], 3, ValueError, r"generated: got shape \[12\], expected \[n, d\]"),
        (features(9, 0), features(9, 1)[:, :5], 3, ValueError, "features of 12 and 5 numbers, expected the same"),
        (
            features(9, 0),
            features(9, 1) / 0,
            3,
            ValueError,
            "generated: got features that aren't finite in 9 of 9 rows",
        ),
        (features(9, 0), features(7, 1), 8, ValueError, "size: got 8 of 9 real and 7 generated samples, expected 2 to"),
        (features(9, 0), features(7, 1), 1, ValueError, "size: got 1 of 9 real and 7 generated samples, expected 2 to"),
    ],
)
def test_sets_that_do_not_compare(
    real: Tensor, generated: Tensor, size: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kernel_distance(real, generated, size)


def test_sets_on_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "check_features", lambda features, name: None)  # the check would read the numbers
    with pytest.raises(ValueError, match="got features on cpu and meta, expected one device"):
        kernel_distance(features(9, 0), features(9, 1).to("meta"), 3)


def test_subsets_are_whole_numbers_of_samples() -> None:
    with pytest.raises(TypeError, match="subset_size: got float, expected a whole number of samples"):
        KernelDistance(subset_size=5.0)  # type: ignore[arg-type]


def test_subsets_have_pairs() -> None:
    with pytest.raises(ValueError, match="subset_size: got 1, expected at least 2, a pair of samples"):
        KernelDistance(subset_size=1)
