"""The folder of a run: what lies where, whether a run may begin or go on in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._files import temporary_name
from . import checkpoint, config_file
from .checkpoint import CheckpointError
from .config import TrainConfig


class RunFolder:
    """Paths in the folder of a run, which needn't exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.scores = path / "scores.jsonl"
        self.curves = path / "curves.png"
        self.tensorboard = path / "tensorboard"

    def grid(self, step: int) -> Path:
        return self.path / "samples" / f"step_{step:06d}.png"

    def saved_state(self, run: TrainConfig) -> dict[str, Any]:
        """The checkpoint, where `run` may go on from it.

        Raises:
            ValueError: a file that isn't a whole checkpoint, or one made with another config; the message names it.
        """
        saved = checkpoint.read(self.checkpoint)
        try:
            before = config_file.from_dict(saved["config"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.checkpoint}: {error}") from error
        try:
            config_file.check_resumable(run, before)
        except ValueError as error:
            raise ValueError(f"{self.checkpoint}: {error}") from error
        return saved

    def check_unused(self) -> None:
        """Raise a ValueError unless a new run may begin here: the folder is new or empty."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: got a file, expected a new folder for the run")
        if not self.path.exists():
            return
        # What a run that was killed in its first write leaves.
        leftover = temporary_name(self.checkpoint)
        if any(entry != leftover for entry in self.path.iterdir()):
            has_run = self.checkpoint.exists()
            way_out = "--resume to go on with the run in it" if has_run else "another folder (it holds no checkpoint)"
            raise ValueError(f"{self.path}: got a folder that isn't empty, expected a new one, or {way_out}")
