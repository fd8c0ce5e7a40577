"""The plain GAN of the grid search, whose discriminator is a logistic classifier (Goodfellow et al. 2014)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...data.image_set import ImageSet
from ...data.stream import ImageStream
from ...game import one_pass_backward
from ...models.averaged import for_sampling
from ...models.mlp import Generator, LogisticDiscriminator
from ...training.statistics import NonFiniteError

Optimizer = Literal["adam", "sgd"]


@dataclass(frozen=True)
class GanConfig:
    """The settings of one plain GAN of the grid."""

    n_layer_g: int
    n_layer_d: int
    size_g: int
    size_d: int
    dropout_d: bool
    optim_g: Optimizer
    optim_d: Optimizer
    lr: float
    """The learning rate of both networks."""
    z_dim: int = 100
    batch_size: int = 64
    seed: int = 0
    device: str = "cpu"


class GanTrainer:
    """A trainer of a plain GAN. The generator's loss is the one that does not saturate: -log D(G(z)).

    Both networks are updated with one forward pass of each over the generated batch, as in EBGAN's `Trainer`. So the
    two families differ only in their losses and discriminators.

    Args:
        config: the settings of the GAN.
        images: the training images.
    """

    def __init__(self, config: GanConfig, images: ImageSet) -> None:
        self.config = config
        self.device = torch.device(config.device)
        torch.manual_seed(config.seed)
        generator = Generator(config.z_dim, config.n_layer_g, config.size_g, images.shape)
        discriminator = LogisticDiscriminator(config.n_layer_d, config.size_d, config.dropout_d, images.shape)
        self.generator, self.discriminator = generator.to(self.device), discriminator.to(self.device)
        self.optimizer_g = _optimizer(config.optim_g, self.generator, config.lr)
        self.optimizer_d = _optimizer(config.optim_d, self.discriminator, config.lr)
        self.batches = ImageStream(images, config.batch_size, config.seed, device=self.device)
        self.noise_rng = torch.Generator(self.device).manual_seed(config.seed)

    def step(self) -> tuple[Tensor, Tensor]:
        """Update both networks. Return the discriminator's loss and the generator's."""
        real = self.batches.next()
        noise = torch.randn(len(real), self.config.z_dim, generator=self.noise_rng, device=self.device)
        self.optimizer_g.zero_grad()
        self.optimizer_d.zero_grad()
        losses = one_pass_backward(
            self.discriminator, self.generator(noise), real, generator_loss=_loss_of_g, discriminator_loss=_loss_of_d
        )
        self.optimizer_g.step()
        self.optimizer_d.step()
        return losses

    def check_finite(self) -> None:
        """Raise a NonFiniteError if a weight is infinite or NaN."""
        for net in (self.generator, self.discriminator):
            if not all(math.isfinite(value) for value in (p.abs().sum().item() for p in net.parameters())):
                raise NonFiniteError(f"got an infinite or NaN weight in the {type(net).__name__}")

    def sampler(self) -> Generator:
        """Return a generator that draws samples now."""
        sampler = for_sampling(self.generator)
        assert isinstance(sampler, Generator)
        return sampler

    def close(self) -> None:
        """Stop the thread that reads images ahead."""
        self.batches.close()


# -log sigmoid(logit) is softplus(-logit).


def _loss_of_g(logits: Tensor, fakes: Tensor, upstream: object) -> Tensor:
    return functional.softplus(-logits).mean()


def _loss_of_d(logits_real: Tensor, real: Tensor, logits_fake: Tensor, fakes: Tensor, upstream: object) -> Tensor:
    return functional.softplus(-logits_real).mean() + functional.softplus(logits_fake).mean()


def _optimizer(kind: Optimizer, net: nn.Module, lr: float) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(net.parameters(), lr, fused=True)
    return torch.optim.Adam(net.parameters(), lr, (0.5, 0.999), fused=True)
