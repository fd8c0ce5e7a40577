"""Training from start or checkpoint to the end: what is logged, drawn and saved, when, and how it stops."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from torch import Tensor

from ..data.mnist import load_mnist
from ..ops.backends import choose, use_backend
from . import checkpoint, config
from .checkpoint import CheckpointError
from .config import TrainConfig
from .curves import save_curves
from .logs import Display, MetricsFile, make_display
from .samples import sample_images, save_grid
from .signals import StopSignals
from .trainer import NonFiniteError, Trainer

_GRID_COLUMNS = 10
_GRID_IMAGES = 100


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        folder: the run folder.
        step: steps done in all.
        stats: the latest line of metrics.jsonl, or None if there is none yet.
        stopped_by: number of the signal that stopped it before its last step, or None.
    """

    folder: Path
    step: int
    stats: dict[str, Any] | None
    stopped_by: int | None


def train(run: TrainConfig, *, resume: bool = False) -> TrainResult:
    """Train as the config says, and fill the run folder.

    SIGINT and SIGTERM let the step end, save and return; a second one stops at once (SystemExit). On the CPU
    a resumed run ends bit for bit where an uninterrupted one does, given the same number of threads and
    backend. The global random numbers of torch are seeded.

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
    """
    config.validate(run)
    checkpoint_path = run.out / "checkpoint.pt"
    saved = None
    if resume and checkpoint_path.exists():
        saved = _read_matching(checkpoint_path, run)
    else:
        _check_unused(run.out, checkpoint_path)
    # "auto" leaves the choice to the environment variable.
    backend = contextlib.nullcontext() if run.backend == "auto" else use_backend(run.backend)
    with backend, _threads(run.threads):
        choose(torch.device(run.device).type)  # a mistake shows before anything is written
        images = load_mnist(run.data).train_images
        trainer = Trainer(run, images)
        return _Session(run, trainer, checkpoint_path, _fingerprint(images)).run(saved)


class _Session:
    """One call of `train`: a trainer, and the folder that it fills."""

    def __init__(self, run: TrainConfig, trainer: Trainer, checkpoint_path: Path, data: str) -> None:
        self.config = run
        self.trainer = trainer
        self.checkpoint_path = checkpoint_path
        self.data = data
        self.metrics = MetricsFile(run.out / "metrics.jsonl")
        self.saved_step = 0
        self.elapsed_before = 0.0
        self.started = self.interval_started = time.perf_counter()
        self.interval_first = 0

    def run(self, saved: dict[str, Any] | None) -> TrainResult:
        if saved is None:
            self._begin()
        else:
            self._restore(saved)
        trainer, steps = self.trainer, self.config.steps
        with make_display(trainer.step_count, steps) as display, StopSignals() as stop:
            if trainer.step_count:
                display.say(f"resumed at step {trainer.step_count}: {self.config.out}")
            try:
                while trainer.step_count < steps and stop.received is None:
                    self._step(display)
                if trainer.step_count > self.saved_step:
                    self._save()
            except NonFiniteError as error:
                self._draw_curves()
                raise NonFiniteError(
                    f"{error}; the last good checkpoint is of step {self.saved_step}: {self.checkpoint_path}"
                ) from error
            stopped_by = stop.received if trainer.step_count < steps else None
            if stopped_by is not None:
                self._draw_curves()
            display.say(self._closing_words(stopped_by))
        lines = self.metrics.lines()
        return TrainResult(self.config.out, trainer.step_count, lines[-1] if lines else None, stopped_by)

    def _begin(self) -> None:
        self.config.out.mkdir(parents=True, exist_ok=True)
        # The first checkpoint at once: from here on the folder can be resumed.
        self._save()
        config.write_json(self.config, self.config.out / "config.json")

    def _restore(self, saved: dict[str, Any]) -> None:
        if saved.get("data") != self.data:
            raise ValueError(f"{self.checkpoint_path}: got other images, expected those that the run was made with")
        try:
            self.trainer.load_state_dict(saved["trainer"])
            self.elapsed_before = saved["elapsed_s"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.checkpoint_path}: got a state that doesn't fit ({error})") from error
        self.saved_step = self.interval_first = self.trainer.step_count
        if self.trainer.step_count < self.config.steps:
            self.metrics.rewind(self.trainer.step_count, self.config.log_every)
            config.write_json(self.config, self.config.out / "config.json")

    def _step(self, display: Display) -> None:
        trainer, run = self.trainer, self.config
        margin, (lr_g, lr_d) = trainer.margin, trainer.learning_rates
        trainer.step()
        step = trainer.step_count
        last = step == run.steps
        display.advance(step)
        if step % run.log_every == 0 or last:
            line = {"step": step, **trainer.statistics(), "margin": margin, "lr_g": lr_g, "lr_d": lr_d}
            line |= self._timing()
            self.metrics.append(line)
            display.metrics(line)
        if step % run.sample_every == 0 or last:
            images = sample_images(trainer.sampler(), _GRID_IMAGES, run.seed)
            save_grid(images, run.out / "samples" / f"step_{step:06d}.png", _GRID_COLUMNS)
            self._draw_curves()
        if step % run.checkpoint_every == 0:
            self._save()

    def _timing(self) -> dict[str, float]:
        now = time.perf_counter()
        rate = (self.trainer.step_count - self.interval_first) / (now - self.interval_started)
        self.interval_first, self.interval_started = self.trainer.step_count, now
        return {"steps_per_s": rate, "elapsed_s": self._elapsed(now)}

    def _elapsed(self, now: float) -> float:
        return self.elapsed_before + now - self.started

    def _save(self) -> None:
        self.trainer.check_finite()
        state = {
            "config": config.to_dict(self.config),
            "data": self.data,
            "elapsed_s": self._elapsed(time.perf_counter()),
            "trainer": self.trainer.state_dict(),
        }
        checkpoint.write(self.checkpoint_path, state)
        self.saved_step = self.trainer.step_count

    def _draw_curves(self) -> None:
        if lines := self.metrics.lines():
            save_curves(lines, self.config.out / "curves.png", self.config.out.resolve().name)

    def _closing_words(self, stopped_by: int | None) -> str:
        step, steps, folder = self.trainer.step_count, self.config.steps, self.config.out
        if stopped_by is None:
            return f"done: {step} steps in {self._elapsed(time.perf_counter()):.0f} s: {folder}"
        name = Signals(stopped_by).name
        return f"stopped by {name} and saved at step {step} of {steps}; --resume goes on: {folder}"


def _check_unused(folder: Path, checkpoint_path: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: got a file, expected a new folder for the run")
    if not folder.exists():
        return
    # What a run that was killed in its first write leaves.
    leftover = checkpoint.temporary_name(checkpoint_path)
    if any(entry != leftover for entry in folder.iterdir()):
        has_run = checkpoint_path.exists()
        way_out = "--resume to go on with the run in it" if has_run else "another folder (it holds no checkpoint)"
        raise ValueError(f"{folder}: got a folder that isn't empty, expected a new one, or {way_out}")


def _read_matching(path: Path, run: TrainConfig) -> dict[str, Any]:
    saved = checkpoint.read(path)
    try:
        before = config.from_dict(saved["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    try:
        config.check_resumable(run, before)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return saved


def _fingerprint(images: Tensor) -> str:
    shape = json.dumps(list(images.shape)).encode()
    return hashlib.blake2b(shape + images.contiguous().numpy().tobytes(), digest_size=16).hexdigest()


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
