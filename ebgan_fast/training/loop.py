"""Training from start or checkpoint to the end: what is logged, drawn, scored and saved, when, and how it stops."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch

from ..data.image_set import ImageSet
from ..data.packed import PackedImages
from ..ops.backends import choose, use_backend
from . import checkpoint, config_file
from .checkpoint import CheckpointError
from .config import TrainConfig
from .curves import save_curves
from .evaluation import Evaluator
from .folder import RunFolder
from .images import load_images, settled
from .logs import Display, MetricsFile, PlainDisplay, SilentDisplay, make_display
from .margin import mean_real_energy
from .memory import peak_memory
from .samples import sample_images, save_grid
from .signals import StoppedError, StopSignals
from .tensorboard import TensorBoard
from .trainer import NonFiniteError, Trainer
from .validation import validate
from .world import StopVote, joined, own_device

_GRID_COLUMNS = 10
_GRID_IMAGES = 100


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run.

    Attributes:
        folder: the run folder.
        step: steps done in all.
        stats: the latest line of metrics.jsonl, or None if there is none yet.
        stopped_by: number of the signal that stopped it before its last step, or None.

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.models import Mlp
        >>> from ebgan_fast.training import TrainConfig, train
        >>> config = TrainConfig(out=Path("runs/first"), steps=2, networks=Mlp(size_g=32, size_d=32), device="cpu")
        >>> result = train(config)  # doctest: +ELLIPSIS
        step 2 of 2  loss D ...
        done: 2 steps in ...
        >>> result.step, result.stopped_by
        (2, None)
        >>> result.stats["step"], result.stats["margin"], result.stats["loss_d"] > 0
        (2, 10.0, True)
    """

    folder: Path
    step: int
    stats: dict[str, Any] | None
    stopped_by: int | None


