"""Mistakes of `ebgan-fast train` in its settings, data, run folders and feature nets."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ebgan_fast._files import naming
from ebgan_fast.metrics import features as feature_nets
from ebgan_fast.training.run import lines
from tests.full_disk import room_for

from .. import nets, places
from ..case import Arguments, Case

_DEVICE = (r"(?<=use here \().*(?=\))",)  # torch's words


def with_flags(*flags: str) -> Callable[[Path], Arguments]:
    """Return a function that makes digits and returns the arguments of a run on them with these flags."""
    return lambda folder: ["--out", "run", "--data", places.digits(folder), *places.SMALL, *flags]


def _linked(name: str) -> Callable[[Path], object]:
    """Return a function that replaces a file or folder of a run with a link to it."""

    def change(run: Path) -> None:
        (run / name).rename(run.parent / "elsewhere")
        (run / name).symlink_to(run.parent / "elsewhere")

    return change


def _resumed(change: Callable[[Path], object], *flags: str) -> Callable[[Path], Arguments]:
    """Return a function that makes a run, changes its folder, and returns the arguments that resume it."""

    def make(folder: Path) -> Arguments:
        places.run_of_digits(folder)
        change(folder / "run")
        return ["--out", "run", "--data", "digits", *places.SMALL, "--resume", *flags]

    return make


def on_packed(change: Callable[[Path], object] = lambda folder: None, *flags: str) -> Callable[[Path], Arguments]:
    """Return a function that packs images, changes their folder, and returns the arguments of a run on them."""

    def make(folder: Path) -> Arguments:
        places.packed(folder)
        change(folder / "packed")
        return ["--out", "run", "--data", "packed", *places.SMALL, *flags]

    return make


def _dangling(folder: Path) -> Arguments:
    (folder / "run").mkdir()
    (folder / "run" / "checkpoint.pt").symlink_to("elsewhere.pt")
    return [*with_flags()(folder), "--resume"]


def _saved(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Return a function that changes the content of a run's checkpoint."""

    def changed(run: Path) -> None:
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        change(state)
        torch.save(state, run / "checkpoint.pt")

    return changed


