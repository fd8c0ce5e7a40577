"""Mistakes in files that other people made, and in the environment in which a command runs."""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .. import places
from ..case import Arguments, Case

_GRID = ("--out", "out", "--workers", "1", "--device", "cpu", "--data", "nowhere", "--file", "grid.yaml")
_INTERPOLATION = "the report draws the interpolations before it reads the sample grids"
_LIBRARY = (r"(?<=imported \().*(?=\), expected)", r"(?<=together \().*(?=\), expected)")


def _run(change: Callable[[Path], object], *arguments: str) -> Callable[[Path], Arguments]:
    """Return a function that makes a run, changes its folder, and returns the arguments."""

    def make(folder: Path) -> Arguments:
        run = places.run_of_digits(folder)
        change(folder / run)
        return [run, *arguments]

    return make


def _holding(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content)


def _state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Return a function that changes the content of a run's checkpoint."""

    def changed(run: Path) -> None:
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        change(state)
        torch.save(state, run / "checkpoint.pt")

    return changed


def _parts(
    change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_STORED
) -> Callable[[Path], object]:
    """Return a function that changes the parts of the checkpoint's archive and writes the archive anew."""

    def changed(run: Path) -> None:
        with zipfile.ZipFile(run / "checkpoint.pt") as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        change(parts)
        with zipfile.ZipFile(run / "checkpoint.pt", "w", compression) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)

    return changed


def _a_call(parts: dict[str, bytes]) -> None:
    name = next(name for name in parts if name.endswith("data.pkl"))
    parts[name] = pickle.dumps(bytearray(b"x"), 2)  # the pickle calls bytearray when it is read


