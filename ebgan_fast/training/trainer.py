"""The state of a run and its step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from ..data.batches import ShuffledBatches
from ..models.mlp import AutoEncoder, Generator
from .average import WeightAverage, for_sampling
from .config import TrainConfig
from .schedule import learning_rate_factor, margin_at

# Columns of the statistics, one row a step.
STATISTICS = ("loss_d", "loss_g", "energy_real", "energy_fake", "hinge_active", "pulling_away")


class NonFiniteError(RuntimeError):
    """A loss or weight became infinite or NaN, so the run can't go on."""


class Trainer:
    """Both networks, their optimisers and everything else that a resumed run must continue with.

    Args:
        config: a valid config.
        images: uint8 [M, 28, 28] on any device.

    Attributes:
        step_count: steps done.
        config: the config.
        generator, discriminator: the networks, in train mode.

    Raises:
        ValueError: fewer images than a batch holds.
    """

    def __init__(self, config: TrainConfig, images: Tensor) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.step_count = 0
        torch.manual_seed(config.seed)  # the initial weights, later dropout
        self.generator = make_generator(config).to(self.device)
        shape = (config.image_size, config.image_size)
        self.discriminator = AutoEncoder(config.n_layer_d, config.size_d, config.dropout_d, shape).to(self.device)
        self.optimizer_g = _adam(self.generator, config.lr_g, config.beta1)
        self.optimizer_d = _adam(self.discriminator, config.lr_d, config.beta1)
        self.average = WeightAverage(list(self.generator.parameters()), config.ema) if config.ema > 0 else None
        self.batches = ShuffledBatches(images.to(self.device), config.batch_size, config.seed, config.image_size)
        self.noise_rng = torch.Generator(self.device).manual_seed(config.seed)
        # One row per step of the open log interval. They stay on the device until a line is due: no step
        # waits for it.
        self._rows = torch.zeros(config.log_every, len(STATISTICS), device=self.device)

    @property
    def margin(self) -> float:
        """The margin of the next step, in units of the energy."""
        config = self.config
        end = config.margin if config.margin_end is None else config.margin_end
        return margin_at(self.step_count, config.margin, end, config.margin_span, config.margin_schedule)

    @property
    def learning_rates(self) -> tuple[float, float]:
        """The generator's and the discriminator's learning rate in the next step."""
        config = self.config
        factor = learning_rate_factor(self.step_count, config.steps, config.lr_decay, config.lr_decay_start)
        return config.lr_g * factor, config.lr_d * factor

    def step(self) -> None:
        """Update the generator, then the discriminator, over one forward pass of each on the generated batch.

        The generator's update leaves the discriminator's weights alone, so the discriminator's graph on the
        generated batch still holds for its own update. Of the generator's loss only the gradient with respect
        to the images is taken: no weight gradient of the discriminator is computed for it.
        """
        config = self.config
        for optimizer, rate in zip((self.optimizer_g, self.optimizer_d), self.learning_rates, strict=True):
            _set_learning_rate(optimizer, rate)
        margin = torch.full((), self.margin, device=self.device)
        real = self.batches.next()
        noise = torch.randn(config.batch_size, config.z_dim, generator=self.noise_rng, device=self.device)

        generated = self.generator(noise)
        fakes = generated.detach().requires_grad_()
        recon_fake, code = self.discriminator(fakes)
        loss_g, _, pulling_away = functional.generator_loss(
            recon_fake,
            fakes,
            code if config.pt_weight > 0 else None,
            pt_weight=config.pt_weight,
            norm=config.norm,
        )
        if config.pt_weight == 0:
            pulling_away = functional.pulling_away_term(code.detach())  # for the log
        (gradient,) = torch.autograd.grad(loss_g, fakes, retain_graph=True)
        self.optimizer_g.zero_grad()
        generated.backward(gradient)
        self.optimizer_g.step()

        recon_real, _ = self.discriminator(real)
        loss_d, energy_real, energy_fake = functional.discriminator_loss(
            recon_real, real, recon_fake, fakes.detach(), margin, norm=config.norm
        )
        self.optimizer_d.zero_grad()
        # Naming the weights spares the gradient to the fakes, which the graph would give too.
        loss_d.backward(inputs=list(self.discriminator.parameters()))
        self.optimizer_d.step()

        if self.average is not None:
            self.average.update(self.step_count)
        hinge_active = (energy_fake < margin).to(energy_fake.dtype).mean()
        self._rows[self.step_count % config.log_every] = torch.stack(
            [
                loss_d.detach(),
                loss_g.detach(),
                energy_real.mean(),
                energy_fake.mean(),
                hinge_active,
                pulling_away,
            ]
        )
        self.step_count += 1

    def statistics(self) -> dict[str, float]:
        """Means over the steps of the log interval that the last step belongs to. Waits for the device.

        Raises:
            NonFiniteError: a loss in the interval was infinite or NaN.
        """
        filled = (self.step_count - 1) % self.config.log_every + 1
        rows = self._rows[:filled].to("cpu", torch.float64)
        for row, values in enumerate(rows.isfinite().tolist()):
            bad = [name for name, finite in zip(STATISTICS, values, strict=True) if not finite]
            if bad:
                step = self.step_count - filled + row + 1
                value = float(rows[row, STATISTICS.index(bad[0])])
                raise NonFiniteError(f"step {step}: got {bad[0]} {value}, expected a finite number")
        return dict(zip(STATISTICS, rows.mean(0).tolist(), strict=True))

    def check_finite(self) -> None:
        """Raise a NonFiniteError if the open log interval, a weight or an optimiser's state isn't finite."""
        if self.step_count > 0:
            self.statistics()
        for name, tensors in (
            ("generator", self.generator.state_dict().values()),
            ("discriminator", self.discriminator.state_dict().values()),
            ("generator's optimiser", _state_tensors(self.optimizer_g)),
            ("discriminator's optimiser", _state_tensors(self.optimizer_d)),
            ("average of the generator", self.average.values if self.average else ()),
        ):
            largest = [tensor.abs().amax().float() for tensor in tensors]
            if largest and not bool(torch.stack(largest).isfinite().all()):
                raise NonFiniteError(
                    f"step {self.step_count}: got an infinite or NaN value in the {name}, expected none"
                )

    def sampler(self) -> Generator:
        """The generator that draws samples now, apart from the one in training (`average.for_sampling`)."""
        return for_sampling(self.generator, self.average.values if self.average else None)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next steps depend on besides config and images, as tensors and plain values."""
        return {
            "step": self.step_count,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "average": self.average.values if self.average else None,
            "batches": self.batches.state_dict(),
            "noise_rng": self.noise_rng.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "statistics": self._rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken, under a config that `check_resumable` lets pass."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer_g.load_state_dict(state["optimizer_g"])
        self.optimizer_d.load_state_dict(state["optimizer_d"])
        if self.average is not None:
            for mine, saved in zip(self.average.values, state["average"], strict=True):
                mine.copy_(saved)
        self.batches.load_state_dict(state["batches"])
        self.noise_rng.set_state(state["noise_rng"])
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self._rows.copy_(state["statistics"])
        self.step_count = state["step"]


def make_generator(config: TrainConfig) -> Generator:
    """A new generator of the config's sizes."""
    return Generator(config.z_dim, config.n_layer_g, config.size_g, (config.image_size, config.image_size))


def _adam(net: nn.Module, learning_rate: float, beta1: float) -> torch.optim.Adam:
    betas = (beta1, 0.999)
    try:
        return torch.optim.Adam(net.parameters(), learning_rate, betas, fused=True)
    except RuntimeError:  # a device without the fused kernel
        return torch.optim.Adam(net.parameters(), learning_rate, betas)


def _set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _state_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
