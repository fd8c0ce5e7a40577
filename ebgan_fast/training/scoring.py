"""Scores of a run's generator: images by a feature net, digits by a classifier, and what the figures are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._progress import Progress
from ..data.image_set import ImageSet, without_margin
from ..data.pixels import to_pixels
from ..metrics.classifier import DigitClassifier
from ..metrics.classifier_scores import DigitScore, score_images
from ..metrics.features import load_feature_net
from ..metrics.image_scorer import ImageScorer
from ..models.families import AnyGenerator
from .sampling import drawn_at_once, images_of, sample_images

_FEW_DIGITS = 1_000
_DRAWN = 100  # samples' noise at a time, whatever the batch: torch's random numbers depend on how many are asked for


class Evaluator:
    """Scores generators by one feature net against one set of images.

    The net is loaded and tried on two of the images at once, so that a score doesn't fail after hours of training. The
    training images' features are computed and cached at the first score.

    Args:
        features: a net's name or file, as `load_feature_net` takes it.
        images: the training images.
        device: of the feature net and of the distances.

    Attributes:
        features: length of a sample's features.
        scorer: compares images with the training images.

    Raises:
        ValueError: no such net, a file that isn't one, a net that can't take these images, or a cache folder that
            can't be written.
    """

    def __init__(self, features: str, images: ImageSet, device: torch.device) -> None:
        net = load_feature_net(features)
        self.features = net.num_features
        self.scorer = ImageScorer(net.to(device), images)
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


def score_digits(
    classifier: DigitClassifier, generator: AnyGenerator, samples: int, seed: int, device: torch.device
) -> dict[str, Any]:
    """Score generated digits by a classifier on a device, without the margin that was laid around them for training."""
    images = without_margin(sample_images(generator, samples, seed, device=device)[:, 0])
    result = score_images(classifier, images)
    return {"classifier_test_accuracy": classifier.test_accuracy, **dataclasses.asdict(result)}


def digits_text(scored: dict[str, Any], samples: int) -> str:
    """Say in lines what `score_digits` found."""
    accuracy = scored["classifier_test_accuracy"]
    result = DigitScore(**{name: value for name, value in scored.items() if name != "classifier_test_accuracy"})
    shares = "  ".join(f"{digit}: {share:.1%}" for digit, share in enumerate(result.class_share))
    lines = [
        f"{samples} generated digits, judged by a classifier of {accuracy:.2%} test accuracy",
        f"  exp E KL(p(y|x) || p(y))   {result.exp_score:.2f} ± {result.exp_score_std:.2f}   (1 worst, 10 best)",
        f"  E KL(p(y|x) || p(y))       {result.kl_conditional_marginal:.3f} nats",
        f"  E KL(p(y) || p(y|x))       {result.kl_marginal_conditional:.3f} nats   (the paper's I')",
        f"  classes   {shares}",
    ]
    if worth := worth_of_digits(samples):
        lines.append(f"  {worth}")
    return "\n".join(lines)


def images_text(scored: dict[str, Any], features: int) -> str:
    """Say in lines what `Evaluator.score` found by so many features."""
    lines = [
        f"{scored['samples']} generated images against {scored['real_images']} training images",
        f"  {scored['features']}   {scored['fd']:.4g}",
        f"  KID   {scored['kid']:.4g} ± {scored['kid_std']:.2g}   (subsets of {scored['kid_subset_size']})",
    ]
    if worth := worth_of(scored, features):
        lines.append(f"  {worth}")
    return "\n".join(lines)


def worth_of_digits(samples: int) -> str | None:
    """Say what a classifier's scores of few samples are worth, in a sentence; None where there are enough."""
    if samples >= _FEW_DIGITS:
        return None
    return (
        f"Of fewer than {_FEW_DIGITS:,} samples the divergences come out too low, as a part has too few of each class, "
        "and the shares are rough. They compare only with figures of as many samples."
    )


def worth_of(scored: dict[str, Any], features: int) -> str | None:
    """Say what a Frechet distance of few images is worth, in a sentence; None where there are enough.

    Of fewer samples than features a covariance has eigenvalues of 0, whatever the images are.
    """
    fewest = min(scored["samples"], scored["real_images"])
    if fewest > features:
        return None
    which = "samples" if scored["samples"] == fewest else "training images"
    return (
        f"{scored['features']} of {fewest:,} {which} and {features:,} features is larger than of many, and compares "
        "only with figures of as many; KID has no such error."
    )


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
