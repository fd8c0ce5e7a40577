"""Metrics that take batches in a loop return the same numbers as the functions that take whole sets."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.metrics import FrechetDistance, KernelDistance, frechet_distance, gaussian, kernel_distance, two_sets

Metric = FrechetDistance | KernelDistance
SIZE = 30  # samples in a subset of the kernel distance


def kernel_metric(*args: Any, **options: Any) -> KernelDistance:
    return KernelDistance(*args, subset_size=SIZE, seed=5, **options)


def of_whole_sets(made: Callable[..., Metric], real: Tensor, generated: Tensor) -> object:
    if made is FrechetDistance:
        return frechet_distance(gaussian(real), gaussian(generated))
    return kernel_distance(real, generated, SIZE, 5)


MADE = pytest.mark.parametrize("made", [FrechetDistance, kernel_metric])


def drawn(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) + shift


@MADE
@pytest.mark.parametrize("batch", [37, 4096, 8192, 20000])
def test_batches_give_the_number_of_the_whole_sets(made: Callable[..., Metric], batch: int) -> None:
    """The sets are longer than two of the parts that `gaussian` takes. A batch may be smaller or larger than a part."""
    real, generated = drawn(20000, 0), drawn(18000, 1, 0.5)
    metric = made()
    for start in range(0, 20000, batch):
        metric.update(real[start : start + batch], real=True)
        metric.update(generated[start : start + batch], real=False)  # the last batches are empty
    expected = of_whole_sets(made, real, generated)
    assert metric.compute() == expected
    assert metric.compute() == expected


@MADE
def test_a_number_on_the_way_changes_nothing(made: Callable[..., Metric]) -> None:
    real, generated = drawn(9000, 0), drawn(9000, 1, 0.5)
    metric = made()
    for end in range(1000, 9001, 1000):
        for features, is_real in ((real, True), (generated, False)):
            metric.update(features[end - 1000 : end], is_real)
        assert metric.compute() == of_whole_sets(made, real[:end], generated[:end])


@MADE
def test_a_batch_may_be_written_over_afterward(made: Callable[..., Metric]) -> None:
    real, generated = drawn(50, 0), drawn(50, 1)
    metric, place = made(), torch.empty(50, 3)
    for features, is_real in ((real, True), (generated, False)):
        metric.update(place.copy_(features), real=is_real)
    place.zero_()
    assert metric.compute() == of_whole_sets(made, real, generated)


def test_memory_does_not_grow_with_the_samples() -> None:
    """A set keeps fewer than 8192 rows of float32, a factor and two means. A pickle adds a few kilobytes."""
    metric, sizes = FrechetDistance(), []
    for part in range(5):
        metric.update(drawn(8192, part), real=True)
        metric.update(drawn(8191, part), real=False)
        sizes.append(len(pickle.dumps(metric)))
    assert max(sizes) <= 8191 * 3 * 4 + 2 * (3 * 3 + 2 * 3) * 8 + 4 * 1024


@MADE
def test_a_copy_goes_on_alone(made: Callable[..., Metric]) -> None:
    """The metric keeps features without their autograd graph: torch can't copy a tensor that has one."""
    real, generated = drawn(50, 0), nn.Linear(3, 3)(drawn(40, 1))
    metric = made()
    metric.update(real, real=True)
    metric.update(generated, real=False)
    other = copy.deepcopy(metric)
    other.update(real + 1, real=True)
    assert metric.compute() == of_whole_sets(made, real, generated.detach())
    assert other.compute() == of_whole_sets(made, torch.cat((real, real + 1)), generated.detach())


class Net(nn.Module):
    """A net whose three features are a color image's means. It returns each row `times` times, without a graph."""

    times = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        features = images.float().mean((2, 3)) @ self.weight
        assert not features.requires_grad
        self.sizes.append(len(images))
        return features.repeat(self.times, 1)


def images(count: int, seed: int, channels: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, 4, 4), dtype=torch.uint8, generator=rng)


@MADE
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_compared_by_a_net(made: Callable[..., Metric], channels: int) -> None:
    real, generated = images(60, 0, channels), images(40, 1, channels)
    net = Net()
    metric = made(net)
    for part, is_real in ((real[:20], True), (generated, False), (real[:0], True), (real[20:], True)):
        metric.update(part, real=is_real)
    assert net.sizes == [20, 40, 40]
    means = [part.expand(-1, 3, -1, -1).float().mean((2, 3)) for part in (real, generated)]
    assert metric.compute() == of_whole_sets(made, *means)


