"""The start of a run, from nothing or from a checkpoint: what is checked and opened before the first step, and in which
order."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from signal import Signals
from typing import Any, TypeVar

import torch

from .._lock import FolderLock
from .._progress import Progress
from ..data.image_set import ImageSet
from ..data.packed import PackedImages
from ..data.training_set import open_images, settled
from ..ops.backends import choose, use_backend
from . import graph
from .config import TrainConfig, absolute, validate
from .display import PlainDisplay, SilentDisplay
from .parallel import StoppedError, StopSignals, World, joined, own_device
from .run.folder import RunFolder
from .run.tensorboard import check_installed
from .scoring import Evaluator
from .session import Session, TrainResult
from .step import Trainer

_Found = TypeVar("_Found")


def train(run: TrainConfig, *, resume: bool = False) -> TrainResult:
    """Train a run as its config says, and fill the run folder.

    SIGINT, SIGTERM, SIGHUP and SIGUSR1 let the current step end, save a checkpoint and return. A second SIGINT or
    SIGTERM stops at once (SystemExit). A signal also ends a score that is being computed. Its step was saved before,
    and the score is computed again when the run is resumed there.

    On the CPU a resumed run ends bit for bit like an uninterrupted one, if the number of threads and the backend are
    the same. The function seeds torch's global random numbers. Only one process at a time trains in a folder: it holds
    a lock, which the system releases when the process ends.

    Under torchrun every process calls this function with the same config. The first process writes the folder, which
    all processes must be able to read. A run may be resumed with another number of processes.

    Args:
        run: the config.
        resume: go on from the folder's checkpoint. If the folder is new, start.

    Returns:
        The steps done, the latest metrics, and the signal that stopped the run, if one did.

    Raises:
        ValueError: the config can't be used, or differs from the checkpoint's in a field that a resumed run may not
            change. Or the folder isn't empty and `resume` is False, or another process is writing there. Or the data
            (DataError) or the checkpoint (CheckpointError) can't be used. Nothing is overwritten then.
        BackendUnavailableError: the backend can't run here.
        NonFiniteError: a loss or weight became infinite or NaN. The last good checkpoint stays.
        OSError: the folder can't be read or written.

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.models import Mlp
        >>> from ebgan_fast.training import TrainConfig, train
        >>> config = TrainConfig(out=Path("runs/first"), steps=2, networks=Mlp(size_g=32, size_d=32), device="cpu")
        >>> result = train(config)  # doctest: +ELLIPSIS
        step 2 of 2  loss D ...
        done: 2 steps in ...
        >>> sorted(path.name for path in result.folder.iterdir())
        ['checkpoint.pt', 'config.json', 'curves.png', 'metrics.jsonl', 'samples']
    """
    validate(run)
    folder = RunFolder(run.out)
    device = own_device(run.device)
    run = absolute(dataclasses.replace(run, device=str(device) if ":" in run.device else device.type))
    # "auto" leaves the choice to the environment variable EBGAN_FAST_BACKEND.
    backend = contextlib.nullcontext() if run.backend == "auto" else use_backend(run.backend)
    with (
        joined(device) as world,
        backend,
        _threads(run.threads),
        _cudnn_benchmark(run.cudnn_benchmark),
        StopSignals() as stop,
        contextlib.closing(_Lock(folder, world)) as lock,
    ):
        return _Beginning(run, folder, world, stop, lock).run(resume)


class _Lock:
    """The lock of the run's folder. The first process of the run holds it."""

    def __init__(self, folder: RunFolder, world: World) -> None:
        self._folder = folder
        self._world = world
        self._lock = FolderLock(folder.lock, "train in another folder")
        self._made_folder = False

    def take(self, say: Callable[[str], None]) -> None:
        """Take the lock, or raise an error in every process."""
        _in_first(self._world, lambda: self._taken(say))

    def _taken(self, say: Callable[[str], None]) -> None:
        self._made_folder = not self._folder.path.exists()
        self._folder.path.mkdir(parents=True, exist_ok=True)
        if why := self._lock.acquire():
            say(f"{self._folder.path}: no lock is possible here ({why}): make sure that only one run writes here")

    def close(self) -> None:
        """Release the lock. Remove the folder if `take` made it and it is still empty."""
        self._lock.release()
        if self._made_folder:
            self._folder.remove_if_unused()


