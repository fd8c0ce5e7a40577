"""The training step that `train` times: the training program's, and a plain loop's beside it.

`Wanted` describes a step in plain values, which another process takes as JSON. `Begin` holds the weights and the batch
that both loops begin with. `check` compares their first losses with float64 before any step is timed.

This module is imported beside the package of an old commit too. So it imports no more of ebgan_fast than the trainer,
its config and the image sets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ebgan_fast.data import PackedImages, TensorImages
from ebgan_fast.training import preset

from ..results import tf32
from . import public_loop

if TYPE_CHECKING:
    from ebgan_fast.data import ImageSet
    from ebgan_fast.memory import keep_freed_memory
    from ebgan_fast.models.families import AnyDiscriminator, AnyGenerator
    from ebgan_fast.training import TrainConfig
    from ebgan_fast.training.step import Trainer
else:  # an earlier commit has these in other modules
    try:
        from ebgan_fast.training.step import Trainer
    except ModuleNotFoundError:
        from ebgan_fast.training.trainer import Trainer

    keep_freed_memory: Callable[[], bool] = bool  # the function of a commit that has none
    with contextlib.suppress(ModuleNotFoundError):
        pass
    with contextlib.suppress(ModuleNotFoundError):
        pass

PUBLIC, OWN = "public loop", "ebgan_fast"
WARM_UP = 3
"""Steps that a run with a CUDA graph takes before it records one."""
_HELD = 4  # batches in memory, if no folder is named
_ULPS = 4  # units of float32, beside twice the error of eager torch, which may be small by luck

Losses = tuple[float, float]
"""The discriminator's loss and the generator's."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The description of a step in plain values, to be sent as JSON."""

    preset: str
    width: float
    """Factor on the networks' maps."""
    batch_size: int
    device: str
    precision: str = "float32"
    cuda_graph: bool = False
    """True to record the step and replay the recording."""
    loop: str = OWN
    """`OWN`, or `PUBLIC`, which is in float32."""
    folder: str | None = None
    """The folder of packed images. None: random images in memory, which any commit's package can read."""

    def config(self) -> TrainConfig:
        """Return the preset's config, without what a step does not need."""
        fields: dict[str, Any] = {"batch_size": self.batch_size, "device": self.device, "precision": self.precision}
        if self.cuda_graph:  # an old commit has no such field
            fields["cuda_graph"] = True
        chosen = preset(self.preset, Path(), flip=False, ema=0.0, log_every=10**6, **fields)  # type: ignore[arg-type]
        networks: Any = chosen.networks  # convolutional networks, which have a width
        return dataclasses.replace(chosen, networks=dataclasses.replace(networks, width=self.width))

    def images(self) -> ImageSet:
        """Return the folder's images, or random ones.

        On a GPU the images lie in its memory, as a run holds a set of this size there.
        """
        return _images(self.folder, _HELD * self.batch_size, self.config().image_size, torch.device(self.device))

    def step(self, stack: contextlib.ExitStack, images: ImageSet | None = None) -> Callable[[], object]:
        """Build the step and return it.

        Args:
            stack: The stack that closes the trainer.
            images: The images to train on. None: the step's own.
        """
        images = self.images() if images is None else images
        if self.loop == PUBLIC:
            return Begin.of(self.config(), images).public_steps()
        return stack.enter_context(contextlib.closing(Trainer(self.config(), images))).step


@functools.lru_cache(maxsize=1)
def _images(folder: str | None, count: int, side: int, device: torch.device) -> ImageSet:
    """Return one set of images, which all contestants share."""
    if folder is None:
        rng = torch.Generator().manual_seed(0)
        return TensorImages(torch.randint(256, (count, 3, side, side), generator=rng, dtype=torch.uint8)).to(device)
    packed = PackedImages(Path(folder))
    return packed if device.type == "cpu" else TensorImages(packed.gather(torch.arange(len(packed)))).to(device)


# ---- The plain loop


@dataclass(frozen=True)
class Begin:
    """The weights, images and noise that a plain loop begins with."""

    config: TrainConfig
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    real: Tensor
    noise: Tensor
    """The first step's noise. Later steps draw new noise."""

    @classmethod
    def of(cls, config: TrainConfig, images: ImageSet) -> Begin:
        """Return a trainer's weights, first batch and first noise, on the trainer's device."""
        with contextlib.closing(Trainer(config, images)) as trainer:
            shape = config.batch_size, trainer.generator.noise_size
            rng = torch.Generator(trainer.device).manual_seed(config.seed)
            return cls(
                config,
                trainer.generator.state_dict(),
                trainer.discriminator.state_dict(),
                trainer.batches.next().contiguous(),
                torch.randn(shape, generator=rng, device=trainer.device),
            )

    def networks(self) -> tuple[AnyGenerator, AnyDiscriminator]:
        """Return the generator and the discriminator in torch's default layout, whatever layout the weights have."""
        channels, height, width = self.real.shape[1:]
        generator = self.config.networks.generator((channels, height, width))
        discriminator = self.config.networks.discriminator((channels, height, width))
        generator.load_state_dict(self.generator)
        discriminator.load_state_dict(self.discriminator)
        return generator.to(self.real.device), discriminator.to(self.real.device)

    def public_steps(self) -> Callable[[], Losses]:
        """Return a function that takes the plain loop's next step.

        Every step has the same batch, so that reading costs nothing, and new noise.
        """
        config = self.config
        loop = public_loop.PublicLoop(
            *self.networks(),
            learning_rate=config.lr_g,
            beta1=config.beta1,
            margin=float(config.margin),
            pt_weight=config.pt_weight,
        )
        noise = self.noise

        def step() -> Losses:
            nonlocal noise
            losses = loop.step(self.real, noise)
            noise = torch.randn(noise.shape, device=noise.device)
            return losses

        return step


