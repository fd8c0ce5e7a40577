"""The plain loop in a process of its own, as its users run it: ours keeps freed memory, which would help it too."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from ebgan_fast.models.families import AnyDiscriminator, AnyGenerator
from ebgan_fast.training import TrainConfig

from .public_loop import PublicLoop


@dataclass(frozen=True)
class Begin:
    """What the process begins with."""

    config: TrainConfig
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    real: Tensor
    noise: Tensor
    """Of the first step; later ones draw their own."""
    threads: int

    def networks(self) -> tuple[AnyGenerator, AnyDiscriminator]:
        """The generator and the discriminator in torch's default layout, whatever that of the weights is."""
        channels, height, width = self.real.shape[1:]
        generator = self.config.networks.generator((channels, height, width))
        discriminator = self.config.networks.discriminator((channels, height, width))
        generator.load_state_dict(self.generator)
        discriminator.load_state_dict(self.discriminator)
        return generator, discriminator


class PublicProcess:
    """Runs steps one by one on demand; idle in between."""

    def __init__(self, begin: Begin) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, begin), daemon=True)
        self._process.start()
        theirs.close()

    def step(self) -> tuple[float, float]:
        """One step; returns the losses of the discriminator and the generator."""
        self._mine.send("step")
        losses: tuple[float, float] = self._mine.recv()
        return losses

    def close(self) -> None:
        """End the process."""
        self._mine.close()
        self._process.join()


def _serve(pipe: Connection, begin: Begin) -> None:
    torch.set_num_threads(begin.threads)
    config = begin.config
    loop = PublicLoop(
        *begin.networks(),
        learning_rate=config.lr_g,
        beta1=config.beta1,
        margin=float(config.margin),
        pt_weight=config.pt_weight,
    )
    noise = begin.noise
    while True:
        try:
            pipe.recv()
        except EOFError:  # the other end is closed
            return
        pipe.send(loop.step(begin.real, noise))
        noise = torch.randn(noise.shape)
