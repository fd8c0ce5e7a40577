"""Scores on a GPU equal those on a CPU, up to rounding."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.data import TensorImages
from ebgan_fast.metrics import FrechetDistance, ImageScorer, KernelDistance
from ebgan_fast.metrics.features import FeatureNet
from ebgan_fast.metrics.frechet import frechet_distance, gaussian
from ebgan_fast.metrics.kid import kernel_distance
from tests.rounding import relative_bound_nearby

from .test_frechet import PAIRS, exact, reflected, rounding
from .test_image_scorer import noise
from .test_kernel_distance import features as drawn
from .test_kernel_distance import kid_rounding

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

GPU = torch.device("cuda")


@pytest.mark.parametrize("name", PAIRS)
def test_the_distance_has_its_digits(name: str) -> None:
    """The distance keeps its bound of error on a GPU, which decomposes a symmetric matrix of twice the size."""
    one, other = PAIRS[name]
    gaussians = [gaussian(features.to(GPU)) for features in (one, other)]
    product = float((gaussians[0].factor @ gaussians[1].factor.T).norm())
    size = 2 * one.shape[1]
    bound = rounding(one, other) + 2 * math.sqrt(size) * 2 * reflected(size, size) * product
    assert frechet_distance(*gaussians) == pytest.approx(exact(one, other), rel=0, abs=bound)


def test_kernel_distances_are_of_the_same_subsets() -> None:
    real, fake = drawn(90, 0), drawn(70, 1, 0.5)
    ours = kernel_distance(real.to(GPU), fake.to(GPU), 70, 3)
    # The mean kernels of a subset are at most the kernel of the longest rows.
    largest = torch.cat((real, fake)).norm(dim=1).max() * torch.ones(70, 12) / math.sqrt(12)
    bound = kid_rounding(largest, largest)
    assert ours == pytest.approx(kernel_distance(real, fake, 70, 3), rel=0, abs=bound)


@pytest.mark.parametrize("made", [FrechetDistance, lambda: KernelDistance(subset_size=70)])
def test_batches_are_kept_where_they_lie(made: Callable[[], FrechetDistance | KernelDistance]) -> None:
    real, fake = drawn(90, 0).to(GPU), drawn(70, 1, 0.5).to(GPU)
    metric = made()
    for features, is_real in ((real, True), (fake, False)):
        for part in features.split(40):
            metric.update(part, real=is_real)
    of_all = (
        frechet_distance(gaussian(real), gaussian(fake))
        if isinstance(metric, FrechetDistance)
        else kernel_distance(real, fake, 70)
    )
    assert metric.compute() == of_all
    with pytest.raises(ValueError, match="got features on cpu, expected cuda:0 as before"):
        metric.update(real.cpu(), real=True)
    assert metric.compute() == of_all


def test_features_have_float32s_digits(tmp_path: Path) -> None:
    """A sum of 27 products has an error of at most 30 units of the sum of their sizes; tf32 would have thousands."""
    torch.manual_seed(0)
    net = nn.Conv2d(3, 40, 3)

    def apply(weights: nn.Module, images: Tensor) -> Tensor:
        values: Tensor = weights(images.to(next(weights.parameters()).dtype) / 256).flatten(1)
        return values

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: Tensor) -> Tensor:
            return apply(self.net, images)

    images = torch.randint(0, 256, (300, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    truth = apply(copy.deepcopy(net).double(), images)
    sizes = copy.deepcopy(net).double()
    for parameter in sizes.parameters():
        parameter.data.abs_()
    bound = 30 * torch.finfo(torch.float32).eps * apply(sizes, images)
    scorer = ImageScorer(FeatureNet(Net(), "FD", "key", 360).to(GPU), TensorImages(images), cache_folder=tmp_path)
    found = scorer.features(images)
    assert found.device.type == GPU.type
    assert ((found.cpu().double() - truth).abs() <= bound).all()
    assert scorer.real_features().device.type == "cpu"


def test_scores_are_those_of_a_cpu(tmp_path: Path) -> None:
    """Images on the GPU and on the CPU both get the CPU's score, up to the rounding of the features."""
    torch.manual_seed(0)
    weights = nn.Linear(12, 6)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = copy.deepcopy(weights)

        def forward(self, images: Tensor) -> Tensor:
            values: Tensor = self.weights(images.to(self.weights.weight.dtype).flatten(1) / 64)
            return values

    real, fake = noise(200, 0), noise(170, 1, 140.0, 30.0)

    def distances(weight: Tensor, bias: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Return both distances. Like the scorer, it takes features in the inputs' dtype and distances in float64."""
        features = [images.to(weight.dtype).flatten(1) / 64 @ weight.T + bias for images in (one, other)]
        fd = frechet_distance(*map(gaussian, features))
        return torch.tensor([fd, kernel_distance(*features, 170, 0)[0]], dtype=torch.float64)

    inputs = [weights.weight.detach(), weights.bias.detach(), real.float(), fake.float()]
    bound = relative_bound_nearby(distances, *inputs, dtype=torch.float32)

    def score(device: torch.device, images: Tensor) -> Tensor:
        net = FeatureNet(Net(), "FD", "key", 6).to(device)
        found = ImageScorer(net, TensorImages(real), cache_folder=tmp_path / device.type).score(images)
        return torch.tensor([found.fd, found.kid], dtype=torch.float64)

    expected = score(torch.device("cpu"), fake)
    for images in (fake, fake.to(GPU)):
        assert float((score(GPU, images) - expected).norm()) <= 2 * bound * float(expected.norm())
