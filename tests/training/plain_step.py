"""Training steps as public code has them, at any dtype, to measure a trainer's numbers against.

The losses are the paper's, in eager torch. The discriminator passes twice over the generated images. Gradients come
from two separate backward passes. In float64 the results count as the truth, and at a test's precision as the yardstick
for errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.subjects import public_loop
from ebgan_fast.training.statistics import STATISTICS
from ebgan_fast.training.step import Trainer
from tests.rounding import Values, assert_within_eager, at_wider, distance, size


def gradients_of(*nets: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for net in nets for parameter in net.parameters() if parameter.grad is not None]


class PlainSteps:
    """The steps of a new trainer, done in eager torch.

    Args:
        trainer: The source of networks, images, noise, margin and learning rates. It must have done no step, and must
            do none later.
        dtype: The dtype of weights, losses and Adam.
        autocast: The dtype that the networks' layers round to; None for `dtype`.
        scale: A factor on the losses, by which the gradients are divided at the end. float16 needs it.

    Attributes:
        gradients: The gradients of the last step: the generator's, then the discriminator's.
        rows: The statistics of each step, in the order of `STATISTICS`.
    """

    def __init__(
        self, trainer: Trainer, dtype: torch.dtype, autocast: torch.dtype | None = None, scale: float = 1.0
    ) -> None:
        self.generator, self.discriminator = trainer.generator.to(dtype), trainer.discriminator.to(dtype)
        self.gradients: list[Tensor] = []
        self.rows: list[Tensor] = []
        self._trainer, self._dtype, self._autocast, self._scale = trainer, dtype, autocast, scale
        betas = (trainer.config.beta1, 0.999)
        self._optimizers = [
            torch.optim.Adam(net.parameters(), betas=betas) for net in (self.generator, self.discriminator)
        ]

    def step(self) -> None:
        """Update both networks."""
        trainer, config = self._trainer, self._trainer.config
        real = trainer.batches.next().to(self._dtype)
        draws = torch.randn(config.batch_size, self.generator.noise_size, generator=trainer.noise_rng)
        margin = trainer.margin
        self._zero_gradients()
        with self._precision():
            fakes = self.generator(draws.to(self._dtype))
        with self._precision():
            recon, code = self.discriminator(fakes)
        # At low precision the losses are in float32, as any usable loop computes them.
        wide = fakes.to(self._dtype)
        pulling_away = public_loop.pulling_away(code.to(self._dtype).flatten(1))
        loss_g = public_loop.energy(recon.to(self._dtype), wide).mean() + config.pt_weight * pulling_away
        (self._scale * loss_g).backward()
        of_generator = gradients_of(self.generator)

        self._zero_gradients()
        held = fakes.detach()
        with self._precision():
            recon_fake, _ = self.discriminator(held)
        with self._precision():
            recon_real, _ = self.discriminator(real)
        energy_fake = public_loop.energy(recon_fake.to(self._dtype), held.to(self._dtype))
        energy_real = public_loop.energy(recon_real.to(self._dtype), real)
        loss_d = energy_real.mean() + nn.functional.relu(margin - energy_fake).mean()
        (self._scale * loss_d).backward()
        self.gradients = [gradient / self._scale for gradient in (*of_generator, *gradients_of(self.discriminator))]
        active = (energy_fake < margin).to(self._dtype).mean()
        row = loss_d, loss_g, energy_real.mean(), energy_fake.mean(), active, pulling_away
        self.rows.append(torch.stack(row).detach().double())
        self._update()

    def statistics(self) -> dict[str, float]:
        """Return means over the steps, and the lengths of the last step's gradients. A term of weight 0 is the last
        step's.
        """
        count = len(list(self.generator.parameters()))
        parts = {"grad_norm_g": self.gradients[:count], "grad_norm_d": self.gradients[count:]}
        norms = {name: float(torch.cat([one.flatten() for one in part]).norm()) for name, part in parts.items()}
        means = dict(zip(STATISTICS, torch.stack(self.rows).mean(0).tolist(), strict=True))
        if self._trainer.config.pt_weight == 0:
            means["pulling_away"] = self.rows[-1][STATISTICS.index("pulling_away")].item()
        return means | norms

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """Return a new context for each pass. In one context the passes would share the weights' copies and gradient
        sums.
        """
        return torch.autocast("cpu", self._autocast) if self._autocast else contextlib.nullcontext()

    def _zero_gradients(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def _update(self) -> None:
        parameters = [*self.generator.parameters(), *self.discriminator.parameters()]
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient.clone()
        for optimizer, rate in zip(self._optimizers, self._trainer.learning_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        self._trainer.step_count += 1


class Budget:
    """The errors that a trainer's numbers may have, measured by plain steps in float64 and at the trainer's precision.

    Args:
        make: Makes a new trainer in the state in which the tested one began.
        steps: The number of steps of the tested trainer.
        scale: The factor on the losses, as for `PlainSteps`.
    """

    def __init__(self, make: Callable[[], Trainer], steps: int = 1, scale: float = 1.0) -> None:
        trainer = make()
        autocast = trainer.precision.dtype if trainer.precision.dtype != torch.float32 else None
        self._dtype = autocast or next(trainer.generator.parameters()).dtype
        self.truth = PlainSteps(trainer, torch.float64)
        self.eager = PlainSteps(make(), torch.float32, autocast, scale)
        for plain in (self.truth, self.eager):
            for _ in range(steps):
                plain.step()

    def assert_gradients(self, found: list[Tensor], *, each: bool = False) -> None:
        """Check the gradients of each network as one vector, or with `each` those of each parameter.

        If the tested trainer runs the same kernels as the plain steps, both round alike up to the losses. Then each
        parameter's gradient stays within its own budget. If the trainer adds in another order, as over processes, the
        roundings are independent. Then one of twenty tensors has a yardstick that is too short by chance, in one seed
        of fifteen.
        """
        truths, eagers = self.truth.gradients, self.eager.gradients
        assert len(found) == len(truths)
        count = len(list(self.truth.generator.parameters()))
        cuts = range(len(found) + 1) if each else (0, count, len(found))
        for start, end in pairwise(cuts):
            part = slice(start, end)
            self._assert(found[part], truths[part], eagers[part], f"gradients {start} to {end - 1}")

    def assert_statistics(self, found: dict[str, float], names: Iterable[str]) -> None:
        """Check means over the steps, and lengths of gradients."""
        truth, eager = self.truth.statistics(), self.eager.statistics()
        self._assert_all({name: (found[name], truth[name], eager[name]) for name in names})

    def assert_curves(self, found: dict[str, list[float]], log_every: int) -> None:
        """Check means over each interval of `log_every` steps, one list for each statistic."""
        truth, eager = (
            torch.stack([torch.stack(rows).mean(0) for rows in zip(*[iter(plain.rows)] * log_every, strict=True)], 1)
            for plain in (self.truth, self.eager)
        )
        columns = {name: STATISTICS.index(name) for name in found}
        self._assert_all(
            {name: (torch.tensor(found[name], dtype=torch.float64), truth[k], eager[k]) for name, k in columns.items()}
        )

    def _assert_all(self, results: dict[str, tuple[Tensor | float, ...]]) -> None:
        """Check results of few numbers, each given as (found, truth, eager).

        Eager's error in one of them may be small by chance. So the yardstick is the largest error of all, relative to
        the size of each result. Only the share of active hinges has its own yardstick: one hinge more or fewer is not
        rounding.
        """
        rounded = {name: values for name, values in results.items() if name != "hinge_active"}
        errors = [distance(eager, truth) / size(truth) for _, truth, eager in rounded.values() if size(truth)]
        factor = 1 + max(errors, default=0.0)
        for name, (found, truth, eager) in results.items():
            by_all = factor * torch.as_tensor(truth, dtype=torch.float64)
            self._assert(found, truth, by_all if name in rounded else eager, name)

    def _assert(self, found: Values, truth: Values, eager: Values, what: str) -> None:
        yardstick = at_wider(truth, eager, torch.float64) if self._dtype == torch.float64 else eager
        assert_within_eager(found, truth, yardstick, self._dtype, what)