def _folder_in_place(name: str) -> Callable[[Path], object]:
    def changed(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return changed


def _png(width: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", width, width) + bytes(5)


def _yaml(content: bytes) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        (folder / "grid.yaml").write_bytes(content)
        return _GRID

    return make


def _scored_by_a_file(*flags: str) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        run = places.run_of_images(folder)
        _state(lambda state: state["config"].update(features="inception.pt"))(folder / run)
        return [run, *flags]

    return make


def _variables(**values: str) -> Callable[[pytest.MonkeyPatch], None]:
    def around(patch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            patch.setenv(name, value)

    return around


def _no_home(patch: pytest.MonkeyPatch) -> None:
    patch.delenv("EBGAN_FAST_CACHE")
    patch.setenv("HOME", "nowhere")


def _tensorboard(of: Exception | None) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a function that makes the import of tensorboard raise an error, or fail as not installed if None."""

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "tensorboard":
                raise of or ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")

    def around(patch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
            patch.delitem(sys.modules, name)
        patch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    return around


def _train(*flags: str) -> Callable[[Path], Arguments]:
    return lambda folder: ["--out", "out", "--data", places.digits(folder), *places.SMALL, *flags]


CASES = [
    # A checkpoint.
    Case(
        "sample",
        "a folder in place of a checkpoint",
        _run(_folder_in_place("checkpoint.pt"), "a.png"),
        "run/checkpoint.pt",
    ),
    Case(
        "sample",
        "a checkpoint that would run code",
        _run(_parts(_a_call), "a.png"),
        "run/checkpoint.pt",
    ),
    Case(
        "sample",
        "a checkpoint with compressed parts",
        _run(_parts(lambda parts: None, zipfile.ZIP_DEFLATED), "a.png"),
        "run/checkpoint.pt",
    ),
    Case(
        "sample",
        "a checkpoint with fewer numbers than it claims",
        _run(_parts(lambda parts: parts.update({"archive/data/0": b""})), "a.png"),
        "run/checkpoint.pt",
    ),
    Case(
        "sample",
        "a checkpoint for images of 0 x 0 pixels",
        _run(_state(lambda state: state.update(image_shape=[1, 0, 0])), "a.png"),
        "run/checkpoint.pt",
    ),
    Case(
        "sample",
        "a checkpoint whose settings don't fit its tensors",
        _run(_state(lambda state: state["config"]["networks"].update(size_g=10**6)), "a.png"),
        "run/checkpoint.pt",
    ),
    # A feature net, which is a program.
    Case("evaluate", "a run whose feature net was a file", _scored_by_a_file("--data", "packed"), "--features"),
    # The files that a report shows.
    Case(
        "report",
        "a folder in place of config.json",
        _run(_folder_in_place("config.json")),
        "config.json",
    ),
    Case("report", "a config.json that is not UTF-8", _run(_holding("config.json", b"\xff\xfe{}")), "config.json"),
    Case(
        "report",
        "a config.json with too many levels of brackets",
        _run(_holding("config.json", b"[" * 99 + b"]" * 99)),
        "config.json",
    ),
    Case(
        "report", "a config.json with a name twice", _run(_holding("config.json", b'{"a": 1, "a": 2}')), "config.json"
    ),
    Case(
        "report",
        "a config.json with a huge number",
        _run(_holding("config.json", b'{"a": ' + b"1" * 5000 + b"}")),
        "config.json",
    ),
    Case("report", "a config.json that is too large", _run(_holding("config.json", bytes(1 << 21))), "config.json"),
    Case(
        "report", "a line of metrics without an end", _run(_holding("metrics.jsonl", bytes(3 << 20))), "metrics.jsonl"
    ),
    Case(
        "report",
        "a sample grid that is not a PNG",
        _run(_holding("samples/step_000004.png", b"GIF89a"), "--no-neighbors"),
        "step_000004.png",
        leaves=_INTERPOLATION,
    ),
    Case(
        "report",
        "a sample grid of 10^12 pixels",
        _run(_holding("samples/step_000004.png", _png(10**6)), "--no-neighbors"),
        "step_000004.png",
        leaves=_INTERPOLATION,
    ),
    # A file of flags.
    Case("grid", "an empty file of flags", _yaml(b""), "grid.yaml"),
    Case("grid", "a file of flags with a name twice", _yaml(b"steps: 1\nsteps: 2\n"), "grid.yaml"),
    Case("grid", "a file of flags that is not UTF-8", _yaml(b"steps: \xff\n"), "grid.yaml"),
    Case("grid", "a file of flags with a list as a name", _yaml(b"? [a]\n: 1\n"), "grid.yaml"),
    Case("grid", "a file of flags with too many brackets", _yaml(b"steps: " + b"[" * 2000), "grid.yaml"),
    Case(
        "grid",
        "a file of flags with too many levels of brackets",
        _yaml(b"steps: " + b"[" * 999 + b"]" * 999),
        "grid.yaml",
    ),
    Case(
        "grid",
        "a file of flags whose YAML aliases multiply its values",
        _yaml(b"a: &a [" + b"1," * 4000 + b"1]\nb: *a\nc: *a\n"),
        "grid.yaml",
    ),
    Case("grid", "a file of flags with a date in month 13", _yaml(b"steps: 2020-13-01\n"), "grid.yaml"),
    Case("grid", "a file of flags with a value that is too long", _yaml(b"steps: " + b"9" * 2000 + b"\n"), "grid.yaml"),
    # The environment.
    Case("train", "a WORLD_SIZE that is not a number", _train(), "WORLD_SIZE", around=_variables(WORLD_SIZE="two")),
    Case(
        "train",
        "WORLD_SIZE without torchrun's other variables",
        _train(),
        "WORLD_SIZE",
        machine=_LIBRARY,
        around=_variables(WORLD_SIZE="2"),
    ),
    Case(
        "train",
        "a RANK that is not below WORLD_SIZE",
        _train(),
        "RANK",
        around=_variables(WORLD_SIZE="2", RANK="2"),
    ),
    Case(
        "train",
        "--tensorboard, but no package tensorboard",
        _train("--tensorboard"),
        "tensorboard",
        around=_tensorboard(None),
    ),
    Case(
        "train",
        "--tensorboard with a package that can't be imported",
        _train("--tensorboard"),
        "tensorboard",
        around=_tensorboard(TypeError("Descriptors cannot be created directly.")),
    ),
    Case(
        "evaluate",
        "no home folder for the cache",
        _run(lambda run: None, "--data", "digits"),
        "EBGAN_FAST_CACHE",
        around=_no_home,
    ),
    Case(
        "evaluate",
        "a file in place of the cache folder",
        _run(lambda run: (run.parent / "cache").touch(), "--data", "digits"),
        "EBGAN_FAST_CACHE",
        around=_variables(EBGAN_FAST_CACHE="cache"),
    ),
]
