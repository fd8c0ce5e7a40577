"""What all studies on MNIST share: the images, the classifier, and the scores of a generator by it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..data.image_set import TensorImages, pad_to_square
from ..data.mnist import Mnist, load_mnist
from ..metrics.classifier import DigitClassifier, load_classifier
from ..metrics.classifier_scores import score
from ..models.families import AnyGenerator
from ..training.sampling import sample_images
from .running import Tick

IMAGE_SIZE = 32  # the paper's grid search pads MNIST's 28

_STEPS_BETWEEN_CHECKS = 100  # at most TrainConfig.log_every, whose steps the trainer's own check is of

_SURE = 0.9  # p(y|x) of a sample that counts for a class: 97.9 % of the test digits have more (noise too, of one class)
_COVERED = 0.01  # share of the samples that are surely of a class, for the class to count as covered
_COMPARED = 1000  # images whose distances are the diversity
_BATCH = 500


class StepsAndChecks(Protocol):
    """What all trainers have."""

    def step(self) -> object: ...

    def check_finite(self) -> None: ...

    def close(self) -> None: ...


@functools.cache
def mnist(data: Path | None) -> Mnist:
    """The digits, read once in a process: it takes two seconds."""
    return load_mnist(data)


@functools.cache
def training_images(data: Path | None, size: int = IMAGE_SIZE, device: str = "cpu") -> TensorImages:
    """The training digits in black squares, in a device's memory once for all trials of a process."""
    return TensorImages(pad_to_square(mnist(data).train_images, size)).to(torch.device(device))


@functools.cache
def classifier(data: Path | None, device: torch.device | str = "cpu") -> DigitClassifier:
    """The digit classifier of the project's scores, the same one on any device."""
    return load_classifier(mnist(data), device=device)


def prepare(data: Path | None) -> tuple[dict[str, str], dict[str, float]]:
    """Load the digits and train the classifier if need be, before processes ask for both.

    Returns:
        (what a study's settings say of them, what its conditions do): the classifier differs a little by machine.
    """
    return {"data": training_images(data).fingerprint}, {"classifier_test_accuracy": classifier(data).test_accuracy}


def train(trainer: StepsAndChecks, steps: int, tick: Tick) -> None:
    """All steps of a trial.

    Raises:
        NonFiniteError: a loss or weight became infinite or NaN.
    """
    try:
        for step in range(1, steps + 1):
            tick()
            trainer.step()
            if step % _STEPS_BETWEEN_CHECKS == 0 or step == steps:
                trainer.check_finite()
    finally:
        trainer.close()


def digit_scores(generator: AnyGenerator, samples: int, seed: int, data: Path | None) -> dict[str, Any]:
    """Scores of a generator's digits, as JSON can hold them.

    Args:
        generator: in eval mode, of images [1, 28, 28] or [1, 32, 32]; its device draws and scores.
        samples: how many to draw.
        seed: of the noise.
        data: where the digits are.

    Returns:
        kl_conditional_marginal, kl_marginal_conditional, exp_score: see `metrics.score`.
        class_share: by likeliest class.
        classes: how many digits get at least 1 % of the samples with p(y|x) above 0.9.
        diversity: mean distance of two samples over that of two training images; 0 for a full collapse.
    """
    device = next(generator.parameters()).device
    images = sample_images(generator, samples, seed, device=device)[:, 0]
    with torch.no_grad():
        logits = torch.cat([classifier(data, device)(part) for part in images.split(_BATCH)]).cpu()
    scored = score(logits, splits=1)
    surest, digit = logits.softmax(1).max(1)
    share = torch.bincount(digit[surest > _SURE], minlength=10) / samples
    return {
        "kl_conditional_marginal": scored.kl_conditional_marginal,
        "kl_marginal_conditional": scored.kl_marginal_conditional,
        "exp_score": scored.exp_score,
        "class_share": scored.class_share,
        "classes": int((share >= _COVERED).sum()),
        "diversity": spread(images[:_COMPARED]) / real_spread(data),
    }


@functools.cache
def real_spread(data: Path | None) -> float:
    return spread(mnist(data).train_images[:_COMPARED].float() / 127.5)


def spread(images: Tensor) -> float:
    """Mean distance of two of the images."""
    # Not every device can: Apple's GPUs can't.
    placed = images if images.device.type == "cuda" else images.cpu()
    return float(torch.pdist(placed.flatten(1)).mean())
