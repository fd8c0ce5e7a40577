"""The state of a run, and its step: what the host draws, what the device computes, and what follows."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from .. import functional
from .._fitting import check_fits
from ..data.image_set import ImageSet
from ..data.stream import ImageStream
from ..game import one_pass_backward
from ..models.averaged import for_sampling
from ..models.conv import ConvAutoEncoder, ConvGenerator
from ..models.families import AnyGenerator
from ..ops.tensors import Coefficient
from ..results import DiscriminatorResult
from . import graph
from .config import TrainConfig
from .graph import Recorder, StepGraph
from .optim import Adam, MixedPrecision, WeightAverage, learning_rate_factor, margin_at
from .parallel import World, own_device
from .statistics import STATISTICS, NonFiniteError, Statistics

_CONVERGED_SHARE = 0.1  # the last share of the steps that look for a margin: the mean energy is over these

_Net = TypeVar("_Net", bound=nn.Module)


class Trainer:
    """Both networks, their optimizers, and everything else that a resumed run must continue with.

    Every process draws the order and the noise of the whole batch, and uses its share. So a run gives the same results
    on any number of processes, up to rounding and batch norm. Batch norm takes its statistics from a process's own part
    of the batch.

    Args:
        config: a valid config. Its `batch_size` is that of all processes together.
        images: the training images, on any device.
        world: the processes of the run. None: this process alone.
        recorder: what records the steps of a config with `cuda_graph`. None: a CUDA recorder.

    Attributes:
        step_count: the number of steps done.
        config: the config.
        start_margin: the margin of the first step. For a config's "auto" it is NaN, which must be replaced before the
            first step.
        generator, discriminator: the networks, in train mode.

    Raises:
        ValueError: there are fewer images than a batch holds, or the networks don't fit the images or can't be built.
            Or the config has `cuda_graph` without CUDA or with several processes.
    """

    def __init__(
        self, config: TrainConfig, images: ImageSet, world: World | None = None, *, recorder: Recorder | None = None
    ) -> None:
        self.config = config
        self.world = world or World()
        self.device = own_device(config.device)
        if config.cuda_graph and recorder is None:
            recorder = graph.recorder_of(self.device, self.world.size)
        self.step_count = 0
        self.start_margin = float("nan") if config.margin == "auto" else config.margin
        torch.manual_seed(config.seed)  # the initial weights
        self.generator = _placed(config.networks.generator(images.shape), self.device)
        self.discriminator = _placed(config.networks.discriminator(images.shape), self.device)
        if self.world.rank:
            torch.manual_seed(_seed_of(config.seed, self.world.rank))  # dropout
        self.optimizer_g = Adam(self.generator, config.lr_g, config.beta1, recorded=config.cuda_graph)
        self.optimizer_d = Adam(self.discriminator, config.lr_d, config.beta1, recorded=config.cuda_graph)
        self.average = WeightAverage(list(self.generator.parameters()), config.ema) if config.ema > 0 else None
        self.precision = MixedPrecision(config.precision, self.device)
        self.batches = ImageStream(
            images,
            config.batch_size,
            config.seed,
            device=self.device,
            dtype=self.precision.dtype,
            flip=config.flip,
            rank=self.world.rank,
            ranks=self.world.size,
        )
        self.noise_rng = torch.Generator(self.device).manual_seed(config.seed)
        if config.compile:
            self.generator.compile()
            self.discriminator.compile()
        self._run_g = self.world.data_parallel(self.generator)
        self._run_d = self.world.data_parallel(self.discriminator)
        self._statistics = Statistics(config, self.device, self.world, self.takes_term)
        # `_compute` reads and writes these tensors, besides networks and optimizers. Each keeps its address, except the
        # real images of a run without a graph.
        self._real: Tensor | None = None
        self._noise = torch.empty(config.batch_size, self.generator.noise_size, device=self.device)
        self._margin = torch.empty((), device=self.device)
        self._row = torch.zeros(len(STATISTICS), device=self.device)
        self._graph = StepGraph(recorder) if config.cuda_graph and recorder is not None else None

    @property
    def margin(self) -> float:
        """The margin of the next step, in units of the energy."""
        config = self.config
        end = self.start_margin if config.margin_end is None else config.margin_end
        return margin_at(self.step_count, self.start_margin, end, config.margin_span, config.margin_schedule)

    @property
    def learning_rates(self) -> tuple[float, float]:
        """The learning rates of the next step: the generator's and the discriminator's."""
        config = self.config
        factor = learning_rate_factor(self.step_count, config.steps, config.lr_decay, config.lr_decay_start)
        return config.lr_g * factor, config.lr_d * factor

    def step(self) -> None:
        """Update both networks, with one forward pass of each over the generated batch.

        Neither update depends on the other. The generator's loss uses the discriminator's weights from before the step,
        and the discriminator's loss uses the images from before the step. So one graph of the discriminator on the
        generated batch serves both (`one_pass_backward`).
        """
        self._draw()
        if self._graph is None or self._is_apart():
            self._compute()
        else:
            self._graph.run(self._compute)
        self._after()

    def _draw(self) -> None:
        """Store the images, noise, margin and learning rates of the step where `_compute` reads them."""
        for optimizer, rate in zip((self.optimizer_g, self.optimizer_d), self.learning_rates, strict=True):
            optimizer.set_rate(rate)
        self._margin.fill_(self.margin)
        # Every process draws the noise of the whole batch, so that it doesn't depend on the number of processes.
        torch.randn(self._noise.shape, generator=self.noise_rng, out=self._noise)
        real = self.batches.next()
        if self._graph is None:
            self._real = real
        elif self._real is None:
            self._real = real.clone()
        else:
            self._real.copy_(real)

    def _compute(self) -> None:
        """Update both networks, and fill the step's row of statistics. Everything is on the device, and nothing waits
        for it.

        No number of the host enters, except in steps that `_is_apart` names and in float16. So a graph may record it.
        """
        assert self._real is not None
        parts, world = self.config.accumulate, self.world
        self.optimizer_g.zero_grad()
        self.optimizer_d.zero_grad()
        self._row.zero_()
        noise = self._noise.chunk(world.size)[world.rank]
        for part, (images, draws) in enumerate(zip(self._real.chunk(parts), noise.chunk(parts), strict=True)):
            with self._gradients_exchanged(part == parts - 1):
                self._row += self._backward(images, draws, self._margin) / parts
        if self.precision.is_scaled and self._statistics.is_logged(self.step_count + 1):
            self._measure_gradients()  # before the optimizers change the gradients
        self.precision.step(self.optimizer_g, self.optimizer_d)

    def _after(self) -> None:
        """Update the average of the generator, and store the statistics."""
        if not self.precision.is_scaled and self._statistics.is_logged(self.step_count + 1):
            self._measure_gradients()
        if self.average is not None:
            self.average.update(self.step_count)
        self.step_count += 1
        self._statistics.note(self.step_count, self._row)

    def _is_apart(self) -> bool:
        """Return True if the next step computes something that most steps don't, so that the recording can't be
        used."""
        return self.config.pt_weight == 0 and self.takes_term(self.step_count + 1)

    def takes_term(self, step: int) -> bool:
        """Return True if this step, counted from 1, computes the pulling-away term. Every process gets the same answer.

        A term of weight 0 is computed only in the steps after which a line of the log is written.
        """
        return self.config.pt_weight > 0 or self._statistics.is_logged(step)

    def autoencoder_step(self) -> Tensor:
        """Train the discriminator for one step as an auto-encoder of real images alone. Return their mean energy."""
        self.optimizer_d.zero_grad()
        parts = self.config.accumulate
        energy = torch.zeros((), device=self.device)
        for part, images in enumerate(self.batches.next().chunk(parts)):
            with self._gradients_exchanged(part == parts - 1):
                with self.precision.autocast():
                    recon, _ = self._run_d(images)
                mean = functional.reconstruction_energy(recon, images, norm=self.config.norm, reduction="mean")
                self._scaled(mean).backward()
            energy += mean.detach() / parts
        self.precision.step(self.optimizer_d)
        return energy

    def mean_real_energy(self, steps: int, on_step: Callable[[int], None]) -> float:
        """Return the mean energy of real images under an auto-encoder that is trained on real images alone.

        The paper's appendix E starts its search for the margin m there. The hinge term of the loss lies in [0, m], and
        this m makes it as large as the term of the real images. This method trains the discriminator and uses up
        images, so make another trainer for the run.

        Args:
            steps: the number of training steps, at least 1. The mean is over the last tenth of them.
            on_step: called with the number of steps done. An error that it raises ends the search.

        Returns:
            The energy in units of the config's norm, the same in all processes.
        """
        energies: list[Tensor] = []
        for step in range(steps):
            energies.append(self.autoencoder_step())
            on_step(step + 1)
        last = torch.stack(energies[-max(1, round(steps * _CONVERGED_SHARE)) :])
        return float(self.world.mean(last.mean().cpu().double()))

    def _backward(self, real: Tensor, noise: Tensor, margin: Tensor) -> Tensor:
        """Add the gradients of one part of the batch to both networks'. Return the part's row of statistics."""
        norm = self.config.norm

        def loss_of_g(outputs: tuple[Tensor, Tensor], fakes: Tensor, upstream: Coefficient) -> tuple[Tensor, Tensor]:
            recon, code = outputs
            return self.generator_loss(recon, fakes, code, upstream)

        def loss_of_d(
            of_real: tuple[Tensor, Tensor],
            real: Tensor,
            of_fakes: tuple[Tensor, Tensor],
            fakes: Tensor,
            upstream: Coefficient,
        ) -> DiscriminatorResult:
            (recon_real, _), (recon_fake, _) = of_real, of_fakes
            return functional.discriminator_loss(
                recon_real, real, recon_fake, fakes, margin, norm=norm, upstream=upstream
            )

        # One block around all passes lets those of the discriminator share the 16-bit copies of its weights.
        with self.precision.autocast():
            of_d, (loss_g, pulling_away) = one_pass_backward(
                self._run_d,
                self._run_g(noise),
                real,
                generator_loss=loss_of_g,
                discriminator_loss=loss_of_d,
                scaler=self.precision.scaler,
                scale=1 / self.config.accumulate,
            )
        hinge_active = (of_d.energy_fake < margin).to(of_d.energy_fake.dtype).mean()
        return torch.stack(
            [of_d.loss, loss_g, of_d.energy_real.mean(), of_d.energy_fake.mean(), hinge_active, pulling_away]
        )

    def generator_loss(
        self, recon: Tensor, fakes: Tensor, code: Tensor, upstream: Coefficient
    ) -> tuple[Tensor, Tensor]:
        """Return the generator's loss (equation 2 with the term of equation 14), and the pulling-away term for the log.

        A term of weight 0 is for the log alone. It is 0 in steps for which `takes_term` returns False.
        """
        config, group = self.config, self.world.group
        loss, _, pulling_away = functional.generator_loss(
            recon,
            fakes,
            code if config.pt_weight > 0 else None,
            pt_weight=config.pt_weight,
            norm=config.norm,
            upstream=upstream,
            process_group=group,
        )
        if config.pt_weight == 0 and self.takes_term(self.step_count + 1):
            pulling_away = functional.pulling_away_term(code.detach(), process_group=group)
        return loss, pulling_away

    def _scaled(self, loss: Tensor) -> Tensor:
        parts = self.config.accumulate
        return self.precision.scaled(loss if parts == 1 else loss / parts)

    @contextlib.contextmanager
    def _gradients_exchanged(self, wanted: bool) -> Iterator[None]:
        """Within the block, let backward average gradients over the processes only if `wanted`, which is so for the
        last part."""
        with contextlib.ExitStack() as stack:
            for net in (self._run_g, self._run_d):
                if not wanted and isinstance(net, DistributedDataParallel):
                    stack.enter_context(net.no_sync())
            yield

    def _measure_gradients(self) -> None:
        """Store the length of each network's gradient. This is done once a log interval, as each time reads all
        gradients."""
        optimizers = (self.generator, self.optimizer_g), (self.discriminator, self.optimizer_d)
        for index, (net, optimizer) in enumerate(optimizers):
            self.precision.unscale(optimizer)
            gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
            self._statistics.gradient_norms[index] = get_total_norm(gradients)

    def statistics(self) -> dict[str, float]:
        """Return the means over the log interval of the last step; see `Statistics.means`.

        Raises:
            NonFiniteError: a loss in the interval was infinite or NaN.
        """
        return self._statistics.means(self.step_count)

    def check_finite(self) -> None:
        """Raise a NonFiniteError if a row of the current log interval, a weight or an optimizer's state isn't
        finite."""
        if self.step_count > 0:
            self.statistics()
        broken = self._broken_part()
        if self.world.any(broken is not None):
            where = broken or "networks of another process"
            raise NonFiniteError(f"step {self.step_count}: got an infinite or NaN value in the {where}, expected none")

    def _broken_part(self) -> str | None:
        """Return the name of a network or optimizer that has a tensor with an infinite or NaN value, or None."""
        for name, tensors in (
            ("generator", self.generator.state_dict().values()),
            ("discriminator", self.discriminator.state_dict().values()),
            ("generator's optimizer", self.optimizer_g.tensors()),
            ("discriminator's optimizer", self.optimizer_d.tensors()),
            ("average of the generator", self.average.values if self.average else ()),
        ):
            largest = [tensor.abs().amax().float() for tensor in tensors]
            if largest and not bool(torch.stack(largest).isfinite().all()):
                return name
        return None

    def sampler(self) -> AnyGenerator:
        """Return a generator that draws samples now. It is separate from the generator in training
        (`models.averaged.for_sampling`)."""
        return for_sampling(self.generator, self.average.values if self.average else None)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next steps depend on, besides config and images, as tensors and plain values."""
        return {
            "step": self.step_count,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "average": self.average.values if self.average else None,
            "precision": self.precision.state_dict(),
            "margin": self.start_margin,
            "batches": self.batches.state_dict(),
            "noise_rng": self.noise_rng.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "statistics": self._statistics.rows,
            "gradient_norms": self._statistics.gradient_norms,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, under a config that `check_resumable` accepts.

        The state is that of the first process. In the other processes, dropout gets a new seed from (seed, rank, step).

        Args:
            state: the state that `state_dict` returned.

        Raises:
            ValueError, TypeError, KeyError, RuntimeError: the state has another form. A file from an unknown source may
                hold anything.
        """
        # The optimizers and the stream of batches check their own parts.
        own = self.state_dict()
        names = ("step", "generator", "discriminator", "average", "precision", "noise_rng", "torch_rng", "cuda_rng")
        for name in (*names, "statistics", "gradient_norms"):
            check_fits(state[name], own[name], name)
        check_fits(state["margin"], 0.0, "margin")
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer_g.load_state_dict(state["optimizer_g"])
        self.optimizer_d.load_state_dict(state["optimizer_d"])
        if self._graph is not None:
            self._graph.forget()
        if self.average is not None:
            for mine, saved in zip(self.average.values, state["average"], strict=True):
                mine.copy_(saved)
        self.batches.load_state_dict(state["batches"])
        self.precision.load_state_dict(state["precision"])
        self.start_margin = state["margin"]
        self.noise_rng.set_state(state["noise_rng"])
        self._statistics.rows.copy_(state["statistics"])
        self._statistics.gradient_norms.copy_(state["gradient_norms"])
        self.step_count = state["step"]
        if self.world.rank:
            torch.manual_seed(_seed_of(self.config.seed, self.world.rank, self.step_count))
            return
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def close(self) -> None:
        """Stop the thread that reads images ahead."""
        self.batches.close()


def _placed(net: _Net, device: torch.device) -> _Net:
    """Move a network to the device. Convolutional networks get channels_last, the layout in which they are fastest."""
    if isinstance(net, (ConvGenerator, ConvAutoEncoder)):
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net
    return net.to(device)


def _seed_of(*numbers: int) -> int:
    """Return 63 bits that differ between different tuples of numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
