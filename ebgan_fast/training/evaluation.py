"""Scores of a run's generator against its training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..data.image_set import ImageSet
from ..data.pixels import to_pixels
from ..metrics.features import load_feature_net
from ..metrics.frechet import ImageScorer, Progress
from ..models.families import AnyGenerator
from .samples import images_of

_BATCH = 100


class Evaluator:
    """Scores generators by one feature net against one set of images, whose features are computed once and cached.

    Args:
        features: a net's name or file, as `load_feature_net` takes it.
        images: the training images.
        device: of the feature net.
        progress: told how far the training images' features are, as (share done, text).

    Raises:
        ValueError: no such net, or a file that isn't one.
    """

    def __init__(self, features: str, images: ImageSet, device: torch.device, progress: Progress | None = None) -> None:
        net = load_feature_net(features).to(device)
        self.scorer = ImageScorer(net, images, progress=progress)

    def score(self, generator: AnyGenerator, samples: int, seed: int) -> dict[str, Any]:
        """A line of scores.jsonl but for its step: the net's label, Frechet distance, KID and what they were taken of.

        Args:
            generator: in eval mode, on any device.
            samples: images to draw.
            seed: of the noise; the same noise at any batch size and on any device.
        """
        return dataclasses.asdict(self.scorer.score(_drawn(generator, samples, seed)))


def _drawn(generator: AnyGenerator, samples: int, seed: int) -> Iterator[Tensor]:
    """Batches of generated images as their pixels will be stored: uint8 [B, C, H, W]."""
    rng = torch.Generator().manual_seed(seed)
    for first in range(0, samples, _BATCH):
        noise = torch.randn(min(_BATCH, samples - first), generator.noise_size, generator=rng)
        yield to_pixels(images_of(generator, noise))
