"""Scores of a run's generator against its training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._progress import Progress
from ..data.image_set import ImageSet
from ..data.pixels import to_pixels
from ..metrics.features import load_feature_net
from ..metrics.image_scorer import ImageScorer
from ..models.families import AnyGenerator
from .samples import drawn_at_once, images_of

_DRAWN = 100  # samples' noise at a time, whatever the batch: torch's random numbers depend on how many are asked for


class Evaluator:
    """Scores generators by one feature net against one set of images.

    The net is loaded and tried on two of the images at once, so that a score doesn't fail after hours of training. The
    training images' features are computed and cached at the first score.

    Args:
        features: a net's name or file, as `load_feature_net` takes it.
        images: the training images.
        device: of the feature net and of the distances.

    Raises:
        ValueError: no such net, a file that isn't one, a net that can't take these images, or a cache folder that
            can't be written.
    """

    def __init__(self, features: str, images: ImageSet, device: torch.device) -> None:
        self.scorer = ImageScorer(load_feature_net(features).to(device), images)
        self.scorer.check()

    def score(
        self, generator: AnyGenerator, samples: int, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        """A line of scores.jsonl but for its step: the net's label, Frechet distance, KID and what they were taken of.

        Args:
            generator: in eval mode, on any device.
            samples: images to draw.
            seed: of the noise; the same noise at any batch size and on any device.
            progress: told how far the training images' features are, then the generated ones', then the distances, as
                (share done, text). What it raises ends the score.
        """
        report = progress or (lambda share, text: None)
        return dataclasses.asdict(self.scorer.score(_drawn(generator, samples, seed, report), progress=report))


def _drawn(generator: AnyGenerator, samples: int, seed: int, report: Progress) -> Iterator[Tensor]:
    """Batches of generated images as their pixels will be stored: uint8 [B, C, H, W] on the generator's device."""
    rng = torch.Generator().manual_seed(seed)
    device = next(generator.parameters()).device
    at_once = max(1, drawn_at_once(generator, _DRAWN) // _DRAWN) * _DRAWN
    for first in range(0, samples, at_once):
        report(first / samples, f"generated images: {first} of {samples}")
        starts = range(first, min(first + at_once, samples), _DRAWN)
        counts = [min(_DRAWN, samples - start) for start in starts]
        noise = torch.cat([torch.randn(count, generator.noise_size, generator=rng) for count in counts])
        yield to_pixels(images_of(generator, noise, device=device))
    report(1.0, f"generated images: {samples} of {samples}")
