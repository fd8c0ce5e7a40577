"""A process that trains, to be killed: it notes what it does, apart from what the run says."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebgan_fast._files import replacing
from ebgan_fast.metrics.features import FeatureNet

# Names of the package that are replaced here, and nowhere else.
from ebgan_fast.training import scoring, session, train
from ebgan_fast.training.step import Trainer

from ..scoring import PixelNet
from . import runs
from .cases import POLITE, Kill
from .watching import Watch, noting


@dataclass
class Trace:
    """The trace of a process until it ended.

    Attributes:
        began: the time when it called `train`, or None.
        seconds: from there to the last that it noted.
        events: titles of its events, as they came.
        steps: that it did.
        times: of each step's end, in seconds from the beginning.
        steps_at: of each event, the number of `steps` before it.
        ended: the last step and the signal (0: none) of what `train` returned, or None.
    """

    began: float | None = None
    seconds: float = 0.0
    events: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    steps_at: list[int] = field(default_factory=list)
    ended: tuple[int, int] | None = None

    def moment(self, share: float, first: int = 0) -> tuple[int | None, float]:
        """Return when this share of the process is over: so many seconds after which step, or after the beginning.

        Seconds from the beginning alone would be other moments of the run on a machine that does more.

        Args:
            share: at least 0 and less than 1.
            first: the step that another process, which resumes the run, begins with; the share is of that one.
        """
        ends = [0.0, *self.times]
        startup = self.times[0] if first else 0.0
        seconds = share * (startup + self.seconds - ends[first])
        at = seconds - startup + ends[first]
        step = max(number for number, end in enumerate(ends) if end <= max(at, 0.0))
        return (None, seconds) if step <= first else (step, at - ends[step])

    @classmethod
    def read(cls, path: Path) -> Trace:
        """Return what the file tells so far."""
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
        variant: of the run.
        place: a folder.
        images: what `runs.write_images` wrote.
        notes: the file of the trace.
        resume: go on with what is there.
        kill: a kill at an event.
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
    for number in POLITE:  # which whoever started this may ignore, as nohup does
        signal.signal(number, signal.SIG_DFL)
    os.environ["EBGAN_FAST_CACHE"] = str(place / "cache")
    config = runs.config(variant, place / "run", images)
    Watch(place / "run", lambda title: note("event", title), kill).install()
    note("begun", "")
    result = train(config, resume=resume)
    note("ended", f"{result.step} {result.stopped_by or 0}")


def _save_curves(lines: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write what curves depend on, in place of drawing, which takes half a second."""
    with replacing(path) as file:
        file.write("".join(f"{line['step']} {line['loss_d']}\n" for line in lines).encode())
