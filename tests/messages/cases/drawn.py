"""Mistakes of `ebgan-fast sample`, `evaluate` and `report`, the commands that read a run."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.full_disk import room_for

from .. import places
from ..case import Arguments, Case

_DEVICE = (r"(?<=use here \().*(?=\))",)  # torch's words
_READER = (r"(?<=program \().*(?=\), expected)", r"(?<=can't load \().*(?=\), expected)")
_MISFIT = (r"(?<=generator \().*(?=\), expected)",)


def _run(*arguments: str, make: Callable[[Path], Path] = places.run_of_digits) -> Callable[[Path], Arguments]:
    return lambda folder: [make(folder), *arguments]


def _changed(change: Callable[[Path], object], *arguments: str) -> Callable[[Path], Arguments]:
    """Return a function that makes a run, changes its folder, and returns the arguments."""

    def make(folder: Path) -> Arguments:
        run = places.run_of_digits(folder)
        change(folder / run)
        return [run, *arguments]

    return make


def _saved(change: Callable[[dict[str, Any]], object], *arguments: str) -> Callable[[Path], Arguments]:
    """Return a function that makes a run, changes the content of its checkpoint, and returns the arguments."""

    def changed(run: Path) -> None:
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        change(state)
        torch.save(state, run / "checkpoint.pt")

    return _changed(changed, *arguments)


def _folder(name: str) -> Callable[[Path], Path]:
    """Return a function that makes a run and, beside it, a folder of this name with a file in it."""

    def make(folder: Path) -> Path:
        places.text(folder, f"{name}/a.txt")
        return places.run_of_digits(folder)

    return make


def _file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        places.text(folder, name)
        return places.run_of_digits(folder)

    return make


def _damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def _other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "notes")


def _other_images(folder: Path) -> Path:
    run = places.run_of_images(folder)
    (folder / "packed").rename(folder / "others")
    places.packed(folder, count=6)
    return run


_INTERPOLATION = "the report draws the interpolations before it looks for the images"

CASES = [
    # The run and its checkpoint.
    *(
        Case(command, "a run that does not exist", lambda folder, rest=rest: ["run", *rest], "run")  # type: ignore[misc]
        for command, rest in (("sample", ["out.png"]), ("evaluate", []), ("report", []))
    ),
    *(
        Case(command, "a device that this machine lacks", _run(*rest, "--device", "cuda:99"), "device", machine=_DEVICE)
        for command, rest in (("sample", ["out.png"]), ("evaluate", []), ("report", []))
    ),
    Case(
        "sample",
        "a folder without a checkpoint",
        lambda folder: [places.photos(folder), "out.png"],
        "images/checkpoint.pt",
    ),
    Case(
        "sample",
        "a checkpoint that is cut short",
        _changed(lambda run: os.truncate(run / "checkpoint.pt", 50), "out.png"),
        "run/checkpoint.pt",
        machine=_READER,
    ),
    Case(
        "sample",
        "a checkpoint with a changed byte",
        _changed(lambda run: _damaged(run / "checkpoint.pt"), "out.png"),
        "run/checkpoint.pt",
        machine=(r"(?<=damaged data \(in )[^)]*",),
    ),
    Case(
        "sample",
        "a zip that is not a checkpoint",
        _changed(lambda run: _other_zip(run / "checkpoint.pt"), "out.png"),
        "run/checkpoint.pt",
        machine=_READER,
    ),
    Case(
        "sample",
        "a checkpoint of another program",
        _changed(lambda run: torch.save({"a": 1}, run / "checkpoint.pt"), "out.png"),
        "run/checkpoint.pt",
    ),
    Case(
        "sample",
        "a checkpoint of a later version",
        _saved(lambda state: state.update(version=2), "out.png"),
        "run/checkpoint.pt",
    ),
    Case(
        "sample",
        "a checkpoint without the generator's weights",
        _saved(lambda state: state["trainer"].update(generator={}), "out.png"),
        "run/checkpoint.pt",
        machine=_MISFIT,
    ),
    # Drawing.
    Case("sample", "--count 0", _run("out.png", "--count", "0"), "count"),
    Case("sample", "--columns 0", _run("out.png", "--columns", "0"), "columns"),
    Case("sample", "a seed of more than 64 bits", _run("out.png", "--seed", "99999999999999999999"), "seed"),
    Case(
        "sample",
        "more images than the memory holds",
        _run("out.png", "--count", "1000000000000000"),
        "memory",
        machine=(r"(?<=needs \().*(?=\), expected)",),
    ),
    Case("sample", "--interpolate into a folder", _run("out", "--interpolate"), "out"),
    Case("sample", "an output folder that isn't empty", _run("out", make=_folder("out")), "out"),
    Case("sample", "an output folder that is a file", _run("out", make=_file("out")), "out"),
    Case("sample", "a picture whose name a folder has", _run("out.png", make=_folder("out.png")), "out.png"),
    Case("sample", "a picture inside a file", _run("notes.txt/out.png", make=_file("notes.txt")), "notes.txt"),
    Case("sample", "a name that is too long", _run(f"{'a' * 300}.png"), "aaa"),
    Case("sample", "a full disk for one grid", _run("out.png"), "out.png", around=lambda patch: room_for(100)),
    Case(
        "sample",
        "a full disk for a folder of images",
        _run("out"),
        "out/00000.png",
        around=lambda patch: room_for(100),
        leaves="the pictures that were written before stay",
    ),
    # Scores.
    Case("evaluate", "--samples 3", _run("--samples", "3"), "samples"),
    Case("evaluate", "a seed of more than 64 bits", _run("--seed", "99999999999999999999"), "seed"),
    Case("evaluate", "a run whose images were moved", _run(), "digits"),
    Case("evaluate", "a data folder that does not exist", _run("--data", "images"), "images"),
    Case(
        "evaluate",
        "a feature net's file that does not exist",
        _run("--data", "digits", "--features", "net.pt"),
        "net.pt",
    ),
    Case(
        "evaluate",
        "color images for a run on gray digits",
        lambda folder: [places.run_of_digits(folder), "--data", places.packed(folder)],
        "packed",
    ),
    # The page.
    Case("report", "a folder that is not a run", lambda folder: [places.photos(folder)], "images"),
    Case("report", "a run without config.json", _changed(lambda run: (run / "config.json").unlink()), "run"),
    Case(
        "report",
        "a config.json that is not JSON",
        _changed(lambda run: (run / "config.json").write_text("{")),
        "run/config.json",
        machine=(r"(?<=JSON \().*(?=\), expected)",),
    ),
    Case(
        "report",
        "a config.json that is a list",
        _changed(lambda run: (run / "config.json").write_text("[]")),
        "run/config.json",
    ),
    Case("report", "a run that has logged nothing", _changed(lambda run: (run / "metrics.jsonl").unlink()), "run"),
    Case(
        "report",
        "a line of metrics that is a list",
        _changed(lambda run: (run / "metrics.jsonl").write_text("[]\n")),
        "run/metrics.jsonl",
    ),
    Case(
        "report",
        "a line of metrics without a step",
        _changed(lambda run: (run / "metrics.jsonl").write_text("{}\n")),
        "run/metrics.jsonl",
    ),
    Case("report", "a data folder that does not exist", _run("--data", "images"), "images", leaves=_INTERPOLATION),
    Case(
        "report",
        "other images than the run was trained on",
        lambda folder: [_other_images(folder), "--data", "packed"],
        "packed",
        leaves=_INTERPOLATION,
    ),
    Case("report", "a full disk", _run(), "run/interpolation.png", around=lambda patch: room_for(100)),
]
