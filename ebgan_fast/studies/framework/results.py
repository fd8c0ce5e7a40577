"""A study's results in one JSON file, from which its tables and figures can be drawn again."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ... import __version__
from ..._console import first_line, shown
from ..._files import replacing
from ..._json import read_object
from ..._settings import FINITE, Rule, instance, or_none
from ...doctor import processor

FILE = "results.json"
_LARGEST = 1 << 28  # bytes; the results of the paper's whole grid, 6,656 trials, have 3 MB
_LONGEST_SIDE = 4096  # pixels of a picture's longer side; the studies' pictures have 400

_OBJECT, _TEXT = instance(dict, "an object"), instance(str, "text")
_OF_RESULTS = {
    "study": _TEXT,
    **dict.fromkeys(("settings", "versions", "machine"), _OBJECT),
    "date": _TEXT,
    "trials": instance(list, "a list"),
    "pictures": Rule(
        lambda value: isinstance(value, dict) and all(map(_TEXT.holds, value.values())), "an object of texts"
    ),
}
_OF_TRIAL = {"params": _OBJECT, "result": or_none(_OBJECT), "reason": or_none(_TEXT), "seconds": FINITE}


Params = dict[str, Any]
"""The configuration of a trial: one value of each parameter."""


@dataclass(frozen=True)
class Done:
    """A finished trial: its configuration, and either what it measured or the reason why it failed."""

    params: Params
    result: dict[str, Any] | None
    reason: str | None
    seconds: float


@dataclass(frozen=True)
class Results:
    """The results of a study: what was run, on which machine, and what was measured.

    Attributes:
        study: the name of the study.
        settings: the budget, steps, seeds and all else that the trials share.
        versions: the versions of the package, torch, Python and Optuna.
        machine: the processor and the device.
        date: the time in UTC, in the form of ISO 8601.
        trials: the parameters, result, reason and seconds of each trial, as in `Done`.
        pictures: the samples that the figures show, by the name of their file in the study's folder. Each is a WebP in
            base64, which takes a quarter to a seventh of the file's size.
    """

    study: str
    settings: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, str]
    date: str
    trials: list[Done]
    pictures: dict[str, str] = field(default_factory=dict)

    def runs(self, **params: object) -> list[Done]:
        """Return the trials with these parameters, in the order of their seeds."""
        chosen = [trial for trial in self.trials if params.items() <= trial.params.items()]
        return sorted(chosen, key=lambda trial: int(trial.params.get("seed", 0)))

    def by_seed(self, **params: object) -> dict[int, dict[str, Any]]:
        """Return what the trials with these parameters measured, by their seeds in order, without those that
        failed."""
        return {int(run.params.get("seed", 0)): run.result for run in self.runs(**params) if run.result is not None}

    def measured(self) -> list[Done]:
        """Return the trials that did not fail."""
        return [trial for trial in self.trials if trial.result is not None]

    def runs_words(self) -> str:
        """Return sentences about the number of seeds, and about runs that failed if there are any. Each ends in a
        space."""
        seeds = len({trial.params.get("seed", 0) for trial in self.trials})
        words = "One seed. " if seeds == 1 else f"{seeds} seeds, means with 95 % intervals. "
        return words + self.failed_words()

    def failed_words(self) -> str:
        """Return a sentence about runs that failed, with a space at its end, or nothing if there are none."""
        failed = sum(trial.result is None for trial in self.trials)
        return f"{failed} of {len(self.trials)} runs failed and are left out. " if failed else ""

    def picture(self, name: str) -> Image.Image | None:
        """Return the samples in a file of the study's folder. None: these results don't hold them.

        Raises:
            ValueError: the text isn't a picture, or the picture is larger than a study's.
        """
        if name not in self.pictures:
            return None
        try:
            image = Image.open(io.BytesIO(base64.b64decode(self.pictures[name], validate=True)), formats=["WEBP"])
            if max(image.size) <= _LONGEST_SIDE:
                image.load()
                return image
            reason = f"a picture of {image.width} x {image.height} pixels"
        except (ValueError, OSError) as error:  # from base64 and from Pillow
            reason = f"no picture ({first_line(error)})"
        raise ValueError(f"pictures: got {reason} in {shown(name)}, expected a WebP of at most {_LONGEST_SIDE} pixels")


def with_pictures(results: Results, folder: Path, names: Iterable[str]) -> Results:
    """Return the results with the named pictures that lie in the folder. Others may be on another machine."""
    found: dict[str, str] = {}
    for name in names:
        if (folder / name).is_file():
            content = io.BytesIO()
            with Image.open(folder / name) as image:
                image.save(content, "WEBP", quality=80, method=6)
            found[name] = base64.b64encode(content.getvalue()).decode()
    return replace(results, pictures=found)


def results_of(study: str, settings: Mapping[str, Any], device: str, trials: Sequence[Done]) -> Results:
    """Return the results of trials that were run on this machine, with the present date."""
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
    """Write the results into the folder's results.json, with one trial or picture per line."""
    with replacing(folder / FILE) as file:
        file.write(_dumped(results).encode())


def _dumped(results: Results) -> str:
    """Return the results as JSON with one trial or picture per line, so that differences between files stay short."""
    about = asdict(results)
    trials = ",\n".join(json.dumps(trial, separators=(",", ":")) for trial in about.pop("trials"))
    pictures = ",\n".join(f"{json.dumps(name)}: {json.dumps(text)}" for name, text in about.pop("pictures").items())
    head = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in about.items())
    return f'{{\n{head},\n"trials": [\n{trials}\n],\n"pictures": {{\n{pictures}\n}}\n}}\n'


def read(path: Path) -> Results:
    """Read the results that `write` wrote.

    Raises:
        ValueError: the file holds something else. The message names the file.
        OSError: the file can't be read. The error names it.
    """
    content = {"pictures": {}, **read_object(path, _LARGEST)}  # files of earlier versions have no pictures
    try:
        _check(content, _OF_RESULTS)
        for number, trial in enumerate(content["trials"], start=1):
            _check(trial, _OF_TRIAL, f" in trial {number}")
    except ValueError as error:
        raise ValueError(f"{path}: got something else than a study's results ({error})") from error
    return Results(**{**content, "trials": [Done(**trial) for trial in content["trials"]]})


def _check(found: object, rules: Mapping[str, Rule], place: str = "") -> None:
    """Raise a ValueError unless an object has exactly the fields of these rules, with values that follow the rules."""
    if not isinstance(found, dict):
        raise ValueError(f"got {shown(found)}{place}, expected an object")
    if other := [name for name in found if name not in rules]:
        raise ValueError(f"got {shown(other[0])}{place}, expected fields {', '.join(rules)} alone")
    for name, rule in rules.items():
        if name not in found or not rule.holds(found[name]):
            got = shown(found[name]) if name in found else "nothing"
            raise ValueError(f"{name}: got {got}{place}, expected {rule.expected}")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown, with one line per row."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)
