"""The plain loop in a process of its own, as its users run it: ours keeps freed memory, which would help it too."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

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
    channels, height, width = begin.real.shape[1:]
    generator = config.networks.generator((channels, height, width))
    discriminator = config.networks.discriminator((channels, height, width))
    # Into torch's default layout, whatever theirs is.
    generator.load_state_dict(begin.generator)
    discriminator.load_state_dict(begin.discriminator)
    loop = PublicLoop(
        generator,
        discriminator,
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