def train(run: TrainConfig, *, resume: bool = False) -> TrainResult:
    """Train as the config says, and fill the run folder.

    SIGINT and SIGTERM let the step end, save and return; a second one stops at once (SystemExit). A score under way is
    given up, and made up for when the run goes on from that step, which is saved before it is scored. On the CPU a
    resumed run ends bit for bit where an uninterrupted one does, given the same number of threads and backend. The
    global random numbers of torch are seeded.

    Under torchrun every process calls this with the same config; the first one writes the folder, which all can read.
    A run may be resumed by another number of processes.

    Args:
        run: the config.
        resume: continue from the folder's checkpoint; start if the folder is new.

    Raises:
        ValueError: a config that can't be used, or differs from the checkpoint's where it matters; a folder
            that isn't empty and isn't to be resumed; unusable data (DataError) or checkpoint
            (CheckpointError). Nothing is overwritten then.
        BackendUnavailableError: the backend can't run here.
        NonFiniteError: a loss or weight became infinite or NaN; the last good checkpoint stays.
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
    device = own_device(run.device)
    run = dataclasses.replace(run, device=str(device) if ":" in run.device else device.type)
    folder = RunFolder(run.out)
    # "auto" leaves the choice to the environment variable.
    backend = contextlib.nullcontext() if run.backend == "auto" else use_backend(run.backend)
    with joined(device) as world, backend, _threads(run.threads), _cudnn_benchmark(run.cudnn_benchmark):
        saved = None
        if resume and folder.checkpoint.exists():
            saved = folder.saved_state(run)
        else:
            folder.check_unused()
        world.barrier()  # nobody writes before everyone has looked
        choose(device.type)  # a mistake shows before anything is written
        images = load_images(run)
        if saved is None and world.is_first and isinstance(images, PackedImages):
            # 0.5 to 0.7 GB/s, and the pages are warm afterwards: seconds for CelebA, two minutes for ImageNet at 128.
            images.verify()
        # Before the images are settled, which may take minutes: a mistake shows at once.
        evaluator = Evaluator(run.features, images, device) if run.evaluate_every and world.is_first else None
        say = (PlainDisplay if world.is_first else SilentDisplay)(run.steps).say
        images = settled(images, device, say)
        if evaluator is not None:
            evaluator.scorer.images = images  # the same ones, in memory if they fit
        with contextlib.closing(Trainer(run, images, world)) as trainer:
            return _Session(folder, trainer, images, evaluator).run(saved)


class _Session:
    """One call of `train`: a trainer, and the folder that it fills."""

    def __init__(self, folder: RunFolder, trainer: Trainer, images: ImageSet, evaluator: Evaluator | None) -> None:
        self.config = trainer.config
        self.folder = folder
        self.trainer = trainer
        self.images = images
        self.evaluator = evaluator
        self.writes = trainer.world.is_first
        self.metrics = MetricsFile(folder.metrics)
        self.scores = MetricsFile(folder.scores)
        self.gave_up_score = False
        self.saved_step = 0
        self.elapsed_before = 0.0
        self.started = self.interval_started = time.perf_counter()
        self.interval_first = 0

    def run(self, saved: dict[str, Any] | None) -> TrainResult:
        if saved is not None:
            self._restore(saved)
        trainer, steps = self.trainer, self.config.steps
        with (
            make_display(trainer.step_count, steps, quiet=not self.writes) as display,
            StopSignals() as stop,
            contextlib.closing(StopVote(trainer.world)) as vote,
            TensorBoard.of_run(self.config, self.folder, trainer.step_count, self.writes) as board,
        ):
            if saved is None:
                self._begin(display)
            elif trainer.step_count:
                display.say(f"resumed at step {trainer.step_count}: {self.folder.path}")
            stopped_by = None
            try:
                if self._lacks_score():
                    self._score(display, board, stop)
                while trainer.step_count < steps and (stopped_by := vote(stop.received)) is None:
                    self._step(display, board, stop)
                if trainer.step_count > self.saved_step:
                    self._save()
            except NonFiniteError as error:
                self._draw_curves()
                raise NonFiniteError(
                    f"{error}; the last good checkpoint is of step {self.saved_step}: {self.folder.checkpoint}"
                ) from error
            if self.gave_up_score and stopped_by is None:  # that of the last step
                stopped_by = stop.received
            if stopped_by is not None:
                self._draw_curves()
            display.say(self._closing_words(stopped_by))
        lines = self.metrics.lines()
        return TrainResult(self.folder.path, trainer.step_count, lines[-1] if lines else None, stopped_by)

    def _begin(self, display: Display) -> None:
        if self.config.margin == "auto":
            self._find_margin(display)
        if self.writes:
            self.folder.path.mkdir(parents=True, exist_ok=True)
        # The first checkpoint at once: from here on the folder can be resumed.
        self._save()
        if self.writes:
            config_file.write_json(self.config, self.folder.config)

    def _find_margin(self, display: Display) -> None:
        steps = self.config.margin_auto_steps
        display.say(f"margin auto: training an auto-encoder on real images alone, {steps} steps")
        with contextlib.closing(Trainer(self.config, self.images, self.trainer.world)) as apart:
            every = max(1, steps // 10)
            self.trainer.start_margin = mean_real_energy(
                apart, steps, lambda step: display.say(f"margin auto: step {step}") if step % every == 0 else None
            )
        display.say(f"margin auto: {self.trainer.start_margin:.4g}, the mean energy of real images")

    def _restore(self, saved: dict[str, Any]) -> None:
        if saved.get("data") != self.images.fingerprint:
            raise ValueError(f"{self.folder.checkpoint}: got other images, expected those that the run was made with")
        try:
            self.trainer.load_state_dict(saved["trainer"])
            self.elapsed_before = saved["elapsed_s"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.folder.checkpoint}: got a state that doesn't fit ({error})") from error
        self.saved_step = self.interval_first = self.trainer.step_count
        if self.writes and self.trainer.step_count < self.config.steps:
            self.metrics.rewind(self.trainer.step_count, self.config.log_every)
            self.scores.rewind(self.trainer.step_count, 1)
            # The checkpoint was written before its step's score, which took time too.
            spent = (line.get("elapsed_s", 0.0) for line in self.scores.lines())
            self.elapsed_before = max(self.elapsed_before, *spent, 0.0)
            config_file.write_json(self.config, self.folder.config)

    def _step(self, display: Display, board: TensorBoard, stop: StopSignals) -> None:
        trainer, run = self.trainer, self.config
        margin, (lr_g, lr_d) = trainer.margin, trainer.learning_rates
        trainer.step()
        step = trainer.step_count
        last = step == run.steps
        display.advance(step)
        if step % run.log_every == 0 or last:
            line = {"step": step, **trainer.statistics(), "margin": margin, "lr_g": lr_g, "lr_d": lr_d}
            line |= self._timing() | {"memory_gb": peak_memory(trainer.device)}
            if self.writes:
                self.metrics.append(line)
            board.scalars(line)
            display.metrics(line)
        if self.writes and (step % run.sample_every == 0 or last):
            images = sample_images(trainer.sampler(), _GRID_IMAGES, run.seed)
            save_grid(images, self.folder.grid(step), _GRID_COLUMNS)
            board.grid(self.folder.grid(step), step)
            self._draw_curves()
        scored = self._is_scored(step)
        if scored or step % run.checkpoint_every == 0:
            self._save()
        if scored and self.evaluator is not None:
            self._score(display, board, stop)

    def _is_scored(self, step: int) -> bool:
        """Return True if the first process scores the generator of this step; the same in every process."""
        run = self.config
        return run.evaluate_every > 0 and step > 0 and (step % run.evaluate_every == 0 or step == run.steps)

    def _lacks_score(self) -> bool:
        """Return True if this process has to make up for a score that was given up."""
        step = self.trainer.step_count
        return (
            self.evaluator is not None
            and self._is_scored(step)
            and all(line["step"] != step for line in self.scores.lines())
        )

    def _score(self, display: Display, board: TensorBoard, stop: StopSignals) -> None:
        """Score the generator; as that may take minutes, a signal ends it."""
        assert self.evaluator is not None
        show = display.progress()

        def progress(share: float, text: str) -> None:
            stop.check()
            show(share, text)

        began = time.perf_counter()
        step, run = self.trainer.step_count, self.config
        try:
            scores = self.evaluator.score(self.trainer.sampler(), run.evaluate_samples, run.seed, progress)
        except StoppedError:
            self.gave_up_score = True
            return
        except Exception:
            display.say(f"step {step} couldn't be scored; it is saved, and --resume goes on: {self.folder.path}")
            raise
        line = {"step": step, "elapsed_s": self._elapsed(time.perf_counter()), **scores}
        self.scores.append(line)
        board.scalars({name: line[name] for name in ("step", "fd", "kid")})
        display.say(f"step {step}  {line['features']} {line['fd']:.4g}  KID {line['kid']:.4g} ± {line['kid_std']:.2g}")
        self.interval_started += time.perf_counter() - began  # steps_per_s is of training alone

    def _timing(self) -> dict[str, float]:
        now = time.perf_counter()
        rate = (self.trainer.step_count - self.interval_first) / (now - self.interval_started)
        self.interval_first, self.interval_started = self.trainer.step_count, now
        return {
            "steps_per_s": rate,
            "images_per_s": rate * self.config.batch_size,
            "elapsed_s": self._elapsed(now),
        }

    def _elapsed(self, now: float) -> float:
        return self.elapsed_before + now - self.started

    def _save(self) -> None:
        self.trainer.check_finite()
        self.saved_step = self.trainer.step_count
        if not self.writes:
            return
        state = {
            "config": config_file.to_dict(self.config),
            "image_shape": list(self.images.shape),
            "data": self.images.fingerprint,
            "elapsed_s": self._elapsed(time.perf_counter()),
            "trainer": self.trainer.state_dict(),
        }
        checkpoint.write(self.folder.checkpoint, state)

    def _draw_curves(self) -> None:
        if self.writes and (lines := self.metrics.lines()):
            save_curves(lines, self.folder.curves, self.folder.path.resolve().name)

    def _closing_words(self, stopped_by: int | None) -> str:
        step, steps, folder = self.trainer.step_count, self.config.steps, self.folder.path
        if stopped_by is None:
            return f"done: {step} steps in {self._elapsed(time.perf_counter()):.0f} s: {folder}"
        name = Signals(stopped_by).name
        return f"stopped by {name} and saved at step {step} of {steps}; --resume goes on: {folder}"


@contextlib.contextmanager
def _cudnn_benchmark(wanted: bool) -> Iterator[None]:
    """Switch cuDNN's trials on where they are wanted; else the program's own setting holds."""
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
