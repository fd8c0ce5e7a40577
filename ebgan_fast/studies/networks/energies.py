"""The training of an auto-encoder, on real samples alone or as an EBGAN's discriminator, and a measure of its
energy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ... import functional
from ...data.image_set import ImageSet
from ...data.stream import ImageStream
from ...game import EBGAN
from ...models.averaged import for_sampling
from ...models.families import AnyGenerator
from ...models.mlp import Generator
from ...training.optim import WeightAverage
from ...training.statistics import NonFiniteError
from ..framework.study import Tick

_SLOPE = 0.2  # of the leaky ReLU
_STEPS_BETWEEN_CHECKS = 100


class PlaneAutoEncoder(nn.Module):
    """An auto-encoder of points, with four layers to each side of the code and without batch norm.

    So the energy of a point depends on this point alone, and can be drawn. The initial weights are PyTorch's own.

    Args:
        code: the length of a code. With 1 the reconstructions lie on a line. With `width` the auto-encoder can learn
            the identity.
        width: the number of features of each hidden layer.
    """

    def __init__(self, code: int, width: int) -> None:
        super().__init__()
        self.encoder = _layers(2, width, width, code)
        self.decoder = _layers(code, width, width, 2)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return (reconstructions [N, 1, 1, 2], codes [N, code]) of points [N, 1, 1, 2]."""
        code = self.encoder(points.flatten(1))
        return self.decoder(code).view_as(points), code


def _layers(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for features, size in itertools.pairwise(sizes):
        layers += [nn.Linear(features, size), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class EnergyConfig:
    """The settings of one training.

    Attributes:
        margin: the margin, in units of the l2 energy.
        pt_weight: the weight of the pulling-away term.
        lr: the learning rate of both networks (Adam with beta1 0.5).
        batch_size: the number of real samples in a step, and of generated samples.
        ema: the decay per step of the moving average of the generator's weights, which draws the samples.
        seed: the seed of batches and noise.
    """

    margin: float
    pt_weight: float
    lr: float
    batch_size: int
    ema: float
    seed: int


class EnergyTrainer:
    """The training of an auto-encoder.

    Args:
        config: the settings.
        samples: the real samples.
        discriminator: the auto-encoder, on the device. It returns (reconstructions, codes).
        generator: the generator, on the device. None: the auto-encoder is trained to reconstruct real samples, and
            nothing else.

    Attributes:
        step_count: the number of steps done.
    """

    def __init__(
        self, config: EnergyConfig, samples: ImageSet, discriminator: nn.Module, generator: Generator | None
    ) -> None:
        self.step_count = 0
        self.discriminator, self._generator = discriminator, generator
        device = next(discriminator.parameters()).device
        self._batches = ImageStream(samples, config.batch_size, config.seed, device=device)
        self._noise = torch.Generator(device).manual_seed(config.seed)
        self._optimizer_d = _adam(discriminator, config.lr)
        self._game = EBGAN(config.margin, pt_weight=config.pt_weight)
        self._loss = torch.zeros((), device=device)
        if generator is not None:
            self._optimizer_g = _adam(generator, config.lr)
            self._average = WeightAverage(list(generator.parameters()), config.ema)

    def train(self, steps: int, tick: Tick, look: Callable[[int], None], looks: set[int]) -> None:
        """Do the steps that are left, and end the reading of samples.

        Args:
            steps: the number of steps of the whole training.
            tick: called before each step.
            look: called after each step whose number is in `looks`, with this number.
            looks: the numbers of the steps, counted from 1.

        Raises:
            NonFiniteError: a loss became infinite or NaN.
        """
        try:
            while self.step_count < steps:
                tick()
                self._step()
                self.step_count += 1
                if self.step_count % _STEPS_BETWEEN_CHECKS == 0 or self.step_count == steps:
                    self._check_finite()
                if self.step_count in looks:
                    look(self.step_count)
        finally:
            self._batches.close()

    @torch.no_grad()
    def energies(self, samples: Tensor) -> Tensor:
        """Return the energies [N] of samples [N, C, H, W]."""
        recon, _ = self.discriminator(samples)
        return functional.reconstruction_energy(recon, samples)

    def sampler(self) -> AnyGenerator | None:
        """Return a generator that draws samples now. None: there is no generator."""
        return None if self._generator is None else for_sampling(self._generator, self._average.values)

    def _step(self) -> None:
        real = self._batches.next()
        self._optimizer_d.zero_grad()
        if self._generator is None:
            recon, _ = self.discriminator(real)
            loss = functional.reconstruction_energy(recon, real, reduction="mean")
            loss.backward()
            self._loss = loss.detach()
        else:
            noise = torch.randn(len(real), self._generator.noise_size, generator=self._noise, device=real.device)
            self._optimizer_g.zero_grad()
            result = self._game.backward(self.discriminator, self._generator(noise), real)
            self._optimizer_g.step()
            self._average.update(self.step_count)
            self._loss = result.loss_d + result.loss_g
        self._optimizer_d.step()

    def _check_finite(self) -> None:
        if not math.isfinite(loss := float(self._loss)):
            raise NonFiniteError(f"step {self.step_count}: got loss {loss}")


def _adam(network: nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr, (0.5, 0.999), fused=True)


def area_under_curve(real: Tensor, others: Tensor) -> float:
    """Return the area under the ROC curve of a test that calls a sample real if its energy is low.

    It is the probability that a sample of `others` has a higher energy than a real one, where a tie counts half (Hanley
    and McNeil 1982). 0.5: the energy tells nothing. 1: it tells all.

    Args:
        real: the energies of real samples, [N].
        others: the energies of other samples, [M].
    """
    order = real.sort().values.cpu()
    found = others.cpu()
    below = torch.searchsorted(order, found, right=False)
    up_to = torch.searchsorted(order, found, right=True)
    return float((below + up_to).double().mean()) / (2 * len(order))
