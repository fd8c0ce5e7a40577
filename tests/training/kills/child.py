"""A process that trains until it is killed. It records what it does, separately from the run's own output."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebgan_fast._files import replacing
from ebgan_fast.metrics.features import FeatureNet

# These names of the package are replaced in this process only.
from ebgan_fast.training import scoring, session, train
from ebgan_fast.training.step import Trainer

from ..scoring import PixelNet
from . import runs
from .cases import POLITE, Kill
from .watching import Watch, noting


@dataclass
class Trace:
    """The record of what a process did until it ended.

    Attributes:
        began: The time when it called `train`, or None.
        seconds: Seconds from `began` to the last record.
        events: The titles of its events, in order.
        steps: The steps that it did.
        times: Seconds from `began` to the end of each step.
        steps_at: For each event, the number of `steps` before it.
        ended: The last step and the signal (0: none) that `train` returned, or None.
    """

    began: float | None = None
    seconds: float = 0.0
    events: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    steps_at: list[int] = field(default_factory=list)
    ended: tuple[int, int] | None = None

    def moment(self, share: float, first: int = 0) -> tuple[int | None, float]:
        """Return the moment at which this share of the process is over: a step, or None for the start, and the seconds
        after it.

        Seconds from the start alone would mean other moments of the run on a busier machine.

        Args:
            share: The share of the process, at least 0 and less than 1.
            first: The step at which another process resumes the run. The share is then of that process.
        """
        ends = [0.0, *self.times]
        startup = self.times[0] if first else 0.0
        seconds = share * (startup + self.seconds - ends[first])
        at = seconds - startup + ends[first]
        step = max(number for number, end in enumerate(ends) if end <= max(at, 0.0))
        return (None, seconds) if step <= first else (step, at - ends[step])

    @classmethod
    def read(cls, path: Path) -> Trace:
        """Return the trace that a file holds so far."""
        trace, text = cls(), path.read_text() if path.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            when, kind, text = line.split(" ", 2)
            if kind == "begun":
                trace.began = float(when)
            trace.seconds = float(when) - (trace.began or 0.0)
            if kind == "event":
                trace.events.append(text)
                trace.steps_at.append(len(trace.steps))
            elif kind == "step":
                trace.steps.append(int(text))
                trace.times.append(trace.seconds)
            elif kind == "ended":
                step, number = text.split()
                trace.ended = int(step), int(number)
        return trace


def process(variant: str, place: Path, images: Path, notes: Path, resume: bool, kill: Kill | None) -> None:
    """Train in the folder "run" of `place`, with a cache beside it.

    Args:
        variant: The variant of the run.
        place: The folder for the run and its cache.
        images: The folder that `runs.write_images` filled.
        notes: The file for the trace.
        resume: If True, go on with a run that is there.
        kill: A kill at an event, or None.
    """
    note = noting(notes)
    step = Trainer.step

    def noted(trainer: Trainer) -> None:
        step(trainer)
        note("step", str(trainer.step_count))

    patches: list[tuple[Any, str, Callable[..., object]]] = [
        (Trainer, "step", noted),
        (scoring, "load_feature_net", lambda spec: FeatureNet(PixelNet(), f"FD ({spec})", f"pixels {spec}", 8)),
        (session, "save_curves", _save_curves),
    ]
    for owner, name, patch in patches:
        setattr(owner, name, patch)
    for number in POLITE:  # the process that started this one may ignore them, as nohup does
        signal.signal(number, signal.SIG_DFL)
    os.environ["EBGAN_FAST_CACHE"] = str(place / "cache")
    config = runs.config(variant, place / "run", images)
    Watch(place / "run", lambda title: note("event", title), kill).install()
    note("begun", "")
    result = train(config, resume=resume)
    note("ended", f"{result.step} {result.stopped_by or 0}")


def _save_curves(lines: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write the values that curves depend on. Drawing them would take half a second."""
    with replacing(path) as file:
        file.write("".join(f"{line['step']} {line['loss_d']}\n" for line in lines).encode())
