"""A study's results: one JSON file, from which its tables and figures are drawn anew."""

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
_LARGEST = 1 << 28  # bytes; the paper's whole grid of 6,656 trials has 3 MB
_LONGEST_SIDE = 4096  # of a picture, in pixels; the studies' have 400

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
"""One value of each of a trial's parameters."""


@dataclass(frozen=True)
class Done:
    """A finished trial: its configuration, and what it measured or, where it failed, why."""

    params: Params
    result: dict[str, Any] | None
    reason: str | None
    seconds: float


@dataclass(frozen=True)
class Results:
    """The results of a study: what was run, on what, and what came out.

    Attributes:
        study: its name.
        settings: budget, steps, seeds and whatever else all trials have in common.
        versions: of the package, torch, Python and Optuna.
        machine: processor and device.
        date: UTC, ISO 8601.
        trials: parameters, result, reason and seconds of each, as `Done` has them.
        pictures: samples that the figures show, by the name of their file in the study's folder: WebP in base64, a
            quarter to a seventh of the file's size.
    """

    study: str
    settings: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, str]
    date: str
    trials: list[Done]
    pictures: dict[str, str] = field(default_factory=dict)

    def runs(self, **params: object) -> list[Done]:
        """The trials with these parameters, in the order of their seeds."""
        chosen = [trial for trial in self.trials if params.items() <= trial.params.items()]
        return sorted(chosen, key=lambda trial: int(trial.params.get("seed", 0)))

    def measured(self) -> list[Done]:
        """The trials that did not fail."""
        return [trial for trial in self.trials if trial.result is not None]

    def picture(self, name: str) -> Image.Image | None:
        """The samples in a file of the study's folder; None if they are elsewhere.

        Raises:
            ValueError: what stands there is no picture, or a larger one than a study's.
        """
        if name not in self.pictures:
            return None
        try:
            image = Image.open(io.BytesIO(base64.b64decode(self.pictures[name], validate=True)), formats=["WEBP"])
            if max(image.size) <= _LONGEST_SIDE:
                image.load()
                return image
            reason = f"a picture of {image.width} x {image.height} pixels"
        except (ValueError, OSError) as error:  # of base64, and of Pillow
            reason = f"no picture ({first_line(error)})"
        raise ValueError(f"pictures: got {reason} in {shown(name)}, expected a WebP of at most {_LONGEST_SIDE} pixels")


def with_pictures(results: Results, folder: Path, names: Iterable[str]) -> Results:
    """Return results with those of the named pictures that lie in the folder; others may be on another machine."""
    found: dict[str, str] = {}
    for name in names:
        if (folder / name).is_file():
            content = io.BytesIO()
            with Image.open(folder / name) as image:
                image.save(content, "WEBP", quality=80, method=6)
            found[name] = base64.b64encode(content.getvalue()).decode()
    return replace(results, pictures=found)


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
    """Write results into the folder's results.json, a trial or picture on a line."""
    with replacing(folder / FILE) as file:
        file.write(_dumped(results).encode())


def _dumped(results: Results) -> str:
    """JSON with one trial or picture a line, so that the difference of two files is short."""
    about = asdict(results)
    trials = ",\n".join(json.dumps(trial, separators=(",", ":")) for trial in about.pop("trials"))
    pictures = ",\n".join(f"{json.dumps(name)}: {json.dumps(text)}" for name, text in about.pop("pictures").items())
    head = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in about.items())
    return f'{{\n{head},\n"trials": [\n{trials}\n],\n"pictures": {{\n{pictures}\n}}\n}}\n'


def read(path: Path) -> Results:
    """Read what `write` wrote.

    Raises:
        ValueError: not such a file; the message names it.
        OSError: it can't be read; names the file.
    """
    content = {"pictures": {}, **read_object(path, _LARGEST)}  # earlier versions had none
    try:
        _check(content, _OF_RESULTS)
        for number, trial in enumerate(content["trials"], start=1):
            _check(trial, _OF_TRIAL, f" in trial {number}")
    except ValueError as error:
        raise ValueError(f"{path}: got something else than a study's results ({error})") from error
    return Results(**{**content, "trials": [Done(**trial) for trial in content["trials"]]})


def _check(found: object, rules: Mapping[str, Rule], place: str = "") -> None:
    """Raise a ValueError unless an object has the fields of these rules, and no other."""
    if not isinstance(found, dict):
        raise ValueError(f"got {shown(found)}{place}, expected an object")
    if other := [name for name in found if name not in rules]:
        raise ValueError(f"got {shown(other[0])}{place}, expected fields {', '.join(rules)} alone")
    for name, rule in rules.items():
        if name not in found or not rule.holds(found[name]):
            got = shown(found[name]) if name in found else "nothing"
            raise ValueError(f"{name}: got {got}{place}, expected {rule.expected}")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, one line a row."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)
