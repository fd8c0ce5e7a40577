"""MNIST for the studies: the images, the classifier, and its scores of a generator, on the study's device."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...data.image_set import TensorImages, pad_to_square
from ...data.mnist import Mnist, load_mnist
from ...metrics.classifier import DigitClassifier, load_classifier
from ...metrics.classifier_scores import score
from ...models.families import AnyGenerator
from ...training.sampling import sample_images
from ..framework.checks import check_enough
from ..framework.study import DigitOptions

IMAGE_SIZE = 32  # pixels; the paper's grid search pads MNIST's 28 to 32

# The p(y|x) above which a sample counts for class y: 97.9 % of the test digits have more. Noise has more too, for one
# class.
_SURE = 0.9
_COVERED = 0.01  # share of the samples that must count for a class, so that the class is covered
_COMPARED = 1000  # images whose distances give the diversity
_BATCH = 500

_Self = TypeVar("_Self", bound="Digits")


class Digits:
    """The digits of a study's run, read once. They are sent to other processes, and each puts them on its device once.

    Args:
        mnist: the images and labels.
        device: the device on which networks are trained and scored.
        size: the side of the training images in pixels. They are padded with black.
    """

    def __init__(self, mnist: Mnist, device: str = "cpu", size: int = IMAGE_SIZE) -> None:
        self.mnist = mnist
        self.device = torch.device(device)
        self.size = size

    @classmethod
    def of(cls: type[_Self], options: DigitOptions, size: int = IMAGE_SIZE) -> _Self:
        """Read the digits that a command's options name.

        Raises:
            DataError (a ValueError): there are no digits to read.
        """
        return cls(load_mnist(options.data), options.torch_device, size)

    @classmethod
    def with_batches(cls: type[_Self], options: DigitOptions, batch_size: int, size: int = IMAGE_SIZE) -> _Self:
        """Read the digits that a command's options name, for training in batches of this size.

        Raises:
            ValueError: there are no digits to read, or fewer than a batch.
        """
        digits = cls.of(options, size)
        check_enough("batch_size", batch_size, len(digits.mnist.train_images))
        return digits

    def __getstate__(self) -> dict[str, Any]:
        # Send arrays, because tensors would go through shared memory. A container has 64 MiB of it, and these take 55.
        arrays = [part.numpy() for part in self.mnist]
        return {"mnist": arrays, "device": str(self.device), "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tensors = [torch.from_numpy(array) for array in state["mnist"]]
        Digits.__init__(self, Mnist(*tensors), state["device"], state["size"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """The fingerprint of the training images."""
        return {"data": self._padded.fingerprint}

    def conditions(self) -> Mapping[str, Any]:
        """Train the classifier if need be, and return its accuracy. Each machine trains its own, and these differ a
        little."""
        return {"classifier_test_accuracy": self.classifier.test_accuracy}

    @functools.cached_property
    def _padded(self) -> TensorImages:
        return TensorImages(pad_to_square(self.mnist.train_images, self.size))

    @functools.cached_property
    def images(self) -> TensorImages:
        """The training images on the device."""
        return self._padded.to(self.device)

    @functools.cached_property
    def classifier(self) -> DigitClassifier:
        """The digit classifier of the project's scores. All devices of a machine use the same one."""
        return load_classifier(self.mnist, device=self.device)

    @functools.cached_property
    def _real_spread(self) -> float:
        return spread(self.mnist.train_images[:_COMPARED].to(self.device).float() / 127.5)

    def scores(self, generator: AnyGenerator, samples: int, seed: int) -> dict[str, Any]:
        """Return the scores of a generator's digits, as JSON can hold them.

        Args:
            generator: a generator in eval mode, on the device, of images [1, 28, 28] or [1, 32, 32].
            samples: the number of digits to draw.
            seed: the seed of the noise.

        Returns:
            kl_conditional_marginal, kl_marginal_conditional, exp_score: see `metrics.score`.
            class_share: for each digit, the share of the samples whose likeliest class it is.
            classes: the number of digits that get at least 1 % of the samples with p(y|x) above 0.9.
            diversity: the mean distance of two samples, divided by that of two training images. A full collapse has 0.
        """
        images = sample_images(generator, samples, seed, device=self.device)[:, 0]
        with torch.no_grad():
            logits = torch.cat([self.classifier(part) for part in images.split(_BATCH)]).cpu()
        scored = score(logits, splits=1)
        surest, digit = logits.softmax(1).max(1)
        share = torch.bincount(digit[surest > _SURE], minlength=10) / samples
        return {
            "kl_conditional_marginal": scored.kl_conditional_marginal,
            "kl_marginal_conditional": scored.kl_marginal_conditional,
            "exp_score": scored.exp_score,
            "class_share": scored.class_share,
            "classes": int((share >= _COVERED).sum()),
            "diversity": spread(images[:_COMPARED]) / self._real_spread,
        }


class UnscoredDigits(Digits):
    """The digits, without a classifier that scores generated digits."""

    def conditions(self) -> dict[str, Any]:
        """Return nothing for the results to say."""
        return {}


def load_digits(settings: object, options: DigitOptions) -> Digits:
    """Read the digits that a study's command names, as its `load` function."""
    return Digits.of(options)


def spread(images: Tensor) -> float:
    """Return the mean distance between two of the images."""
    # Not every device has pdist: Apple's GPUs don't.
    placed = images if images.device.type == "cuda" else images.cpu()
    return float(torch.pdist(placed.flatten(1)).mean())