class PublicProcess:
    """The plain loop in a process of its own, on the CPU, which is idle between steps.

    Its users run it so. The training program keeps freed memory, which would help a plain loop in the same process.
    """

    def __init__(self, begin: Begin, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, begin, threads), daemon=True)
        self._process.start()
        theirs.close()

    def step(self) -> Losses:
        """Take one step, and return the losses of the discriminator and the generator."""
        self._mine.send("step")
        losses: Losses = self._mine.recv()
        return losses

    def close(self) -> None:
        """End the process."""
        self._mine.close()
        self._process.join()


def _serve(pipe: Connection, begin: Begin, threads: int) -> None:
    torch.set_num_threads(threads)
    step = begin.public_steps()
    while True:
        try:
            pipe.recv()
        except EOFError:  # the other end is closed
            return
        pipe.send(step())


# ---- The check of the first losses

_Number = TypeVar("_Number", float, Tensor)


def allowance(error: _Number, truth: _Number) -> _Number:
    """Return the difference from float64 that a float32 result may have.

    The allowance is twice the error that eager torch makes in float32, plus four units of float32 of the true value.
    """
    return 2 * error + _ULPS * torch.finfo(torch.float32).eps * abs(truth)


def check(begin: Begin, images: ImageSet, public: Callable[[], Losses] | None = None) -> None:
    """Raise ValueError if the first losses of a trainer, or of a plain loop, are not right.

    The check runs in float32 without tf32, with which the allowance would be a thousand times as large.

    Args:
        begin: The weights, images and noise of the first step.
        images: The images that the trainer reads.
        public: The first step of a plain loop. None: check the trainer alone.

    Raises:
        ValueError: A loss is off, as `check_agreement` says.
    """
    with tf32.switched(False):
        with contextlib.closing(Trainer(begin.config, images)) as trainer:
            trainer.step()
            told = trainer.statistics()
        found = {"ebgan_fast": (told["loss_d"], told["loss_g"])}
        if public is not None:
            found["public loop"] = public()
        check_agreement(begin, found)


def check_agreement(begin: Begin, found: Mapping[str, Losses]) -> None:
    """Raise ValueError if first losses differ from those of float64.

    Convolutions add in different orders in the two memory layouts. So the error of eager torch is the largest of both
    losses in both layouts. At half width loss_g was off by 1 unit in the last place in one layout, by luck, while the
    program's was off by 6.

    Args:
        begin: The weights, images and noise of the first step.
        found: The losses, by the loop that found them.

    Raises:
        ValueError: A loss is off by more than twice the error of eager torch in float32, plus four units.
    """
    truth = _first_losses(begin, torch.float64, torch.contiguous_format)
    layouts = (torch.contiguous_format, torch.channels_last)
    eager = [_first_losses(begin, torch.float32, layout) for layout in layouts]
    error = max(abs(one / exact - 1) for near in eager for one, exact in zip(near, truth, strict=True))
    for who, losses in found.items():
        for name, one, exact in zip(("loss_d", "loss_g"), losses, truth, strict=True):
            budget = allowance(error * abs(exact), exact)
            if not abs(one - exact) <= budget:  # NaN too
                raise ValueError(f"{name} of the first step, {who}: got {one}, expected {exact} within {budget:.1e}")


@torch.no_grad()
def _first_losses(begin: Begin, dtype: torch.dtype, layout: torch.memory_format) -> Losses:
    """Return the first step's losses at a dtype, in eager torch, with networks and images in a layout."""
    config, real = begin.config, begin.real.to(dtype).contiguous(memory_format=layout)
    generator, discriminator = begin.networks()
    for network in (generator, discriminator):
        network.to(dtype)
        network.to(memory_format=layout)  # type: ignore[call-overload]
    fakes = generator(begin.noise.to(dtype))
    recon_fake, code = discriminator(fakes)
    energy_fake = public_loop.energy(recon_fake, fakes)
    energy_real = public_loop.energy(discriminator(real)[0], real)
    loss_d = energy_real.mean() + (float(config.margin) - energy_fake).relu().mean()
    loss_g = energy_fake.mean() + config.pt_weight * public_loop.pulling_away(code.flatten(1))
    return loss_d.item(), loss_g.item()