@MADE
def test_real_samples_may_outlast_a_reset(made: Callable[..., Metric]) -> None:
    real, generated, other = drawn(50, 0), drawn(40, 1), drawn(40, 2, 1.0)
    for keeps in (True, False):
        metric = made(reset_real_features=not keeps)
        metric.update(real, real=True)
        metric.update(generated, real=False)
        before = metric.compute()
        metric.reset()
        if not keeps:
            with pytest.raises(ValueError, match="real samples: got 0"):
                metric.compute()
            metric.update(real, real=True)
        with pytest.raises(ValueError, match="generated samples: got 0"):
            metric.compute()
        metric.update(other, real=False)
        assert metric.compute() == of_whole_sets(made, real, other) != before


def test_after_a_reset_features_may_be_longer() -> None:
    metric = FrechetDistance()
    metric.update(drawn(50, 0), real=True)
    metric.reset()
    longer = drawn(60, 0).reshape(30, 6)
    metric.update(longer, real=True)
    metric.update(longer + 1, real=False)
    assert metric.compute() == frechet_distance(gaussian(longer), gaussian(longer + 1))


@MADE
def test_too_few_samples(made: Callable[..., Metric]) -> None:
    metric = made()
    least = 2 if made is FrechetDistance else SIZE
    for count in (0, least - 1):
        metric.update(drawn(count, 0), real=True)
        with pytest.raises(
            ValueError, match=rf"real samples: got {count}, expected at least {least}; .*real=True\) adds"
        ):
            metric.compute()
    metric.update(drawn(1, 1), real=True)
    metric.update(drawn(least - 1, 2), real=False)
    with pytest.raises(
        ValueError, match=f"generated samples: got {least - 1}, expected at least {least}; .*real=False"
    ):
        metric.compute()
    metric.update(drawn(1, 3), real=False)
    metric.compute()


NAN = torch.full((4, 3), math.nan)


@MADE
@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (NAN, ValueError, "generated samples: got features that aren't finite in 4 of 4 rows, expected finite ones"),
        (torch.ones(4, 2), ValueError, "generated samples: got features of 2 numbers, expected 3 as before"),
        (torch.ones(3), ValueError, r"generated samples: got shape \[3\], expected \[n, d\]"),
        (torch.ones(4, 3).long(), TypeError, "generated samples: got torch.int64, expected floating-point features"),
        ([[1.0] * 3], TypeError, "generated samples: got list, expected a tensor of features"),
    ],
)
def test_a_refused_batch_leaves_the_metric_as_it_was(
    made: Callable[..., Metric], batch: Tensor, error: type[Exception], message: str
) -> None:
    real, generated = drawn(50, 0), drawn(40, 1)
    metric = made()
    metric.update(real, real=True)
    with pytest.raises(error, match=message):
        metric.update(batch, real=False)
    metric.update(generated, real=False)
    with pytest.raises(error, match=message):
        metric.update(batch, real=False)
    assert metric.compute() == of_whole_sets(made, real, generated)


def test_features_of_another_device_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = FrechetDistance()
    metric.update(drawn(5, 0), real=True)
    metric.update(drawn(5, 1), real=False)
    before = metric.compute()
    monkeypatch.setattr(two_sets, "distances_on", lambda device: torch.device("meta"))
    with pytest.raises(ValueError, match=r"got features on meta, expected cpu as before; features\.to\('cpu'\) moves"):
        metric.update(drawn(5, 2), real=True)
    assert metric.compute() == before


def test_images_that_a_net_cannot_take() -> None:
    net = Net()
    metric = FrechetDistance(net)
    metric.update(images(5, 0), real=True)
    metric.update(images(5, 1), real=False)
    before = metric.compute()
    with pytest.raises(TypeError, match=r"got torch.float32 images, expected uint8; ebgan_fast\.data\.to_pixels"):
        metric.update(images(5, 2) / 127.5 - 1, real=True)
    with pytest.raises(
        ValueError, match=r"got images of shape \[5, 2, 4, 4\], expected \[N, C, H, W\] with C of 1 or 3"
    ):
        metric.update(images(5, 2, 2), real=True)
    net.times = 3
    too_many = "real samples: got 15 rows of features from the net for 5 images, expected one row for each image"
    with pytest.raises(ValueError, match=too_many):
        metric.update(images(5, 2), real=True)
    assert metric.compute() == before


def test_what_is_no_metric() -> None:
    with pytest.raises(TypeError, match="net: got str, expected a Module of uint8 images or None; load_feature_net"):
        FrechetDistance("efficientnet-lite0")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="real: got Tensor, expected True for real samples"):
        FrechetDistance().update(drawn(5, 0), real=drawn(5, 1))  # type: ignore[arg-type]
