"""The training of a ladder network on few labels: alone, or as the discriminator of an EBGAN (section 4.2, appendix
D)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from ... import functional
from ...data.mnist import Mnist
from ...game import one_pass_backward
from ...models.averaged import for_sampling
from ...models.ladder import LadderNetwork
from ...models.mlp import Generator
from ...ops.tensors import Coefficient
from ...training.optim import learning_rate_factor, margin_at
from ...training.statistics import NonFiniteError

CLASSES = 10
_MEASURED = 20_000  # training images over which the clean statistics are measured
_TESTED = 2_000  # test images at a time


class FlatDigits(NamedTuple):
    """MNIST in the form that a ladder network takes, on one device. It takes 188 MB, which all trials of a process
    share."""

    images: Tensor
    """The training images, float32 [M, 784] in [0, 1]."""
    labels: Tensor
    """The training labels, uint8 [M]."""
    test_images: Tensor
    """The test images, float32 [N, 784] in [0, 1]."""
    test_labels: Tensor
    """The test labels, uint8 [N]."""


def flat_digits(digits: Mnist, device: torch.device | str = "cpu") -> FlatDigits:
    """Return the digits on a device, with images as floats."""
    train, test = ((images.to(device).flatten(1).float() / 255) for images in (digits.train_images, digits.test_images))
    return FlatDigits(train, digits.train_labels.to(device), test, digits.test_labels.to(device))


@dataclass(frozen=True)
class LadderConfig:
    """The settings of one run.

    Attributes:
        labels: the number of labeled images, with equally many of each digit.
        seed: the seed of weights, noise, batches and the choice of the labeled images.
        steps: the number of updates of the ladder network.
        batch_size: the number of labeled images in a step, and of images without labels. If there are fewer labels, a
            step has all of them.
        recon_weight: the weight of the energy, times the number of pixels: 1000 is the paper's 1000/784. 0: train the
            classifier alone.
        lr: the learning rate of the ladder network. It falls linearly to 0 over the last third of the steps.
        lr_g: the learning rate of the generator.
        beta1: Adam's beta1 for the ladder network.
        margin: the margin of the first step.
        margin_steps: the number of steps in which the margin falls to 0. Then the generator is switched off. 0: there
            is no generator.
        hinge_weight: the weight of the hinge, relative to that of the energy of real images.
    """

    labels: int
    seed: int
    steps: int
    batch_size: int
    recon_weight: float
    lr: float
    lr_g: float
    beta1: float
    margin: float
    margin_steps: int
    hinge_weight: float = 1.0


class LadderTrainer:
    """The ladder network of a config, its generator if it has one, and their optimizers.

    The energy of an image is the squared error of its reconstruction, summed over pixels in [0, 1]. The reconstruction
    is denoised from a corrupted encoding. This is the paper's "vanilla squared l2", to which its margin of 16 belongs.

    Where the paper says nothing, this trainer does the following. The weight of the energy multiplies the hinge too, so
    that real and generated images have the same weight if the hinge's own is 1. Batch norm normalizes generated images
    by their own batch. The generator is an MLP of four layers of 400 units.

    Args:
        config: the settings of the run.
        digits: MNIST, on the device that is to train.
    """

    def __init__(self, config: LadderConfig, digits: FlatDigits) -> None:
        self.config = config
        self.device = digits.images.device
        self.step_count = 0
        self._chance = torch.Generator().manual_seed(config.seed)
        noise = torch.Generator(self.device).manual_seed(config.seed)
        self.images = digits.images
        self._test = digits.test_images, digits.test_labels
        chosen = labeled_subset(digits.labels.cpu(), config.labels, self._chance).to(self.device)
        self.labeled = self.images[chosen]
        self._labels = digits.labels[chosen].long()
        torch.manual_seed(config.seed)
        pixels = self.images.shape[1]
        self.ladder = LadderNetwork((pixels, 1000, 500, 250, 250, 250, CLASSES)).to(self.device)
        self.ladder.generator = noise
        self.noise = noise
        self.optimizer = torch.optim.Adam(self.ladder.parameters(), config.lr, (config.beta1, 0.999), fused=True)
        self.generator: Generator | None = None
        if config.margin_steps:
            self.generator = Generator(100, 4, 400, (1, 28, 28)).to(self.device)
            self._optimizer_g = torch.optim.Adam(self.generator.parameters(), config.lr_g, (0.5, 0.999), fused=True)
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def margin(self) -> float:
        """The margin of the next step, or 0 once the generator is off."""
        config = self.config
        return margin_at(self.step_count, config.margin, 0.0, config.margin_steps, "linear") if self.generator else 0.0

    def step(self) -> None:
        """Update the ladder network, and the generator while the margin is above 0."""
        config = self.config
        rate = learning_rate_factor(self.step_count, config.steps, "linear", 2 / 3)
        self.optimizer.param_groups[0]["lr"] = config.lr * rate
        self.optimizer.zero_grad()
        labeled, labels = self.next_labeled()
        if config.recon_weight == 0:
            torch_functional.cross_entropy(self.ladder.classify_corrupted(labeled), labels).backward()
        else:
            self._backward(labeled, labels, self.next_images())
        self.optimizer.step()
        self.step_count += 1

    def test_error(self) -> float:
        """Return the share of the test digits that the clean classifier gets wrong, from 0 to 1.

        Raises:
            NonFiniteError: an output of the classifier is infinite or NaN.
        """
        images, labels = self._test
        self.ladder.measure(self.images[:_MEASURED])
        with torch.no_grad():
            logits = torch.cat([self.ladder(part) for part in images.split(_TESTED)])
        if not bool(logits.isfinite().all()):
            raise NonFiniteError(f"step {self.step_count}: got an infinite or NaN output of the classifier")
        return float((logits.argmax(1) != labels).float().mean())

    def sampler(self) -> Generator:
        """Return a generator that draws samples now."""
        assert self.generator is not None
        sampler = for_sampling(self.generator)
        assert isinstance(sampler, Generator)
        return sampler

    def _backward(self, labeled: Tensor, labels: Tensor, real: Tensor) -> None:
        """Compute the ladder network's gradients by equation 1 with this step's margin. Update the generator by
        equation 2."""
        margin, weight = self.margin, self.config.recon_weight / self.images.shape[1]
        logits, recon = self.ladder.forward_both(labeled, real)
        loss = torch_functional.cross_entropy(logits, labels)
        if self.generator is None or margin == 0:
            energy = functional.reconstruction_energy(recon, real, norm="sse", reduction="mean")
            (loss + weight * energy).backward()
            return

        def loss_of_g(recon_fake: Tensor, fakes: Tensor, upstream: Coefficient) -> Tensor:
            return functional.generator_loss(recon_fake, fakes, norm="sse").loss

        def loss_of_d(recon: Tensor, real: Tensor, recon_fake: Tensor, fakes: Tensor, upstream: Coefficient) -> Tensor:
            energy = functional.reconstruction_energy(recon, real, norm="sse", reduction="mean")
            energy_fake = functional.reconstruction_energy(recon_fake, fakes, norm="sse", reduction="none")
            hinge = functional.hinge_margin_loss(None, energy_fake, margin)
            return loss + weight * (energy + self.config.hinge_weight * hinge)

        noise = torch.randn(len(real), self.generator.noise_size, generator=self.noise, device=self.device)
        self._optimizer_g.zero_grad()
        one_pass_backward(
            # The pass over the real images is done, together with that over the labeled images.
            lambda images: recon if images is real else self.ladder.reconstruct(images),
            (self.generator(noise).flatten(1) + 1) / 2,
            real,
            generator_loss=loss_of_g,
            discriminator_loss=loss_of_d,
            parameters=self.ladder.parameters(),
        )
        self._optimizer_g.step()

    def next_labeled(self) -> tuple[Tensor, Tensor]:
        """Return the labeled images [N, 784] of the next step, and their labels [N]."""
        if len(self._labels) <= self.config.batch_size:
            return self.labeled, self._labels
        chosen = torch.randperm(len(self._labels), generator=self._chance)[: self.config.batch_size].to(self.device)
        return self.labeled[chosen], self._labels[chosen]

    def next_images(self) -> Tensor:
        """Return the images without labels [N, 784] of the next step. Each epoch has every image once, in a new
        order."""
        if len(self._order) < self.config.batch_size:
            self._order = torch.randperm(len(self.images), generator=self._chance)
        chosen, self._order = self._order.split([self.config.batch_size, len(self._order) - self.config.batch_size])
        return self.images[chosen.to(self.device)]


def labeled_subset(labels: Tensor, count: int, chance: torch.Generator) -> Tensor:
    """Return the indices of `count` images, chosen at random, with equally many of each class.

    Raises:
        ValueError: `count` isn't a multiple of the number of classes, or a class has too few images.
    """
    each = count // CLASSES
    if count < CLASSES or count % CLASSES:
        raise ValueError(f"labels: got {count}, expected a multiple of {CLASSES}, as many of each digit")
    chosen = []
    for digit in range(CLASSES):
        of_digit = torch.nonzero(labels == digit).flatten()
        if len(of_digit) < each:
            raise ValueError(f"labels: got {count}, expected at most {CLASSES * len(of_digit)}: few show a {digit}")
        chosen.append(of_digit[torch.randperm(len(of_digit), generator=chance)[:each]])
    return torch.cat(chosen)
