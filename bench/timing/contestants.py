"""The training steps that `train` times: each is built, called once and given a clock, and may drop out later."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..subjects.training_step import WARM_UP, Wanted
from ..terminal import complaint
from . import watches
from .watches import Clock, Step, Synchronized, WallClock, Watch

if TYPE_CHECKING:
    from ebgan_fast.data import ImageSet


@dataclass(frozen=True)
class Timed:
    """One contestant, after its first call."""

    clock: Clock
    first_call: float
    """Seconds of the first step, which compiles, and in which cuDNN chooses. For a recorded step, of the steps before
    the recording."""
    peak: int | None
    """Bytes of the GPU's memory during a later step, weights and optimizers included. For a recorded step, during the
    recording. None on the CPU."""
    cudnn_benchmark: bool = False


def watch_of(device: torch.device) -> Watch:
    """Return the watch that times training steps on a device."""
    return Synchronized() if device.type == "cuda" else WallClock()


def timed(build: Callable[[], Step], device: torch.device, first: int = 1) -> Timed:
    """Build a step, make its first call, and find the memory that the next step takes.

    Args:
        build: Builds the step.
        device: The device that the step runs on.
        first: The number of steps in the first call.
    """
    before = watches.held(device)
    step = build()
    watches.wait(device)
    start = time.perf_counter()
    for _ in range(first):
        step()
    watches.wait(device)
    first_call = time.perf_counter() - start
    return Timed(watches.clock_of(step, watch_of(device)), first_call, watches.rise(step, device, before))


def contestant(wanted: Wanted, stack: contextlib.ExitStack, images: ImageSet | None = None) -> Timed:
    """Build a step of this process and return it timed. A step that cannot run leaves nothing on the stack.

    Args:
        wanted: The description of the step.
        stack: The stack that closes the step.
        images: The images to train on. None: the step's own.
    """
    with contextlib.ExitStack() as own:
        first = WARM_UP if wanted.cuda_graph else 1
        one = timed(lambda: wanted.step(own, images), torch.device(wanted.device), first)
        stack.enter_context(own.pop_all())
    return one


def warm(device: torch.device) -> None:
    """Load the GPU's libraries, for which the first contestant would otherwise wait alone."""
    if device.type == "cuda":
        images, weight = torch.ones(1, 8, 8, 8, device=device), torch.ones(8, 8, 3, 3, device=device).requires_grad_()
        torch.nn.functional.conv2d(images, weight).flatten(1).square().sum().backward()
        (weight.flatten(1) @ weight.flatten(1).t()).sum().item()


@dataclass
class Field:
    """All contestants of one run of `train`, and the faults found so far."""

    spares: bool = False
    """True to go on with the others if one contestant cannot run."""
    contestants: dict[str, Timed] = dataclasses.field(default_factory=dict)
    wrong: str | None = None
    """The fault of the first losses, in words."""
    compared: str | None = None
    """The name of the other commit's package."""
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    """The reason why a contestant dropped out, by contestant."""

    def add(self, who: str, build: Callable[[], Timed]) -> None:
        """Build a contestant, and make its first call."""
        try:
            self.contestants[who] = build()
        except Exception as error:  # out of memory, or another error that a GPU raises
            if not self.spares:
                raise
            self.drop(who, error)
        if who in self.failed:  # outside the handler, where the error no longer holds the tensors
            watches.release()

    def drop(self, who: str, error: Exception) -> None:
        """Go on without a contestant."""
        self.failed[who] = complaint(error)
        self.contestants.pop(who, None)

    def complaint(self) -> str:
        """Return why contestants dropped out, in one line."""
        return "; ".join(f"{who}: {why}" for who, why in self.failed.items())
