"""Scores of a run's generator: images by a feature network, digits by a classifier, and how reliable the scores are."""

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
_DRAWN = 100  # samples whose noise is drawn at a time, whatever the batch: torch's numbers depend on how many it draws


class Evaluator:
    """Scores generators with one feature network against one set of images.

    The network is loaded and tried on two of the images when the evaluator is made, so that a score doesn't fail after
    hours of training. The features of the training images are computed and cached at the first score.

    Args:
        features: the name or file of the feature network, as `load_feature_net` takes it.
        images: the training images.
        device: the device of the feature network and of the distances.

    Attributes:
        features: the number of features of a sample.
        scorer: compares images with the training images.

    Raises:
        ValueError: there is no such network, the file isn't one, the network can't take these images, or the cache
            folder can't be written.
    """

    def __init__(self, features: str, images: ImageSet, device: torch.device) -> None:
        net = load_feature_net(features)
        self.features = net.num_features
        self.scorer = ImageScorer(net.to(device), images)
        self.scorer.check()

    def score(
        self, generator: AnyGenerator, samples: int, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Return a line of scores.jsonl without its step: the network's label, Frechet distance, KID, and the numbers
        of images.

        Args:
            generator: a generator in eval mode, on any device.
            samples: the number of images to draw.
            seed: the seed of the noise. The noise is the same for any batch size and on any device.
            progress: called with (share done, text) for the features of the training images, then for those of the
                generated images, then for the distances. An error that it raises ends the score.
        """
        report = progress or (lambda share, text: None)
        return dataclasses.asdict(self.scorer.score(_drawn(generator, samples, seed, report), progress=report))


def score_digits(
    classifier: DigitClassifier, generator: AnyGenerator, samples: int, seed: int, device: torch.device
) -> dict[str, Any]:
    """Score generated digits with a classifier, without the margin that was added around the digits for training.

    Args:
        classifier: the classifier.
        generator: a generator in eval mode.
        samples: the number of digits to draw.
        seed: the seed of the noise.
        device: the device of the classifier.

    Returns:
        The classifier's test accuracy and the fields of a `DigitScore`.
    """
    images = without_margin(sample_images(generator, samples, seed, device=device)[:, 0])
    result = score_images(classifier, images)
    return {"classifier_test_accuracy": classifier.test_accuracy, **dataclasses.asdict(result)}


def digits_text(scored: dict[str, Any], samples: int) -> str:
    """Return lines of text that report the scores of `score_digits`."""
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
    """Return lines of text that report the scores of `Evaluator.score`, for a network with this number of features."""
    lines = [
        f"{scored['samples']} generated images against {scored['real_images']} training images",
        f"  {scored['features']}   {scored['fd']:.4g}",
        f"  KID   {scored['kid']:.4g} ± {scored['kid_std']:.2g}   (subsets of {scored['kid_subset_size']})",
    ]
    if worth := worth_of(scored, features):
        lines.append(f"  {worth}")
    return "\n".join(lines)


def worth_of_digits(samples: int) -> str | None:
    """Return a sentence about how reliable a classifier's scores of few samples are. None: there are enough samples."""
    if samples >= _FEW_DIGITS:
        return None
    return (
        f"With fewer than {_FEW_DIGITS:,} samples the divergences are too low, because each part has too few samples "
        "of each class, and the shares are imprecise. Compare them only with scores of as many samples."
    )


def worth_of(scored: dict[str, Any], features: int) -> str | None:
    """Return a sentence about how reliable a Frechet distance of few images is. None: there are enough images.

    With fewer samples than features, the covariance has eigenvalues of 0, whatever the images are.
    """
    fewest = min(scored["samples"], scored["real_images"])
    if fewest > features:
        return None
    which = "samples" if scored["samples"] == fewest else "training images"
    return (
        f"{scored['features']} of only {fewest:,} {which} for {features:,} features is too large. Compare it only with "
        "scores of as many; KID has no such error."
    )


def _drawn(generator: AnyGenerator, samples: int, seed: int, report: Progress) -> Iterator[Tensor]:
    """Yield batches of generated images as they would be stored in files: uint8 [B, C, H, W] on the generator's
    device."""
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
