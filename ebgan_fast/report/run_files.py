"""What lies in a run's folder, read and checked before a page is made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]

_METRICS = ("step", "elapsed_s", "loss_d", "loss_g")
_SCORES = ("step", "elapsed_s", "fd", "kid", "kid_std", "samples", "real_images", "kid_subset_size")
_GRID = re.compile(r"step_(\d+)\.png")


@dataclass(frozen=True)
class RunFiles:
    """A run as its folder tells it."""

    folder: Path
    settings: Line
    """config.json, with what its objects hold beside the rest."""
    metrics: list[Line]
    """Lines of metrics.jsonl, at least one, each with a step, time and both losses."""
    scores: list[Line]
    """Lines of scores.jsonl, each whole; none if there is no file."""
    evaluation: Line
    """score.json, as `ebgan-fast evaluate` writes it; empty if there is no file."""
    grids: list[tuple[int, Path]]
    """(step, file) of each grid of samples, the earliest first."""


def read_run(folder: Path) -> RunFiles:
    """Read a run's folder.

    Raises:
        ValueError: not a run folder, one whose run has logged nothing yet, or a file in it that a run wouldn't write;
            the message names it. A last line that was cut short is no error.
        OSError: a file can't be read.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"{folder}: got a folder without config.json, expected the folder of a run")
    settings = _object(config)
    metrics = _lines(folder / "metrics.jsonl", _METRICS, ())
    if not metrics:
        raise ValueError(f"{folder}: got a run without metrics, expected one that has logged at least once")
    evaluation = folder / "score.json"
    return RunFiles(
        folder=folder,
        settings=_flat(settings),
        metrics=metrics,
        scores=_lines(folder / "scores.jsonl", _SCORES, ("features",)),
        evaluation=_object(evaluation) if evaluation.is_file() else {},
        grids=_grids(folder / "samples"),
    )


def _object(path: Path) -> Line:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: got a file that isn't JSON ({error}), expected an object") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got a JSON {type(found).__name__}, expected an object")
    return found


def _lines(path: Path, numbers: Sequence[str], words: Sequence[str]) -> list[Line]:
    """The file's objects, each of which has these fields; none if there is no file."""
    if not path.is_file():
        return []
    found = []
    texts = path.read_bytes().splitlines()
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            if number == len(texts):
                break  # the run ended while it wrote
            raise ValueError(f"{path}: got a bad line {number} ({error}), expected one JSON object per line") from error
        if not isinstance(line, dict):
            raise ValueError(f"{path}: got a JSON {type(line).__name__} in line {number}, expected an object")
        for name in (*numbers, *words):
            value = line.get(name)
            if not isinstance(value, str if name in words else (int, float)):
                expected = "text" if name in words else "a number"
                raise ValueError(f"{path}: got {name} {value!r} in line {number}, expected {expected}")
        found.append(line)
    return found


def _grids(folder: Path) -> list[tuple[int, Path]]:
    matches = ((_GRID.fullmatch(path.name), path) for path in folder.glob("*.png"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _flat(settings: Line) -> Line:
    flat: Line = {}
    for name, value in settings.items():
        flat.update(_flat(value) if isinstance(value, dict) else {name: value})
    return flat
