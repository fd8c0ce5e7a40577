"""The plain loop in a process of its own, as its users run it: ours keeps freed memory, which would help it too."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import torch

from .first_step import Begin, Losses


class PublicProcess:
    """Runs steps one by one on demand, on the CPU; idle in between."""

    def __init__(self, begin: Begin, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, begin, threads), daemon=True)
        self._process.start()
        theirs.close()

    def step(self) -> Losses:
        """One step; returns the losses of the discriminator and the generator."""
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