def without_package(patch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    patch.setattr(importlib.metadata, "distribution", missing)


class _Files:
    """An installed package that consists of these files."""

    version = "0.1.4"

    def __init__(self, *paths: Path) -> None:
        self.files = [_File(path) for path in paths]


class _File:
    def __init__(self, path: Path) -> None:
        self.name, self._path = path.name, path

    def locate(self) -> Path:
        return self._path


def package(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a function that replaces the package of digits or weights with files of the current folder."""
    return lambda patch: patch.setattr(
        importlib.metadata, "distribution", lambda name: _Files(*(Path(name).absolute() for name in names))
    )


def _scored(spec: str, make: Callable[[Path], object] = lambda folder: None) -> Callable[[Path], Arguments]:
    """Return a function that makes a run's arguments, with scores by the feature net `spec`."""

    def made(folder: Path) -> Arguments:
        make(folder)
        return [*on_packed()(folder), "--evaluate-every", "2", "--evaluate-samples", "4", "--features", spec]

    return made


def _full_later(patch: pytest.MonkeyPatch) -> None:
    """Make the disk full when the run writes its first line of metrics."""

    def full(self: object, line: object, *, lasting: bool = False) -> None:
        with room_for(1), naming(Path("run/metrics.jsonl")), Path("run/metrics.jsonl").open("wb", buffering=0) as file:
            file.write(b"{")
            file.write(b"}")

    patch.setattr(lines.LinesFile, "append", full)


_RULES = {
    "--steps": "0",
    "--batch-size": "1",
    "--accumulate": "3",
    "--image-size": "0",
    "--seed": "99999999999999999999",
    "--margin": "-1",
    "--margin-auto-steps": "0",
    "--margin-end": "1",
    "--margin-steps": "5",
    "--pt-weight": "nan",
    "--lr-g": "0",
    "--lr-d": "inf",
    "--beta1": "1",
    "--lr-decay-start": "0.5",
    "--ema": "1",
    "--log-every": "0",
    "--sample-every": "0",
    "--checkpoint-every": "0",
    "--keep": "-1",
    "--evaluate-every": "-1",
    "--evaluate-samples": "0",
    "--features": "",
    "--threads": "0",
    "--z-dim": "0",
    "--n-layer-g": "0",
    "--n-layer-d": "1",
    "--size-g": "0",
    "--size-d": "0",
}

CASES = [
    *(
        Case("train", f"{flag} {value or chr(39) * 2}", with_flags(flag, value), flag[2:].replace("-", "_"))
        for flag, value in _RULES.items()
    ),
    Case(
        "train",
        "--margin-schedule linear without --margin-end",
        with_flags("--margin-schedule", "linear"),
        "margin_end",
    ),
    Case(
        "train", "--accumulate 4 with a batch of 4, parts of one image", with_flags("--accumulate", "4"), "accumulate"
    ),
    Case("train", "--cuda-graph on a CPU", with_flags("--cuda-graph"), "cuda_graph"),
    Case(
        "train",
        "--cuda-graph with --precision float16",
        with_flags("--cuda-graph", "--precision", "float16"),
        "cuda_graph",
    ),
    Case("train", "a device that torch doesn't know", with_flags("--device", "gpu"), "device", machine=_DEVICE),
    Case("train", "a device that this machine lacks", with_flags("--device", "cuda:99"), "device", machine=_DEVICE),
    Case("train", "the device meta, which holds no values", with_flags("--device", "meta"), "device"),
    Case("train", "several mistakes at once", with_flags("--steps", "0", "--ema", "2"), "steps"),
    # Run folders.
    Case(
        "train",
        "a run folder that is a file",
        lambda folder: [*with_flags()(folder), *nothing(places.text(folder, "run"))],
        "run",
    ),
    Case(
        "train",
        "a run folder inside a file",
        lambda folder: [*with_flags()(folder), "--out", places.text(folder, "notes.txt") / "run"],
        "notes.txt",
    ),
    Case(
        "train",
        "a run folder with a run in it, without --resume",
        lambda folder: [*with_flags()(folder), *nothing(_only_run(folder))],
        "run",
    ),
    Case(
        "train",
        "a run folder with other files in it",
        lambda folder: [*with_flags()(folder), *nothing(places.text(folder, "run/a.txt"))],
        "run",
    ),
    Case("train", "--resume with a checkpoint that is a broken link", _dangling, "run/checkpoint.pt"),
    Case(
        "train",
        "a full disk",
        with_flags(),
        "run/checkpoint.pt",
        around=lambda patch: room_for(100),
    ),
    Case(
        "train", "a resumed run with another margin", _resumed(lambda run: None, "--margin", "3"), "run/checkpoint.pt"
    ),
    Case(
        "train",
        "a resumed run with other images",
        lambda folder: [
            *_resumed(lambda run: None)(folder)[:2],
            "--data",
            of_size(folder, 32),
            *places.SMALL,
            "--resume",
        ],
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run whose samples folder is a link",
        _resumed(_linked("samples")),
        "run/samples",
    ),
    Case(
        "train",
        "a resumed run with a damaged checkpoint",
        _resumed(lambda run: os.truncate(run / "checkpoint.pt", 50)),
        "run/checkpoint.pt",
        machine=(r"(?<=program \().*(?=\), expected)",),
    ),
    Case(
        "train",
        "a resumed run whose config is a number",
        _resumed(_saved(lambda state: state.update(config=3))),
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run whose networks are of an unknown family",
        _resumed(_saved(lambda state: state["config"].update(networks={"family": "vit"}))),
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run whose networks have size 0",
        _resumed(_saved(lambda state: state["config"]["networks"].update(size_g=0))),
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run whose config lacks the networks' layers",
        _resumed(_saved(lambda state: state["config"].update(networks={"family": "conv"}))),
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run whose checkpoint lacks the generator's weights",
        _resumed(_saved(lambda state: state["trainer"].update(generator={}))),
        "run/checkpoint.pt",
        machine=(r"(?<=doesn't fit \().*(?=\), expected)",),
    ),
    Case(
        "train",
        "a resumed run with a damaged line of metrics",
        _resumed(lambda run: (run / "metrics.jsonl").write_text("{\n{}\n")),
        "run/metrics.jsonl",
        machine=(r"(?<=line 1 \().*(?=\), expected)",),
    ),
    # The backend, feature nets, and disks that become full.
    Case(
        "train",
        "a backend that can't run on this machine",
        with_flags("--backend", "cuda"),
        "'cuda'",
        machine=(r"(?<=run here: ).*(?=; expected 'auto')",),
    ),
    Case("train", "a feature net's file that does not exist", _scored("net.pt"), "net.pt"),
    Case(
        "train",
        "a feature net that is not TorchScript",
        _scored("net.pt", lambda folder: places.text(folder, "net.pt")),
        "net.pt",
        machine=(r"(?<=TorchScript \().*(?=\), expected)",),
    ),
    Case(
        "train",
        "a feature net that takes no images",
        _scored("net.pt", nets.scripted(nets.Square())),
        "net.pt",
        machine=(r"(?<=W\] \().*(?=\), expected)",),
    ),
    Case(
        "train",
        "a feature net that returns images in place of features",
        _scored("net.pt", nets.scripted(nets.Same())),
        "net.pt",
    ),
    Case(
        "train",
        "a feature net that fails for images of this size",
        _scored("net.pt", nets.scripted(nets.OfOneSize())),
        "net.pt",
        machine=(r"(?<=32 \().*(?=\), expected)",),
    ),
    Case(
        "train",
        "a feature net that returns fewer rows than images",
        _scored("net.pt", nets.scripted(nets.OneRow())),
        "net.pt",
    ),
    Case(
        "train",
        "a feature net that returns infinite features",
        _scored("net.pt", nets.scripted(nets.Infinite())),
        "net.pt",
    ),
    Case(
        "train",
        "a feature net whose weights are not installed",
        _scored("efficientnet-lite0"),
        "features",
        around=without_package,
    ),
    Case(
        "train",
        "a feature net whose package lacks the file of weights",
        _scored("efficientnet-lite0"),
        "features",
        around=package("notes.txt"),
    ),
    Case(
        "train",
        "a feature net whose package holds other weights",
        _scored("efficientnet-lite0", lambda folder: places.text(folder, feature_nets._WEIGHTS)),
        feature_nets._WEIGHTS,
        around=package(feature_nets._WEIGHTS),
    ),
    Case(
        "train",
        "a cache folder that is a file",
        _scored("net.pt", lambda folder: (nets.scripted(torch.nn.Flatten())(folder), places.text(folder, "cache"))),
        "cache",
        around=lambda patch: patch.setenv("EBGAN_FAST_CACHE", str(Path("cache").absolute())),
    ),
    Case(
        "train",
        "a folder in place of a feature net's file",
        _scored("nets", lambda folder: (folder / "nets").mkdir()),
        "nets",
    ),
    Case(
        "train",
        "a disk that becomes full during the run",
        with_flags(),
        "run/metrics.jsonl",
        around=_full_later,
        leaves="the run has begun and keeps the files that it wrote",
    ),
    Case(
        "train",
        "a learning rate that makes weights infinite",
        with_flags("--lr-d", "1e30"),
        "run/checkpoint.pt",
        leaves="the run trains until a weight is infinite and keeps its last good checkpoint",
    ),
]


def nothing(made: object) -> list[str]:
    """Return no arguments: the caller needs only that `made` was evaluated."""
    return []


def _only_run(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "checkpoint.pt").write_bytes(b"")


def of_size(folder: Path, size: int) -> Path:
    if (folder / "packed").exists():
        (folder / "packed").rename(folder / "other")
    return places.packed(folder, size=size)
