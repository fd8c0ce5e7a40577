"""The folder of a run: its paths, the checkpoints that are kept in it, and its contents."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._console import shortened
from ..._files import copy, rename_or_copy, temporary_name
from ..._json import read_object
from ..config import LARGEST, TrainConfig, check_resumable, from_dict
from . import checkpoint
from .checkpoint import CheckpointError
from .lines import Line, LinesFile

_GRID = re.compile(r"step_([0-9]+)\.png")
_CHECKPOINT = re.compile(r"step_([0-9]+)\.pt")
_KEPT = "checkpoints"

_OF_EVERY_LINE = ("elapsed_s", "loss_d", "loss_g")
# Fields that this version writes into every line of metrics. Earlier versions wrote fewer.
_OF_SOME_LINES = (
    *("energy_real", "energy_fake", "margin", "hinge_active", "pulling_away", "grad_norm_g", "grad_norm_d"),
    *("lr_g", "lr_d", "steps_per_s", "images_per_s", "memory_gb"),
)
_OF_EVERY_SCORE = ("elapsed_s", "fd", "kid", "kid_std", "samples", "real_images", "kid_subset_size")


@dataclass(frozen=True)
class RunContents:
    """The contents of a run's folder."""

    settings: Line
    """The settings in config.json. Fields of nested objects stand beside the others."""
    metrics: list[Line]
    """The lines of metrics.jsonl, at least one. Each has a step, a time and both losses."""
    scores: list[Line]
    """The complete lines of scores.jsonl; none if there is no file."""
    evaluation: Line
    """The contents of score.json, which `ebgan-fast evaluate` writes; empty if there is no file."""
    grids: list[tuple[int, Path]]
    """The step and the file of each grid of samples, the earliest first."""


