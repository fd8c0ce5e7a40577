"""The training step that `train` times, described in words that another process, or another commit's package, takes.

It imports no more of ebgan_fast than the trainer, its config and the image sets, as the commit may be an old one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ebgan_fast.data import PackedImages, TensorImages
from ebgan_fast.training import preset

from . import peak
from .cuda_timing import Synchronized, wait
from .first_step import Begin
from .timing import Clock, Step, WallClock, Watch
from .trainer import Trainer

if TYPE_CHECKING:
    from ebgan_fast.data import ImageSet
    from ebgan_fast.training import TrainConfig

PUBLIC, OWN = "public loop", "ebgan_fast"
WARM_UP = 3
"""Steps that a run with a CUDA graph takes before it records one."""
_HELD = 4  # batches in memory, where no folder is named


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A step. All fields are plain values, to be sent as JSON."""

    preset: str
    width: float
    batch_size: int
    device: str
    precision: str = "float32"
    cuda_graph: bool = False
    """Record the step, and replay it."""
    loop: str = OWN
    """Or `PUBLIC`, which is in float32."""
    folder: str | None = None
    """The folder of packed images; None: random ones in memory, which any commit's package can read."""

    def config(self) -> TrainConfig:
        """The preset's config, without what a step can do without."""
        fields: dict[str, Any] = {"batch_size": self.batch_size, "device": self.device, "precision": self.precision}
        if self.cuda_graph:  # an old commit has no such field
            fields["cuda_graph"] = True
        chosen = preset(self.preset, Path(), flip=False, ema=0.0, log_every=10**6, **fields)  # type: ignore[arg-type]
        networks: Any = chosen.networks  # of convolutions, which have a width
        return dataclasses.replace(chosen, networks=dataclasses.replace(networks, width=self.width))

    def images(self) -> ImageSet:
        """The folder's images, or random ones; on a GPU in its memory, where a run holds a set of this size."""
        return _images(self.folder, _HELD * self.batch_size, self.config().image_size, torch.device(self.device))

    def step(self, stack: contextlib.ExitStack, images: ImageSet | None = None) -> Step:
        """Build it; `stack` closes it. `images`: in the place of its own."""
        images = self.images() if images is None else images
        if self.loop == PUBLIC:
            return Begin.of(self.config(), images).public_steps()
        return stack.enter_context(contextlib.closing(Trainer(self.config(), images))).step


@functools.lru_cache(maxsize=1)
def _images(folder: str | None, count: int, side: int, device: torch.device) -> ImageSet:
    """One set for all contestants."""
    if folder is None:
        rng = torch.Generator().manual_seed(0)
        return TensorImages(torch.randint(256, (count, 3, side, side), generator=rng, dtype=torch.uint8)).to(device)
    packed = PackedImages(Path(folder))
    return packed if device.type == "cpu" else TensorImages(packed.gather(torch.arange(len(packed)))).to(device)


@dataclass(frozen=True)
class Timed:
    """A contestant."""

    clock: Clock
    first_call: float
    """Seconds of the first step: it compiles, and cuDNN chooses. Of a step that is recorded, those before that."""
    peak: int | None
    """Bytes of the GPU's memory during a later step, weights and optimizers included: of a step that is recorded,
    during that. None on the CPU."""
    cudnn_benchmark: bool = False


def watch_of(device: torch.device) -> Watch:
    """The watch by which steps are timed there."""
    return Synchronized() if device.type == "cuda" else WallClock()


def timed(build: Callable[[], Step], device: torch.device, first: int = 1) -> Timed:
    """Build a step, make its first call, of so many steps, and see what memory the next one takes."""
    before = peak.held(device)
    step = build()
    wait(device)
    start = time.perf_counter()
    for _ in range(first):
        step()
    wait(device)
    first_call = time.perf_counter() - start
    watch = watch_of(device)
    ready = watch.prepared(step)
    return Timed(lambda repeats: watch.seconds(ready, repeats), first_call, peak.rise(step, device, before))


def contestant(wanted: Wanted, stack: contextlib.ExitStack, images: ImageSet | None = None) -> Timed:
    """Build a step of this process and time it; one that can't run leaves nothing on the stack."""
    with contextlib.ExitStack() as own:
        first = WARM_UP if wanted.cuda_graph else 1
        one = timed(lambda: wanted.step(own, images), torch.device(wanted.device), first)
        stack.enter_context(own.pop_all())
    return one


def warm(device: torch.device) -> None:
    """Load the GPU's libraries, which the first contestant would else have to wait for alone."""
    if device.type == "cuda":
        images, weight = torch.ones(1, 8, 8, 8, device=device), torch.ones(8, 8, 3, 3, device=device).requires_grad_()
        torch.nn.functional.conv2d(images, weight).flatten(1).square().sum().backward()
        (weight.flatten(1) @ weight.flatten(1).t()).sum().item()