class _Beginning:
    """Everything before the first step. Mistakes show before anything is written, and before anything that takes
    minutes."""

    def __init__(self, run: TrainConfig, folder: RunFolder, world: World, stop: StopSignals, lock: _Lock) -> None:
        self.config = run
        self.folder = folder
        self.world = world
        self.stop = stop
        self.lock = lock
        self.device = own_device(run.device)
        self.display = (PlainDisplay if world.is_first else SilentDisplay)(run.steps)

    def run(self, resume: bool) -> TrainResult:
        """Prepare the run, then train to its end."""
        recorder = graph.recorder_of(self.device, self.world.size) if self.config.cuda_graph else None
        saved = None
        if resume and self.folder.checkpoint.exists():
            self.lock.take(self.display.say)
            saved = self.folder.saved_state(self.config, self.display.say)
        else:
            self.folder.check_unused()
        choose(self.device.type)
        if self.config.tensorboard:
            check_installed()
        try:
            # All processes agree in there to go on: none writes before all have checked.
            images, evaluator = self._images(verified=saved is not None)
        except StoppedError as stopped:
            return self._stopped_before(stopped.number, saved)
        with contextlib.closing(Trainer(self.config, images, self.world, recorder=recorder)) as trainer:
            if saved is None:
                self.lock.take(self.display.say)
                # Check again: another run may have begun here, and ended, while this one read its images.
                _in_first(self.world, self.folder.check_unused)
            return Session(self.folder, trainer, images, evaluator, self.stop).run(saved)

    def _images(self, verified: bool) -> tuple[ImageSet, Evaluator | None]:
        """Return the training images where the steps read them, and in the first process what scores the run."""
        run, first = self.config, self.world.is_first
        images = open_images(run.data, run.image_size, run.networks.channels)
        if not verified and first and isinstance(images, PackedImages):
            # This reads 0.5 to 0.7 GB/s, seconds for CelebA and two minutes for ImageNet at 128 pixels. The pages are
            # in memory afterward.
            packed = images
            self._heeding(lambda: packed.verify(self._progress_of("verifying")))
        self._agree_to_go_on()
        # The evaluator comes before `settled`, which may take minutes too.
        evaluator = Evaluator(run.features, images, self.device) if run.evaluate_every and first else None
        images = self._heeding(lambda: settled(images, self.device, self.display.say, self.stop.check)) or images
        self._agree_to_go_on()
        if evaluator is not None:
            evaluator.scorer.images = images  # the same images, now in memory if they fit
        return images, evaluator

    def _progress_of(self, what: str) -> Progress:
        show = self.display.progress()

        def progress(share: float, text: str) -> None:
            self.stop.check()
            show(share, f"{what} {text}: {share:.0%}")

        return progress

    def _heeding(self, work: Callable[[], _Found]) -> _Found | None:
        """Return the result of long work, or None if a signal ended it. `_agree_to_go_on` then ends all processes
        together."""
        with contextlib.suppress(StoppedError):
            return work()
        return None

    def _agree_to_go_on(self) -> None:
        (number,) = self.world.largest(self.stop.received or 0)
        if number:
            raise StoppedError(number)

    def _stopped_before(self, number: int, saved: dict[str, Any] | None) -> TrainResult:
        state = "nothing is written yet" if saved is None else "the run is as it was"
        self.display.say(f"stopped by {Signals(number).name} before its first step; {state}: {self.folder.path}")
        lines = self.folder.metrics.lines()
        step = 0 if saved is None else int(saved["trainer"]["step"])
        return TrainResult(self.folder.path, step, lines[-1] if lines else None, number)


def _in_first(world: World, work: Callable[[], None]) -> None:
    """Do work in the first process. If it raises an error, raise one in every process: the others would wait for
    ever."""
    problem: Exception | None = None
    if world.is_first:
        try:
            work()
        except (ValueError, OSError) as error:
            problem = error
    if world.any(problem is not None):
        raise problem or ValueError("got a run that the first process couldn't begin; its message says why")


@contextlib.contextmanager
def _cudnn_benchmark(wanted: bool) -> Iterator[None]:
    """Within the block, switch on cuDNN's timing of its algorithms if wanted; otherwise leave the program's setting."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted or before
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
