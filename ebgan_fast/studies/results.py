"""A study's results: one JSON file, from which its tables and figures are drawn anew."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .._files import replacing
from ..doctor import processor
from .queue import Done

FILE = "results.json"


@dataclass(frozen=True)
class Results:
    """What was run, on what, and what came out.

    Attributes:
        study: its name.
        settings: budget, steps, seeds and whatever else all trials have in common.
        versions: of the package, torch, Python and Optuna.
        machine: processor and device.
        date: UTC, ISO 8601.
        trials: parameters, result, reason and seconds of each, as `Done` has them.
    """

    study: str
    settings: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, str]
    date: str
    trials: list[Done]

    def runs(self, **params: object) -> list[Done]:
        """The trials with these parameters, in the order of their seeds."""
        chosen = [trial for trial in self.trials if params.items() <= trial.params.items()]
        return sorted(chosen, key=lambda trial: int(trial.params.get("seed", 0)))

    def measured(self) -> list[Done]:
        """The trials that did not fail."""
        return [trial for trial in self.trials if trial.result is not None]


def results_of(study: str, settings: Mapping[str, Any], device: str, trials: Sequence[Done]) -> Results:
    """Results of trials that were run here and now."""
    return Results(
        study,
        dict(settings),
        {
            "ebgan_fast": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "optuna": importlib.metadata.version("optuna"),
        },
        {"processor": processor(), "device": device},
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        list(trials),
    )


def write(results: Results, folder: Path) -> None:
    """Into the folder's results.json."""
    with replacing(folder / FILE) as file:
        file.write((json.dumps(asdict(results), indent=1) + "\n").encode())


def read(path: Path) -> Results:
    """What `write` wrote.

    Raises:
        ValueError: not such a file.
        OSError: it can't be read.
    """
    try:
        content = json.loads(path.read_text())
        return Results(**{**content, "trials": [Done(**trial) for trial in content["trials"]]})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: got something else than a study's results ({error})") from error


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, one line a row."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)