class RunFolder:
    """The paths in the folder of a run, which need not exist yet, and the functions that read them.

    Args:
        path: the folder.

    Attributes:
        metrics: the file of metrics, with one line per log interval.
        scores: the file of scores, with one line per score.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self.best = path / "best.pt"
        self.config = path / "config.json"
        self.curves = path / "curves.png"
        self.evaluation = path / "score.json"
        self.interpolation = path / "interpolation.png"
        self.lock = path / ".lock"
        self.neighbors = path / "neighbors.png"
        self.report = path / "report.html"
        self.tensorboard = path / "tensorboard"
        self.metrics = LinesFile(path / "metrics.jsonl", _OF_EVERY_LINE, optional=_OF_SOME_LINES)
        self.scores = LinesFile(path / "scores.jsonl", _OF_EVERY_SCORE, ("features",))

    @classmethod
    def of(cls, path: Path) -> RunFolder:
        """Return the run folder of a path: the path itself if it is a folder, or the folder that a checkpoint belongs
        to."""
        if path.is_dir():
            return cls(path)
        folder = path.absolute().parent
        is_named = folder.name == _KEPT and _CHECKPOINT.fullmatch(path.name)
        if is_named and (folder.parent / "config.json").is_file():
            return cls(path.parent.parent if path.parent.name == _KEPT else folder.parent)
        return cls(path.parent)

    @staticmethod
    def checkpoint_of(path: Path) -> Path:
        """Return the checkpoint of a path: the last checkpoint if it is a run's folder, otherwise the path itself."""
        return RunFolder(path).checkpoint if path.is_dir() else path

    def grid(self, step: int) -> Path:
        """Return the path of the grid of samples that is drawn after a step."""
        return self.path / "samples" / f"step_{step:06d}.png"

    def kept(self, step: int) -> Path:
        """Return the path of a step's checkpoint in checkpoints/, where earlier checkpoints are kept."""
        return self.path / _KEPT / f"step_{step:06d}.pt"

    def keep(self, step: int, count: int) -> None:
        """Keep the checkpoint, which is about to be replaced, in checkpoints/. Of those up to its step, keep the last
        `count`.

        Checkpoints of later steps stay. A run has those if it was set back to an earlier step.

        Args:
            step: the step of the checkpoint.
            count: the number of checkpoints to keep. With 0, nothing is done.
        """
        if count == 0:
            return
        rename_or_copy(self.checkpoint, self.kept(step))
        earlier = [path for number, path in _numbered(self.path / _KEPT, _CHECKPOINT) if number <= step]
        for path in earlier[:-count]:
            path.unlink(missing_ok=True)

    def keep_once(self, step: int) -> None:
        """Remove the second name of the checkpoint, which is of this step. A kill may leave the file with both
        names."""
        kept = self.kept(step)
        if kept.exists() and self.checkpoint.samefile(kept):
            kept.unlink()

    def keep_best(self, step: int) -> None:
        """Copy the last checkpoint, which is of this step, to best.pt if no comparable score is lower than the
        step's."""
        lines = self.scores.lines()
        own = next((line for line in reversed(lines) if line["step"] == step), None)
        if own is not None and all(own["fd"] <= line["fd"] for line in lines if compares(line, own)):
            copy(self.checkpoint, self.best)

    def saved_state(self, run: TrainConfig, tell: Callable[[str], None]) -> dict[str, Any]:
        """Return the state in the checkpoint, if `run` may go on from it.

        Args:
            run: the config to go on with.
            tell: called with a line about each setting of the checkpoint that is ignored.

        Raises:
            ValueError: the file isn't a complete checkpoint, it was made with another config, or there is a link where
                the run would write. The message names the path.
        """
        self._check_no_links()
        saved = checkpoint.read(self.checkpoint)
        try:
            before = from_dict(saved.get("config"), lambda note: tell(f"{self.checkpoint}: {note}"))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.checkpoint}: {shortened(str(error), 400)}") from error
        try:
            check_resumable(run, before)
        except ValueError as error:
            raise ValueError(f"{self.checkpoint}: {error}") from error
        return saved

    def _check_no_links(self) -> None:
        """Raise a ValueError if a path that a run writes or removes is a link. In a stranger's folder, it could lead
        anywhere."""
        for path in (self.metrics.path, self.scores.path, self.path / "samples", self.path / _KEPT, self.tensorboard):
            if path.is_symlink():
                raise ValueError(
                    f"{path}: got a link, expected a file or folder of the run itself: put what it leads to in its "
                    "place (the whole folder of a run may be a link)"
                )

    def check_unused(self) -> None:
        """Raise a ValueError unless a new run may begin here, which needs a new or empty folder."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: got a file, expected a new folder for the run")
        if not self.path.exists():
            return
        # A run that was killed during its first write leaves these.
        leftover = temporary_name(self.checkpoint), self.lock
        if any(entry not in leftover for entry in self.path.iterdir()):
            has_run = self.checkpoint.exists()
            if self.checkpoint.is_symlink() and not has_run:
                raise ValueError(f"{self.checkpoint}: got a link to nothing, expected a checkpoint, or another folder")
            way_out = "--resume to go on with the run in it" if has_run else "another folder (it holds no checkpoint)"
            raise ValueError(f"{self.path}: got a folder that isn't empty, expected a new one, or {way_out}")

    def remove_if_unused(self) -> None:
        """Remove the folder if nothing is in it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def contents(self) -> RunContents:
        """Read the folder of a run that has logged at least once.

        Raises:
            ValueError: the folder isn't a run's, the run has logged nothing yet, or a file holds something that no run
                writes. The message names the path. An incomplete last line is no error.
            OSError: a file can't be read.
        """
        settings = _object(self.config)
        if settings is None:
            raise ValueError(f"{self.path}: got a folder without config.json, expected the folder of a run")
        metrics = self.metrics.lines()
        if not metrics:
            raise ValueError(f"{self.path}: got a run without metrics, expected one that has logged at least once")
        return RunContents(
            settings=_flat(settings),
            metrics=metrics,
            scores=self.scores.lines(),
            evaluation=_object(self.evaluation) or {},
            grids=_numbered(self.path / "samples", _GRID),
        )


def compares(one: Line, other: Line) -> bool:
    """Return True if two scores compare: they have the same network and equal numbers of samples and training
    images."""
    return all(one[name] == other[name] for name in ("features", "samples", "real_images"))


def _numbered(folder: Path, name: re.Pattern[str]) -> list[tuple[int, Path]]:
    """Return the step and the file of each file whose name has a step, the earliest first."""
    matches = ((name.fullmatch(path.name), path) for path in folder.glob("step_*"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _object(path: Path) -> Line | None:
    """Return the object in a JSON file, or None if there is no file."""
    try:
        return read_object(path, LARGEST)
    except FileNotFoundError:
        return None


def _flat(settings: Line) -> Line:
    flat: Line = {}
    for name, value in settings.items():
        flat.update(_flat(value) if isinstance(value, dict) else {name: value})
    return flat
