"""Scores on a GPU are those of a CPU, up to rounding."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.data import TensorImages
from ebgan_fast.metrics import ImageScorer
from ebgan_fast.metrics.features import FeatureNet
from ebgan_fast.metrics.frechet import frechet_distance, gaussian
from ebgan_fast.metrics.kernel_distance import kernel_distance

from .test_frechet import PAIRS, exact, reflected, rounding
from .test_image_scorer import noise
from .test_kernel_distance import features as drawn
from .test_kernel_distance import kid_rounding

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

GPU = torch.device("cuda")


@pytest.mark.parametrize("name", PAIRS)
def test_the_distance_has_its_digits(name: str) -> None:
    """The symmetric matrix is twice as large as the one that a CPU takes singular values of."""
    one, other = PAIRS[name]
    gaussians = [gaussian(features.to(GPU)) for features in (one, other)]
    product = float((gaussians[0].factor @ gaussians[1].factor.T).norm())
    size = 2 * one.shape[1]
    bound = rounding(one, other) + 2 * math.sqrt(size) * 2 * reflected(size, size) * product
    assert frechet_distance(*gaussians) == pytest.approx(exact(one, other), rel=0, abs=bound)


def test_kernel_distances_are_of_the_same_subsets() -> None:
    real, fake = drawn(90, 0), drawn(70, 1, 0.5)
    ours = kernel_distance(real.to(GPU), fake.to(GPU), 70, 3)
    # A subset's mean kernels are at most those of the largest rows.
    largest = torch.cat((real, fake)).norm(dim=1).max() * torch.ones(70, 12) / math.sqrt(12)
    bound = kid_rounding(largest, largest)
    assert ours == pytest.approx(kernel_distance(real, fake, 70, 3), rel=0, abs=bound)


def test_features_have_float32s_digits(tmp_path: Path) -> None:
    """A sum of 27 products may be off by as many units of the sum of their sizes; tf32 would be off by thousands."""
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
    # Images that lie there, and images that don't.
    assert scorer.score(images.to(GPU)).fd < scorer.score(noise(30, 0).repeat(1, 1, 3, 3)[..., :5, :5]).fd
