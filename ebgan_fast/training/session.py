"""One call of `train` from its first step to its last: when it saves, prints, draws and scores, and how it stops."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from .._console import shortened
from .._fitting import check_fits
from ..data.image_set import ImageSet
from ..memory import peak_memory
from .config import to_dict, write_json
from .display import Display, Hints, make_display
from .parallel import Absence, StoppedError, StopSignals, StopVote
from .pictures import save_curves, save_grid
from .run import checkpoint
from .run.checkpoint import CheckpointError
from .run.folder import RunFolder
from .run.tensorboard import TensorBoard
from .sampling import sample_images
from .scoring import Evaluator, worth_of
from .statistics import NonFiniteError
from .step import Trainer

_GRID_COLUMNS = 10
_GRID_IMAGES = 100


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run.

    Attributes:
        folder: the run folder.
        step: the number of steps done, with those of earlier sessions.
        stats: the latest line of metrics.jsonl, or None if there is none yet.
        stopped_by: the number of the signal that stopped the run before its last step, or None.

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


class Session:
    """A trainer, and the run folder that it fills.

    Several things may be due in one step. First the line of metrics and then the checkpoint are written. Whatever
    follows (prints, pictures, a score) may fail or be killed without the loss of a step. A resumed run does what its
    last step still lacks.

    Args:
        folder: the run folder.
        trainer: the trainer, before its first step.
        images: the training images, as the trainer has them.
        evaluator: what scores the run; None in all processes but the first, and in a run without scores.
        stop: the signals that this process has received.
    """

    def __init__(
        self, folder: RunFolder, trainer: Trainer, images: ImageSet, evaluator: Evaluator | None, stop: StopSignals
    ) -> None:
        self.config = trainer.config
        self.folder = folder
        self.trainer = trainer
        self.images = images
        self.evaluator = evaluator
        self.stop = stop
        self.world = trainer.world
        self.writes = trainer.world.is_first
        self.display: Display = make_display(0, self.config.steps, quiet=True)
        self.board = TensorBoard(None)
        self.hints = Hints()
        self.saved_step = 0
        self.score_given_up_by: int | None = None
        self.elapsed_before = 0.0
        self.started = self.interval_started = time.perf_counter()
        self.interval_first = 0

    def run(self, saved: dict[str, Any] | None) -> TrainResult:
        """Train to the last step, unless a signal ends the run before.

        Args:
            saved: the state of a checkpoint to resume from. None: start a new run.
        """
        if saved is not None:
            self._restore(saved)
        trainer, steps = self.trainer, self.config.steps
        with contextlib.ExitStack() as stack:
            self.display = stack.enter_context(make_display(trainer.step_count, steps, quiet=not self.writes))
            vote = stack.enter_context(contextlib.closing(StopVote(self.world)))
            if saved is None:
                self._save()  # at once, so that the run can be resumed from here on
            elif trainer.step_count:
                self.display.say(f"resumed at step {trainer.step_count}: {self.folder.path}")
            if self.config.tensorboard and self.writes:
                self.board = stack.enter_context(TensorBoard(self.folder.tensorboard, trainer.step_count - 1))
            stopped_by = None
            try:
                if math.isnan(trainer.start_margin):
                    self._find_margin(vote)
                self._hint(margin=trainer.margin)
                self._make_up()
                while trainer.step_count < steps:
                    stopped_by = self.score_given_up_by or vote(self.stop.received)
                    if stopped_by is not None:
                        break
                    self._step()
                if trainer.step_count > self.saved_step:
                    self._save()
            except StoppedError as stopped:
                stopped_by = stopped.number
            except NonFiniteError as error:
                self._draw_last_curves()
                raise NonFiniteError(
                    f"{error}; the last good checkpoint is of step {self.saved_step}: {self.folder.checkpoint}"
                ) from error
            stopped_by = stopped_by or self.score_given_up_by  # a signal during the last step's score
            if stopped_by is not None:
                self._draw_last_curves()
            self.display.say(self._closing_words(stopped_by))
        lines = self.folder.metrics.lines()
        return TrainResult(self.folder.path, trainer.step_count, lines[-1] if lines else None, stopped_by)

    def _find_margin(self, vote: StopVote) -> None:
        steps = self.config.margin_auto_steps
        every = max(1, steps // 10)
        self.display.say(f"margin auto: training an auto-encoder on real images alone, {steps} steps")

        def on_step(step: int) -> None:
            if (number := vote(self.stop.received)) is not None:
                raise StoppedError(number)
            if step % every == 0:
                self.display.say(f"margin auto: step {step}")

        with contextlib.closing(Trainer(self.config, self.images, self.world)) as apart:
            self.trainer.start_margin = apart.mean_real_energy(steps, on_step)
        self.display.say(f"margin auto: {self.trainer.start_margin:.4g}, the mean energy of real images")
        self._save()

    def _restore(self, saved: dict[str, Any]) -> None:
        if saved.get("data") != self.images.fingerprint:
            raise ValueError(f"{self.folder.checkpoint}: got other images, expected those that the run was made with")
        try:
            self.trainer.load_state_dict(saved["trainer"])
            check_fits(saved["elapsed_s"], 0.0, "elapsed_s")
            self.elapsed_before = saved["elapsed_s"]
        except Exception as error:  # values of any kind may stand in the state, and raise anything
            reason = shortened(str(error) or type(error).__name__)
            raise CheckpointError(
                f"{self.folder.checkpoint}: got a state that doesn't fit ({reason}), expected one of this run"
            ) from error
        step = self.saved_step = self.interval_first = self.trainer.step_count
        if not self.writes:
            return
        self.folder.scores.rewind(step)  # also after the last step, whose score may have been cut short
        if step < self.config.steps:
            self.folder.metrics.rewind(step, self.config.log_every)
            # The checkpoint's time is from before its step was scored. The line of the score has the time after it.
            spent = (line["elapsed_s"] for line in self.folder.scores.lines())
            self.elapsed_before = max(self.elapsed_before, *spent, 0.0)
        if step < self.config.steps or not self.folder.config.exists():
            write_json(self.config, self.folder.config)
        self.hints = Hints(self.folder.metrics.lines())

    def _make_up(self) -> None:
        """Do what was due in the last step of a resumed run, but wasn't done because the run was killed."""
        step = self.trainer.step_count
        if self.writes and step > 0:
            lines = self.folder.metrics.lines()
            if self.config.tensorboard and lines and lines[-1]["step"] == step:
                self.board.scalars(lines[-1])
            if self._is_drawn(step) and not self.folder.grid(step).exists():
                self._draw()
            elif self.folder.grid(step).exists():
                self.board.grid(self.folder.grid(step), step)
                if _is_older(self.folder.curves, self.folder.grid(step)):
                    self._draw_curves()
            self.folder.keep_once(step)
            if score := [line for line in self.folder.scores.lines() if line["step"] == step]:
                self._tell_board(score[-1])
                self.folder.keep_best(step)
        if self.world.any(self.evaluator is not None and self._lacks_score(step)):
            self._score()

    def _step(self) -> None:
        trainer, run = self.trainer, self.config
        margin, (lr_g, lr_d) = trainer.margin, trainer.learning_rates
        trainer.step()
        step = trainer.step_count
        line = None
        saves = self._is_saved(step)
        if step % run.log_every == 0 or step == run.steps:
            line = {"step": step, **trainer.statistics(), "margin": margin, "lr_g": lr_g, "lr_d": lr_d}
            line |= self._timing() | {"memory_gb": peak_memory(trainer.device)}
            if self.writes:
                self.folder.metrics.append(line, lasting=saves)
        if saves:
            self._save()
        self.display.advance(step)
        if line is not None:
            self.display.metrics(line)
            self.board.scalars(line)
            self._hint(**line)
        if self.writes and self._is_drawn(step):
            self._draw()
        if self._is_scored(step):
            self._score()

    def _is_saved(self, step: int) -> bool:
        """Return True if the settings ask for a checkpoint after this step. A signal may bring others."""
        return self._is_scored(step) or step % self.config.checkpoint_every == 0 or step == self.config.steps

    def _is_drawn(self, step: int) -> bool:
        return step % self.config.sample_every == 0 or step == self.config.steps

    def _is_scored(self, step: int) -> bool:
        """Return True if the generator of this step is scored. Every process gets the same answer; only the first one
        scores."""
        run = self.config
        return run.evaluate_every > 0 and step > 0 and (step % run.evaluate_every == 0 or step == run.steps)

    def _lacks_score(self, step: int) -> bool:
        return self._is_scored(step) and all(line["step"] != step for line in self.folder.scores.lines())

    def _hint(self, **line: Any) -> None:
        for hint in self.hints.of(line):
            self.display.say(hint)

    def _draw(self) -> None:
        step = self.trainer.step_count
        images = sample_images(self.trainer.sampler(), _GRID_IMAGES, self.config.seed)
        save_grid(images, self.folder.grid(step), _GRID_COLUMNS)
        self.board.grid(self.folder.grid(step), step)
        self._draw_curves()

    def _draw_curves(self) -> None:
        if self.writes and (lines := self.folder.metrics.lines()):
            save_curves(lines, self.folder.curves, self.folder.path.resolve().name)

    def _draw_last_curves(self) -> None:
        """Draw the curves of a run that ends before its last step. A failure is only printed: it must not hide why the
        run ends."""
        try:
            self._draw_curves()
        except Exception as error:
            self.display.say(f"{self.folder.curves} couldn't be drawn ({type(error).__name__}: {error})")

    def _score(self) -> None:
        """Score the generator in the first process, while the others wait. A score may take minutes, so a signal ends
        it."""
        absence = Absence(self.world)
        began = time.perf_counter()
        given_up = False
        if self.evaluator is not None:
            try:
                self._scored(self.evaluator, absence)
            except StoppedError:
                given_up = True
            except Exception as error:
                reason = str(error).partition("\n")[0]
                self.display.say(
                    f"step {self.trainer.step_count} couldn't be scored ({type(error).__name__}: {reason}); it is "
                    "saved, and the run goes on"
                )
        received = absence.over(lambda: self.stop.received)
        if self.world.any(given_up):
            self.score_given_up_by = received
        self.interval_started += time.perf_counter() - began  # steps_per_s counts the time of training alone

    def _scored(self, evaluator: Evaluator, absence: Absence) -> None:
        show = self.display.progress()

        def progress(share: float, text: str) -> None:
            if (number := absence.at_work(self.stop.received)) is not None:
                raise StoppedError(number)
            show(share, text)

        step, run = self.trainer.step_count, self.config
        scores = evaluator.score(self.trainer.sampler(), run.evaluate_samples, run.seed, progress)
        line = {"step": step, "elapsed_s": self._elapsed(time.perf_counter()), **scores}
        first = not self.folder.scores.lines()
        self.folder.scores.append(line)
        self.folder.keep_best(step)
        self._tell_board(line)
        self.display.say(
            f"step {step}  {line['features']} {line['fd']:.4g}  KID {line['kid']:.4g} ± {line['kid_std']:.2g}"
        )
        if first and (worth := worth_of(line, evaluator.features)):
            self.display.say(f"hint: {worth}")

    def _tell_board(self, score: dict[str, Any]) -> None:
        self.board.scalars({name: score[name] for name in ("step", "fd", "kid")})

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
        before, self.saved_step = self.saved_step, self.trainer.step_count
        if not self.writes:
            return
        state = {
            "config": to_dict(self.config),
            "image_shape": list(self.images.shape),
            "data": self.images.fingerprint,
            "elapsed_s": self._elapsed(time.perf_counter()),
            "trainer": self.trainer.state_dict(),
        }
        if before not in (0, self.saved_step) and self._is_saved(before):
            self.folder.keep(before, self.config.keep)
        checkpoint.write(self.folder.checkpoint, state)
        if self.saved_step == 0:
            write_json(self.config, self.folder.config)

    def _closing_words(self, stopped_by: int | None) -> str:
        step, steps, folder = self.trainer.step_count, self.config.steps, self.folder.path
        if stopped_by is None:
            return f"done: {step} steps in {self._elapsed(time.perf_counter()):.0f} s: {folder}"
        name = Signals(stopped_by).name
        return f"stopped by {name} and saved at step {step} of {steps}; --resume goes on: {folder}"


def _is_older(file: Path, other: Path) -> bool:
    """Return True if a file is missing or was written before another file, which exists."""
    return not file.exists() or file.stat().st_mtime_ns < other.stat().st_mtime_ns
